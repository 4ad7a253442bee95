"""Where the ladder's rungs fall in a recording, and what a stop would have saved."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from rr_audit import USAGE, answers, asks, auditor, ladder, line, one, rounds, tool, user
from runrails.audit import RunAudit


def test_a_short_healthy_run_is_ok() -> None:
    """Different questions with different answers reach no rung."""
    messages = [user(), asks(1, args='{"q": 1}'), answers(1, "one"), asks(2, args='{"q": 2}'), answers(2, "two")]
    run = one(messages=messages)
    assert (run.verdict, ladder(run), run.rule, run.tool) == ("ok", (None, None, None), None, None)


@pytest.mark.parametrize(
    ("count", "places", "verdict"),
    [
        (2, (None, None, None), "ok"),
        (3, (3, None, None), "hint"),
        (4, (3, None, None), "hint"),
        (5, (3, 5, 5), "stop"),
        (891, (3, 5, 5), "stop"),
    ],
)
def test_the_ladder_in_messages(count: int, places: tuple[int | None, ...], verdict: str) -> None:
    """The same failure: hint after the 3rd result, the 5th call blocked, and with a callback alone the stop there."""
    run = one(messages=[user(), *rounds(count)])
    assert (ladder(run), run.verdict) == (places, verdict)
    assert run.tool == (None if verdict == "ok" else "search")
    assert (run.rule is None) == (verdict == "ok")


def test_the_ladder_in_steps_counts_steps() -> None:
    """In the other form the places are those of all steps, model calls and user messages included."""
    steps = [{"kind": "user", "text": "go"}]
    for _ in range(6):
        steps += [{"kind": "llm", "text": "again"}, tool()]
    run = one(steps=steps)
    assert ladder(run) == (7, 11, 11)


def test_four_failures_and_then_a_success_are_legal() -> None:
    """A retry that works at the 5th time is hinted at, and what works is never called a stop."""
    run = one(messages=[user(), *rounds(4), asks(5), answers(5, "found it")])
    assert (run.stop_at, run.verdict) == (None, "hint")


def test_a_user_message_resets() -> None:
    """When a person speaks, what repeated before does not count any more."""
    run = one(messages=[user(), *rounds(4), user("try again"), *rounds(4, first=5)])
    assert run.stop_at is None
    steps = [tool(), tool(), {"kind": "user", "text": "again"}, tool(), tool()]
    assert one(steps=steps).verdict == "ok"


def test_a_parallel_batch_is_one_attempt() -> None:
    """Five equal calls of one answer are one attempt; in five answers they are a loop."""
    calls = [{"id": f"call_{place}", "function": {"name": "search", "arguments": "{}"}} for place in range(5)]
    batch = [{"role": "assistant", "content": None, "tool_calls": calls}, *(answers(place) for place in range(5))]
    assert one(messages=[user(), *batch]).verdict == "ok"
    assert one(steps=[tool(batch=1) for _ in range(5)]).verdict == "ok"
    assert one(steps=[tool(batch=place) for place in range(5)]).verdict == "stop"


def test_a_batch_of_too_many_equal_calls_is_blocked_at_once() -> None:
    """Ten equal calls of one answer are allowed; the eleventh is where a guard steps in."""
    assert one(steps=[tool(batch=1) for _ in range(10)]).verdict == "ok"
    run = one(steps=[tool(batch=1) for _ in range(14)])
    assert (ladder(run), run.rule, run.verdict) == ((None, 11, 11), "batch", "stop")


def test_sub_agents_are_apart() -> None:
    """What two agents do with the same tool is not one loop."""
    steps = [tool(agent=f"worker/{place % 3}") for place in range(6)]
    assert one(steps=steps).verdict == "ok"
    assert one(steps=[tool(agent="worker/1") for _ in range(6)]).stop_at == 5


def test_poll_tools_may_wait() -> None:
    """A tool declared as polling, in the recording or by the caller, may give the same answer many times."""
    steps = [tool("status", ok=True, output="pending") for _ in range(8)]
    assert one(steps=steps).verdict == "stop"
    assert one(steps=steps, poll_tools=["status"]).verdict == "ok"
    assert one(auditor("status"), steps=steps).verdict == "ok"
    assert one(auditor("other"), steps=steps, poll_tools=["another"]).verdict == "stop"


def test_a_tool_message_with_status_error_is_a_failure() -> None:
    """The recorded status takes part in the outcome."""
    messages = [user()]
    for place in range(5):
        messages += [asks(place), answers(place, "timeout", status="error")]
    assert one(messages=messages).stop_at == 5


def test_runs_do_not_know_of_each_other() -> None:
    """The same failure in many runs is many first failures."""
    lines = [line(id=place, steps=[tool(), tool()]) for place in range(10)]
    assert {answer.verdict for answer in auditor().lines(lines, source="f") if isinstance(answer, RunAudit)} == {"ok"}


def test_the_same_recording_gives_the_same_answer() -> None:
    """An audit is deterministic."""
    text = line(messages=[user(), *rounds(6, model="tokens", usage=USAGE)])
    first, second = (list(auditor().lines([text], source="f")) for _ in range(2))
    assert first == second


def test_cost_and_what_a_stop_would_have_avoided() -> None:
    """Every model call is priced; those after the stop are what the guard would have saved."""
    run = one(messages=[user(), *rounds(20, model="cent", usage=USAGE), {"role": "assistant", "content": "I give up"}])
    assert (run.tokens, run.model_calls, run.reported_calls) == (300, 21, 20)
    assert run.as_dict()["cost_usd"] == Decimal("0.20")
    assert run.as_dict()["avoided_usd"] == Decimal("0.15")


def test_nothing_is_avoided_where_nothing_came_after_the_stop() -> None:
    """A recording that ends with the stopping result avoids 0, which is known; without a stop it is null."""
    assert one(messages=[user(), *rounds(5, model="cent", usage=USAGE)]).avoided_pusd == 0
    assert one(messages=[user(), *rounds(2, model="cent", usage=USAGE)]).avoided_pusd is None


def test_steps_may_be_priced_too() -> None:
    """Model steps with a model and a usage report are priced like messages."""
    run = one(steps=[{"kind": "llm", "text": "x", "model": "tokens", "usage": USAGE}])
    # 10 × $10 and 5 × $30 per million tokens.
    assert (run.tokens, run.cost_pusd) == (15, 250_000_000)


def test_what_nobody_reported_is_null() -> None:
    """Without a usage report neither tokens nor money are known."""
    run = one(messages=[user(), *rounds(6, model="cent")])
    assert (run.tokens, run.cost_pusd, run.avoided_pusd) == (None, None, None)


@pytest.mark.parametrize("model", [None, "nobody-knows-this-model", "", "\ud800", "x" * 10_000])
def test_an_unknown_price_makes_the_cost_null(model: str | None) -> None:
    """Tokens are still counted; a part of the cost is not passed off as all of it."""
    messages = [user(), *rounds(1, model="cent", usage=USAGE), *rounds(1, first=2, model=model, usage=USAGE)]
    run = one(messages=messages)
    assert (run.tokens, run.cost_pusd) == (30, None)


def test_a_free_model_costs_zero() -> None:
    """Zero is written by someone and so it is known."""
    assert one(messages=rounds(1, model="free", usage=USAGE)).as_dict()["cost_usd"] == 0


@pytest.mark.parametrize(
    ("pusd", "text"), [(1, "0.000000000001"), (0, "0"), (10**12 * 9_000_000, "9000000"), (3_200_000_000_000, "3.2")]
)
def test_money_is_an_exact_json_number(pusd: int, text: str) -> None:
    """Dollars are plain JSON numbers with every digit, never an exponent and never a float's approximation."""
    written = RunAudit(id="a", cost_pusd=pusd, avoided_pusd=pusd).as_json()
    assert written.endswith(f'"cost_usd": {text}, "avoided_usd": {text}}}')
    assert isinstance(json.loads(written)["cost_usd"], int | float)
