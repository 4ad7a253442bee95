"""Every kind of tool behind our copy of it: results, errors and effects as of the tool itself, wherever it works."""

from __future__ import annotations

import asyncio
import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import BaseTool, InjectedToolCallId, StructuredTool, Tool, ToolException, tool
from langchain_core.tools.retriever import create_retriever_tool
from langgraph.errors import GraphBubbleUp, GraphInterrupt
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode, ToolRuntime
from langgraph.types import Command
from pydantic import BaseModel, Field, PrivateAttr

import rr_lc
from rr_lc import Starts, Text, ToolCalls, ToolUse
from runrails import Limits
from runrails.loops.explain import MARK
from runrails.testing.langchain import ScriptedChatModel
from runrails_langchain import guard_tools

ARGS = {"text": "x"}


class Schema(BaseModel):
    text: str = Field(description="What to look at.")
    often: int = 1


class Own(BaseTool):
    """A class of its own, with a private part."""

    name: str = "own"
    description: str = "Own."
    _said: list[str] = PrivateAttr(default_factory=list)

    def _run(self, text: str) -> str:
        self._said.append(text)
        return f"{text} {self._said[0]}"

    async def _arun(self, text: str) -> str:
        self._said.append(text)
        return f"{text} later {self._said[0]}"


class Shelf(BaseRetriever):
    """Finds what it is asked for."""

    def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        return [Document(page_content=f"about {query}", metadata={"page": 1})]


def plain() -> BaseTool:
    @tool
    def plain(text: str) -> str:
        """Plain."""
        return f"{text}!"

    return plain


def structured() -> BaseTool:
    async def later(text: str, often: int = 1) -> str:
        await asyncio.sleep(0)
        return f"later {text * often}"

    return StructuredTool.from_function(
        lambda text, often=1: text * often, later, name="structured", description="S.", args_schema=Schema
    )


def only_async() -> BaseTool:
    @tool
    async def only_async(text: str) -> str:
        """Only async."""
        await asyncio.sleep(0)
        return f"{text}?"

    return only_async


def with_artifact() -> BaseTool:
    @tool(response_format="content_and_artifact")
    def with_artifact(text: str) -> tuple[list[dict[str, str]], object]:
        """With an artifact."""
        return [{"type": "text", "text": text}], {"raw": text}

    return with_artifact


def direct() -> BaseTool:
    @tool(return_direct=True)
    def direct(text: str) -> str:
        """Direct."""
        return f"{text}."

    return direct


def raising(handle: Any = False) -> BaseTool:
    @tool
    def raising(text: str) -> str:
        """Raise."""
        raise ToolException(f"no {text}")

    raising.handle_tool_error = handle
    return raising


def breaking() -> BaseTool:
    @tool
    def breaking(text: str) -> str:
        """Break."""
        raise ZeroDivisionError(text)

    return breaking


def commanding() -> BaseTool:
    @tool
    def commanding(text: str, call: Annotated[str, InjectedToolCallId]) -> Command[Any]:
        """Command."""
        return Command(update={"messages": [ToolMessage(text, tool_call_id=call)], "seen": text})

    return commanding


def dicts() -> BaseTool:
    return StructuredTool.from_function(
        lambda **given: {"got": given}, name="dicts", description="D.",
        args_schema={"type": "object", "properties": {"text": {"type": "string"}}},
    )  # fmt: skip


def strict() -> BaseTool:
    made = structured()
    made.name, made.handle_validation_error = "strict", lambda error: f"{error.error_count()} wrong"
    made.args_schema = type("Strict", (Schema,), {"__annotations__": {"missing": int}})
    return made


ZOO: dict[str, Any] = {
    "plain": plain, "structured": structured, "only async": only_async, "artifact": with_artifact, "direct": direct,
    "raising": raising, "handled": lambda: raising(True), "handled as text": lambda: raising("sorry"),
    "handled by a function": lambda: raising(lambda error: f"because: {error}"), "breaking": breaking,
    "commanding": commanding, "dicts": dicts, "strict": strict, "own": Own,
    "retriever": lambda: create_retriever_tool(Shelf(), "shelf", "Find."),
    "one input": lambda: Tool("one", lambda text: text.upper(), "One."),
}  # fmt: skip


def arguments(one: BaseTool) -> dict[str, Any]:
    return {"query": "x"} if one.name == "shelf" else {"__arg1": "x"} if one.name == "one" else dict(ARGS)


def call_of(one: BaseTool) -> dict[str, Any]:
    return {"name": one.name, "args": arguments(one), "id": "c1", "type": "tool_call"}


class Started(BaseCallbackHandler):
    """Counts the calls of tools that began: of a batch whose first has failed, the second may have begun or not."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.calls = 0

    def on_tool_start(self, *_: Any, **__: Any) -> None:
        with self.lock:
            self.calls += 1


STARTED = Started()
WAYS: dict[str, Any] = {
    "invoke": lambda one: one.invoke(arguments(one)),
    "ainvoke": lambda one: asyncio.run(one.ainvoke(arguments(one))),
    "call": lambda one: one.invoke(call_of(one), {"tags": ["t"], "metadata": {"m": 1}}),
    "acall": lambda one: asyncio.run(one.ainvoke(call_of(one))),
    "run": lambda one: one.run(arguments(one), False, "green", "blue", []),
    "batch": lambda one: one.batch([arguments(one)] * 2, {"callbacks": [STARTED]}),
    "stream": lambda one: list(one.stream(arguments(one))),
}


def looping(model: Any, node: ToolNode) -> Any:
    """A graph that goes from its model to its tools and back for ever."""
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", node)
    graph.add_edge(START, "model")
    graph.add_edge("model", "tools")
    graph.add_edge("tools", "model")
    return graph.compile()


def outcome(way: str, one: BaseTool) -> tuple[str, str]:
    """What comes of it, as can be compared: a value, or an error."""
    try:
        return "gave", repr(WAYS[way](one))
    except Exception as exc:
        return type(exc).__name__, str(exc)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ZOO)
def test_it_does_what_the_tool_does(kind: str, way: str) -> None:
    """Outside of a run, inside one, wrapped twice, by another guard too, and as a copy of the copy."""
    with rr_lc.make_guard() as guard, rr_lc.make_guard() as other:
        expected = outcome(way, ZOO[kind]())

        assert expected == outcome(way, *guard_tools(guard, [ZOO[kind]()]))
        made = {
            "once": guard_tools(guard, [ZOO[kind]()])[0],
            "twice": guard_tools(guard, guard_tools(guard, [ZOO[kind]()]))[0],
            "two guards": guard_tools(other, guard_tools(guard, [ZOO[kind]()]))[0],
            "a copy": copy.deepcopy(guard_tools(guard, [ZOO[kind]()])[0]),
            "a pydantic copy": guard_tools(guard, [ZOO[kind]()])[0].model_copy(deep=True),
        }
        for how, one in made.items():
            before = STARTED.calls
            with guard.run() as run:
                assert expected == outcome(way, one), how
            began = STARTED.calls - before if way == "batch" else 1
            assert began == 2 or expected[0] != "gave" or way != "batch"
            assert began == run.report().tool_calls, how
            assert run.stopped is None


@pytest.mark.parametrize("kind", ZOO)
def test_the_tool_itself_stays_as_it_was(kind: str) -> None:
    """Supervised, called to its stop, and after that: neither its fields nor what a model is told of it change."""
    one = ZOO[kind]()
    schema, before = one.tool_call_schema, dict(vars(one))
    with rr_lc.make_guard(Limits(steps=20)) as guard:
        model = rr_lc.stubborn_with(Starts(), ToolUse(one.name, arguments(one)))
        agent = looping(model, ToolNode([one], handle_tool_errors=True))
        guard.supervise(agent).invoke({"messages": [HumanMessage("Go.")]}, {"recursion_limit": 30})
        assert before == {name: value for name, value in vars(one).items() if name in before}
        assert schema == one.tool_call_schema
        # And neither is the agent that others use unsupervised.
        assert one is agent.nodes["tools"].bound.tools_by_name[one.name]
        assert "run" not in vars(one)


def test_an_agent_unsupervised_stays_unguarded_while_it_is_supervised_elsewhere() -> None:
    """Two threads, one agent: one is supervised and blocked, the other runs all of its calls, whoever ends first."""
    starts, turn = Starts(), threading.Barrier(2)

    @tool
    def classify(text: str) -> str:
        """Classify a review."""
        starts.add(f"classify {text}")
        if text == "free":
            turn.wait(60) if starts.executions["classify free"] in (1, 9) else None
        return "no result"

    def answer(messages: Any) -> Any:
        done = sum(isinstance(message, ToolMessage) for message in messages)
        return Text("Done.") if done >= 12 else ToolCalls([ToolUse("classify", {"text": messages[0].text})])

    agent = create_agent(ScriptedChatModel(answer, model_name="fake-flat", max_tokens=50), [classify])

    def supervised() -> Any:
        turn.wait(60)
        found = guard.supervise(agent).invoke({"messages": [HumanMessage("guarded")]})
        turn.wait(60)
        return found

    with rr_lc.make_guard() as guard, ThreadPoolExecutor(2) as pool:
        bound = pool.submit(supervised)
        free = pool.submit(agent.invoke, {"messages": [HumanMessage("free")]}, {"recursion_limit": 100})
        assert "loop_detected" == bound.result().stop_reason
        results = [message.text for message in free.result()["messages"] if isinstance(message, ToolMessage)]
    assert ["no result"] * 12 == results
    assert {"classify guarded": 4, "classify free": 12} == starts.executions


def test_supervised_runs_that_overlap_are_counted_apart() -> None:
    """One supervisor, eight threads, one tool: each run has its own four executions and its own stop."""
    starts = Starts()
    node = rr_lc.fails_softly(starts)

    def answer(messages: Any) -> Any:
        return ToolCalls([ToolUse("classify", {"text": messages[0].text})])

    agent = create_agent(ScriptedChatModel(answer, model_name="fake-flat", max_tokens=50), [node])
    with rr_lc.make_guard() as guard, ThreadPoolExecutor(8) as pool:
        supervisor = guard.supervise(agent)
        asked = [{"messages": [HumanMessage(f"item {n}")]} for n in range(8)]
        outcomes = list(pool.map(supervisor.invoke, asked))
        assert ["loop_detected"] * 8 == [found.stop_reason for found in outcomes]
    assert {f"classify item {n}": 4 for n in range(8)} == starts.executions


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
@pytest.mark.parametrize("error", [GraphInterrupt, GraphBubbleUp, KeyboardInterrupt, SystemExit])
def test_what_a_tool_raises_to_leave_leaves(error: type[BaseException], mode: str) -> None:
    """LangGraph's control flow and the interpreter's own pass through, count as no failure and leave nothing behind."""

    @tool
    def leave(text: str) -> str:
        """Leave."""
        raise error()

    with rr_lc.make_guard() as guard:
        (guarded,) = guard_tools(guard, [leave])
        with guard.run() as run:
            for _ in range(8 if issubclass(error, Exception) else 1):
                with pytest.raises(error):
                    guarded.invoke(ARGS) if mode == "invoke" else asyncio.run(guarded.ainvoke(ARGS))
            assert (None, 0) == (run.stopped, run.report().hints)


def test_what_is_given_to_the_user_as_it_is_gets_no_hint_as_a_message_either() -> None:
    """In an agent, whose tools answer with messages."""
    starts = Starts()

    @tool(return_direct=True)
    def classify(text: str) -> str:
        """Classify a review."""
        starts.add("classify")
        return "no result"

    agent = create_agent(rr_lc.stubborn_with(Starts(), ToolUse("classify", ARGS)), [classify])
    with rr_lc.make_guard() as guard, guard.run():
        supervisor = guard.supervise(agent)
        answers = [supervisor.invoke({"messages": [HumanMessage("Go.")]}).answer for _ in range(4)]
    with rr_lc.make_guard() as guard:
        (guarded,) = guard_tools(guard, [classify])
        with guard.run():
            told = [guarded.invoke({**call_of(classify), "id": str(n)}).content for n in range(4)]
    assert (["no result"] * 4, ["no result"] * 4) == (answers, told)


class Around:
    """Notes each call."""

    def __init__(self, inner: Any, seen: list[str]) -> None:
        self.inner = inner
        self.seen = seen

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.seen.append("func")
        return self.inner(*args, **kwargs)


class Logged(ToolNode):
    """A user's subclass that puts something around what its node does."""

    def __init__(self, tools: Any, seen: list[str], *, around: bool) -> None:
        super().__init__(tools, handle_tool_errors=True)
        self.seen = seen
        if around:
            self.func = Around(self.func, seen)

    def _run_one(self, *args: Any, **kwargs: Any) -> Any:
        self.seen.append("one")
        return super()._run_one(*args, **kwargs)


@pytest.mark.parametrize("around", [False, True])
def test_a_users_tool_node_keeps_what_it_adds(around: bool) -> None:
    """Methods of a subclass and what it has put around the node are called for every call, as without a guard."""
    starts, seen = Starts(), list[str]()
    model = rr_lc.stubborn(starts, *rr_lc.ONE)
    agent = looping(model, Logged([rr_lc.fails_softly(starts)], seen, around=around))
    with rr_lc.make_guard() as guard:
        found = guard.supervise(agent).invoke({"messages": [HumanMessage("Go.")]}, {"recursion_limit": 60})
    assert "loop_detected" == found.stop_reason
    assert starts.executions["classify a"] <= 5
    assert seen.count("one") >= starts.executions["classify a"]
    assert (seen.count("func") >= starts.executions["classify a"]) == around


@pytest.mark.parametrize("handler", [True, lambda error: f"sorry: {error}"], ids=["LangGraph's", "of its user's"])
def test_what_is_injected_makes_no_call_look_new_to_a_supervisor(handler: Any) -> None:
    """State, runtime and the call's id come with every call and differ; also where a node has its own error handler."""
    starts = Starts()

    @tool
    def lookup(
        q: str, state: Annotated[dict[str, Any], InjectedState], runtime: ToolRuntime,
        call: Annotated[str, InjectedToolCallId],
    ) -> str:  # fmt: skip
        """Look something up."""
        starts.add(f"lookup {q} {bool(state)} {runtime.tool_call_id == call}")
        return "no result"

    agent = looping(
        rr_lc.stubborn_with(starts, ToolUse("lookup", {"q": "x"})), ToolNode([lookup], handle_tool_errors=handler)
    )
    with rr_lc.make_guard() as guard:
        found = guard.supervise(agent).invoke({"messages": [HumanMessage("Go.")]}, {"recursion_limit": 60})
    assert ("loop_detected", {"lookup x True True": 4}) == (found.stop_reason, starts.executions)


@pytest.mark.parametrize("own", [False, True], ids=["another tool", "itself"])
def test_tools_that_call_guarded_tools_are_calls_of_their_own(own: bool) -> None:
    """What a tool calls inside is asked for as well, counted once, and blocked on its own account."""
    starts = Starts()

    @tool
    def inner(text: str) -> str:
        """Look something up."""
        starts.add("inner")
        return "no result"

    @tool
    def outer(text: str) -> str:
        """Look up, by calling another."""
        starts.add(f"outer {text}")
        if own:
            return str(tools[0].invoke({"text": "deep"})) if text != "deep" else "no result"
        return f"{text}: {tools[1].invoke({'text': 'deep'})}"

    with rr_lc.make_guard() as guard:
        tools = guard_tools(guard, [outer, inner])
        with guard.run() as run:
            results = [str(tools[0].invoke({"text": f"t{n}"})) for n in range(7)]
        assert any(MARK in result for result in results)
    deep = starts.executions["outer deep" if own else "inner"]
    assert deep <= 5
    assert run.report().tool_calls == sum(starts.executions.values())


def test_a_message_with_blocks_keeps_them_and_its_artifact_under_a_hint() -> None:
    """A hint is put behind what the tool has said; artifact, status and the original message stay."""
    made: list[Any] = []

    @tool(response_format="content_and_artifact")
    def look(text: str) -> tuple[list[dict[str, str]], object]:
        """Look."""
        made.append(([{"type": "text", "text": "no result"}], {"raw": text}))
        return made[-1]

    with rr_lc.make_guard() as guard:
        (guarded,) = guard_tools(guard, [look])
        with guard.run(limits=Limits()):
            results = [guarded.invoke({**call_of(look), "id": str(n)}) for n in range(4)]
    assert [1, 1, 2, 1] == [len(result.content) for result in results]
    assert MARK in results[2].text
    assert [{"raw": "x"}] * 4 == [result.artifact for result in results]
    assert all(len(content) == 1 for content, _ in made)
