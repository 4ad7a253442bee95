"""The three passes: without a guard, with the callback, and with nothing but a run budget."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from runrails import Guard, GuardrailStopped, Limits, Price
from runrails.clocks import system_ms
from runrails.demo.agent import MODEL, TASK, Agent, agent_of
from runrails.demo.figures import STORY_PUSD, Demo, Entry, Facts, PassKey, Play, Stopped, figure
from runrails.demo.reviews import REVIEWS, Workbench
from runrails.demo.script import never_gives_up
from runrails.money import to_decimal
from runrails.pricing.book import PriceBook
from runrails.testing.provider import FakeProvider
from runrails_langchain import GuardrailCallbackHandler

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runrails.ledger import SupportsUsage

__all__ = ["BUDGET_USD", "STORY_PRICE", "Watcher", "play_all", "quieten"]

STORY_PRICE = Price(call=to_decimal(STORY_PUSD))
"""The article's figure as a user writes it down: flat per call."""
BUDGET_USD = "10"
"""The run budget of the third pass: three calls at $3.20 fit, a fourth does not."""


class Watcher(Protocol):
    """Whoever shows the passes while they run. Called from the agent's threads: be quick."""

    def begin(self, key: PassKey) -> None:
        """A pass begins."""
        ...

    def failed(self, key: PassKey, failures: int, model_calls: int) -> None:
        """The failing call has been executed once more; counts are those of the pass so far."""
        ...

    def end(self, play: Play) -> None:
        """A pass is over."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """What the passes share."""

    retries: int
    watcher: Watcher
    prices: Demo


def play_all(*, retries: int, watcher: Watcher) -> Demo:
    """Play all three passes, each with a provider, a store and tools of its own."""
    quieten()
    now_ms = system_ms()
    demo = Demo(
        retries=retries,
        model=MODEL,
        reviews=len(REVIEWS),
        story_card=PriceBook.load({MODEL: STORY_PRICE}, None).card(MODEL, provider="openai", now_ms=now_ms),
        table_card=PriceBook.load(None, None).card(MODEL, provider="openai", now_ms=now_ms),
    )
    stage = _Stage(retries=retries, watcher=watcher, prices=demo)
    plays: dict[PassKey, Play] = {
        "unguarded": _play(stage, "unguarded", None),
        # $5,000 is out of the way on purpose: in this pass only the loop detector may stop the agent.
        "guarded": _play(stage, "guarded", Limits(run="5000")),
        "budget": _play(stage, "budget", Limits(run=BUDGET_USD, loops=None)),
    }
    return replace(demo, plays=plays)


def _play(stage: _Stage, key: PassKey, limits: Limits | None) -> Play:
    stage.watcher.begin(key)
    billed_at_failure = 0

    def on_failure(failures: int) -> None:
        nonlocal billed_at_failure
        billed_at_failure = len(provider.bill)
        stage.watcher.failed(key, failures, billed_at_failure)

    bench = Workbench(on_failure)
    started = time.perf_counter()
    with FakeProvider(never_gives_up(retries=stage.retries)) as provider:
        ledger, stopped = _perform(bench, provider, limits)
        facts = Facts(
            key=key,
            billed=tuple(call.usage for call in provider.bill),
            executed=dict(bench.executed),
            failing_executions=bench.failures,
            model_calls_after_last_failure=len(provider.bill) - billed_at_failure,
            ledger=ledger,
            stopped=stopped,
            topics=dict(bench.topics),
            seconds=time.perf_counter() - started,
        )
    play = figure(facts, story_card=stage.prices.story_card, table_card=stage.prices.table_card)
    stage.watcher.end(play)
    return play


def _perform(
    bench: Workbench, provider: FakeProvider, limits: Limits | None
) -> tuple[tuple[Entry, ...] | None, Stopped | None]:
    inputs: Mapping[str, object] = {"messages": [{"role": "user", "content": TASK}]}
    with agent_of(bench, base_url=provider.openai_url) as agent:
        if limits is None:
            agent.invoke(inputs)
            return None, None
        return _guarded(agent, inputs, limits)


def _guarded(agent: Agent, inputs: Mapping[str, object], limits: Limits) -> tuple[tuple[Entry, ...], Stopped | None]:
    with tempfile.TemporaryDirectory(prefix="runrails-demo-", ignore_cleanup_errors=True) as folder:
        store = f"sqlite:///{Path(folder) / 'ledger.db'}"
        with Guard(limits=limits, user="demo", store=store, prices={MODEL: STORY_PRICE}, sinks=()) as guard:
            stopped: Stopped | None = None
            try:
                agent.invoke(inputs, config={"callbacks": [GuardrailCallbackHandler(guard)]})
            except GuardrailStopped as stop:
                stopped = Stopped(reason=stop.stop_reason, exception=type(stop).__name__, message=str(stop))
            return _entries(guard), stopped


def _entries(guard: Guard) -> tuple[Entry, ...]:
    guard.flush()
    records = cast("SupportsUsage", guard.store).usage(user=guard.user)
    return tuple(
        Entry(record.actual_pusd or 0, None if record.result is None else record.result.usage) for record in records
    )


def quieten() -> None:
    """Let nothing leave this machine, and nothing but the demo speak. For this whole process, as the demo is one."""
    # LangSmith's tracer would send every step to a server if the environment asks for it.
    os.environ["LANGSMITH_TRACING"] = os.environ["LANGCHAIN_TRACING_V2"] = "false"
    # With proxy variables set, ChatOpenAI would note that its own transport ignores them; ours is to ignore them.
    os.environ["LANGCHAIN_OPENAI_TCP_KEEPALIVE"] = "0"
    # LangChain logs an exception that leaves a callback before it raises it; here it is shown where it arrives.
    logging.getLogger("langchain_core.callbacks.manager").setLevel(logging.CRITICAL)
