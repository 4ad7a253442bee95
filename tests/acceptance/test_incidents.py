"""`runrails demo --incident`: public incidents as scripts, with real clients and agents, with a guard and without."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from runrails.cli import main
from runrails.clocks import system_ms
from runrails.demo.incidents import INCIDENTS, Growth, incident_named, play_incident
from runrails.demo.incidents.recursion import RECURSION_LIMIT
from runrails.demo.incidents.values import words
from runrails.errors import ConfigError
from runrails.money import usd
from runrails.pricing import PriceBook
from runrails.usage import Usage

NAMES = tuple(INCIDENTS)


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The demo quietens its whole process; here others come after it."""
    for name in ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2", "LANGCHAIN_OPENAI_TCP_KEEPALIVE"):
        monkeypatch.setenv(name, "false")
    logger = logging.getLogger("langchain_core.callbacks.manager")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.mark.parametrize(
    ("name", "reason", "executed"),
    [
        ("kilo-blocked-call", "budget_exceeded", 31),
        ("hermes-identical-calls", "loop_detected", 4),
        ("langchain-9999", "loop_detected", 5),
        ("fan-out", "budget_exceeded", 0),
    ],
)
def test_played_twice(name: str, reason: str, executed: int) -> None:
    """
    The guard at its defaults stops it for less than a dollar, and its ledger is the provider's bill, threads or not.

    What repeats is a loop: with a block four calls are executed, with a callback five. What does not, or is not seen,
    is the budget's business. What was played costs what is computed for it, so the rest may be computed too.
    """
    play = play_incident(INCIDENTS[name])
    incident, free, held = play.incident, play.unguarded, play.guarded

    assert held.stopped is not None
    assert (None, reason) == (free.stopped, held.stopped.reason)
    assert (executed, incident.calls_played) == (held.executed, len(free.billed))
    assert len(held.billed) < len(free.billed)
    assert usd("1.00") >= held.cost_pusd
    assert play.ledger_equals_bill
    assert incident.growth.cost_pusd(play.card, len(free.billed)) == free.cost_pusd
    assert (incident.calls_full, play.full_pusd) == (len(play.full_curve_pusd()), play.full_curve_pusd()[-1])


def test_kilo_s_numbers_come_out_as_reported() -> None:
    """$626.34 and 1.877 billion tokens from the cache in 3,673 steps, from the growth that is ours."""
    kilo = INCIDENTS["kilo-blocked-call"]
    card = PriceBook.load(None, None).card(kilo.model, provider=kilo.provider, now_ms=system_ms())
    cached = sum(kilo.growth.usage(number).cache_read_tokens for number in range(1, kilo.calls_full + 1))

    assert kilo.growth.cost_pusd(card, kilo.calls_full) == pytest.approx(usd("626.34"), rel=0.001)
    assert cached == pytest.approx(1_877_000_000, rel=0.001)


def test_the_fan_out_s_tokens_come_out_as_reported() -> None:
    """8,641,786 tokens by 1,000 agents."""
    growth = INCIDENTS["fan-out"].growth
    assert 1_000 * growth.usage(1).total_tokens == pytest.approx(8_641_786, rel=0.001)


def test_the_default_recursion_limit_is_what_we_say() -> None:
    """The installed LangChain, not our memory of it."""
    from langchain.agents import create_agent

    from runrails.testing import ScriptedChatModel

    agent = create_agent(ScriptedChatModel("Hello."), tools=[])
    assert agent.config is not None
    assert agent.config["recursion_limit"] == RECURSION_LIMIT


@pytest.mark.parametrize("name", NAMES)
def test_it_names_its_sources(name: str) -> None:
    """Each an issue or pull request with its date, and what is assumed is said."""
    incident = INCIDENTS[name]
    for source in incident.sources:
        assert re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+/(issues|pull)/\d+", source.url)
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", source.date)
        assert source.says
    assert incident.sources
    assert incident.ours


def test_growth_counts_from_the_first_call() -> None:
    """The first call reads nothing from the cache, each further one all that was there before."""
    growth = Growth(base_tokens=100, step_tokens=10, output_tokens=3, cached=True)

    assert growth.usage(1) == Usage(input_tokens=100, output_tokens=3)
    assert growth.usage(3) == Usage(input_tokens=120, cache_read_tokens=110, output_tokens=3)


@pytest.mark.parametrize(
    ("tokens", "begin"), [(0, ""), (1, ""), (25, "It begins so. "), (1_000, ""), (1, "longer than that")]
)
def test_words_are_as_long_as_asked(tokens: int, begin: str) -> None:
    """Four bytes a token, or the beginning if that is longer."""
    text = words(tokens, begin)
    assert max(4 * tokens, len(begin)) == len(text.encode())
    assert text.startswith(begin)


def test_an_unknown_name_lists_those_there_are() -> None:
    """With what can be played."""
    with pytest.raises(ConfigError, match="kilo-blocked-call"):
        incident_named("kilo")


def test_the_command_lists_them(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, with the address of the report."""
    monkeypatch.setenv("COLUMNS", "200")
    main_ok(["demo", "--incident", "list"])
    shown = capsys.readouterr().out
    for name, incident in INCIDENTS.items():
        assert name in shown
        assert incident.sources[0].url in shown


def test_the_command_lists_them_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON, with all sources."""
    main_ok(["demo", "--incident", "list", "--json"])
    listed = json.loads(capsys.readouterr().out)
    assert list(NAMES) == [each["incident"] for each in listed]
    assert [each.as_dict() for each in INCIDENTS.values()] == listed


def test_the_command_plays_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The report's words and the guard's, and a line of figures that fits 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    main_ok(["demo", "--incident", "hermes-identical-calls"])
    shown = capsys.readouterr().out

    assert "issues/67829" in shown
    assert "LoopDetected: " in shown
    assert "to the picodollar" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert list(tmp_path.iterdir()) == []


def test_the_command_plays_one_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """With the curve of the money, call by call, exact."""
    main_ok(["demo", "--incident", "fan-out", "--json"])
    found = json.loads(capsys.readouterr().out)
    passes = found["passes"]

    assert found["ledger_equals_bill"] is True
    assert passes["guarded"]["bill_usd"] == passes["guarded"]["ledger_usd"] == passes["guarded"]["curve_usd"][-1]
    assert passes["guarded"]["stop_exception"] == "BudgetExceeded"
    assert len(passes["unguarded"]["curve_usd"]) == passes["unguarded"]["model_calls"]


def test_the_command_refuses_an_unknown_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Bad usage, and nothing on stdout."""
    with pytest.raises(SystemExit) as left:
        main(["demo", "--incident", "nobody-knows"])
    assert 2 == left.value.code
    said = capsys.readouterr()
    assert said.out == ""
    assert "kilo-blocked-call" in said.err


def main_ok(arguments: list[str]) -> None:
    """The command line, leaving with 0."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code in (0, None)
