"""The executors of the matrix, real ones: LangChain's, LangGraph's, and loops of one's own."""

from __future__ import annotations

import json
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rr_matrix import ASYNC, OLDEST, RAW
from rr_matrix_play import CARDS, MODEL, OTHER, Play

ATTEMPTS_MAX = 8
"""How often in a row a loop of one's own goes on after an error that it catches."""


def build(world: Play) -> Any:
    """The cell's executor: `question`, and what is called in each mode."""
    if world.cell.executor in RAW:
        return RawLoop(world)
    if world.cell.executor == "LangChain loop":
        return LangChainLoop(world)
    return Native(world, BUILDERS[world.cell.executor](world, outer=True))


class Native:
    """A runnable of LangChain's or LangGraph's."""

    def __init__(self, world: Play, runnable: Any) -> None:
        self._classic = world.cell.executor == "AgentExecutor"
        self.invoke, self.ainvoke = runnable.invoke, runnable.ainvoke
        self.stream, self.astream = runnable.stream, runnable.astream
        self._runnable = runnable

    def question(self, item: str) -> Any:
        """The input in the form it wants."""
        return {"input": item} if self._classic else {"messages": [("user", item)]}

    def face(self, mode: str) -> Any:
        """What is supervised."""
        return self._runnable

    def astream_events(self, asked: Any, config: Any) -> Any:
        """In the version that every supported LangChain has."""
        return self._runnable.astream_events(asked, config, version="v2")


# Models and tools.


def model(world: Play, name: str = MODEL) -> Any:
    """A model of LangChain's: in the process, or OpenAI's over the wrapped client."""
    if world.provider is None:
        from runrails.testing.langchain import ScriptedChatModel

        made: Any = ScriptedChatModel(by_request=world.answer, model_name=name, max_tokens=100, price=CARDS[name])
        world.models.append(made)
        return made
    from langchain_openai import ChatOpenAI

    in_task = world.cell.mode in ASYNC
    # Clients that are not needed are not made, which takes longer than the cell.
    sync = world.client("sync") if not in_task or world.cell.failure == "sub-agent" else None
    aio = world.client("async") if in_task else None
    return ChatOpenAI(
        model=name, api_key="k", max_tokens=100, stream_usage=True, max_retries=0,
        root_client=sync or _NO_CLIENT, client=sync.chat.completions if sync else _NO_CLIENT,
        root_async_client=aio or _NO_CLIENT, async_client=aio.chat.completions if aio else _NO_CLIENT,
    )  # type: ignore[call-arg,arg-type]  # fmt: skip


_NO_CLIENT = object()


TEXT: dict[str, Any] = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
"""What every tool takes; said here, since finding it out takes longer than a cell's work."""


def tools(world: Play, *, outer: bool) -> list[Any]:
    """`classify`, which fails as the cell says; and for the outer agent `delegate`."""
    from langchain_core.tools import ToolException, tool

    in_agent = world.cell.executor == "create_agent"
    raises = world.cell.failure == "catch-all" or (world.cell.failure == "retry" and in_agent)

    @tool(args_schema=TEXT)
    def classify(text: str) -> str:
        """Classify a review."""
        if raises:
            return world.classify(text)
        try:
            return world.classify(text)
        except OSError as exc:
            raise ToolException(str(exc)) from exc

    classify.handle_tool_error = not raises
    made: list[Any] = [classify]
    if world.cell.failure == "catch-all" and world.cell.executor == "AgentExecutor":
        made = [_careful(world)]
    if outer and world.cell.failure == "sub-agent":

        @tool(args_schema=TEXT)
        def delegate(text: str) -> str:
            """Ask two agents."""
            return delegated(world, text)

        made.append(delegate)
    return made


def _careful(world: Play) -> Any:
    """A tool that uses another one, come what may."""
    from langchain_core.tools import tool

    @tool
    def service(text: str) -> str:
        """Classify a review."""
        return world.classify(text)

    @tool
    def classify(text: str) -> str:
        """Classify a review, come what may."""
        world.log.add("tool", f"careful {text}")
        try:
            return str(service.invoke({"text": text}))
        except Exception:
            return "sorry"

    return classify


def delegated(world: Play, text: str) -> str:
    """What the tool of the same name does: two agents of the same kind in a thread pool."""
    world.log.add("tool", f"delegate {text}")
    if world.cell.executor in RAW:
        ask: Callable[[str], Any] = RawLoop(world, aio=False).invoke
    elif world.cell.executor == "LangChain loop":
        ask = LangChainLoop(world, outer=False).invoke
    else:
        inner = Native(world, BUILDERS[world.cell.executor](world, outer=False))
        ask = lambda item: inner.invoke(inner.question(item))  # noqa: E731 -- of one kind with the others
    with ThreadPoolExecutor(2) as pool:
        return str(list(pool.map(world.guard.bind(ask), [f"sub {text} {number}" for number in (1, 2)])))


def ready(world: Play, offered: list[Any], *, layered: bool = True) -> Any:
    """A model with tools, below the retry or fallback layer of the cell."""
    bound = model(world).bind_tools(offered)
    if layered and world.cell.failure == "retry":
        return bound.with_retry(stop_after_attempt=5, wait_exponential_jitter=False)
    if layered and world.cell.failure == "fallback":
        return bound.with_fallbacks([model(world, OTHER).bind_tools(offered)])
    return bound


# LangChain and LangGraph.


def agent(world: Play, *, outer: bool) -> Any:
    """`create_agent`, with the middleware of the cell; ours is the outermost."""
    from langchain.agents import create_agent
    from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware, ToolRetryMiddleware

    layers: list[Any] = []
    if outer and world.guarded and "middleware" in world.cell.parts:
        from runrails_langchain import GuardrailMiddleware

        layers.append(GuardrailMiddleware(world.guard))
    often: dict[str, Any] = {"max_retries": 4, "initial_delay": 0, "jitter": False}
    if world.cell.failure == "retry":
        layers += [ModelRetryMiddleware(**often), ToolRetryMiddleware(**often)]
    elif world.cell.failure == "fallback":
        layers.append(ModelFallbackMiddleware(model(world, OTHER)))
    elif world.cell.failure == "catch-all":
        layers += [_catch_all(aio=world.cell.mode in ASYNC), ToolRetryMiddleware(**often)]
    return create_agent(model(world), tools(world, outer=outer), middleware=layers)


def _catch_all(*, aio: bool) -> Any:
    """A user's own middleware, which is written for one kind of call."""
    from langchain.agents.middleware import wrap_tool_call
    from langchain_core.messages import ToolMessage

    def sorry(request: Any) -> ToolMessage:
        return ToolMessage("sorry", tool_call_id=request.tool_call["id"], name=request.tool_call["name"])

    def sync(request: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(request)
        except Exception:
            return sorry(request)

    async def asynchronous(request: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return await handler(request)
        except Exception:
            return sorry(request)

    return wrap_tool_call(asynchronous if aio else sync)


def react(world: Play, *, outer: bool) -> Any:
    """`create_react_agent`; its tool node handles every error where the cell has a catch-all."""
    from langchain_core.utils.function_calling import convert_to_openai_tool
    from langgraph.prebuilt import ToolNode

    offered = tools(world, outer=outer)
    # A binding that names the tools is taken as it is, whatever it binds.
    asked = ready(world, offered).bind(tools=[convert_to_openai_tool(one) for one in offered])
    node: Any = ToolNode(offered, handle_tool_errors=True) if world.cell.failure == "catch-all" else offered
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from langgraph.prebuilt import create_react_agent

        return create_react_agent(asked, node)


def graph(world: Play, *, outer: bool) -> Any:
    """A graph of one's own: a node for the model, which LangGraph may retry, and a ToolNode."""
    from langchain_core.runnables import RunnableLambda
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, tools_condition
    from langgraph.types import RetryPolicy

    offered = tools(world, outer=outer)
    asked = ready(world, offered, layered=world.cell.failure != "retry")

    def ask(state: Any) -> Any:
        return {"messages": [asked.invoke(state["messages"])]}

    async def aask(state: Any) -> Any:
        return {"messages": [await asked.ainvoke(state["messages"])]}

    made: Any = StateGraph(MessagesState)
    policy = RetryPolicy(max_attempts=4, initial_interval=0.0, jitter=False, retry_on=Exception)
    retried = {"retry_policy": policy} if world.cell.failure == "retry" else {}
    made.add_node("model", RunnableLambda(ask, aask), **retried)
    handles = {"handle_tool_errors": True} if world.cell.failure == "catch-all" else {}
    made.add_node("tools", ToolNode(offered, **handles))
    made.add_edge(START, "model")
    made.add_conditional_edges("model", tools_condition)
    made.add_edge("tools", "model")
    return made.compile()


def classic(world: Play, *, outer: bool) -> Any:
    """AgentExecutor."""
    if OLDEST:
        from langchain.agents import AgentExecutor
        from langchain.agents.format_scratchpad.tools import format_to_tool_messages
        from langchain.agents.output_parsers.tools import ToolsAgentOutputParser
    else:
        from langchain_classic.agents import AgentExecutor
        from langchain_classic.agents.format_scratchpad.tools import format_to_tool_messages
        from langchain_classic.agents.output_parsers.tools import ToolsAgentOutputParser
    from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
    from langchain_core.runnables import RunnablePassthrough

    prompt = ChatPromptTemplate.from_messages(
        [("system", "Classify."), ("human", "{input}"), MessagesPlaceholder("agent_scratchpad")]
    )
    steps = RunnablePassthrough.assign(agent_scratchpad=lambda x: format_to_tool_messages(x["intermediate_steps"]))
    offered = tools(world, outer=outer)
    chain: Any = steps | prompt | ready(world, offered) | ToolsAgentOutputParser()
    # LangChain's retry layer lets streams pass, so where it is needed the executor must not stream.
    return AgentExecutor(agent=chain, tools=offered, max_iterations=200, stream_runnable=world.cell.failure != "retry")


BUILDERS: dict[str, Callable[..., Any]] = {
    "create_agent": agent, "create_react_agent": react, "StateGraph": graph, "AgentExecutor": classic,
}  # fmt: skip


# Loops of one's own.


class Loop:
    """Ask the model, use the tools it asks for, ask again. Subclasses know how."""

    def __init__(self, world: Play) -> None:
        self.world = world
        self._catches = {"retry", "catch-all"}

    def question(self, item: str) -> str:
        """As it is."""
        return item

    def face(self, mode: str) -> Any:
        """The function that is supervised."""
        return {
            "invoke": self.invoke, "batch": self.invoke, "stream": self.stream, "ainvoke": self.ainvoke,
            "abatch": self.ainvoke, "astream": self.astream,
        }[mode]  # fmt: skip

    def invoke(self, item: str, config: Any = None) -> Any:
        """To its end."""
        return list(self.stream(item, config))[-1:]

    async def ainvoke(self, item: str, config: Any = None) -> Any:
        """To its end."""
        return [answer async for answer in self.astream(item, config)][-1:]

    def stream(self, item: str, config: Any = None) -> Iterator[Any]:
        """Answer by answer."""
        said = self.begin(item)
        failed = 0
        while failed < ATTEMPTS_MAX:
            try:
                answer = self.ask(said, config)
            except Exception:
                if self.world.cell.failure not in self._catches:
                    raise
                failed += 1
                continue
            failed = 0
            yield answer
            uses = self.uses(answer)
            if not uses:
                return
            self.answered(said, answer, [self.use(use, config) for use in uses])

    async def astream(self, item: str, config: Any = None) -> AsyncIterator[Any]:
        """Answer by answer."""
        said = self.begin(item)
        failed = 0
        while failed < ATTEMPTS_MAX:
            try:
                answer = await self.aask(said, config)
            except Exception:
                if self.world.cell.failure not in self._catches:
                    raise
                failed += 1
                continue
            failed = 0
            yield answer
            uses = self.uses(answer)
            if not uses:
                return
            self.answered(said, answer, [await self.ause(use, config) for use in uses])

    def astream_events(self, item: str, config: Any = None) -> AsyncIterator[Any]:
        """Only the model tells events."""
        return self.astream(item, config)


class LangChainLoop(Loop):
    """Over a model and tools of LangChain's."""

    def __init__(self, world: Play, *, outer: bool = True) -> None:
        super().__init__(world)
        offered = tools(world, outer=outer)
        self._tools = {one.name: one for one in offered}
        self._model = ready(world, offered, layered=world.cell.failure != "retry")

    def begin(self, item: str) -> list[Any]:
        """A conversation."""
        from langchain_core.messages import HumanMessage

        return [HumanMessage(item)]

    def ask(self, said: list[Any], config: Any) -> Any:
        """One answer."""
        if self.world.cell.mode != "stream":
            return self._model.invoke(said, config)
        whole = None
        for chunk in self._model.stream(said, config):
            whole = chunk if whole is None else whole + chunk
        return whole

    async def aask(self, said: list[Any], config: Any) -> Any:
        """One answer."""
        if self.world.cell.mode == "ainvoke":
            return await self._model.ainvoke(said, config)
        whole = None
        if self.world.cell.mode == "astream":
            async for chunk in self._model.astream(said, config):
                whole = chunk if whole is None else whole + chunk
            return whole
        async for event in self._model.astream_events(said, config, version="v2"):
            if event["event"] == "on_chat_model_end":
                whole = event["data"]["output"]
        return whole

    def uses(self, answer: Any) -> list[Any]:
        """The tool calls it asks for."""
        return list(answer.tool_calls)

    def use(self, call: Any, config: Any) -> Any:
        """A tool's result as a message."""
        return self._safely(call, lambda tool: tool.invoke({**call, "type": "tool_call"}, config))

    async def ause(self, call: Any, config: Any) -> Any:
        """A tool's result as a message."""
        tool = self._tools.get(call["name"])
        try:
            if tool is not None:
                return await tool.ainvoke({**call, "type": "tool_call"}, config)
        except Exception:
            if self.world.cell.failure != "catch-all":
                raise
        return self._safely(call, None)

    def answered(self, said: list[Any], answer: Any, results: list[Any]) -> None:
        """Go on with them."""
        said += [answer, *results]

    def _safely(self, call: Any, use: Callable[[Any], Any] | None) -> Any:
        from langchain_core.messages import ToolMessage

        tool = self._tools.get(call["name"])
        try:
            if tool is not None and use is not None:
                return use(tool)
        except Exception:
            if self.world.cell.failure != "catch-all":
                raise
        text = "no such tool" if tool is None else "sorry"
        return ToolMessage(text, tool_call_id=call["id"], name=call["name"], status="error")


class RawLoop(Loop):
    """Over a client of openai's or anthropic's SDK."""

    def __init__(self, world: Play, *, aio: bool | None = None) -> None:
        super().__init__(world)
        aio = world.cell.mode in ASYNC if aio is None else aio
        self._client = world.client("async" if aio else "sync")
        self._streams = "stream" in world.cell.mode
        self._anthropic = world.cell.executor == "Anthropic loop"

    def begin(self, item: str) -> list[Any]:
        """A conversation."""
        return [{"role": "user", "content": item}]

    def ask(self, said: list[Any], config: Any) -> Any:
        """One answer; with a fallback, another model's after any error."""
        try:
            with self.world.sending():
                return self._ask(said, MODEL)
        except Exception:
            if self.world.cell.failure != "fallback":
                raise
            with self.world.sending():
                return self._ask(said, OTHER)

    async def aask(self, said: list[Any], config: Any) -> Any:
        """As `ask`."""
        try:
            with self.world.sending():
                return await self._aask(said, MODEL)
        except Exception:
            if self.world.cell.failure != "fallback":
                raise
            with self.world.sending():
                return await self._aask(said, OTHER)

    def _ask(self, said: list[Any], name: str) -> Any:
        api = self._client.messages if self._anthropic else self._client.chat.completions
        if not self._streams:
            return api.create(model=name, messages=said, max_tokens=100)
        with api.stream(model=name, messages=said, max_tokens=100) as stream:
            for _ in stream:
                pass
            return stream.get_final_message() if self._anthropic else stream.get_final_completion()

    async def _aask(self, said: list[Any], name: str) -> Any:
        api = self._client.messages if self._anthropic else self._client.chat.completions
        if not self._streams:
            return await api.create(model=name, messages=said, max_tokens=100)
        async with api.stream(model=name, messages=said, max_tokens=100) as stream:
            async for _ in stream:
                pass
            return await (stream.get_final_message() if self._anthropic else stream.get_final_completion())

    def uses(self, answer: Any) -> list[tuple[str, str, dict[str, str]]]:
        """The tool calls it asks for: id, name, arguments."""
        if self._anthropic:
            return [(block.id, block.name, dict(block.input)) for block in answer.content if block.type == "tool_use"]
        calls = answer.choices[0].message.tool_calls or ()
        return [(call.id, call.function.name, json.loads(call.function.arguments)) for call in calls]

    def use(self, call: Any, config: Any) -> tuple[str, str]:
        """A tool's result: id, text."""
        place, name, args = call
        if name == "delegate":
            return place, delegated(self.world, args["text"])
        try:
            return place, self.world.classify(args["text"]) if name == "classify" else "no such tool"
        except OSError as exc:
            return place, str(exc)

    async def ause(self, call: Any, config: Any) -> tuple[str, str]:
        """As `use`."""
        return self.use(call, config)

    def answered(self, said: list[Any], answer: Any, results: list[Any]) -> None:
        """Go on with them."""
        uses = self.uses(answer)
        if self._anthropic:
            asked: Any = [{"type": "tool_use", "id": i, "name": name, "input": args} for i, name, args in uses]
            given: Any = [{"type": "tool_result", "tool_use_id": i, "content": text} for i, text in results]
            said += [{"role": "assistant", "content": asked}, {"role": "user", "content": given}]
            return
        asked = [
            {"id": i, "type": "function", "function": {"name": name, "arguments": json.dumps(args)}}
            for i, name, args in uses
        ]
        said.append({"role": "assistant", "content": None, "tool_calls": asked})
        said += [{"role": "tool", "tool_call_id": i, "content": text} for i, text in results]
