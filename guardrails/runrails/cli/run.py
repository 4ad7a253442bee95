"""`runrails run -- python agent.py`: guards a program as it is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from runrails.autoguard.variables import AUTOGUARD, OFF, SESSION, VARIABLES
from runrails.errors import ConfigError
from runrails.stores import absolute_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runrails.autoguard.launching import Ended
    from runrails.autoguard.plan import Plan
    from runrails.autoguard.summary import Summary

__all__ = ["run"]

_MEANINGS = {variable.option: f"{variable.meaning} [{variable.name}]" for variable in VARIABLES}
_BY_OPTION = {variable.option: variable.name for variable in VARIABLES if variable.option}


def _option(name: str, metavar: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(name, metavar=metavar, help=_MEANINGS[name])
    return option


def run(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND [ARGS]...", help="The program and its arguments.")],
    *,
    run_budget: Annotated[str | None, _option("--run", "USD")] = None,
    month: Annotated[str | None, _option("--month", "USD")] = None,
    key_month: Annotated[str | None, _option("--key-month", "USD")] = None,
    org_month: Annotated[str | None, _option("--org-month", "USD")] = None,
    steps: Annotated[str | None, _option("--steps", "N")] = None,
    seconds: Annotated[str | None, _option("--seconds", "N")] = None,
    tokens: Annotated[str | None, _option("--tokens", "N")] = None,
    model_calls: Annotated[str | None, _option("--model-calls", "N")] = None,
    tool_calls: Annotated[str | None, _option("--tool-calls", "N")] = None,
    user: Annotated[str | None, _option("--user", "ID")] = None,
    key: Annotated[str | None, _option("--key", "ID")] = None,
    org: Annotated[str | None, _option("--org", "ID")] = None,
    name: Annotated[str | None, _option("--name", "TEXT")] = None,
    run_id: Annotated[str | None, _option("--id", "ID")] = None,
    tag: Annotated[list[str] | None, _option("--tag", "NAME=VALUE")] = None,
    store: Annotated[str | None, _option("--store", "URL")] = None,
    zone: Annotated[str | None, _option("--zone", "ZONE")] = None,
    price: Annotated[list[str] | None, _option("--price", "MODEL=IN/OUT")] = None,
    free: Annotated[
        list[str] | None, typer.Option("--free", metavar="MODEL", help="A model that costs nothing.")
    ] = None,
    poll: Annotated[list[str] | None, _option("--poll", "TOOL")] = None,
    stop_code: Annotated[str | None, _option("--stop-code", "CODE")] = None,
    grace: Annotated[str | None, _option("--grace", "N")] = None,
    no_loops: Annotated[bool, typer.Option("--no-loops", help=_MEANINGS["--no-loops"])] = False,
    observe: Annotated[bool, typer.Option("--observe", help=_MEANINGS["--observe"])] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help=_MEANINGS["--quiet"])] = False,
    as_json: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help=_MEANINGS["--json"] + " `-` is standard output.")
    ] = None,
) -> None:
    """
    Guard a program as it is: runrails run --run 2.00 --month 50 -- python agent.py

    Every Python that it starts, however deep, loads the guard: clients of the openai and anthropic SDKs, Bedrock
    clients of boto3 and everything LangChain runs are guarded. All of it is one run with one budget. Options win over
    the environment variables in brackets; those alone guard a Python that was not started by this command, too.

    A stop is an ordinary exception for the program (GuardrailStopped), which may save what it has; nothing starts any
    more. One that goes on asking all the same is ended. A summary goes to standard error. What neither options nor
    variables say is taken from runrails.toml, if it is here (see `runrails init`).

    Exit codes: the program's own; 3 if the run was stopped, whatever the program made of that (--stop-code); 128 + N if
    signal N killed it; 2 wrong usage or settings, and nothing was started; 126, 127 it cannot be executed or found.
    """
    prices = [*(price or ()), *(f"{model}=0" for model in free or ())]
    told = {
        "--run": run_budget, "--month": month, "--key-month": key_month, "--org-month": org_month, "--steps": steps,
        "--seconds": seconds, "--tokens": tokens, "--model-calls": model_calls, "--tool-calls": tool_calls,
        "--user": user, "--key": key, "--org": org, "--name": name, "--id": run_id, "--tag": ",".join(tag or ()),
        "--store": store, "--zone": zone, "--price": ",".join(prices), "--poll": ",".join(poll or ()),
        "--stop-code": stop_code, "--grace": grace, "--no-loops": "off" if no_loops else None,
        "--observe": "observe" if observe else None, "--quiet": "off" if quiet else None, "--json": as_json,
    }  # fmt: skip
    environment = {**_outer(), **{_BY_OPTION[option]: text for option, text in told.items() if text}}
    environment["RUNRAILS_STORE"] = environment.get("RUNRAILS_STORE") or absolute_url()
    environment |= {variable: text for variable, text in _project().items() if not environment.get(variable)}
    raise typer.Exit(_guarded(command, environment))


def _project() -> dict[str, str]:
    """What the project's file says of limits, as the variables that every process of the run inherits."""
    from runrails.projectfile import written_limits

    names = {
        "run": "RUNRAILS_RUN_BUDGET", "month": "RUNRAILS_MONTH_BUDGET", "key_month": "RUNRAILS_KEY_BUDGET",
        "org_month": "RUNRAILS_ORG_BUDGET", "steps": "RUNRAILS_STEPS", "seconds": "RUNRAILS_SECONDS",
        "tokens": "RUNRAILS_TOKENS", "model_calls": "RUNRAILS_MODEL_CALLS", "tool_calls": "RUNRAILS_TOOL_CALLS",
        "loops": "RUNRAILS_LOOPS", "requests_per_minute": "RUNRAILS_REQUESTS_PER_MINUTE",
        "tokens_per_minute": "RUNRAILS_TOKENS_PER_MINUTE",
    }  # fmt: skip
    return {names[key]: text for key, text in written_limits().items() if key in names}


def _outer() -> dict[str, str]:
    """
    The environment. In a Python that the environment alone guards, this very command is guarded: it takes over.

    Raises:
        ConfigError: Somebody else's run is around this one.
    """
    from runrails.autoguard import boot

    environment = dict(os.environ)
    if environment.get(AUTOGUARD, "").strip().lower() in OFF:
        raise ConfigError(
            f"{AUTOGUARD} says that nothing is to be guarded.",
            next_step=f"Unset {AUTOGUARD}, or run the program itself.",
        )
    if SESSION in environment:
        if boot.session is None or not boot.session.is_first:
            raise ConfigError(
                "This is inside a program that runrails guards already, whose run and budget hold for all it starts.",
                next_step="Leave out `runrails run` in here.",
            )
        environment = boot.session.before
    return environment


def _guarded(command: list[str], environment: Mapping[str, str]) -> int:
    from runrails.autoguard.folder import Folder
    from runrails.autoguard.launching import CANNOT_EXECUTE, NOT_FOUND, launch, path_with_bootstrap
    from runrails.autoguard.plan import read_plan
    from runrails.autoguard.session import RUN_ID
    from runrails.autoguard.starting import check, inherited
    from runrails.autoguard.telling import say

    plan = read_plan(environment)
    inner = {**environment, **inherited(environment), "PYTHONPATH": path_with_bootstrap(environment)}
    check(plan, inner)
    try:
        ended = launch(command, inner, plan, run_id=inner[RUN_ID])
        return _summed_up(ended, inner, plan)
    except FileNotFoundError:
        say(f"runrails: {command[0]} was not found.")
        return NOT_FOUND
    except PermissionError:
        say(f"runrails: {command[0]} cannot be executed.")
        return CANNOT_EXECUTE
    except OSError as error:  # no program for this machine, a script without its first line, too many arguments
        say(f"runrails: {command[0]} cannot be executed: {error.strerror}.")
        return CANNOT_EXECUTE
    finally:
        Folder(inner[SESSION]).remove()


def _summed_up(ended: Ended, inner: Mapping[str, str], plan: Plan) -> int:
    from runrails.autoguard.closing import sum_up, write_file
    from runrails.autoguard.folder import Folder
    from runrails.autoguard.showing import as_text
    from runrails.autoguard.telling import say
    from runrails.errors import RunrailsError

    stopped = Folder(inner[SESSION]).stopped() is not None
    code = plan.stop_code if stopped and plan.stop_code is not None and not ended.by_signal else ended.code
    try:
        summary: Summary = sum_up(inner, plan)
        if plan.summary:
            say(as_text(summary, code))
        if plan.summary_file is not None:
            write_file(plan.summary_file, summary, code)
    except (RunrailsError, OSError) as error:
        # How the program ended is known; that must not be lost with the summary.
        say(f"runrails: no summary: {error}")
    return code
