"""How a stop or a refusal that nobody caught is told: what, whose, how much, what next; and where, in one line."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, cast

from runrails.boundary import Trip
from runrails.errors import CallRefused, ConfigError, GuardFault, GuardrailStopped, RunrailsError

if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import TextIO

__all__ = ["advice", "say", "told", "uncaught"]

_RAISE = {
    "run": ("--run", "RUNRAILS_RUN_BUDGET"),
    "steps": ("--steps", "RUNRAILS_STEPS"),
    "tokens": ("--tokens", "RUNRAILS_TOKENS"),
    "model_calls": ("--model-calls", "RUNRAILS_MODEL_CALLS"),
    "tool_calls": ("--tool-calls", "RUNRAILS_TOOL_CALLS"),
    "seconds": ("--seconds", "RUNRAILS_SECONDS"),
}
_MONTHS = {
    "user": ("--month", "RUNRAILS_MONTH_BUDGET"),
    "key": ("--key-month", "RUNRAILS_KEY_BUDGET"),
    "org": ("--org-month", "RUNRAILS_ORG_BUDGET"),
}


def uncaught(error: BaseException | None) -> RunrailsError | None:
    """What of ours an exception is, if so: a stop, a refused call, a wrong setting. A bug of ours is none of them."""
    if isinstance(error, Trip):
        return error.stop
    if isinstance(error, BaseExceptionGroup):
        # A group that holds something of the program's own as well is shown whole, as Python shows it.
        parts = [uncaught(part) for part in cast("BaseExceptionGroup[BaseException]", error).exceptions]
        return parts[0] if all(isinstance(part, GuardrailStopped) for part in parts) else None
    if isinstance(error, GuardrailStopped | CallRefused | ConfigError) and not isinstance(error, GuardFault):
        return error
    return None


def say(text: str) -> None:
    """To standard error. Where that is closed or full nothing is said: how the program ended must not depend on it."""
    stream = cast("TextIO | None", sys.stderr)
    if stream is None:
        return
    try:
        stream.write(text + "\n")
        stream.flush()
    except (OSError, ValueError):  # full, a pipe that nobody reads any more, closed
        return


def told(error: RunrailsError, trace: TracebackType | None, *, run_id: str) -> str:
    """Some lines of text for a terminal."""
    what = "stopped this program" if isinstance(error, GuardrailStopped) else "refused"
    lines = [f"runrails {what} ({error.code.replace('_', ' ')}): {error.what}", advice(error, run_id)]
    place = _place(trace)
    return "\n  ".join([*lines, f"at {place}"] if place else lines)


def advice(error: RunrailsError, run_id: str) -> str:
    """What to do next, for somebody who has not written the program's code."""
    scope, setting = str(error.fields.get("scope", "")), error.fields.get("setting")
    kind = scope.partition(":")[0]
    if error.code == "loop_detected":
        tool = error.fields.get("tool")
        return (
            f"If this is meant, start it with --poll {tool} (RUNRAILS_POLL_TOOLS) or, without the loop detector, with "
            "--no-loops (RUNRAILS_LOOPS=off)."
        )
    raised = _RAISE.get(str(setting)) if error.code == "limit_reached" else None
    if error.code == "budget_exceeded":
        raised = _RAISE["run"] if kind == "run" else _MONTHS.get(kind)
    if raised is None or (kind == "run" and scope != f"run:{run_id}"):
        return error.next_step
    operator = f" An operator's `runrails budget set {scope} AMOUNT` wins over it." if kind in _MONTHS else ""
    return f"If that is not enough, start it with a higher {raised[0]} ({raised[1]}).{operator}"


def _place(trace: TracebackType | None) -> str:
    """The innermost line that is the program's own: neither installed nor Python's."""
    place = ""
    while trace is not None:
        frame = trace.tb_frame
        if _is_own(frame):
            place = f"{frame.f_code.co_filename}:{trace.tb_lineno} in {frame.f_code.co_name}"
        trace = trace.tb_next
    return place


def _is_own(frame: FrameType) -> bool:
    file, module = frame.f_code.co_filename, str(frame.f_globals.get("__name__", ""))
    if file.startswith("<") or module.partition(".")[0].startswith("runrails"):
        return False
    library = os.path.dirname(os.__file__)  # noqa: PTH120 -- pathlib may not be loaded
    return not any(part in file for part in (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")) and (
        not file.startswith(library + os.sep)
    )
