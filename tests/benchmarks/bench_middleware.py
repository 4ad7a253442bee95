"""
What `GuardrailMiddleware` adds to a model call and to a tool call of an agent (memory store).

Inside an agent of `create_agent` one clock is around the middleware and one inside it: what the outer shows beyond the
inner is the guard's. A whole run is measured beside the same one without middleware, taking turns; it has the two nodes
that open and end the guarded run, which LangGraph charges for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bench_langchain import Instant
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from rr_bench import Row, main, percentile

from runrails import Guard, Limits, Price
from runrails.stores.memory import MemoryStore
from runrails_langchain import GuardrailMiddleware

RUNS = 150
WARM_UP = 10
ROUNDS = 6
GATE = 3.0
"""How much of a bare run the guard may add: three times; 1.3 measured."""


class Calling(Instant):
    """A model that calls a tool for some rounds, and then answers."""

    rounds: int

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        """As it is."""
        return self

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        done = sum(isinstance(message, AIMessage) for message in messages)
        usage: Any = {"input_tokens": 300, "output_tokens": 20, "total_tokens": 320}
        calls: Any = [
            {"name": "look_up", "args": {"number": done}, "id": f"call-{done}"} for _ in range(done < self.rounds)
        ]
        message = AIMessage("fine", tool_calls=calls, usage_metadata=usage)
        return ChatResult(generations=[ChatGeneration(message=message)])


@tool
def look_up(number: int) -> str:
    """Look something up."""
    return f"item {number} is fine"


class Clock(AgentMiddleware[Any, Any, Any]):
    """Notes how long what is inside it takes."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.label = name
        self.models: list[float] = []
        self.tools: dict[str, float] = {}

    @property
    def name(self) -> str:
        """Two of them are in one agent."""
        return self.label

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """A model call."""
        began = time.perf_counter()
        answer = handler(request)
        self.models.append(time.perf_counter() - began)
        return answer

    def wrap_tool_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """A tool call; several are made at the same time."""
        began = time.perf_counter()
        answer = handler(request)
        self.tools[request.tool_call["id"]] = time.perf_counter() - began
        return answer


def measure() -> list[Row]:
    """Medians for a model call, for a tool call, and for all of a short run."""
    limits = Limits(run=None, steps=None)
    guard = Guard(limits, store=MemoryStore(), prices={"bench": Price(input="0.01", output="0.01")}, sinks=())
    models, tools, inner = _inside(guard)
    plain, whole = _added(guard)
    guard.close()
    return [
        Row("a model call of an agent, bare", inner[0] * 1e6, "us"),
        Row("added by GuardrailMiddleware", models * 1e6, "us", models / inner[0], "the bare model call"),
        Row("a tool call of an agent, bare", inner[1] * 1e6, "us"),
        Row("added by GuardrailMiddleware", tools * 1e6, "us", tools / inner[1], "the bare tool call"),
        Row("an agent's run of one model call, bare", plain * 1e6, "us"),
        Row("added by GuardrailMiddleware, its nodes included", whole * 1e6, "us", whole / plain, "the bare run", GATE),
    ]


def _inside(guard: Guard) -> tuple[float, float, tuple[float, float]]:
    """What a clock around the middleware shows beyond one inside it: a model call, a tool call, and both bare."""
    outer, inner = Clock("outer"), Clock("inner")
    agent: Any = create_agent(Calling(rounds=ROUNDS), [look_up], middleware=[outer, GuardrailMiddleware(guard), inner])
    models: list[float] = []
    tools: list[float] = []
    bare: tuple[list[float], list[float]] = ([], [])
    for number in range(WARM_UP + RUNS):
        for clock in (outer, inner):
            clock.models.clear()
            clock.tools.clear()
        agent.invoke({"messages": [HumanMessage("x" * 200)]}, {"recursion_limit": 99})
        if number >= WARM_UP:
            models += [whole - part for whole, part in zip(outer.models, inner.models, strict=True)]
            tools += [whole - inner.tools[each] for each, whole in outer.tools.items()]
            bare[0].extend(inner.models)
            bare[1].extend(inner.tools.values())
    found = [percentile(sorted(times), 50) for times in (models, tools, *bare)]
    return found[0], found[1], (found[2], found[3])


def _added(guard: Guard) -> tuple[float, float]:
    """Medians of a bare agent's run of one model call, and of what a guarded one took longer."""
    works: list[Callable[[], object]] = []
    for middleware in ([], [GuardrailMiddleware(guard)]):
        agent: Any = create_agent(Calling(rounds=0), [look_up], middleware=middleware)
        works.append(lambda agent=agent: agent.invoke({"messages": [HumanMessage("x" * 200)]}))
    plain: list[float] = []
    added: list[float] = []
    for number in range(WARM_UP + RUNS):
        took = [0.0, 0.0]
        for place in (0, 1) if number % 2 else (1, 0):
            began = time.perf_counter()
            works[place]()
            took[place] = time.perf_counter() - began
        if number >= WARM_UP:
            plain.append(took[0])
            added.append(took[1] - took[0])
    return percentile(sorted(plain), 50), percentile(sorted(added), 50)


if __name__ == "__main__":
    raise SystemExit(main(measure))
