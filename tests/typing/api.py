"""The public face as a type checker sees it. Checked by mypy and pyright in CI; never run."""

from __future__ import annotations

from typing import assert_type

from runrails import (
    Attribution,
    Guard,
    GuardrailStopped,
    Limits,
    Outcome,
    Price,
    Report,
    Run,
    Supervisor,
    Term,
    ToolRule,
    current_run,
)
from runrails.calls import Block, Finding, ModelCall, ModelResult, Permit, Proceed, ToolCall, ToolOutcome
from runrails.credentials.opening import open_vault
from runrails.credentials.router import Router
from runrails.grouping import GroupRow
from runrails.keyroutes import KeyPolicy
from runrails.ledger import Account, Balance
from runrails.pricing import PriceCard

guard = Guard(
    Limits(run="2.00", month=50), user="alice", store="memory:", prices={"m": Price(input="1", output="2"), "n": "0"},
    tools={"poll": ToolRule(poll=True)},
)  # fmt: skip
assert_type(guard, Guard)
agreed = Guard(contract=[Term(provider="openai", percent="-12")], assume="dearest", store="memory:")
assert_type(agreed.prices.card("gpt-4", now_ms=0, region=None, tier="batch"), PriceCard)
with guard.run("nightly") as run:
    assert_type(run, Run)
    permit = run.before_model(ModelCall(model="m"))
    assert_type(permit, Permit)
    run.after_model(permit, ModelResult(end="completed"))
    assert_type(run.before_tool(ToolCall(name="t")), Proceed | Block)
    assert_type(run.after_tool(ToolCall(name="t"), ToolOutcome(ok=True)), Finding | None)
    assert_type(run.stopped, GuardrailStopped | None)
    assert_type(run.report(), Report)
assert_type(current_run(), Run | None)
with guard.attribute(user="bob", tags={"team": "search"}), guard.run(user="carol", org="acme") as theirs:
    theirs.before_model(ModelCall(model="m", by=Attribution(user="dora")))
    assert_type(theirs.attribution, Attribution)
assert_type(guard.usage("tag:team", month="2026-11"), tuple[GroupRow, ...])
assert_type(theirs.report().by("user")[0].name, str | None)
house = Guard(markup_bp=200, byok=True, store="memory:")
with house.attribute(byok=False), house.run(byok=True) as served:
    assert_type(served.report().billed_pusd, int)
assert_type(guard.store.balance(Account("user:alice", "2026-11")), Balance)
vault = open_vault("memory:", master_keys="k1:env:KEY")
Guard(credentials=Router(vault, KeyPolicy(byok="require")), store="memory:")
Guard(credentials=Router(vault, lambda by: KeyPolicy(fall_back=by.org == "acme")), store="memory:")


def length(text: str, *, times: int = 1) -> int:
    """A function to bind."""
    return len(text) * times


assert_type(guard.bind(length)("x", times=2), int)

supervisor = guard.supervise(length, name="nightly")
assert_type(supervisor, Supervisor)
outcome = supervisor.invoke("x", times=2)
assert_type(outcome, Outcome)
assert_type(outcome.answer, str | None)
assert_type(outcome.stop, GuardrailStopped | None)
assert_type(outcome.report, Report)
assert_type(supervisor.batch(["x", "y"]), list[Outcome])
assert_type(supervisor.resume(outcome, limits=Limits(run="3.00")), Outcome)
with supervisor.stream("x") as stream:
    for chunk in stream:
        assert_type(chunk, object)
assert_type(stream.outcome, Outcome)


async def supervised() -> None:
    """The same on an event loop."""
    assert_type(await supervisor.ainvoke("x"), Outcome)
    assert_type(await supervisor.abatch(["x"]), list[Outcome])
    assert_type(await supervisor.aresume(outcome), Outcome)
    async for chunk in supervisor.astream("x"):
        assert_type(chunk, object)
