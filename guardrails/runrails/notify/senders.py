"""What a sender of notifications is, and what it is given to send."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from runrails.money import format_usd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runrails.events import Event, Field

__all__ = ["FunctionSender", "Notice", "SendFailed", "Sender"]

_AMOUNTS = ("limit", "spent", "held")


class Notice(NamedTuple):
    """An event on its way. Its id is the same at every attempt, so that a receiver can tell a repetition."""

    id: str
    at_ms: int
    """When it happened, milliseconds since the epoch, UTC."""
    event: Event

    @property
    def text(self) -> str:
        """What a person reads."""
        message = self.event.fields.get("message")
        return message if isinstance(message, str) else self.event.name

    def payload(self) -> dict[str, object]:
        """What a program reads: type, time and the event's fields; amounts of money in dollars as well, as text."""
        from datetime import UTC, datetime

        at = datetime.fromtimestamp(self.at_ms / 1_000, UTC)
        fields: Mapping[str, Field] = self.event.fields
        # Amounts in picodollars pass 2^53 from $9,007 on, which JavaScript cannot read exactly.
        dollars = {
            f"{name}_usd": format_usd(amount).replace("$", "").replace(",", "")
            for name in _AMOUNTS
            if fields.get("unit") == "pusd" and isinstance(amount := fields.get(name), int)
        }
        return {
            "type": self.event.name,
            "timestamp": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "data": {**fields, **dollars},
        }


class SendFailed(Exception):
    """
    A notification did not get through.

    Args:
        reason: What happened, in a word or two for people and logs: no address, no secret, no text of the receiver's.
        again: Whether trying again may help.
        wait_s: How long the receiver asked to be left alone.
    """

    def __init__(self, reason: str, *, again: bool = True, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.again = again
        self.wait_s = wait_s


@runtime_checkable
class Sender(Protocol):
    """Sends notices somewhere. Called by one thread at a time, which it may keep waiting."""

    @property
    def name(self) -> str:
        """What it is called in the books, without secrets: the same in every process that sends there."""
        ...

    def send(self, notice: Notice) -> None:
        """Send it. Raises SendFailed, or anything else for what may be tried again."""
        ...


class FunctionSender:
    """Calls a function with each event."""

    def __init__(self, function: Callable[[Event], object]) -> None:
        self._function = function

    @property
    def name(self) -> str:
        """The function's own name."""
        function = self._function
        named: object = getattr(function, "__qualname__", None)
        return f"function {named if isinstance(named, str) else type(function).__qualname__}"[:200]

    def send(self, notice: Notice) -> None:
        """Call it."""
        self._function(notice.event)
