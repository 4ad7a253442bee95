"""A stop as the processes of a run tell it each other: flat JSON, and the same class again."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from runrails.errors import BudgetExceeded, GuardrailStopped, LimitReached, LoopDetected, RunrailsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runrails.errors import FieldValue

__all__ = ["stop_from", "word_of"]

_KINDS: Mapping[str, type[GuardrailStopped]] = {
    kind.code: kind for kind in (BudgetExceeded, LimitReached, LoopDetected)
}


def word_of(stop: GuardrailStopped) -> Mapping[str, object]:
    """What to leave word of."""
    return {"code": stop.code, "what": stop.what, "next_step": stop.next_step, "fields": stop.fields}


def stop_from(word: Mapping[str, object] | None) -> GuardrailStopped | None:
    """The stop again; None if there is no word of one."""
    if word is None:
        return None
    kind = _KINDS.get(str(word.get("code")), GuardrailStopped)
    fields = word.get("fields")
    stop = kind.__new__(kind)
    RunrailsError.__init__(
        stop, str(word.get("what")), next_step=str(word.get("next_step")),
        **(cast("dict[str, FieldValue]", fields) if isinstance(fields, dict) else {}),
    )  # fmt: skip
    return stop
