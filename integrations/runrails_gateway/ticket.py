"""One call that was let through: settled once, whatever becomes of it."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

from runrails import aio
from runrails.calls import ModelResult

if TYPE_CHECKING:
    from runrails.calls import Permit
    from runrails.run import Run
    from runrails.settlement import Settlement

__all__ = ["Ticket"]


class Ticket:
    """A permit on its way through the gateway. For one event loop."""

    __slots__ = ("_open", "lost", "permit", "reserve_s", "run", "sent", "settle_s", "settlement")

    def __init__(self, run: Run, permit: Permit, reserve_s: float = 0.0) -> None:
        self.run = run
        self.permit = permit
        self.reserve_s = reserve_s
        """How long the ledger took to hold the money, with waiting for money that others hold."""
        self.settle_s = 0.0
        """How long it took to settle."""
        self.sent = False
        """Whether the newest attempt may have left, and nobody knows what became of it."""
        self.lost = 0
        """Earlier attempts whose outcome is unknown."""
        self.settlement: Settlement | None = None
        """What it cost, once that is known."""
        self._open = True

    @property
    def open(self) -> bool:
        """Whether it is not settled yet."""
        return self._open

    async def settle(self, result: ModelResult) -> None:
        """Hand the permit back, once. Never raises but for a cancellation, and then it is handed back all the same."""
        if not self._open:
            return
        self._open = False
        if self.lost:
            result = replace(result, unknown_attempts=self.lost)
        began_s = perf_counter()
        try:
            self.settlement = await aio.after_model(self.run, self.permit, result)
            self.settle_s = perf_counter() - began_s
        except Exception as exc:  # noqa: BLE001 -- the answer is the caller's; the hold expires by the ledger's rules
            self.failed(exc)

    async def settle_unanswered(self) -> None:
        """There was no answer: it cost nothing if nothing was sent, and else nobody knows what."""
        await self.settle(ModelResult(end="unknown" if self.sent else "failed"))

    def failed(self, error: Exception) -> None:
        """Something of ours went wrong, which must not change what the caller gets: tell of it."""
        self.run.guard.emit(
            "adapter_failed", "error", adapter="gateway", hook="after_model", error=type(error).__name__,
            run=self.run.id,
        )  # fmt: skip
