"""Plays one scripted answer to one client, and writes the bill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from runrails.testing.provider.bill import BilledCall, BilledEnd, generated
from runrails.testing.provider.plan import Plan, take_apart
from runrails.testing.provider.reply import Reply, make_reply
from runrails.testing.provider.values import Answer, Error, ProviderRequest

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

    from runrails.testing.provider.bill import Bill
    from runrails.testing.provider.wire import Dialect, Part
    from runrails.usage import Usage

__all__ = ["Line", "Waited", "play"]

Waited = Literal["done", "gone", "closing"]
"""How a wait ended: as planned, because the client left, or because the provider is closing."""


class Line(Protocol):
    """The connection to one client, as the engine needs it."""

    def wait(self, what: int | threading.Event) -> Waited:
        """Wait for milliseconds or for an event."""
        ...

    def gone(self) -> bool:
        """Whether the client has closed its end."""
        ...

    def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send a complete answer."""
        ...

    def half(self, headers: Mapping[str, str], body: bytes) -> None:
        """Send the headers of a complete answer and half of its body, then hang up."""
        ...

    def open_stream(self, headers: Mapping[str, str]) -> None:
        """Send the headers of a stream."""
        ...

    def piece(self, data: bytes) -> bool:
        """Send a piece of a stream; False if the client is not there any more."""
        ...

    def close_stream(self) -> None:
        """End a stream properly."""
        ...

    def hang_up(self, *, reset: bool = False) -> None:
        """Close the connection without another word."""
        ...


def play(
    answer: Answer, *, request: ProviderRequest, dialect: Dialect, line: Line, bill: Bill, served_model: str
) -> None:
    """Wait, answer, stream or hang up as scripted. The bill is written before the last byte goes out."""
    plan = take_apart(answer)
    waited: Waited = "done"
    for what in plan.waits:
        waited = line.wait(what)
        if waited != "done":
            break
    exchange = _Exchange(request, plan, dialect, line, bill, served_model)
    if waited == "closing":
        line.hang_up()
    elif isinstance(plan.said, Error):
        exchange.fail(plan.said)
    else:
        exchange.say(make_reply(request, plan.said, served_model=served_model), left=waited == "gone")


@dataclass(frozen=True, slots=True)
class _Exchange:
    request: ProviderRequest
    plan: Plan
    dialect: Dialect
    line: Line
    bill: Bill
    served_model: str

    def fail(self, error: Error) -> None:
        """Answer with an error, or hang up before it."""
        if error.usage is not None:
            self._bill(error.usage, "errored")
        if self.plan.hang_up is not None:
            self.line.hang_up()
            return
        headers, body = self.dialect.error(error, self.request.number)
        self.line.whole(error.status, {"content-type": "application/json", **headers, **error.headers}, body)

    def say(self, reply: Reply, *, left: bool) -> None:
        """Give an answer to a client that may have left already."""
        hang_up = self.plan.hang_up
        if hang_up is not None and hang_up.after_chunks is None:
            self._bill(reply.usage, "errored")
            self.line.hang_up()
        elif self.request.stream:
            self._stream(reply, left=left)
        else:
            self._whole(reply, left=left)

    def _whole(self, reply: Reply, *, left: bool) -> None:
        """Answer in one piece. Who leaves before it comes is billed all the same: it was generated."""
        body = self.dialect.whole(self.request, reply)
        headers = {"content-type": "application/json", **self.dialect.reply_headers(reply)}
        if self.plan.hang_up is not None:
            self._bill(reply.usage, "errored")
            self.line.half(headers, body)
            return
        paused = [self.line.wait(until) for until in self.plan.pauses.values()]
        if left or set(paused) - {"done"} or self.line.gone():
            self._bill(reply.usage, "cut")
            self.line.hang_up()
            return
        self._bill(reply.usage, "completed")
        self.line.whole(200, headers, body)

    def _stream(self, reply: Reply, *, left: bool) -> None:
        """Answer piece by piece. Who leaves is billed for the pieces sent."""
        parts = list(self.dialect.parts(self.request, reply))
        total = sum(part.content for part in parts)
        self.line.open_stream({"content-type": self.dialect.stream_type, **self.dialect.reply_headers(reply)})
        sent = 0
        for part in parts[:-1]:
            ended = "cut" if left else self._sent(part, sent, reply)
            if ended is not None:
                self._break_off(generated(reply.usage, sent, total), ended)
                return
            sent += part.content
        if self.plan.hang_up is not None:
            self._break_off(reply.usage, "errored")
            return
        # The bill comes first: whoever has read the last byte may look at it.
        self._bill(reply.usage, "completed")
        self.line.piece(parts[-1].data)
        self.line.close_stream()

    def _sent(self, part: Part, sent: int, reply: Reply) -> BilledEnd | None:
        """Send a part of a stream, after what is due before it. How the stream ends here, if it does."""
        here = sent > 0 or part.content  # "after 0 pieces" is before the first, when the preamble is out
        hang_up = self.plan.hang_up
        if hang_up is not None and here and sent == hang_up.after_chunks:
            return "errored"
        until = self.plan.pauses.pop(sent, None) if here else None
        if until is not None and self.line.wait(until) != "done":
            return "cut"
        if part.content and reply.chunk_delay_ms and self.line.wait(reply.chunk_delay_ms) != "done":
            return "cut"
        return "cut" if self.line.gone() or not self.line.piece(part.data) else None

    def _break_off(self, usage: Usage, ended: BilledEnd) -> None:
        self._bill(usage, ended)
        hang_up = self.plan.hang_up
        if ended == "errored" and hang_up is not None and hang_up.error is not None:
            self.line.piece(self.dialect.error_part(hang_up.error).data)
        self.line.hang_up(reset=ended == "errored" and hang_up is not None and hang_up.reset)

    def _bill(self, usage: Usage, end: BilledEnd) -> None:
        hang_up = self.plan.hang_up
        if end == "errored" and hang_up is not None and not hang_up.billed:
            return
        self.bill.add(
            BilledCall(
                number=self.request.number,
                wire=self.request.wire,
                model=self.request.model,
                served_model=self.served_model,
                usage=usage,
                end=end,
            )
        )
