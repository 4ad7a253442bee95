"""A limit on the tokens of a run: what is set aside for a call, and the cap that makes it fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.admission import OUTPUT_FLOOR_TOKENS, OUTPUT_UNKNOWN_TOKENS
from runrails.errors import BudgetBusy

if TYPE_CHECKING:
    import threading

    from runrails.admission import Admission, Bound
    from runrails.calls import ModelCall
    from runrails.clocks import Clock
    from runrails.tally import Tally

__all__ = ["hold_tokens", "room_for"]


def hold_tokens(
    tally: Tally, bound: Bound, call: ModelCall, *, admission: Admission, lock: threading.RLock, monotonic: Clock
) -> int:
    """
    Set tokens aside for all answers of a call, waiting for those that calls in flight hold; return how many.

    Raises:
        LimitReached: Not even a short answer fits into what is not yet used.
        BudgetBusy: It would if calls in flight had ended.
        CallTooLarge: The call's cap does not fit, and nobody can lower it.
    """
    outputs, uncapped = bound.output_tokens, call.can_cap
    if outputs is None and call.can_cap:
        outputs = OUTPUT_UNKNOWN_TOKENS
    if call.max_tokens is None and admission.limits.uncapped != "refuse":
        uncapped = True
    started: int | None = None
    while True:
        waited = 0 if started is None else monotonic() - started
        try:
            with lock:
                return tally.hold_tokens(
                    input_tokens=bound.input_tokens, output_tokens=None if outputs is None else outputs * call.n,
                    floor_tokens=OUTPUT_FLOOR_TOKENS * call.n, uncapped=uncapped, waited_ms=waited,
                )  # fmt: skip
        except BudgetBusy:
            if started is None:
                started = monotonic()
            if not admission.wait(started):
                raise


def room_for(bound: Bound, call: ModelCall, tokens: int) -> int | None:
    """The cap that a call needs so that no more than `tokens` are used; None if it needs no other than it has."""
    if not (tokens and call.can_cap):
        return None
    room = (tokens - bound.input_tokens) // call.n
    return None if bound.output_tokens is not None and bound.output_tokens <= room else room
