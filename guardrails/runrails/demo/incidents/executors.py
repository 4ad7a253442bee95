"""What runs an incident's script: real SDK clients and a real LangGraph agent, at their defaults."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, cast

from langchain.agents import create_agent  # pyright: ignore[reportUnknownVariableType] -- LangChain leaves a parameter open
from langchain_core.tools import StructuredTool
from langchain_openai import ChatOpenAI
from openai import DefaultHttpxClient, OpenAI

from runrails import GuardrailStopped
from runrails.calls import Block, ToolCall, ToolOutcome
from runrails_langchain import GuardrailCallbackHandler

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from openai.types.chat import ChatCompletionMessage, ChatCompletionMessageParam, ChatCompletionToolUnionParam

    from runrails import Guard, Run
    from runrails.demo.agent import Agent
    from runrails.demo.incidents.values import Incident

__all__ = ["THREADS", "Tool", "perform"]

THREADS = 14
"""Chunks of the fan-out that work side by side."""
OUTPUT_TOKENS_MAX = 2_000


class Tool:
    """The incident's tool. Counts how often it is really executed."""

    def __init__(self, incident: Incident) -> None:
        self._result = incident.result
        self._lock = threading.Lock()
        self.executed = 0

    def __call__(self) -> str:
        """Execute it once more."""
        with self._lock:
            self.executed += 1
            return self._result


class _Asker(Protocol):
    """Asks the model with these messages."""

    def __call__(self, messages: Sequence[ChatCompletionMessageParam]) -> ChatCompletionMessage: ...


def perform(incident: Incident, tool: Tool, *, base_url: str, guard: Guard | None) -> None:
    """
    Let the incident's executor run the script, inside a run of the guard if there is one.

    Raises:
        GuardrailStopped: The guard stopped it.
    """
    if incident.executor == "react":
        _react(incident, tool, base_url, guard)
        return
    with _client(base_url) as client:
        if guard is None:
            _sdk(incident, tool, client, None, None)
            return
        with guard.run(incident.name) as run:
            _sdk(incident, tool, guard.wrap(client), run, guard)


def _sdk(incident: Incident, tool: Tool, client: OpenAI, run: Run | None, guard: Guard | None) -> None:
    ask = _asker(incident, client)
    if incident.executor == "fan_out":
        _fan_out(incident, ask, guard)
    else:
        _loop(incident, tool, ask, run if incident.executor == "sdk_tools" else None)


def _loop(incident: Incident, tool: Tool, ask: _Asker, run: Run | None) -> None:
    """An agent as one writes it by hand. With a run, its tools are at the guard's door."""
    messages = _opening(incident, incident.task)
    while True:
        message = ask(messages)
        messages.append(cast("ChatCompletionMessageParam", message.model_dump(exclude_none=True)))
        if not message.tool_calls:
            return
        for use in message.tool_calls:
            result = tool() if run is None else _guarded(incident, tool, run, use.id)
            if incident.notice:
                result += "\n" + incident.notice.format(number=tool.executed)
            messages.append({"role": "tool", "tool_call_id": use.id, "content": result})


def _guarded(incident: Incident, tool: Tool, run: Run, call_id: str) -> str:
    """What a loop of your own has around its tools."""
    call = ToolCall(name=incident.tool, args=incident.args, id=call_id)
    verdict = run.before_tool(call, can_block=True)
    if isinstance(verdict, Block):
        return verdict.message
    result = tool()
    finding = run.after_tool(call, ToolOutcome(ok=False, result=result), can_block=True)
    return result if finding is None else f"{result}\n{finding.for_model}"


def _fan_out(incident: Incident, ask: _Asker, guard: Guard | None) -> None:
    """Many small agents at once. The first that is stopped ends it; those in flight are let finish."""

    def check(number: int) -> None:
        ask(_opening(incident, f"{incident.task} {number}."))

    work = check if guard is None else guard.bind(check)
    stops: list[GuardrailStopped] = []
    with ThreadPoolExecutor(THREADS) as pool:
        for future in [pool.submit(work, number) for number in range(1, incident.calls_played + 1)]:
            try:
                future.result()
            except GuardrailStopped as stop:
                stops.append(stop)
    if stops:
        raise stops[0]


def _react(incident: Incident, tool: Tool, base_url: str, guard: Guard | None) -> None:
    with DefaultHttpxClient(trust_env=False) as http:
        model = ChatOpenAI(
            model=incident.model,
            base_url=base_url,
            api_key=lambda: "not-needed",
            max_completion_tokens=OUTPUT_TOKENS_MAX,
            http_client=http,
            openai_proxy="",
        )
        schema: dict[str, object] = {
            "type": "object",
            "properties": {name: {"type": "string"} for name in incident.args},
        }

        def call(**_args: str) -> str:
            return tool()

        tools = [StructuredTool(name=incident.tool, description="Look something up.", args_schema=schema, func=call)]
        agent = cast("Agent", create_agent(model, tools, system_prompt=incident.system))
        inputs = {"messages": [{"role": "user", "content": incident.task}]}
        agent.invoke(inputs, None if guard is None else {"callbacks": [GuardrailCallbackHandler(guard)]})


@contextmanager
def _client(base_url: str) -> Generator[OpenAI]:
    # Proxy variables are ignored: nothing may leave this machine.
    with DefaultHttpxClient(trust_env=False) as http:
        yield OpenAI(api_key="not-needed", base_url=base_url, http_client=http)


def _asker(incident: Incident, client: OpenAI) -> _Asker:
    parameters = {"type": "object", "properties": {name: {"type": "string"} for name in incident.args}}
    tools: list[ChatCompletionToolUnionParam] = [
        {"type": "function", "function": {"name": incident.tool, "parameters": dict(parameters)}}
    ]

    def ask(messages: Sequence[ChatCompletionMessageParam]) -> ChatCompletionMessage:
        answer = client.chat.completions.create(
            model=incident.model, messages=list(messages), tools=tools, max_completion_tokens=OUTPUT_TOKENS_MAX
        )
        return answer.choices[0].message

    return ask


def _opening(incident: Incident, task: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "system", "content": incident.system}, {"role": "user", "content": task}]
