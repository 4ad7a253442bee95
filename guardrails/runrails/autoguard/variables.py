"""The one table of what the environment may say to guard a program, and the options of `runrails run` that say it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "AUTOGUARD",
    "BUDGETS",
    "ELSEWHERE",
    "GATEWAYS",
    "KNOWN",
    "LIMITS",
    "OFF",
    "ON",
    "SESSION",
    "VARIABLES",
    "Variable",
    "is_wanted",
    "option_of",
]


class Variable(NamedTuple):
    """One variable, and the option that sets it."""

    name: str
    option: str
    meaning: str


AUTOGUARD = "RUNRAILS_AUTOGUARD"
SESSION = "RUNRAILS_SESSION"
"""Where the processes of one run leave word for each other. Set by us; a process that has it belongs to that run."""
BUDGETS = ("RUNRAILS_RUN_BUDGET", "RUNRAILS_MONTH_BUDGET", "RUNRAILS_KEY_BUDGET", "RUNRAILS_ORG_BUDGET")
LIMITS = (
    *BUDGETS, "RUNRAILS_STEPS", "RUNRAILS_SECONDS", "RUNRAILS_TOKENS", "RUNRAILS_MODEL_CALLS", "RUNRAILS_TOOL_CALLS",
    "RUNRAILS_REQUESTS_PER_MINUTE", "RUNRAILS_TOKENS_PER_MINUTE",
)  # fmt: skip
"""A limit that is written down is held: each of these alone has a program guarded."""
ON = frozenset({"1", "on", "true", "yes"})
OFF = frozenset({"0", "off", "false", "no"})

VARIABLES = (
    Variable("RUNRAILS_RUN_BUDGET", "--run", "Dollars the run may cost, over all its processes; 1.00 if left out."),
    Variable("RUNRAILS_MONTH_BUDGET", "--month", "Dollars the user may spend in a calendar month, over all runs."),
    Variable("RUNRAILS_KEY_BUDGET", "--key-month", "Dollars the API key may spend in a calendar month."),
    Variable("RUNRAILS_ORG_BUDGET", "--org-month", "Dollars the organisation may spend in a calendar month."),
    Variable("RUNRAILS_STEPS", "--steps", "Model and tool calls of each process; 200 if left out."),
    Variable("RUNRAILS_SECONDS", "--seconds", "Wall-clock time of the run."),
    Variable("RUNRAILS_TOKENS", "--tokens", "Input and output tokens of each process."),
    Variable("RUNRAILS_MODEL_CALLS", "--model-calls", "Model calls of each process."),
    Variable("RUNRAILS_TOOL_CALLS", "--tool-calls", "Tool calls of each process."),
    Variable("RUNRAILS_REQUESTS_PER_MINUTE", "", "Model calls a minute of the user, over all runs on the store."),
    Variable("RUNRAILS_TOKENS_PER_MINUTE", "", "Tokens a minute of the user, over all runs on the store."),
    Variable("RUNRAILS_USER", "--user", "Whose money it is; local if left out."),
    Variable("RUNRAILS_KEY", "--key", "The API key's id, if budgets are kept per key; never the key itself."),
    Variable("RUNRAILS_ORG", "--org", "The organisation, if budgets are kept per organisation."),
    Variable("RUNRAILS_RUN_NAME", "--name", "The run's name in reports."),
    Variable("RUNRAILS_RUN_ID", "--id", "The run's id: programs that are given the same one share its budget."),
    Variable("RUNRAILS_TAGS", "--tag", "What it is for, as name=value,name=value."),
    Variable("RUNRAILS_STORE", "--store", "The ledger's URL; a file that every process of the run can reach."),
    Variable("RUNRAILS_MODE", "--observe", "enforce, or observe: decide and report, but stop nothing."),
    Variable("RUNRAILS_ZONE", "--zone", "Time zone in which months begin; UTC if left out."),
    Variable("RUNRAILS_MODEL_PRICES", "--price", "Prices as model=IN/OUT,model=0: dollars per million tokens."),
    Variable("RUNRAILS_PRICES", "", "The price file; runrails.toml in the working directory if left out."),
    Variable("RUNRAILS_MARKUP_BP", "", "What is charged on top of a provider's price: 200 is 2 %."),
    Variable("RUNRAILS_JOURNAL", "", "Where calls are written down that began while the ledger was away; user's data."),
    Variable("RUNRAILS_POLL_TOOLS", "--poll", "Tools whose answer may stay the same for long, separated by commas."),
    Variable("RUNRAILS_LOOPS", "--no-loops", "off switches the loop detector off."),
    Variable("RUNRAILS_STOP_CODE", "--stop-code", "Exit code after a stop, 3 if left out; own for the program's own."),
    Variable("RUNRAILS_STOP_GRACE", "--grace", "Seconds a stopped program may go on asking before it is ended; 30."),
    Variable("RUNRAILS_SUMMARY", "--quiet", "off: no summary at the end."),
    Variable("RUNRAILS_SUMMARY_FILE", "--json", "A file for the summary as JSON."),
    Variable(AUTOGUARD, "", "1 guards without naming a budget, 0 guards nothing."),
)
"""Every option wins over its variable. Text everywhere; `none` says that there is no limit."""

KNOWN = frozenset(variable.name for variable in VARIABLES)
"""Everything that says how a program is guarded."""
ELSEWHERE = frozenset({
    "RUNRAILS_BEHIND_PROXY", "RUNRAILS_EMF", "RUNRAILS_EMF_SERVICE", "RUNRAILS_JWT_AUDIENCE", "RUNRAILS_JWT_ISSUER",
    "RUNRAILS_JWT_JWKS_URL", "RUNRAILS_JWT_KEYS", "RUNRAILS_KEY_HOSTS", "RUNRAILS_KEY_PEPPERS", "RUNRAILS_MASTER_KEYS",
    "RUNRAILS_UPSTREAMS", "RUNRAILS_VAULT",
})  # fmt: skip
"""What servers and other commands read: nothing of how a program is guarded, and no mistake where it is set."""
GATEWAYS = ("RUNRAILS_GATEWAY_", "RUNRAILS_AWS_")
"""What begins like these is the gateway's to know."""
_OPTIONS = {variable.name: variable.option for variable in VARIABLES}


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether the environment asks for Python programs to be guarded."""
    switch = environment.get(AUTOGUARD, "").strip().lower()
    if switch in OFF:
        return False
    return bool(switch) or SESSION in environment or any(environment.get(name) for name in LIMITS)


def option_of(name: str) -> str:
    """How an error names a variable: with the option that sets it."""
    option = _OPTIONS.get(name)
    return f"{name} ({option})" if option else name
