"""
The matrix, declared: executor × mode × layer × failure, which of them go together, and why the others do not.

`tests/integrations/test_matrix.py` plays every cell that applies; `tests/matrix_table.py` writes the table in
`integrations/MATRIX.md` from the same declaration.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

OLDEST = os.environ.get("RUNRAILS_TESTS") == "oldest"
SHARE = int(os.environ.get("RUNRAILS_MATRIX_SHARE", "1"))
"""Every how many cells one is played: all of them where README's test command runs, a sample on the other Pythons."""
"""Set by `.ci/versions` where the oldest supported frameworks are installed: the callback and the raw clients only."""

EXECUTORS = {
    "create_agent": "LangChain's `create_agent`",
    "create_react_agent": "LangGraph's prebuilt agent",
    "StateGraph": "a graph of one's own with a `ToolNode`",
    "AgentExecutor": "the classic executor",
    "LangChain loop": "a `while` of one's own over `model.bind_tools(…)`",
    "OpenAI loop": "a `while` of one's own over the openai SDK",
    "Anthropic loop": "a `while` of one's own over the anthropic SDK",
}
MODES = ("invoke", "ainvoke", "stream", "astream", "batch", "abatch", "astream_events")
LAYERS = {
    "callback": "`GuardrailCallbackHandler` in the config",
    "boundary": "`with guard.run():`",
    "middleware": "`GuardrailMiddleware`",
    "supervisor": "`guard.supervise(…)`",
    "client": "`guard.wrap(client)`",
    "callback + boundary": "two at once",
    "callback + middleware": "two at once",
    "callback + client": "two at once",
    "boundary + client": "two at once",
    "supervisor + callback": "two at once",
    "supervisor + middleware": "two at once",
    "supervisor + client": "two at once",
}
FAILURES = {
    "identical": "the tool fails with the same error each time",
    "soft": 'the tool answers "no result" and raises nothing',
    "unknown tool": "the model asks for a tool that does not exist",
    "parallel": "three identical calls in each answer",
    "sub-agent": "a tool asks two agents in a thread pool; theirs fail",
    "retry": "layers that call model and tool again after any error, and a model that needs them",
    "fallback": "another model answers after any error, and the first always has one",
    "catch-all": "an `except Exception` around what may raise the stop",
    "budget": "nothing fails, the money runs out",
    "cancelled": "the task is cancelled in the middle of the second model call",
}
ASYNC = frozenset({"ainvoke", "astream", "abatch", "astream_events"})
RAW = frozenset({"OpenAI loop", "Anthropic loop"})
LOOPS = RAW | {"LangChain loop"}

# Reasons why a cell does not apply, in the words of the table.
ONLY_CREATE_AGENT = "Middleware is a concept of `create_agent` alone."
NEEDS_CLIENT = "Only a wrapped client sees the calls of a raw SDK."
NO_CALLBACKS = "A raw SDK takes no callbacks; `with guard.run():` or a supervisor goes round it."
SAME_CALLBACK = "As `callback + client`: entering a run attaches that callback, and a supervisor enters a run."
NO_TOOLS = "A client sees no tools, so what they do makes no difference: as `budget`."
NO_BATCH = "A loop of one's own has no batch, unless it is supervised."
NO_EVENTS = "An SDK, and a function that is supervised, tell no events."
NO_TASK = "Only a task can be cancelled, so only the asynchronous modes."
OLDEST_ONLY = "With LangChain before 1.0 the callback and raw clients are supported."


class Cell(NamedTuple):
    """One place of the matrix."""

    executor: str
    mode: str
    layer: str
    failure: str

    @property
    def parts(self) -> tuple[str, ...]:
        """The layers, one by one."""
        return tuple(self.layer.split(" + "))

    @property
    def sees_tools(self) -> bool:
        """Whether a layer sees the tool calls, so that it is the repetition that ends the run."""
        return self.executor not in RAW and self.layer != "client"

    @property
    def blocks(self) -> bool:
        """Whether a layer answers in a tool's place, and the conversation goes on to the model."""
        in_sight = self.executor in {"create_agent", "create_react_agent", "StateGraph", "AgentExecutor"}
        return "middleware" in self.parts or ("supervisor" in self.parts and in_sight)

    @property
    def stop_reason(self) -> str | None:
        """What ends the run; nothing, if somebody else ends the task."""
        if self.failure == "cancelled":
            return None
        return "loop_detected" if self.sees_tools and self.failure != "budget" else "budget_exceeded"

    @property
    def siblings(self) -> int:
        """How many other calls may be past the gate already, but not yet begun, when one trips."""
        return {"parallel": 2, "sub-agent": 1}.get(self.failure, 0)

    @property
    def executions_max(self) -> int:
        """How often one and the same tool call may be executed. Equal calls of one answer are one attempt."""
        attempts = 4 if self.blocks else 5
        if self.failure == "parallel":
            return 3 * attempts
        if self.failure == "sub-agent":
            # No layer stands around the calls of agents that are asked in a tool; each of them is counted on its own.
            # Loops of one's own share a scope where one begins while another is between a result and its next question.
            return attempts * (4 if "batch" in self.mode else 2) if self.executor in LOOPS else 5
        return attempts

    @property
    def models_after_execution_max(self) -> int:
        """How many model calls may follow the last execution: one after the block, each at two attempts in a layer."""
        return (1 + self.blocks) * (2 if self.failure in {"retry", "fallback"} else 1)

    @property
    def swallowed(self) -> bool:
        """Whether the user's own layers may catch the stop; then nobody but the run tells of it."""
        if self.layer == "client" and self.executor == "create_agent":
            return self.failure == "retry"  # ModelRetryMiddleware answers in the model's place
        if self.layer == "client" and self.failure == "fallback":
            return "batch" in self.mode  # the layer raises its first error, which may be the provider's
        catching = self.failure in {"retry", "catch-all"} and self.executor in LOOPS
        # A callback inside a boundary of ours raises what no `except Exception` catches; an SDK's error cannot be that.
        return catching and ("boundary" not in self.parts or self.executor in RAW)

    @property
    def never_begun_max(self) -> int:
        """How many tool calls may be let through and then be cancelled, when tasks that share a run are stopped."""
        if "boundary" not in self.parts or self.mode != "abatch":
            return 0
        return 3 if self.failure == "parallel" else 1

    @property
    def ends_with_the_guard(self) -> bool:
        """Whether only closing the handler, or its guard, tells of a cancelled call: no chain is around it."""
        return self.failure == "cancelled" and self.executor == "LangChain loop" and "callback" in self.parts

    def __str__(self) -> str:
        return "-".join(part.replace(" ", "_").replace("_+_", "+") for part in self)


def why_not(cell: Cell) -> str | None:
    """Why there is no such cell; None if there is."""
    return _layer_does_not_fit(cell) or _failure_does_not_fit(cell) or _mode_does_not_fit(cell)


def _layer_does_not_fit(cell: Cell) -> str | None:
    if "middleware" in cell.parts and cell.executor != "create_agent":
        return ONLY_CREATE_AGENT
    if cell.executor in RAW:
        if "callback" in cell.parts:
            return NO_CALLBACKS
        if "client" not in cell.parts:
            return NEEDS_CLIENT
    elif cell.layer in {"boundary + client", "supervisor + client"}:
        return SAME_CALLBACK
    return None


def _failure_does_not_fit(cell: Cell) -> str | None:
    if cell.sees_tools:
        return None
    if cell.failure == "catch-all":  # which in loops of one's own is round the model's call too
        return None if cell.executor in LOOPS else NO_TOOLS
    return NO_TOOLS if cell.failure in {"identical", "soft", "unknown tool", "parallel"} else None


def _mode_does_not_fit(cell: Cell) -> str | None:
    supervised = "supervisor" in cell.parts
    if cell.executor in LOOPS and cell.mode in {"batch", "abatch"} and not supervised:
        return NO_BATCH
    if cell.mode == "astream_events" and (cell.executor in RAW or (cell.executor in LOOPS and supervised)):
        return NO_EVENTS
    if cell.failure == "cancelled" and cell.mode not in ASYNC:
        return NO_TASK
    return None


def everything() -> Iterator[Cell]:
    """Every combination, whether it applies or not."""
    for layer in LAYERS:
        for executor in EXECUTORS:
            for failure in FAILURES:
                for mode in MODES:
                    yield Cell(executor, mode, layer, failure)


def cells() -> list[Cell]:
    """Every cell that applies, here with the frameworks that are installed."""
    return [cell for cell in everything() if why_not(cell) is None and not (OLDEST and too_new(cell))]


def controls() -> list[Cell]:
    """Each executor with each failure once, to be played without a guard."""
    found = {
        (cell.executor, cell.failure): cell
        for cell in reversed(cells())
        if cell.mode == "invoke" and cell.failure != "cancelled" and len(cell.parts) == 1
    }
    return list(found.values())


def too_new(cell: Cell) -> bool:
    """Whether it needs more than the oldest supported frameworks: LangChain 1.0, or its OpenAI integration."""
    if cell.executor == "create_agent" or {"middleware", "supervisor"} & set(cell.parts):
        return True
    return "client" in cell.parts and cell.executor not in RAW
