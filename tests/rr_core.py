"""What the tests of the core share: a guard on a memory store with stopped clocks and a model at one cent a call."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Literal

import pytest

from runrails import BudgetExceeded, Guard, Limits, Price
from runrails.calls import ModelCall, ModelResult, Permit, Prompt, ToolCall, ToolOutcome
from runrails.events import Event
from runrails.ledger import Account, Store
from runrails.loops import ToolRule
from runrails.pricing import PriceSpec
from runrails.run import Run
from runrails.stores.memory import MemoryStore
from runrails.testing import ManualClock
from runrails.usage import Usage
from runrails.wrapup import LastTurn

CENT = 10**10
START_MS = 1_795_000_000_000
"""18 November 2026, 12:26:40 UTC."""
MONTH = "2026-11"
PRICES: Mapping[str, PriceSpec] = {
    "cent": Price(call="0.01"),
    "dear": Price(call="3.20"),
    "tokens": Price(input="10", output="30"),
    "capped": Price(input="1", output="2", output_tokens_max=128_000, context_tokens_max=400_000),
    "free": "0",
}
FAILED = ToolOutcome(ok=False, result="no result")
OK = ToolOutcome(ok=True, result="fine")


class Bench:
    """A guard, its clock, its store and the events it sent."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        store: Store | None = None,
        mode: Literal["enforce", "observe"] = "enforce",
        user: str = "alice",
        key: str | None = None,
        org: str | None = None,
        tools: Mapping[str, ToolRule] | None = None,
        on_store_error: Literal["refuse", "allow"] = "refuse",
        clock: ManualClock | None = None,
    ) -> None:
        self.clock = ManualClock(START_MS) if clock is None else clock
        self.store: Store = MemoryStore(clock=self.clock) if store is None else store
        self.events: list[Event] = []
        ids = itertools.count(1)
        self.guard = Guard(
            limits, user=user, key=key, org=org, store=self.store, prices=PRICES, mode=mode, tools=tools,
            sinks=[self.events.append], on_store_error=on_store_error, clock=self.clock, monotonic=self.clock,
            make_id=lambda: f"id-{next(ids)}",
        )  # fmt: skip

    def names(self) -> list[str]:
        """Names of the events so far, without the common prefix."""
        return [event.name.removeprefix("runrails.") for event in self.events]

    def spent(self, scope: str, period: str = MONTH) -> int:
        """What an account has spent, in picodollars."""
        return self.store.balance(Account(scope, period)).spent

    def held(self, scope: str, period: str = MONTH) -> int:
        """What an account holds, in picodollars."""
        return self.store.balance(Account(scope, period)).held


def cent_call(max_tokens: int | None = 100) -> ModelCall:
    """A call that costs exactly one cent."""
    return ModelCall(model="cent", prompt=Prompt(texts=("hi",), messages=1), max_tokens=max_tokens)


def done(input_tokens: int = 10, output_tokens: int = 5) -> ModelResult:
    """A completed call with reported usage."""
    return ModelResult(end="completed", usage=Usage(input_tokens=input_tokens, output_tokens=output_tokens))


def model_step(run: Run, call: ModelCall | None = None, result: ModelResult | None = None) -> Permit:
    """One model call from permit to settlement."""
    permit = run.before_model(call or cent_call())
    run.after_model(permit, result or done())
    return permit


def tool_step(run: Run, outcome: ToolOutcome = FAILED, *, name: str = "classify", args: object = None) -> None:
    """One tool call seen through a bare callback."""
    call = ToolCall(name=name, args={"text": "x"} if args is None else args)
    run.before_tool(call)
    run.after_tool(call, outcome)


def opened(bench: Bench) -> tuple[Run, LastTurn]:
    """A run whose adapter can take a last turn."""
    run = bench.guard.run()
    return run, run.expect_last_turn()


def used_up(run: Run) -> int:
    """Call until the budget is used up; how many calls there were."""
    calls = 0
    with pytest.raises(BudgetExceeded):
        while True:
            model_step(run, cent_call())
            calls += 1
    return calls
