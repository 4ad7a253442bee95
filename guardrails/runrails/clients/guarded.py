"""The generated classes of guarded clients. They stand above the SDK's retries: one logical call is one event."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, ClassVar, cast

from runrails.calls import ModelResult
from runrails.clients.edge import Edge, Ticket, sending
from runrails.clients.reading import body_of, inherited, response_of, subclass_of
from runrails.clients.tapping import Tap, tap_response
from runrails.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from runrails.clients.plan import Dialect, Options
    from runrails.guard import Guard

__all__ = ["AsyncGuarded", "SyncGuarded", "guard_client"]

_HOOKS = ("request", "_prepare_request", "_sleep_for_retry")
"""What this needs of an SDK; the last two tell whether something was sent and what became of it."""
_lock = threading.Lock()


class SyncGuarded:
    """What a generated subclass of a synchronous client's class has of its own."""

    runrails_edge: ClassVar[Edge]

    def request(self, cast_to: object, options: Options, **kwargs: object) -> object:
        """
        Send a request if the guard lets it.

        Raises:
            GuardrailStopped, CallRefused: It may not be sent, and nothing was.
        """
        edge, send = self.runrails_edge, inherited(self, "request")
        plan = edge.plan(self, options)
        if plan is None:
            return send(cast_to, options, **kwargs)
        ticket = edge.begin(plan)
        token = sending.set(ticket)
        try:
            answer = send(cast_to, edge.prepared(ticket, options), **kwargs)
        except BaseException as exc:
            ticket.settle(ticket.error(exc))
            raise
        finally:
            sending.reset(token)
        result = _result(ticket, answer)
        if result is not None:
            ticket.settle(result)
        return answer

    def _prepare_request(self, request: object) -> None:
        inherited(self, "_prepare_request")(request)
        _sent()

    def _sleep_for_retry(self, **kwargs: object) -> None:
        _retrying(kwargs)
        inherited(self, "_sleep_for_retry")(**kwargs)


class AsyncGuarded:
    """What a generated subclass of an asynchronous client's class has of its own."""

    runrails_edge: ClassVar[Edge]

    async def request(self, cast_to: object, options: Options, **kwargs: object) -> object:
        """
        Send a request if the guard lets it.

        Raises:
            GuardrailStopped, CallRefused: It may not be sent, and nothing was.
        """
        edge, send = self.runrails_edge, inherited(self, "request")
        plan = edge.plan(self, options)
        if plan is None:
            return await cast("Awaitable[object]", send(cast_to, options, **kwargs))
        ticket = await edge.abegin(plan)
        token = sending.set(ticket)
        try:
            answer = await cast("Awaitable[object]", send(cast_to, edge.prepared(ticket, options), **kwargs))
        except BaseException as exc:
            await ticket.asettle(ticket.error(exc))
            raise
        finally:
            sending.reset(token)
        result = _result(ticket, answer)
        if result is not None:
            await ticket.asettle(result)
        return answer

    async def _prepare_request(self, request: object) -> None:
        await cast("Awaitable[None]", inherited(self, "_prepare_request")(request))
        _sent()

    async def _sleep_for_retry(self, **kwargs: object) -> None:
        _retrying(kwargs)
        await cast("Awaitable[None]", inherited(self, "_sleep_for_retry")(**kwargs))


def guard_client(guard: Guard, client: object, dialect: Dialect, *, is_async: bool) -> None:
    """
    Make `client` an instance of a generated subclass of its own class, which guards it and its copies.

    Raises:
        ConfigError: Another guard has it, or this version of its SDK is not known.
    """
    kind = type(client)
    with _lock:
        edge: object = getattr(kind, "runrails_edge", None)
        if isinstance(edge, Edge):
            if edge.guard is guard:
                return
            raise ConfigError(
                "This client is guarded by another guard already: its calls would be paid twice.",
                next_step="Make a client of its own for each guard, or use the same Guard for both.",
            )
        missing = [name for name in _HOOKS if not hasattr(kind, name)]
        if missing:
            raise ConfigError(
                f"This version of {kind.__module__.partition('.')[0]} has no {missing[0]}, which guarding needs.",
                next_step="Install a version in the range of runrails' extra for it.",
            )
        own = AsyncGuarded if is_async else SyncGuarded
        made = subclass_of(kind, own, _HOOKS)
        type.__setattr__(made, "runrails_edge", Edge(guard, dialect))
        client.__class__ = made


def _result(ticket: Ticket, answer: object) -> ModelResult | None:
    """What the call came to; None if its answer is still to be read, and will settle it."""
    if ticket.seen is not None:
        return ticket.seen
    response = response_of(answer)
    if response is None:
        return ticket.answer(body_of(answer))
    if not ticket.sent:
        return ModelResult(end="cached")
    if response.is_closed:
        try:
            return ticket.answer(response.json())
        except Exception:  # noqa: BLE001 -- no JSON tells no usage: settled at the hold; the answer is the user's
            return ModelResult(end="completed")
    tap_response(response, Tap(ticket))
    return None


def _sent() -> None:
    ticket = sending.get()
    if ticket is not None:
        ticket.sent = True


def _retrying(kwargs: dict[str, object]) -> None:
    ticket = sending.get()
    if ticket is not None:
        ticket.retrying(kwargs.get("response"))
