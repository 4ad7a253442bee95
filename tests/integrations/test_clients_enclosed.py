"""A wrapped client inside a LangChain run that a bare callback guards: it draws on that run, and on no other."""

from __future__ import annotations

import asyncio
import threading
from contextvars import copy_context
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from rr_clients import World
from rr_far import FarStore
from runrails import Guard, GuardrailStopped, Limits
from runrails.stores.memory import MemoryStore
from runrails_langchain import GuardrailCallbackHandler

ASK: Any = {"model": "fake-model", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
FREE = Limits(run=None, steps=None, loops=None)


def calls(guard: Guard) -> dict[str, int]:
    """How many calls each run has made."""
    return {row.name or "": row.calls for row in guard.usage(by="run")}


def once(guard: Guard, handler: GuardrailCallbackHandler, count: int = 1) -> None:
    """The handler's run has made them all, each is counted once, and nothing is held any more."""
    run = handler.last_run
    assert run is not None
    assert {run.id: count} == calls(guard)
    assert count == run.report().model_calls


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("mode", ["invoke", "batch", "ainvoke", "tool", "parallel"])
def test_it_draws_on_the_run_of_the_callback(mode: str, far: bool) -> None:
    """In a chain, a tool without one, and in threads that LangChain starts; a remote store keeps no loop waiting."""
    store = FarStore() if far else MemoryStore()
    with World(limits=FREE, store=store) as world:
        handler = GuardrailCallbackHandler(world.guard)
        config: Any = {"callbacks": [handler]}
        client = world.openai()

        def work(_: object) -> str:
            return str(client.chat.completions.create(**ASK).choices[0].message.content)

        if mode == "ainvoke":

            async def awork(_: object) -> str:
                return str((await aclient.chat.completions.create(**ASK)).choices[0].message.content)

            async def main() -> None:
                nonlocal aclient
                aclient = world.aopenai()
                await RunnableLambda(awork).ainvoke("x", config)
                await world.aclose()

            aclient: Any = None
            asyncio.run(main())
            if isinstance(store, FarStore):
                assert [] == store.on_loop
        elif mode == "tool":

            @tool
            def look(what: str) -> str:
                """Look."""
                return work(what)

            look.invoke({"what": "x"}, config)
            handler.close()
        elif mode == "parallel":
            RunnableParallel(a=work, b=work).invoke("x", config)
        elif mode == "batch":
            RunnableLambda(work).batch(["x"], config)
        else:
            RunnableLambda(work).invoke("x", config)
        once(world.guard, handler, 2 if mode == "parallel" else 1)


def test_what_goes_on_after_the_chain_draws_on_the_clients_own_run() -> None:
    """A thread with a copy of the chain's context is not told that the run has ended."""
    with World(limits=FREE) as world:
        handler = GuardrailCallbackHandler(world.guard)
        client = world.openai()
        go_on = threading.Event()
        errors: list[BaseException] = []

        def late() -> None:
            go_on.wait(10)
            try:
                client.chat.completions.create(**ASK)
            except BaseException as exc:
                errors.append(exc)

        def work(_: object) -> threading.Thread:
            client.chat.completions.create(**ASK)
            thread = threading.Thread(target=copy_context().run, args=(late,))
            thread.start()
            return thread

        thread = RunnableLambda(work).invoke("x", {"callbacks": [handler]})
        go_on.set()
        thread.join()
        assert [] == errors
        run = handler.last_run
        assert run is not None
        assert 2 == len(calls(world.guard))
        assert 1 == calls(world.guard)[run.id]


def test_a_stream_that_is_read_after_the_chain_is_settled_in_the_run_it_began_in() -> None:
    """Once, and nothing stays held."""
    with World(limits=FREE) as world:
        handler = GuardrailCallbackHandler(world.guard)
        client = world.openai()
        stream = RunnableLambda(lambda _: client.chat.completions.create(**ASK, stream=True)).invoke(
            "x", {"callbacks": [handler]}
        )
        for _ in stream:
            pass
        once(world.guard, handler)


def test_a_client_of_another_guard_has_a_run_of_its_own() -> None:
    """Unless its guard's handler is there as well; neither counts what the other pays."""
    with World(limits=FREE) as world, Guard(FREE, store=MemoryStore(), sinks=(), prices=None) as other:
        client = world.openai()
        work = RunnableLambda(lambda _: client.chat.completions.create(**ASK).id)
        theirs, ours = GuardrailCallbackHandler(other), GuardrailCallbackHandler(world.guard)
        work.invoke("x", {"callbacks": [theirs]})
        assert {} == calls(other)
        assert 1 == sum(calls(world.guard).values())
        work.invoke("x", {"callbacks": [theirs, ours]})
        assert {} == calls(other)
        assert ours.last_run is not None
        assert 1 == calls(world.guard)[ours.last_run.id]


def test_two_handlers_of_one_guard_count_it_once() -> None:
    """One on the chain, one further in."""
    with World(limits=FREE) as world:
        client = world.openai()
        outer, inner = GuardrailCallbackHandler(world.guard), GuardrailCallbackHandler(world.guard)
        work = RunnableLambda(lambda _: client.chat.completions.create(**ASK).id).with_config(callbacks=[inner])
        (RunnableLambda(lambda x: x) | work).invoke("x", {"callbacks": [outer]})
        once(world.guard, outer)


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("mode", ["invoke", "stream", "ainvoke"])
def test_a_wrapped_client_below_a_guarded_model_is_counted_once(mode: str, far: bool) -> None:
    """The callback pays for it."""
    with World(limits=FREE, store=FarStore() if far else MemoryStore()) as world:
        handler = GuardrailCallbackHandler(world.guard)
        config: Any = {"callbacks": [handler]}

        async def main() -> None:
            aclient = world.aopenai()
            model = ChatOpenAI(model="fake-model", max_completion_tokens=50, api_key="k", base_url="http://127.0.0.1:9")  # type: ignore[arg-type]  # as users write it
            model.async_client = aclient.chat.completions
            await (RunnableLambda(lambda x: x) | model).ainvoke("x", config)
            await world.aclose()

        if mode == "ainvoke":
            asyncio.run(main())
        else:
            model = ChatOpenAI(model="fake-model", max_completion_tokens=50, api_key="k", stream_usage=True)  # type: ignore[arg-type]  # as users write it
            model.client = world.openai().chat.completions
            chain = RunnableLambda(lambda x: x) | model
            if mode == "stream":
                for _ in chain.stream("x", config):
                    pass
            else:
                chain.invoke("x", config)
        once(world.guard, handler)


def test_the_budget_of_the_callbacks_run_holds_for_it() -> None:
    """A run of its own would have a budget of its own."""
    with World(limits=Limits(run="0.001", steps=None, loops=None)) as world:
        client = world.openai()
        count = 0

        def work(_: object) -> None:
            nonlocal count
            while True:
                client.chat.completions.create(**ASK)
                count += 1
                assert count < 1_000

        handler = GuardrailCallbackHandler(world.guard)
        with pytest.raises(GuardrailStopped):
            RunnableLambda(work).invoke("x", {"callbacks": [handler]})
        once(world.guard, handler, count)
        assert handler.last_run is not None
        assert handler.last_run.stopped is not None


def test_a_thread_without_a_context_draws_on_the_clients_own_run() -> None:
    """As it did before; nobody can tell whose it is."""
    with World(limits=FREE) as world:
        client = world.openai()

        def work(_: object) -> None:
            thread = threading.Thread(target=lambda: client.chat.completions.create(**ASK))
            thread.start()
            thread.join()

        handler = GuardrailCallbackHandler(world.guard)
        RunnableLambda(work).invoke("x", {"callbacks": [handler]})
        assert handler.last_run is not None
        assert handler.last_run.id not in calls(world.guard)
        assert 1 == sum(calls(world.guard).values())
