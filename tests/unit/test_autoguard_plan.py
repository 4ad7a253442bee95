"""What the environment may say to guard a program: every wrong value is refused by name, before anything starts."""

from __future__ import annotations

import pytest

from runrails import ConfigError, Limits, Price, Rates
from runrails.autoguard.plan import Plan, read_plan
from runrails.autoguard.variables import BUDGETS, LIMITS, VARIABLES, is_wanted, option_of


def test_nothing_said_is_safe_by_itself() -> None:
    """The limits of `Limits()`; empty variables say nothing."""
    assert Plan(limits=Limits()) == read_plan({})
    assert Plan(limits=Limits()) == read_plan({variable.name: " " for variable in VARIABLES})


def test_everything_that_can_be_said() -> None:
    """Text in, checked values out."""
    plan = read_plan(
        {
            "RUNRAILS_RUN_BUDGET": "2.00", "RUNRAILS_MONTH_BUDGET": "$1,000", "RUNRAILS_KEY_BUDGET": "3",
            "RUNRAILS_ORG_BUDGET": "4", "RUNRAILS_STEPS": "1,000", "RUNRAILS_SECONDS": "60", "RUNRAILS_TOKENS": "5",
            "RUNRAILS_MODEL_CALLS": "6", "RUNRAILS_TOOL_CALLS": "7", "RUNRAILS_LOOPS": "off", "RUNRAILS_USER": "alice",
            "RUNRAILS_KEY": "k1", "RUNRAILS_ORG": "acme", "RUNRAILS_RUN_NAME": "nightly", "RUNRAILS_RUN_ID": "job-17",
            "RUNRAILS_TAGS": "team=search, env=prod", "RUNRAILS_STORE": "sqlite:///x.db", "RUNRAILS_MODE": "observe",
            "RUNRAILS_ZONE": "Europe/Berlin", "RUNRAILS_MODEL_PRICES": "org/model=3/15,llama=0",
            "RUNRAILS_PRICES": "p.toml", "RUNRAILS_POLL_TOOLS": "status,wait", "RUNRAILS_STOP_CODE": "own",
            "RUNRAILS_STOP_GRACE": "0", "RUNRAILS_SUMMARY": "off", "RUNRAILS_SUMMARY_FILE": "s.json",
            "RUNRAILS_REQUESTS_PER_MINUTE": "60", "RUNRAILS_TOKENS_PER_MINUTE": "100,000",
        }
    )  # fmt: skip
    expected = Plan(
        limits=Limits(
            run="2.00", month="$1,000", key_month="3", org_month="4", steps=1000, seconds=60, tokens=5, model_calls=6,
            tool_calls=7, loops=None, rates=Rates(requests_per_minute=60, tokens_per_minute=100_000),
        ),
        user="alice", key="k1", org="acme", name="nightly", run_id="job-17", tags={"team": "search", "env": "prod"},
        store="sqlite:///x.db", observe=True, zone="Europe/Berlin",
        prices={"org/model": Price(input="3", output="15"), "llama": "0"}, price_file="p.toml",
        polls=("status", "wait"), stop_code=None, grace_s=0, summary=False, summary_file="s.json",
    )  # fmt: skip
    assert expected == plan


@pytest.mark.parametrize(
    "name", ["RUNRAILS_BUDGET", "RUNRAILS_MONTHLY_BUDGET", "RUNRAILS_RUN_BUGET", "RUNRAILS_USER_BUDGET"]
)
def test_a_budget_under_a_name_that_nobody_reads_is_refused(name: str) -> None:
    """Whoever wrote it down believes that it holds; what is no budget, or empty, is nobody's business."""
    with pytest.raises(ConfigError, match=name):
        read_plan({"RUNRAILS_RUN_BUDGET": "1", name: "5"})
    said = read_plan({name: " ", "RUNRAILS_SESSION": "/x", "RUNRAILS_STARTED_MS": "1", "RUNRAILS_COLOUR": "red"})
    assert Plan(limits=Limits()) == said


def test_one_rate_can_be_said_without_the_other() -> None:
    """None, or the word for it, is no limit of that kind."""
    said = {"RUNRAILS_REQUESTS_PER_MINUTE": "60", "RUNRAILS_TOKENS_PER_MINUTE": "none"}
    assert Rates(requests_per_minute=60) == read_plan(said).limits.rates
    assert Rates(tokens_per_minute=7) == read_plan({"RUNRAILS_TOKENS_PER_MINUTE": "7"}).limits.rates
    assert read_plan({"RUNRAILS_TOKENS_PER_MINUTE": "none"}).limits.rates is None
    for wrong in ("0", "-1", "1.5", "many", "1000000001"):
        with pytest.raises(ConfigError, match="RUNRAILS_TOKENS_PER_MINUTE"):
            read_plan({"RUNRAILS_TOKENS_PER_MINUTE": wrong})


def test_none_is_no_limit() -> None:
    """Where a limit has a default it can be taken away, but only by that word."""
    limits = read_plan({"RUNRAILS_RUN_BUDGET": "none", "RUNRAILS_STEPS": "None"}).limits
    assert (None, None) == (limits.run, limits.steps)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, wrong) for name in BUDGETS for wrong in ("plenty", "0", "-1", "1e3", "nan", "0.0000000000001")],
        *[(name, wrong) for name in ("RUNRAILS_STEPS", "RUNRAILS_SECONDS", "RUNRAILS_TOKENS")
          for wrong in ("0", "-1", "1.5", "many", "٣", "9" * 30)],
        ("RUNRAILS_MODEL_CALLS", "x"), ("RUNRAILS_TOOL_CALLS", "x"), ("RUNRAILS_USER", "a b"), ("RUNRAILS_KEY", "ü"),
        ("RUNRAILS_ORG", "a/b"), ("RUNRAILS_RUN_ID", "-x"), ("RUNRAILS_TAGS", "team"), ("RUNRAILS_TAGS", "=x"),
        ("RUNRAILS_STORE", "memory:"), ("RUNRAILS_MODE", "watch"), ("RUNRAILS_ZONE", "Mars/Base"),
        ("RUNRAILS_MODEL_PRICES", "m"), ("RUNRAILS_MODEL_PRICES", "m=3"), ("RUNRAILS_MODEL_PRICES", "m=3/x"),
        ("RUNRAILS_MODEL_PRICES", "=1/2"), ("RUNRAILS_LOOPS", "maybe"), ("RUNRAILS_STOP_CODE", "0"),
        ("RUNRAILS_STOP_CODE", "126"), ("RUNRAILS_STOP_GRACE", "-1"), ("RUNRAILS_SUMMARY", "loud"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_name(name: str, value: str) -> None:
    """The message says which variable and which option, and what to write."""
    with pytest.raises(ConfigError) as refused:
        read_plan({name: value})
    assert option_of(name) in refused.value.what
    assert refused.value.next_step


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_alone_has_programs_guarded(name: str) -> None:
    """Everything else is a detail of it; the switch wins over all."""
    assert is_wanted({name: "2"})
    assert is_wanted({"RUNRAILS_AUTOGUARD": "1"})
    assert is_wanted({"RUNRAILS_SESSION": "/tmp/x"})
    assert not is_wanted({name: ""})
    assert not is_wanted({name: "2", "RUNRAILS_AUTOGUARD": "0"})
    assert not is_wanted({"RUNRAILS_USER": "alice", "RUNRAILS_STORE": "sqlite:///x"})


def test_every_variable_has_one_option_and_one_meaning() -> None:
    """The table is what `runrails run --help` shows."""
    names = [variable.name for variable in VARIABLES]
    options = [variable.option for variable in VARIABLES if variable.option]
    assert (len(set(names)), len(set(options))) == (len(names), len(options))
    assert all(variable.meaning.endswith(".") for variable in VARIABLES)
