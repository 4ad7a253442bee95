"""What the LangChain tests share: executors round a model that never gives up, and a record of all that starts."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable, RunnablePassthrough
from langchain_core.tools import BaseTool, tool
from langgraph.prebuilt import ToolNode

from runrails import Guard, Limits
from runrails.events import Event
from runrails.stores.memory import MemoryStore
from runrails.testing.langchain import ScriptedChatModel
from runrails.testing.prices import PRICES
from runrails.testing.provider.values import Text, ToolCalls, ToolUse

if os.environ.get("RUNRAILS_TESTS") != "oldest":  # with LangChain before 1.0 only the tests of the callback are run
    from langchain.agents import create_agent
    from langchain.agents.middleware import (
        ModelFallbackMiddleware,
        ModelRetryMiddleware,
        ToolRetryMiddleware,
        wrap_tool_call,
    )
    from langchain_classic.agents import AgentExecutor
    from langchain_classic.agents.format_scratchpad.tools import format_to_tool_messages
    from langchain_classic.agents.output_parsers.tools import ToolsAgentOutputParser

MODES = ("invoke", "stream", "batch", "ainvoke", "astream", "abatch", "astream_events")
CALLS_MAX = 40
"""After so many model calls a scenario gives up, so that a test that finds no stop ends by itself."""
REWORDINGS = ("Let me try that again.", "Perhaps it works now.", "One more attempt.", "Strange, once more then.")


@dataclass
class Starts:
    """Everything that starts, in order and from any thread, and what of it started when the run was already stopped."""

    order: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    stopped: Callable[[], bool] = lambda: False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, what: str) -> None:
        """Note a start."""
        with self._lock:
            self.order.append(what)
            if self.stopped():
                self.late.append(what)

    @property
    def executions(self) -> Counter[str]:
        """How often each tool call was executed."""
        return Counter(what for what in self.order if what != "model")

    @property
    def models(self) -> int:
        """How many model calls were paid."""
        return self.order.count("model")

    @property
    def models_after_last_tool(self) -> int:
        """How many model calls came after the last execution."""
        return len(list(itertools.takewhile(lambda what: what == "model", reversed(self.order))))


def make_guard(limits: Limits | None = None, **options: Any) -> Guard:
    """A guard at the default limits on a store of its own that tells nobody."""
    options.setdefault("sinks", ())
    options.setdefault("store", MemoryStore())
    return Guard(limits, prices=options.pop("prices", PRICES), **options)


class Recorder:
    """A sink."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def names(self) -> list[str]:
        """Names of the events so far, without the common prefix."""
        return [event.name.removeprefix("runrails.") for event in self.events]


def stubborn(starts: Starts, *calls: tuple[str, str], model_name: str = "fake-flat") -> ScriptedChatModel:
    """A model that asks for the same tools again and again, each time in other words."""

    def answer(messages: Sequence[BaseMessage]) -> ToolCalls | Text:
        starts.add("model")
        turn = starts.models
        if turn > CALLS_MAX:
            return Text("I could not do it.")
        uses = [ToolUse(name, {"text": text}) for name, text in calls]
        return ToolCalls(uses, text=REWORDINGS[turn % len(REWORDINGS)])

    return ScriptedChatModel(answer, model_name=model_name, max_tokens=100)


def stubborn_with(starts: Starts, *uses: ToolUse) -> ScriptedChatModel:
    """A model that makes the very same calls again and again."""

    def answer(_: Sequence[BaseMessage]) -> ToolCalls | Text:
        starts.add("model")
        return Text("I could not do it.") if starts.models > CALLS_MAX else ToolCalls(list(uses))

    return ScriptedChatModel(answer, model_name="fake-flat", max_tokens=100)


def fails_softly(starts: Starts) -> BaseTool:
    """The founding story's tool: it raises nothing, it only has no result."""

    @tool
    def classify(text: str) -> str:
        """Classify a review."""
        starts.add(f"classify {text}")
        return "no result"

    return classify


def raises(starts: Starts) -> BaseTool:
    """A tool that raises the same error each time."""

    @tool
    def classify(text: str) -> str:
        """Classify a review."""
        starts.add(f"classify {text}")
        raise OSError("the service is down")

    return classify


ONE = (("classify", "a"),)
THREE = (("classify", "a"), ("classify", "b"), ("classify", "c"))
UNKNOWN = (("clasify_reviw", "a"),)


def agent_plain(starts: Starts) -> Runnable[Any, Any]:
    """create_agent as it comes."""
    return create_agent(stubborn(starts, *ONE), [fails_softly(starts)])


def agent_parallel(starts: Starts) -> Runnable[Any, Any]:
    """Three failing calls in each answer."""
    return create_agent(stubborn(starts, *THREE), [fails_softly(starts)])


def agent_unknown(starts: Starts) -> Runnable[Any, Any]:
    """A tool that does not exist: LangChain tells no callback about it."""
    return create_agent(stubborn(starts, *UNKNOWN), [fails_softly(starts)])


def agent_model_retry(starts: Starts) -> Runnable[Any, Any]:
    """A middleware that calls the model again after any error, and answers in its place in the end."""
    middleware = [ModelRetryMiddleware(max_retries=4, initial_delay=0, jitter=False)]
    return create_agent(stubborn(starts, *ONE), [fails_softly(starts)], middleware=middleware)


def agent_model_fallback(starts: Starts) -> Runnable[Any, Any]:
    """A middleware that calls another model after any error."""
    other = stubborn(starts, *ONE)
    return create_agent(
        stubborn(starts, *ONE), [fails_softly(starts)], middleware=[ModelFallbackMiddleware(other, other)]
    )


def agent_tool_retry(starts: Starts) -> Runnable[Any, Any]:
    """A middleware that runs a failed tool again, five times for each call the model asks for."""
    middleware = [ToolRetryMiddleware(max_retries=4, initial_delay=0, jitter=False)]
    return create_agent(stubborn(starts, *ONE), [raises(starts)], middleware=middleware)


def forgiving() -> Any:
    """A user's middleware that makes every error of a tool a message for the model."""

    def sorry(request: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(request)
        except Exception:
            return ToolMessage("sorry", tool_call_id=request.tool_call["id"], name=request.tool_call["name"])

    return wrap_tool_call(sorry)


def _react(model: Any, tools: Any) -> Runnable[Any, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from langgraph.prebuilt import create_react_agent

        return create_react_agent(model, tools)


def react_plain(starts: Starts) -> Runnable[Any, Any]:
    """create_react_agent as it comes."""
    return _react(stubborn(starts, *ONE), [fails_softly(starts)])


def react_parallel(starts: Starts) -> Runnable[Any, Any]:
    """Three failing calls in each answer."""
    return _react(stubborn(starts, *THREE), [fails_softly(starts)])


def react_unknown(starts: Starts) -> Runnable[Any, Any]:
    """A tool that does not exist."""
    return _react(stubborn(starts, *UNKNOWN), [fails_softly(starts)])


def react_handles_errors(starts: Starts) -> Runnable[Any, Any]:
    """A tool node that turns every exception into a message for the model, a guard's too."""
    return _react(stubborn(starts, *ONE), ToolNode([raises(starts)], handle_tool_errors=True))


def react_with_retry(starts: Starts) -> Runnable[Any, Any]:
    """The model retries five times after any error."""
    node = fails_softly(starts)
    model = stubborn(starts, *ONE).bind_tools([node]).with_retry(stop_after_attempt=5, wait_exponential_jitter=False)
    return _react(lambda _state, _runtime: model, [node])


def react_with_fallbacks(starts: Starts) -> Runnable[Any, Any]:
    """Another model answers after any error."""
    node = fails_softly(starts)
    other = stubborn(starts, *ONE).bind_tools([node])
    model = stubborn(starts, *ONE).bind_tools([node]).with_fallbacks([other])
    return _react(lambda _state, _runtime: model, [node])


def executor(model: Runnable[Any, Any], tools: Sequence[BaseTool]) -> Runnable[Any, Any]:
    """The classic AgentExecutor round a model."""
    prompt = ChatPromptTemplate.from_messages(
        [("system", "Classify."), ("human", "{input}"), MessagesPlaceholder("agent_scratchpad")]
    )
    steps = RunnablePassthrough.assign(agent_scratchpad=lambda x: format_to_tool_messages(x["intermediate_steps"]))
    agent: Any = steps | prompt | model | ToolsAgentOutputParser()
    return AgentExecutor(agent=agent, tools=tools)


def classic_plain(starts: Starts) -> Runnable[Any, Any]:
    """The classic AgentExecutor."""
    node = fails_softly(starts)
    return executor(stubborn(starts, *ONE).bind_tools([node]), [node])


def classic_parallel(starts: Starts) -> Runnable[Any, Any]:
    """Three failing calls in each answer, executed one by one."""
    node = fails_softly(starts)
    return executor(stubborn(starts, *THREE).bind_tools([node]), [node])


def classic_unknown(starts: Starts) -> Runnable[Any, Any]:
    """A tool that does not exist; this executor runs a tool of its own that says so."""
    node = fails_softly(starts)
    return executor(stubborn(starts, *UNKNOWN).bind_tools([node]), [node])


def classic_with_retry(starts: Starts) -> Runnable[Any, Any]:
    """The model retries five times after any error."""
    node = fails_softly(starts)
    model = stubborn(starts, *ONE).bind_tools([node])
    return executor(model.with_retry(stop_after_attempt=5, wait_exponential_jitter=False), [node])


def classic_with_fallbacks(starts: Starts) -> Runnable[Any, Any]:
    """Another model answers after any error."""
    node = fails_softly(starts)
    other = stubborn(starts, *ONE).bind_tools([node])
    return executor(stubborn(starts, *ONE).bind_tools([node]).with_fallbacks([other]), [node])


Scenario = Callable[[Starts], Runnable[Any, Any]]
SCENARIOS: tuple[Scenario, ...] = (
    agent_plain, agent_parallel, agent_unknown, agent_model_retry, agent_model_fallback, agent_tool_retry,
    react_plain, react_parallel, react_unknown, react_handles_errors, react_with_retry, react_with_fallbacks,
    classic_plain, classic_parallel, classic_unknown, classic_with_retry, classic_with_fallbacks,
)  # fmt: skip
"""Run in every mode."""


def question(scenario: Scenario, text: str = "Classify the reviews.") -> dict[str, Any]:
    """The input in the form the executor wants."""
    if scenario.__name__.startswith("classic"):
        return {"input": text}
    return {"messages": [HumanMessage(text)]}


def drive(mode: str, executor: Runnable[Any, Any], inputs: Any, config: Any = None, *, items: int = 1) -> None:
    """
    Run an executor to its end in one of the seven modes.

    `items` is how many equal inputs a batch gets, one after the other; LangChain makes a plain call of a batch of one.
    """
    if items > 1:
        config = {**(config or {}), "max_concurrency": 1}
    if mode == "invoke":
        executor.invoke(inputs, config)
    elif mode == "stream":
        for _ in executor.stream(inputs, config):
            pass
    elif mode == "batch":
        executor.batch([inputs] * items, config)
    else:
        asyncio.run(_adrive(mode, executor, inputs, config, items))


async def _adrive(mode: str, executor: Runnable[Any, Any], inputs: Any, config: Any, items: int) -> None:
    if mode == "ainvoke":
        await executor.ainvoke(inputs, config)
    elif mode == "astream":
        async for _ in executor.astream(inputs, config):
            pass
    elif mode == "abatch":
        await executor.abatch([inputs] * items, config)
    else:
        async for _ in executor.astream_events(inputs, config, version="v2"):
            pass


def load_all() -> None:
    """Call an agent in every way: what is loaded with the first call takes no part of the time that a test gives it."""
    from langgraph.checkpoint.memory import InMemorySaver

    from runrails_langchain import GuardrailMiddleware

    script = [ToolCalls([ToolUse("node", {"text": "x"})], text="On it."), Text("Finished.")]

    @tool
    def node(text: str) -> str:
        """Do it."""
        return text

    asked = {"messages": [HumanMessage("go")]}
    with make_guard(Limits(seconds=3_600)) as guard:
        for mode in ("invoke", "stream", "ainvoke"):
            model = ScriptedChatModel(script, model_name="fake-flat", max_tokens=100)
            layers = [GuardrailMiddleware(guard)]
            agent: Any = create_agent(model, [node], middleware=layers, checkpointer=InMemorySaver())
            supervisor, thread = guard.supervise(agent), {"configurable": {"thread_id": mode}}
            if mode == "stream":
                list(supervisor.stream(asked, thread))
            elif mode == "invoke":
                supervisor.invoke(asked, thread)
            else:
                asyncio.run(supervisor.ainvoke(asked, thread))


async def cancel_in_flight(model: ScriptedChatModel, call: Coroutine[object, object, object]) -> None:
    """Cancel a call once the model has begun to work on it, not sooner, however slow the machine is."""
    before = model.calls
    task = asyncio.ensure_future(call)
    while model.calls == before and not task.done():  # noqa: ASYNC110 -- the model tells no one when it begins
        await asyncio.sleep(0.001)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
