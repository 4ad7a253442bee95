"""A store across a network: no verb of it is called on an event loop, whatever stands around the agent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

import rr_lc
import rr_reviews
from rr_clients import MODEL, World
from rr_far import FarStore
from rr_lc import Text, ToolCalls, ToolUse
from runrails import BudgetExceeded, ConfigError, Guard, Limits
from runrails.ledger import Account
from runrails.periods import month_of
from runrails.testing.langchain import ScriptedChatModel
from runrails.testing.provider.values import Stall
from runrails_langchain import GuardrailCallbackHandler, GuardrailMiddleware, invocations

CENT = 10**10
LAYERS = ("boundary", "callback", "middleware", "supervisor", "supervisor+middleware", "all")
MODES = ("ainvoke", "astream", "astream_events", "abatch")


def spent(guard: Guard) -> tuple[int, int]:
    """What the guard's user has spent and holds."""
    found = guard.store.balance(Account(f"user:{guard.user}", month_of(guard.clock())))
    return found.spent, found.held


async def call(mode: str, executor: Any, inputs: Any, config: Any) -> None:
    """Run an executor, or a supervisor, to its end."""
    if mode == "ainvoke":
        await executor.ainvoke(inputs, config)
    elif mode == "abatch":
        await executor.abatch([inputs], config)
    elif mode == "astream":
        async for _ in executor.astream(inputs, config):
            pass
    else:
        async for _ in executor.astream_events(inputs, config, version="v2"):
            pass


async def guarded(layer: str, mode: str, guard: Guard, model: Any, tools: Any, inputs: Any) -> None:
    """An agent in one of the layers."""
    middleware = [GuardrailMiddleware(guard)] if layer in ("middleware", "supervisor+middleware", "all") else []
    agent: Any = create_agent(model, tools, middleware=middleware)
    config: dict[str, Any] = {"recursion_limit": 200}
    if layer in ("callback", "all"):
        config["callbacks"] = [GuardrailCallbackHandler(guard)]
    if layer in ("supervisor", "supervisor+middleware", "all"):
        agent = guard.supervise(agent)
    if layer == "boundary":
        async with guard.run():
            await call(mode, agent, inputs, config)
    else:
        await call(mode, agent, inputs, config)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layer", LAYERS)
async def test_no_verb_is_called_on_the_loop_and_a_wrapped_client_counts_once(layer: str, mode: str) -> None:
    """The agent's model sends through a client that is guarded as well; the bill is the ledger."""
    answers = [ToolCalls([ToolUse("look", {"text": str(n)})], text="Go.") for n in range(2)]
    store = FarStore()
    with World([*answers, Text("done")], store=store) as world:
        client = world.aopenai()
        model = ChatOpenAI(
            model=MODEL, api_key="k", max_tokens=900, async_client=client.chat.completions, root_async_client=client,
            stream_usage=True,
        )  # type: ignore[call-arg,arg-type]  # fmt: skip

        @tool
        async def look(text: str) -> str:
            """Look."""
            return f"saw {text}"

        await guarded(layer, mode, world.guard, model, [look], {"messages": [HumanMessage("go")]})
        calls = len(world.provider.bill.calls)
        await world.aclose()
        await asyncio.to_thread(world.settled)

        assert ([], 3, 3, 3) == (store.on_loop, calls, store.called("reserve"), store.called("settle"))
        assert store.called("save_run") == 1


@pytest.mark.parametrize("layer", ["boundary", "callback", "middleware", "supervisor", "all"])
async def test_a_stop_calls_no_verb_on_the_loop_either(layer: str) -> None:
    """The founding agent with a dollar's worth of nothing: refusals, releases and records cross in threads."""
    store, desk = FarStore(), rr_reviews.Desk()
    guard = rr_lc.make_guard(Limits(run="0.04", loops=None), store=store)
    try:
        await guarded(layer, "ainvoke", guard, desk.model(), desk.tools(), rr_reviews.question())
    except BudgetExceeded:
        assert layer in ("boundary", "callback")
    await asyncio.to_thread(guard.close)

    assert ([], 4) == (store.on_loop, desk.starts.models)
    assert (4 * CENT, 0) == await asyncio.to_thread(spent, guard)


@pytest.mark.parametrize("layer", ["boundary", "middleware", "supervisor"])
async def test_a_cancelled_call_is_settled_off_the_loop(layer: str) -> None:
    """LangChain tells nothing of its end, so it is settled where the run ends."""
    store, model = FarStore(), ScriptedChatModel(
        Stall(threading.Event(), Text("late")), model_name="fake-flat", max_tokens=100
    )  # fmt: skip
    guard = rr_lc.make_guard(store=store)
    await rr_lc.cancel_in_flight(model, guarded(layer, "ainvoke", guard, model, [], rr_reviews.question()))
    await asyncio.to_thread(guard.close)

    assert ([], (CENT, 0)) == (store.on_loop, await asyncio.to_thread(spent, guard))


async def test_runs_that_make_room_for_others_are_ended_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Invocations that an error left open; the table holds one."""
    monkeypatch.setattr(invocations, "RUNS_OPEN_MAX", 1)
    store = FarStore()
    guard = rr_lc.make_guard(store=store)

    @tool
    async def broken(text: str) -> str:
        """Fail."""
        raise OSError(text)

    def script(messages: Sequence[BaseMessage]) -> Any:
        return ToolCalls([ToolUse("broken", {"text": "x"})], text="Go.")

    model = ScriptedChatModel(script, model_name="fake-flat", max_tokens=100)
    agent = create_agent(model, [broken], middleware=[GuardrailMiddleware(guard)])
    for _ in range(3):
        with pytest.raises(OSError, match="x"):
            await agent.ainvoke({"messages": [HumanMessage("go")]})
    assert ([], 2) == (store.on_loop, store.called("save_run"))
    await asyncio.to_thread(guard.close)
    assert 3 == store.called("save_run")


@pytest.mark.parametrize("way", ["entered", "by hand", "supervisor", "stream", "middleware", "client"])
async def test_a_zone_that_does_not_fit_is_told_all_the_same(way: str) -> None:
    """Asking the store is postponed, its answer is not lost: nothing is sent."""
    with World(store=FarStore()) as world:
        world.store.inner.fix_zone("user:alice", "Europe/Berlin")  # type: ignore[attr-defined]
        guard, client = world.guard, world.aopenai()
        model = ScriptedChatModel("no", model_name="fake-flat", max_tokens=100)

        async def sends() -> None:
            await client.chat.completions.create(model=MODEL, messages=[], max_tokens=9)

        with pytest.raises(ConfigError, match="Europe/Berlin"):
            if way == "entered":
                async with guard.run():
                    pass
            elif way == "by hand":
                run = guard.run()
                from runrails import aio
                from runrails.calls import ModelCall, Prompt

                await aio.before_model(run, ModelCall(model="fake-flat", prompt=Prompt(texts=("x",), messages=1)))
            elif way == "supervisor":
                await guard.supervise(model).ainvoke("hi")
            elif way == "stream":
                async for _ in guard.supervise(model).astream("hi"):
                    pass
            elif way == "middleware":
                agent = create_agent(model, [], middleware=[GuardrailMiddleware(guard)])
                await agent.ainvoke(rr_reviews.question())
            else:
                await sends()
        await world.aclose()
        assert (0, []) == (model.calls, world.store.on_loop)  # type: ignore[attr-defined]
        await asyncio.to_thread(world.untouched)
