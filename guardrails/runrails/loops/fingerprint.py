"""The fingerprint of a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

from runrails.loops.canonical import VOLATILE_ARGS, canonical, parse_json
from runrails.loops.digest import digest64

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.calls import ToolCall

__all__ = ["CallPrint", "print_call"]


class CallPrint(NamedTuple):
    """A call, read. `text` must not outlive the step."""

    key: int
    """Fingerprint of tool and canonical arguments, 64 bits."""
    text: str
    """The canonical arguments."""


def print_call(call: ToolCall, loop_key: Callable[[object], object] | None = None) -> CallPrint:
    """The fingerprint of what is asked: never of the thought behind it, nor of who asks. Total: any object gets one."""
    args = parse_json(call.args)
    if loop_key is not None:
        try:
            args = loop_key(args)
        except Exception:  # noqa: BLE001 -- an owner's function that does not fit must not change the run
            args = parse_json(call.args)
    if type(args) is dict:
        args = _without_purpose(cast("dict[object, object]", args))
    text = canonical(args, volatile=VOLATILE_ARGS)
    return CallPrint(digest64(str(call.name), text), text)


def _without_purpose(args: dict[object, object]) -> dict[object, object]:
    """What a command is said to be for is a thought."""
    if "description" in args and ("command" in args or "cmd" in args):
        return {key: value for key, value in args.items() if key != "description"}
    return args
