"""What a supervisor needs to know of LangChain's runnables and LangGraph's graphs. Found by an entry point."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig
from langchain_core.runnables.config import merge_configs

from runrails.advice import not_executed
from runrails.lastwords import PlainSpeaker
from runrails.loops.explain import MARK
from runrails.outcome import Given
from runrails_langchain.payers import attribution_of
from runrails_langchain.repair import missing_results
from runrails_langchain.toolguard import ToolGuard
from runrails_langchain.wrapping import ModelSpeaker

if TYPE_CHECKING:
    from langgraph.types import StateSnapshot

    from runrails.attribution import Attribution
    from runrails.errors import GuardrailStopped
    from runrails.guard import Guard
    from runrails.lastwords import Speaker

__all__ = ["adapt"]

_STREAMS_ONLY = frozenset(
    {"stream_mode", "subgraphs", "version", "include_names", "include_types", "include_tags", "exclude_names",
     "exclude_types", "exclude_tags"}
)  # fmt: skip
GO_ON = f"{MARK} The limit has been raised. Please go on where you stopped."


def adapt(guard: Guard, executor: object) -> Adapter | None:
    """The executor as LangChain sees it; None if it is none of LangChain's."""
    if not isinstance(executor, Runnable):
        return None
    runnable: Runnable[Any, Any] = executor  # pyright: ignore[reportUnknownVariableType] -- of which kind nobody knows
    return Adapter(guard, runnable)


class Adapter:
    """One runnable. A graph's tool calls can be hinted at and blocked, and its saved state repaired."""

    def __init__(self, guard: Guard, executor: Runnable[Any, Any]) -> None:
        self.executor: object = executor
        self._graph: Any = None
        self._config: RunnableConfig = {}
        inner: object = executor
        while isinstance(inner, RunnableBinding):
            self._config, inner = merge_configs(inner.config, self._config), inner.bound
        pregel = _pregel()
        if pregel is not None and isinstance(inner, pregel):
            self._graph = inner
        try:
            self.executor = ToolGuard(guard).inside(executor)
        except Exception as exc:  # noqa: BLE001 -- without it the callback stops what cannot be blocked
            guard.emit("adapter_failed", "error", adapter="langchain", hook="tools", error=type(exc).__name__)

    def whose(self, given: Given) -> Attribution | None:
        """What the metadata of the executor and of the call say."""
        return attribution_of(self._configured(given).get("metadata"))

    def speaker(self, how: object) -> Speaker | None:
        """A chat model, or a function of the user's own."""
        if isinstance(how, BaseChatModel):
            return ModelSpeaker(how)
        return PlainSpeaker(how) if callable(how) else None

    def answer(self, value: object) -> str | None:
        """The text of a state's last message, of a message, or of a chain's `output`."""
        if isinstance(value, str):
            return value
        if isinstance(value, BaseMessage):
            return str(value.text)
        return self._answer_in(cast("Mapping[str, object]", value)) if isinstance(value, Mapping) else None

    def repair(self, given: Given, stop: GuardrailStopped) -> object:
        """Give every dangling tool call a result, in the saved state of the call's thread."""
        config = self._saved_under(given)
        if config is None:
            return None
        found = self._missing(self._graph.get_state(config), stop)
        if found is not None:
            self._graph.update_state(config, {"messages": found[0]}, as_node=found[1])
        return self._graph.get_state(config).values

    async def arepair(self, given: Given, stop: GuardrailStopped) -> object:
        """As `repair`."""
        config = self._saved_under(given)
        if config is None:
            return None
        found = self._missing(await self._graph.aget_state(config), stop)
        if found is not None:
            await self._graph.aupdate_state(config, {"messages": found[0]}, as_node=found[1])
        return (await self._graph.aget_state(config)).values

    def again(self, given: Given) -> Given:
        """From the saved state, if there is one; else from the beginning."""
        config, given = self._saved_under(given), _to_invoke(given)
        return given if config is None else _going_on(given, self._graph.get_state(config))

    async def aagain(self, given: Given) -> Given:
        """As `again`."""
        config, given = self._saved_under(given), _to_invoke(given)
        return given if config is None else _going_on(given, await self._graph.aget_state(config))

    def _answer_in(self, state: Mapping[str, object]) -> str | None:
        data = state.get("data") if "event" in state else None
        if isinstance(data, Mapping):  # of `astream_events`: the last one tells what the whole came to
            return self.answer(cast("Mapping[str, object]", data).get("output"))
        messages = state.get("messages")
        if isinstance(messages, list) and messages:
            return self.answer(cast("list[object]", messages)[-1])
        output = state.get("output")
        if isinstance(output, str):
            return output
        # A stream of updates: what the last node said.
        return self.answer(next(iter(state.values()))) if len(state) == 1 else None

    def _configured(self, given: Given) -> RunnableConfig:
        """The configuration of a call: the executor's own, and what is told with the call."""
        told = given.kwargs.get("config", given.args[1] if len(given.args) > 1 else None)
        own: RunnableConfig | None = None if self._graph is None else self._graph.config
        return merge_configs(own, self._config, cast("RunnableConfig", told) if isinstance(told, dict) else None)

    def _saved_under(self, given: Given) -> RunnableConfig | None:
        """The configuration of the thread that was called, if it is saved at all."""
        if self._graph is None or not getattr(self._graph, "checkpointer", None):
            return None
        config = self._configured(given)
        configurable = config.get("configurable") or {}
        if not configurable.get("thread_id"):
            return None
        # Without the checkpoint it began at: the newest one is meant.
        return {"configurable": {key: value for key, value in configurable.items() if key != "checkpoint_id"}}

    def _missing(self, state: StateSnapshot, stop: GuardrailStopped) -> tuple[list[BaseMessage], str | None] | None:
        values: object = state.values
        messages = cast("Mapping[str, object]", values).get("messages") if isinstance(values, Mapping) else None
        if not isinstance(messages, list):
            return None
        missing = missing_results(cast("list[BaseMessage]", messages), not_executed(stop))
        if not missing:
            return None
        waiting = [name for name in state.next if name in self._graph.nodes]
        return [*missing], waiting[0] if waiting else None


def _pregel() -> type | None:
    """LangGraph's class of graphs. Who has a graph has loaded LangGraph."""
    found = getattr(sys.modules.get("langgraph.pregel"), "Pregel", None)
    return found if isinstance(found, type) else None


def _to_invoke(given: Given) -> Given:
    """Without the arguments that say what a stream should give; going on is invoking."""
    kept = {name: value for name, value in given.kwargs.items() if name not in _STREAMS_ONLY}
    return Given(args=given.args, kwargs=kept)


def _going_on(given: Given, state: StateSnapshot) -> Given:
    if not state.values:
        return given
    start = None if state.next else {"messages": [HumanMessage(GO_ON)]}
    if "input" in given.kwargs:
        return Given(args=given.args, kwargs={**given.kwargs, "input": start})
    return Given(args=(start, *given.args[1:]), kwargs=given.kwargs)
