"""
Every layer × every part of ours that may have a bug.

A bug in what observes changes no result and is an event; a bug in what decides refuses the call, with a type and a
cause of its own, and is no exhausted budget.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import tool

import rr_lc
from rr_lc import Text, ToolCalls, ToolUse
from runrails import Guard, GuardrailStopped
from runrails.errors import GuardFault
from runrails.journal import Journal
from runrails.ledger import Account
from runrails.loops import LoopDetector
from runrails.periods import month_of
from runrails.run import Run
from runrails.testing.langchain import ScriptedChatModel
from runrails.testing.provider import FakeProvider
from runrails_langchain import GuardrailCallbackHandler, GuardrailMiddleware, attach

CENT = 10**10
AGENTS = ("callback", "boundary", "middleware", "supervisor", "supervisor+middleware+callback")
CLIENTS = ("openai", "anthropic", "boundary+openai", "supervisor+openai")
TURNS = 3
"""Model calls of the healthy agent: two that use the tool, and the answer."""


class _Bug(Exception):
    """A bug of ours, made for the test."""


def _boom(*_args: Any, **_kwargs: Any) -> Any:
    raise _Bug


class Part(NamedTuple):
    """What is broken: places that a test breaks, given the guard."""

    places: Callable[[Guard], list[tuple[object, str]]]
    settles: bool = True
    """Whether a call's end still reaches the ledger at once."""
    silent: bool = False
    """Whether nobody can tell of it: it is the one who tells."""


EVERYWHERE = {
    "sink": Part(lambda _: [], silent=True),
    "report": Part(lambda _: [(Run, "report")]),
    "archive": Part(lambda guard: [(type(guard.store), "save_run")]),
    "end of a model call": Part(lambda _: [(Run, "after_model")], settles=False),
    "journal": Part(lambda _: [(Journal, "model")], settles=False),
}
IN_AGENTS = {
    "detector": Part(
        lambda _: [(LoopDetector, verb) for verb in ("before_tool", "after_tool", "before_model", "user_message")]
    ),
    "end of a tool call": Part(lambda _: [(Run, "after_tool")]),
    "what was asked for": Part(lambda _: [("runrails_langchain.conversations.Conversations", "answered")]),
    "what was heard": Part(lambda _: [("runrails_langchain.conversations.Conversations", "hear")]),
    "reading an answer": Part(lambda _: [("runrails_langchain.handler", "of_answer")]),
    "reading a result": Part(
        lambda _: [(f"runrails_langchain.{module}", "outcome_of") for module in ("handler", "turns")]
    ),
    "end of a chain": Part(
        lambda _: [
            ("runrails_langchain.tracking.Tracker", "chain_ended"),
            ("runrails_langchain.invocations.Invocations", "end"),
        ]
    ),
}
IN_CLIENTS = {"reading an answer": Part(lambda _: [("runrails.clients.edge", "body_of")])}
IN_MIDDLEWARE = {"leftovers": Part(lambda _: [("runrails_langchain.tracking.Tracker", "settle_open")])}
OBSERVING = [
    *((layer, name, part) for layer in AGENTS if "middleware" in layer for name, part in IN_MIDDLEWARE.items()),
    *((layer, name, part) for layer in AGENTS for name, part in {**EVERYWHERE, **IN_AGENTS}.items()),
    *((layer, name, part) for layer in CLIENTS for name, part in {**EVERYWHERE, **IN_CLIENTS}.items()),
]
DECIDING: dict[str, Callable[[Guard], tuple[object, str]]] = {
    "price": lambda guard: (type(guard.prices), "card"),
    "bound": lambda _: ("runrails.meter", "bound_of"),
    "reserve": lambda guard: (type(guard.store), "reserve"),
}


class Told:
    """What came of one call, whatever the layer."""

    def __init__(self, answer: object, served: int) -> None:
        self.answer = answer
        self.served = served


def break_part(places: Sequence[tuple[object, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each place raise."""
    for owner, name in places:
        if isinstance(owner, str):
            monkeypatch.setattr(f"{owner}.{name}", _boom)
        else:
            monkeypatch.setattr(owner, name, _boom)


def ask(layer: str, mode: str, guard: Guard) -> Told:
    """One question through a layer: to an agent that uses a tool twice, or to a provider."""
    return _ask_provider(layer, mode, guard) if layer in CLIENTS else _ask_agent(layer, mode, guard)


def _ask_agent(layer: str, mode: str, guard: Guard) -> Told:
    @tool
    def classify(text: str) -> str:
        """Classify a review."""
        return f"topic: {text}"

    def script(messages: Sequence[BaseMessage]) -> Any:
        turn = 1 + sum(isinstance(message, AIMessage) for message in messages)
        return Text("done") if turn == TURNS else ToolCalls([ToolUse("classify", {"text": str(turn)})], text="Go.")

    model = ScriptedChatModel(script, model_name="fake-flat", max_tokens=100)
    agent = create_agent(model, [classify], middleware=[GuardrailMiddleware(guard)] if "middleware" in layer else [])
    config: Any = {"callbacks": [GuardrailCallbackHandler(guard)]} if "callback" in layer else {}
    asked: Any = {"messages": [HumanMessage("go")]}
    if "supervisor" in layer:
        supervisor = guard.supervise(agent)
        outcome = (
            supervisor.invoke(asked, config) if mode == "invoke" else asyncio.run(supervisor.ainvoke(asked, config))
        )
        state: Any = outcome.value
        assert outcome.stop is None
    elif layer == "boundary":
        with guard.run():
            state = agent.invoke(asked) if mode == "invoke" else asyncio.run(agent.ainvoke(asked))
    else:
        state = agent.invoke(asked, config) if mode == "invoke" else asyncio.run(agent.ainvoke(asked, config))
    return Told(state["messages"][-1].text, model.calls)


def _ask_provider(layer: str, mode: str, guard: Guard) -> Told:
    with FakeProvider(Text("done"), price_pusd=lambda _model, _usage: CENT) as provider:
        try:
            answer = _call(layer, guard, provider) if mode == "invoke" else asyncio.run(_acall(layer, guard, provider))
        finally:
            provider.wait_idle()
        return Told(answer, len(provider.bill.calls))


QUESTION: Any = {"model": "fake-flat", "max_tokens": 100, "messages": [{"role": "user", "content": "go"}]}


def _call(layer: str, guard: Guard, provider: FakeProvider) -> object:
    import anthropic
    import openai

    if layer == "anthropic":
        with anthropic.Anthropic(base_url=provider.anthropic_url, api_key="k", max_retries=0) as made:
            return guard.wrap(made).messages.create(**QUESTION).content[0].text
    with openai.OpenAI(base_url=provider.openai_url, api_key="k", max_retries=0) as made_here:
        client = guard.wrap(made_here)

        def work() -> object:
            return client.chat.completions.create(**QUESTION).choices[0].message.content

        if "supervisor" in layer:
            return guard.supervise(work).invoke().value
        if "boundary" in layer:
            with guard.run():
                return work()
        return work()


async def _acall(layer: str, guard: Guard, provider: FakeProvider) -> object:
    import anthropic
    import openai

    if layer == "anthropic":
        async with anthropic.AsyncAnthropic(base_url=provider.anthropic_url, api_key="k", max_retries=0) as made:
            return (await guard.wrap(made).messages.create(**QUESTION)).content[0].text
    async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k", max_retries=0) as made_here:
        client = guard.wrap(made_here)

        async def work() -> object:
            return (await client.chat.completions.create(**QUESTION)).choices[0].message.content

        if "supervisor" in layer:
            return (await guard.supervise(work).ainvoke()).value
        if "boundary" in layer:
            async with guard.run():
                return await work()
        return await work()


def balance(guard: Guard) -> tuple[int, int]:
    """What the guard's user has spent and holds."""
    found = guard.store.balance(Account(f"user:{guard.user}", month_of(guard.clock())))
    return found.spent, found.held


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
@pytest.mark.parametrize(("layer", "name", "part"), OBSERVING, ids=[f"{layer}-{name}" for layer, name, _ in OBSERVING])
def test_a_bug_in_what_observes_changes_no_result_and_is_an_event(
    layer: str, name: str, part: Part, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's own answer comes out, every call was made once, and what was served is charged or still held."""
    attach()
    recorder = rr_lc.Recorder()
    guard = rr_lc.make_guard(sinks=[_boom, recorder] if part.silent else [recorder])
    break_part(part.places(guard), monkeypatch)

    told = ask(layer, mode, guard)
    guard.close()

    served = TURNS if layer in AGENTS else 1
    assert ("done", served) == (told.answer, told.served)
    spent, held = balance(guard)
    assert served * CENT == spent + held
    assert not part.settles or 0 == held
    if part.silent:
        assert guard.emit.failures > 0
    else:
        assert any(event.level == "error" or event.name == "runrails.run_lost" for event in recorder.events)
    assert "run_stopped" not in recorder.names()


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
@pytest.mark.parametrize("part", DECIDING)
@pytest.mark.parametrize("layer", [*AGENTS, *CLIENTS])
def test_a_bug_in_what_decides_refuses_the_call_and_is_no_exhausted_budget(
    layer: str, part: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own type and cause; nothing is sent, spent or held, and the run is not stopped."""
    attach()
    recorder = rr_lc.Recorder()
    guard = rr_lc.make_guard(sinks=[recorder])
    with monkeypatch.context() as patched:
        break_part([DECIDING[part](guard)], patched)
        with pytest.raises(GuardFault) as caught:
            ask(layer, mode, guard)

    assert isinstance(caught.value.__cause__, _Bug)
    assert not isinstance(caught.value, GuardrailStopped)
    assert (0, 0) == balance(guard)
    assert "call_refused" in recorder.names()
    assert "run_stopped" not in recorder.names()

    # Once it is mended, the same guard goes on.
    assert "done" == ask(layer, mode, guard).answer
    guard.close()
