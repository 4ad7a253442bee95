"""One call between `before-call` and its end: its attempts, and what became of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from runrails.calls import ModelResult

if TYPE_CHECKING:
    from runrails.clients.edge import Ticket

__all__ = ["Flight", "costs_nothing"]

_NOT_SENT = frozenset(
    {"CertificateError", "ConnectTimeoutError", "EndpointConnectionError", "ProxyConnectionError",
     "SSLCertVerificationError"}
)  # fmt: skip
"""Errors of botocore and what it stands on that come before a byte of the request has left."""


class _Response(Protocol):
    @property
    def status_code(self) -> int: ...


class Flight:
    """
    A call that was let through. It ends once; one that botocore drops without a word ends in its finaliser.

    That happens where no event tells the end: an interrupt, or an error in somebody else's handler.
    """

    __slots__ = ("_error", "_left", "_over", "_response", "_unpaid", "ticket")

    def __init__(self, ticket: Ticket, *, attempts: int) -> None:
        self.ticket = ticket
        self._left = attempts
        self._over = False
        self._unpaid = False
        self._error: BaseException | None = None
        self._response: _Response | None = None

    def attempt(self) -> bool:
        """The request is about to be sent, for the first time or again. False if no money is held for that."""
        if self._left == 0:
            self._unpaid = True
            return False
        self._left -= 1
        if self.ticket.sent and self._may_have_cost():
            self.ticket.lost += 1
        self._error = self._response = None
        self.ticket.sent = True
        return True

    def came(self, response: _Response | None, error: BaseException | None) -> None:
        """What an attempt came to. One that is not paid for is not sent, so whatever came of it tells nothing."""
        if not self._unpaid:
            self._response, self._error = response, error

    def as_before(self) -> object:
        """What the last attempt came to, again: its response, or its error raised."""
        if self._error is not None:
            raise self._error
        return self._response

    def end(self, result: ModelResult) -> None:
        """Settle."""
        if not self._over:
            self._over = True
            self._error = self._response = None
            self.ticket.settle(result)

    def failed(self, error: BaseException) -> None:
        """No answer came. What came of the latest attempt that was sent is known, or it is this error."""
        if self._response is None and self._error is None:
            self._error = error
        self.end(self._without_answer())

    def handed_over(self) -> None:
        """Whoever reads along with the answer settles it."""
        self._over = True

    def _without_answer(self) -> ModelResult:
        return ModelResult(end="unknown" if self.ticket.sent and self._may_have_cost() else "failed")

    def _may_have_cost(self) -> bool:
        if self._response is not None:
            return self._response.status_code < 300
        return self._error is None or not costs_nothing(self._error)

    def __del__(self) -> None:
        if not self._over:
            self._over = True
            result = self._without_answer()
            self.ticket.settle_later(lambda: result)


def costs_nothing(error: BaseException) -> bool:
    """Whether an attempt that ended like this was not sent, by botocore's own word and no error that came before."""
    given: object = getattr(error, "kwargs", None)
    inner: object = cast("dict[str, object]", given).get("error") if isinstance(given, dict) else None
    first: object = inner.args[0] if isinstance(inner, Exception) and inner.args else None
    return any(type(cause).__name__ in _NOT_SENT for cause in (error, inner, first))
