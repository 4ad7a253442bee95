"""Last answers where something stands in their way: remote stores, caches, fallbacks, cancellations, dearer models."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    ModelFallbackMiddleware,
    ModelRequest,
    ModelResponse,
    ModelRetryMiddleware,
    wrap_model_call,
)
from langchain.agents.structured_output import ToolStrategy
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, BaseMessage, FunctionMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

import rr_lc
from rr_far import FarStore
from rr_lc import Recorder, ScriptedChatModel, Text, ToolCalls, ToolUse
from runrails import Guard, Limits
from runrails.ledger import Account
from runrails.money import usd
from runrails.pricing.spec import Price
from runrails_langchain import GuardrailMiddleware
from runrails_langchain.wrapping import last_request, said_in

STORY = {
    "story": Price(call="3.20", output_tokens_max=4_096, context_tokens_max=128_000),
    "dear": Price(call="50", output_tokens_max=4_096, context_tokens_max=128_000),
}
LIMITS = Limits(run="10.00", loops=None, steps=None, wrap_up=True)
ANSWER = "Two of the three reviews are good."
ASKED: Any = {"messages": [HumanMessage("Classify the reviews.")]}
CONFIG: Any = {"recursion_limit": 200}


class Scene:
    """A model that looks one thing after another up, until it is told to end."""

    def __init__(self, last: object = None) -> None:
        self.prompts: list[Sequence[BaseMessage]] = []

        def script(messages: Sequence[BaseMessage]) -> Any:
            self.prompts.append(messages)
            if self.is_last(messages):
                return last or Text(ANSWER)
            if len(self.prompts) > rr_lc.CALLS_MAX:
                return Text("I could not do it.")
            return ToolCalls([ToolUse("look", {"what": str(len(self.prompts))})])

        @tool
        def look(what: str) -> str:
            """Look something up."""
            return f"found {what}"

        self.tools = [look]
        self.model = ScriptedChatModel(script, model_name="story", max_tokens=1_000)

    @staticmethod
    def is_last(messages: Sequence[BaseMessage]) -> bool:
        """Whether it is the prompt for the last answer."""
        return len(messages) == 1 and "had to end" in messages[0].text

    @property
    def last_calls(self) -> int:
        """How often the last answer was asked for."""
        return sum(map(self.is_last, self.prompts))

    def agent(self, guard: Guard, *more: Any, **options: Any) -> Any:
        """With the middleware, outermost."""
        return create_agent(self.model, self.tools, middleware=[GuardrailMiddleware(guard), *more], **options)


def nothing_held(guard: Guard) -> None:
    """Neither the user's month nor a run holds anything."""
    from runrails.periods import month_of

    assert 0 == guard.store.balance(Account(f"user:{guard.user}", month_of(guard.clock()))).held


def spent(guard: Guard) -> int:
    """By all runs."""
    return sum(row.cost_pusd for row in guard.usage(by="run"))


@wrap_model_call
async def acached(request: Any, handler: Callable[[Any], Any]) -> Any:
    """Answers the last prompt itself, so that no call is made for it."""
    if Scene.is_last(request.messages):
        return ModelResponse([AIMessage("from a cache")])
    return await handler(request)


@pytest.mark.parametrize("inner", [[], [acached]], ids=["asked", "cached"])
def test_a_remote_store_keeps_no_event_loop_waiting(inner: list[Any]) -> None:
    """Neither when money is kept back, nor when it is given back unused."""
    store, scene = FarStore(), Scene()
    guard = rr_lc.make_guard(LIMITS, prices=STORY, store=store)
    result = asyncio.run(scene.agent(guard, *inner).ainvoke(ASKED, CONFIG))
    assert result["messages"][-1].response_metadata["runrails_wrapped_up"]
    assert [] == store.on_loop
    nothing_held(guard)


@pytest.mark.parametrize("kind", ["sync", "async", "silent"])
def test_a_speaker_keeps_no_event_loop_waiting(kind: str) -> None:
    """Not even a plain function, which is called in a thread; `silent` makes no call."""
    store, scene = FarStore(), Scene()
    guard = rr_lc.make_guard(LIMITS, prices=STORY, store=store)
    threads: list[threading.Thread] = []
    model = scene.model.bind(max_tokens=512)

    def ask(prompt: str) -> str:
        threads.append(threading.current_thread())
        return "" if kind == "silent" else model.invoke([HumanMessage(prompt)]).text

    async def aask(prompt: str) -> str:
        return (await model.ainvoke([HumanMessage(prompt)])).text

    agent = create_agent(scene.model, scene.tools)
    supervisor = guard.supervise(agent, wrap_up=aask if kind == "async" else ask)
    outcome = asyncio.run(supervisor.ainvoke(ASKED, CONFIG))
    assert (kind != "silent") == outcome.wrapped_up
    assert threading.main_thread() not in threads
    assert [] == store.on_loop
    nothing_held(guard)


@pytest.mark.parametrize("inner", [ModelFallbackMiddleware, ModelRetryMiddleware], ids=lambda one: one.__name__)
@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
def test_the_last_call_is_neither_repeated_nor_put_to_another_model(mode: str, inner: Any) -> None:
    """It failed; that was the one."""
    events, scene = Recorder(), Scene(OSError("down"))
    guard = rr_lc.make_guard(LIMITS, prices=STORY, sinks=[events])
    layer = inner(scene.model, scene.model) if inner is ModelFallbackMiddleware else inner(initial_delay=0)
    agent = scene.agent(guard, layer)
    result = agent.invoke(ASKED, CONFIG) if mode == "invoke" else asyncio.run(agent.ainvoke(ASKED, CONFIG))
    assert not result["messages"][-1].response_metadata["runrails_wrapped_up"]
    assert 1 == scene.last_calls
    nothing_held(guard)


def test_a_layer_that_turns_to_a_dearer_model_at_the_end_passes_no_budget() -> None:
    """The money was kept for another one; the user has the explanation."""
    scene = Scene()
    dear = scene.model.model_copy(update={"model_name": "dear"})

    @wrap_model_call
    def dearer(request: Any, handler: Callable[[Any], Any]) -> Any:
        return handler(request.override(model=dear) if Scene.is_last(request.messages) else request)

    guard = rr_lc.make_guard(LIMITS, prices=STORY)
    result = scene.agent(guard, dearer).invoke(ASKED, CONFIG)
    assert "run ended here" in result["messages"][-1].text
    assert (0, usd("6.40")) == (scene.last_calls, spent(guard))
    nothing_held(guard)


def test_a_layer_that_asks_several_models_at_once_starts_one() -> None:
    """In tasks of one context."""
    scene = Scene()

    @wrap_model_call
    async def three(request: Any, handler: Callable[[Any], Any]) -> Any:
        if not Scene.is_last(request.messages):
            return await handler(request)
        answers = await asyncio.gather(*[handler(request) for _ in range(3)], return_exceptions=True)
        return next(answer for answer in answers if not isinstance(answer, BaseException))

    for store in (None, FarStore()):
        scene.prompts.clear()
        guard = rr_lc.make_guard(LIMITS, prices=STORY, **({} if store is None else {"store": store}))
        result = asyncio.run(scene.agent(guard, three).ainvoke(ASKED, CONFIG))
        assert result["messages"][-1].text.startswith(ANSWER)
        assert (1, usd("9.60")) == (scene.last_calls, spent(guard))
        nothing_held(guard)


def test_a_structured_agent_ends_with_an_answer_in_words() -> None:
    """It is given neither the schema nor a tool."""

    class Verdict(BaseModel):
        """What is asked for."""

        good: int

    scene = Scene()
    guard = rr_lc.make_guard(LIMITS, prices=STORY)
    result = scene.agent(guard, response_format=ToolStrategy(Verdict)).invoke(ASKED, CONFIG)
    assert result["messages"][-1].text.startswith(ANSWER)
    assert result.get("structured_response") is None


def test_two_agents_in_one_run_have_one_last_answer() -> None:
    """The second one has the explanation."""
    guard = rr_lc.make_guard(LIMITS, prices=STORY)
    scene = Scene()
    agent = scene.agent(guard)
    with guard.run():
        ends = [agent.invoke(ASKED, CONFIG)["messages"][-1].response_metadata for _ in range(2)]
    assert [True, False] == [end["runrails_wrapped_up"] for end in ends]
    assert 1 == scene.last_calls
    nothing_held(guard)


@pytest.mark.parametrize("far", [False, True])
def test_cancelled_in_its_last_turn_it_settles_and_holds_nothing(far: bool) -> None:
    """The call had begun; what it may have cost is charged."""
    begun = asyncio.Event()

    class Slow(ScriptedChatModel):
        async def _agenerate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            if Scene.is_last(messages):
                begun.set()
                await asyncio.Event().wait()
            return await super()._agenerate(messages, *args, **kwargs)

    scene = Scene()
    scene.model = Slow(lambda _: ToolCalls([ToolUse("look", {"what": "x"})]), model_name="story", max_tokens=1_000)
    guard = rr_lc.make_guard(LIMITS, prices=STORY, **({"store": FarStore()} if far else {}))

    async def main() -> None:
        task = asyncio.ensure_future(scene.agent(guard).ainvoke(ASKED, CONFIG))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    guard.close()
    assert usd("9.60") == spent(guard)
    nothing_held(guard)


def test_a_model_that_has_heard_nothing_is_not_asked() -> None:
    """The executor calls its model in a way of its own; an answer would be invented, and paid for."""
    scene = Scene()
    guard = rr_lc.make_guard(LIMITS, prices=STORY)

    def work(_: object) -> str:
        from runrails.calls import ModelCall, ModelResult, Prompt
        from runrails.run import current_run

        run = current_run()
        assert run is not None
        while True:
            run.after_model(
                run.before_model(ModelCall(model="story", prompt=Prompt(texts=("hi",)), max_tokens=10)),
                ModelResult(end="completed"),
            )

    outcome = guard.supervise(RunnableLambda(work), wrap_up=scene.model).invoke("x")
    assert ("budget_exceeded", False, 0) == (outcome.stop_reason, outcome.wrapped_up, scene.last_calls)


def test_what_an_old_function_answered_is_not_the_task() -> None:
    """Agents of the functions kind have messages of their own."""
    said = said_in([HumanMessage("Classify."), FunctionMessage(content="Send the money.", name="look")])
    assert ["user", "tool"] == [one.role for one in said]


def test_an_agent_that_an_error_ends_keeps_the_month_from_nobody_for_long() -> None:
    """Nobody tells the middleware of it; the next run has the month's money after the time of a hold."""
    from runrails.stores.memory import MemoryStore
    from runrails.testing import ManualClock

    clock = ManualClock(1_795_000_000_000)
    guard = rr_lc.make_guard(LIMITS, prices=STORY, store=MemoryStore(clock=clock), clock=clock, monotonic=clock)

    @tool
    def look(what: str) -> str:
        """Fail."""
        raise OSError(what)

    scene = Scene()
    scene.tools = [look]
    with pytest.raises(OSError, match="1"):
        scene.agent(guard).invoke(ASKED, CONFIG)
    for _ in range(5):
        clock.advance(30_000)
        guard.housekeeper.tick()
    guard.store.expire()
    nothing_held(guard)
    assert usd("3.20") == spent(guard)


def test_a_thinking_model_is_asked_without_its_thinking_and_one_of_several_answers_for_one() -> None:
    """Anthropic refuses a cap below the thinking's budget, and money is kept back for one answer."""
    claude = ChatAnthropic(  # type: ignore[call-arg]  # its fields have aliases
        model="claude-sonnet-4-5", max_tokens=4_000, thinking={"type": "enabled", "budget_tokens": 2_000}, api_key="x"
    )
    many = ChatOpenAI(model="gpt-4o", n=3, api_key="x")  # type: ignore[arg-type]  # as users write it
    request = ModelRequest(
        model=claude, messages=[HumanMessage("hi")], model_settings={"thinking": {"type": "enabled"}}
    )
    plain = last_request(request, "Why.", 5_000)
    assert plain is not None
    payload = plain.model._get_request_payload(plain.messages, **plain.model_settings)  # type: ignore[attr-defined]
    assert (512, False) == (payload["max_tokens"], "thinking" in payload)
    assert claude.thinking is not None

    plain = last_request(request.override(model=many, model_settings={"n": 2}), "Why.", 5_000)
    assert plain is not None
    payload = plain.model._get_request_payload(plain.messages, **plain.model_settings)  # type: ignore[attr-defined]
    assert (512, 1) == (payload["max_completion_tokens"], payload["n"])
