"""
What the loop detector would have said to a recorded run.

The recording stays as it was: a call that the guard would have blocked was executed, and its result is heard like any
other. So the run is heard twice, by a guard that can only stop (a bare callback) and by one that can hint and block.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, assert_never

from runrails.audit.recording import ModelAnswered, Step, ToolRan, UserSpoke
from runrails.calls import PROCEED, Block, Finding, Stop, Verdict
from runrails.loops import LoopDetector, LoopPolicy, ToolRule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["Heard", "replay"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """Where the ladder's rungs would have been reached, in the recording's own numbers; None where they were not."""

    hint_at: int | None = None
    block_at: int | None = None
    stop_at: int | None = None
    rule: str | None = None
    """Why: the rule of the stop if there is one, else that of the first hint or block."""
    tool: str | None = None
    """The tool it was about, by its recorded name."""
    steps_before_stop: int | None = None
    """How many steps of the recording had happened when the run would have stopped."""


@dataclass(frozen=True, slots=True)
class _Rung:
    at: int
    rule: str
    tool: str
    steps_before: int = 0


def replay(steps: Sequence[Step], *, policy: LoopPolicy, tools: Mapping[str, ToolRule]) -> Heard:
    """Drive fresh detectors over a recorded run and note the first hint, the first block and the stop."""
    stop = _first_stop(steps, LoopDetector(policy, tools))
    hint, block = _first_hint_and_block(steps, LoopDetector(policy, tools))
    reason = stop or hint or block
    return Heard(
        hint_at=None if hint is None else hint.at,
        block_at=None if block is None else block.at,
        stop_at=None if stop is None else stop.at,
        rule=None if reason is None else reason.rule,
        tool=None if reason is None else reason.tool,
        steps_before_stop=None if stop is None else stop.steps_before,
    )


def _first_stop(steps: Sequence[Step], detector: LoopDetector) -> _Rung | None:
    """Where a guard that can neither hint nor block would stop."""
    done = last_result = 0
    for group in _together(steps):
        for step in group:
            verdict = _start(step, detector, can_block=False)
            if isinstance(verdict, Stop):
                return _rung(step, verdict.finding, last_result=last_result, steps_before=done)
        for step in group:
            done += 1
            if isinstance(step, ToolRan):
                last_result = step.number
                finding = detector.after_tool(step.call, step.outcome, can_block=False)
                if finding is not None and finding.level == "stop":
                    return _rung(step, finding, steps_before=done)
    return None


def _first_hint_and_block(steps: Sequence[Step], detector: LoopDetector) -> tuple[_Rung | None, _Rung | None]:
    """Where a guard with the whole ladder would first hint and first block."""
    hint: _Rung | None = None
    block: _Rung | None = None
    for group in _together(steps):
        verdicts = [_start(step, detector, can_block=True) for step in group]
        for step, verdict in zip(group, verdicts, strict=True):
            if not isinstance(step, ToolRan):
                continue
            finding = detector.after_tool(step.call, step.outcome, can_block=True)
            if hint is None and finding is not None and finding.level == "hint":
                hint = _rung(step, finding)
            if block is None and isinstance(verdict, Block):
                block = _rung(step, verdict.finding)
        if hint is not None and block is not None:
            break
    return hint, block


def _rung(step: Step, finding: Finding, *, last_result: int = 0, steps_before: int = 0) -> _Rung:
    if isinstance(step, ToolRan):
        # The finding has the name too, but made fit for a line of text.
        return _Rung(step.number, finding.rule, step.call.name, steps_before)
    return _Rung(last_result, finding.rule, finding.tool, steps_before)


def _start(step: Step, detector: LoopDetector, *, can_block: bool) -> Verdict:
    match step:
        case ToolRan():
            return detector.before_tool(step.call, can_block=can_block)
        case ModelAnswered():
            return detector.before_model(agent=step.agent, can_block=can_block)
        case UserSpoke():
            detector.user_message(step.agent)
            return PROCEED
        case _:
            assert_never(step)


def _together(steps: Iterable[Step]) -> Iterator[list[Step]]:
    """Steps that happened at the same time: the calls of a batch all start before any of them has a result."""
    for _, group in groupby(enumerate(steps), _batch_key):
        yield [step for _, step in group]


def _batch_key(placed: tuple[int, Step]) -> tuple[object, ...]:
    place, step = placed
    if isinstance(step, ToolRan) and step.call.batch is not None:
        return ("batch", step.call.agent, step.call.batch)
    return ("alone", place)
