"""What became of notifications, as a store keeps it: so that a sender that fails in one process is seen in another."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Delivered", "Delivery", "SupportsDeliveries"]


class Delivered(NamedTuple):
    """What became of some notifications of one sender, to be added up."""

    sent: int = 0
    failed: int = 0
    """Given up after every attempt."""
    dropped: int = 0
    """Never tried: too many waited, or the program ended."""
    error: str | None = None
    """The class of the newest error; never its text, in which an address may stand."""


class Delivery(NamedTuple):
    """A sender's account since the store was made."""

    sender: str
    sent: int
    failed: int
    dropped: int
    sent_ms: int | None
    """When something was sent last, milliseconds since the epoch, UTC."""
    last_error: str | None
    error_ms: int | None
    """When something was given up or dropped last."""

    @property
    def failing(self) -> bool:
        """Whether the newest notification did not arrive."""
        return self.error_ms is not None and (self.sent_ms is None or self.sent_ms < self.error_ms)


@runtime_checkable
class SupportsDeliveries(Protocol):
    """A store that keeps what became of notifications."""

    def note_delivery(self, sender: str, what: Delivered) -> None:
        """Add it to the sender's account, at the store's own time."""
        ...

    def deliveries(self) -> Iterator[Delivery]:
        """Every sender's account, by name."""
        ...
