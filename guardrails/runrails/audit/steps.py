"""The form `steps`: model calls, user messages and tool calls one after another, with agents and parallel batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.audit.checks import (
    Invalid,
    Json,
    entries,
    kind_of,
    mapping,
    optional_number,
    optional_text,
    required_text,
)
from runrails.audit.recording import ModelAnswered, Step, ToolRan, UserSpoke
from runrails.audit.reports import read_usage
from runrails.calls import ToolCall, ToolOutcome

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["steps_of_steps"]

_STEP_FIX = (
    'Write {"kind": "llm" or "user", "text": …} or '
    '{"kind": "tool", "name": …, "args": {…}, "ok": true or false, "output" or "error": …}.'
)
_AGENT_FIX = "Write the sub-agent's path as text, or leave it out."
_BATCH_FIX = "Write the same whole number for the parallel calls of one answer, or leave it out."


def steps_of_steps(record: Json) -> Iterator[Step]:
    """
    The steps as they are listed, numbered from 1.

    Raises:
        Invalid: A step is not of that form.
    """
    for place, value in enumerate(entries(record.get("steps"), "steps", _STEP_FIX)):
        where = f"steps[{place}]"
        step = mapping(value, where, _STEP_FIX)
        agent = optional_text(step.get("agent"), f"{where}.agent", _AGENT_FIX) or ""
        optional_number(step.get("t"), f"{where}.t", "Write seconds, or leave it out.")
        kind = step.get("kind")
        if kind == "tool":
            yield ToolRan(place + 1, _call(step, where, agent), _outcome(step, where))
        elif kind == "user":
            optional_text(step.get("text"), f"{where}.text", _STEP_FIX)
            yield UserSpoke(agent=agent)
        elif kind == "llm":
            yield _answer(step, where, agent)
        else:
            raise Invalid(f'{where}.kind must be "llm", "user" or "tool".', _STEP_FIX)


def _answer(step: Json, where: str, agent: str) -> ModelAnswered:
    optional_text(step.get("text"), f"{where}.text", _STEP_FIX)
    model = optional_text(step.get("model"), f"{where}.model", "Write the model's name, or leave it out.")
    return ModelAnswered(agent=agent, model=model, usage=read_usage(step.get("usage"), f"{where}.usage"))


def _call(step: Json, where: str, agent: str) -> ToolCall:
    name = required_text(step.get("name"), f"{where}.name", _STEP_FIX)
    batch = step.get("batch")
    if batch is None or type(batch) is int or isinstance(batch, str):
        return ToolCall(name=name, args=step.get("args"), batch=batch, agent=agent)
    raise Invalid(f"{where}.batch must be a whole number, not {kind_of(batch)}.", _BATCH_FIX)


def _outcome(step: Json, where: str) -> ToolOutcome:
    ok, output, error = step.get("ok"), step.get("output"), step.get("error")
    if not isinstance(ok, bool):
        found = "missing" if ok is None else kind_of(ok)
        raise Invalid(f"{where}.ok must be true or false, but it is {found}.", _STEP_FIX)
    if ok and error is not None:
        raise Invalid(f"{where} is ok and has an error.", 'Write "ok": false, or "output" in place of "error".')
    return ToolOutcome(ok=ok, result=output if error is None else error)
