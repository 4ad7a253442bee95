"""The generated classes of guarded clients. They stand above the SDK's retries: one logical call is one event."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, ClassVar, cast

from runrails.clients.edge import Edge, sending
from runrails.clients.reading import inherited, subclass_of
from runrails.clients.sealed import sealing
from runrails.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from runrails.clients.plan import Dialect, Options
    from runrails.guard import Guard

__all__ = ["HOOKS", "AsyncGuarded", "SyncGuarded", "guard_client"]

HOOKS = ("request", "_prepare_request", "_sleep_for_retry")
"""What this needs of an SDK; the last two tell whether something was sent and what became of it."""
_COPIERS = ("copy", "with_options")
_lock = threading.Lock()


class SyncGuarded:
    """What a generated subclass of a synchronous client's class has of its own."""

    runrails_edge: ClassVar[Edge]
    runrails_request: ClassVar[Callable[..., object]]
    runrails_prepare: ClassVar[Callable[..., None]]

    def request(self, cast_to: object, options: Options, **kwargs: object) -> object:
        """
        Send a request if the guard lets it.

        Raises:
            GuardrailStopped, CallRefused: It may not be sent, and nothing was.
        """
        edge = self.runrails_edge
        plan = edge.plan(self, options)
        if plan is None:
            return self.runrails_request(cast_to, options, **kwargs)
        ticket = edge.begin(plan)
        token = sending.set(ticket)
        try:
            answer = self.runrails_request(cast_to, edge.prepared(ticket, options), **kwargs)
        except BaseException as exc:
            ticket.settle(ticket.error(exc))
            raise
        finally:
            sending.reset(token)
        result = ticket.result(answer)
        if result is not None:
            ticket.settle(result)
        return answer

    def _prepare_request(self, request: object) -> None:
        self.runrails_prepare(request)
        ticket = sending.get()
        if ticket is not None:
            ticket.sent = True

    def _sleep_for_retry(self, **kwargs: object) -> None:
        _retrying(kwargs)
        inherited(self, "_sleep_for_retry")(**kwargs)


class AsyncGuarded:
    """What a generated subclass of an asynchronous client's class has of its own."""

    runrails_edge: ClassVar[Edge]
    runrails_request: ClassVar[Callable[..., Awaitable[object]]]
    runrails_prepare: ClassVar[Callable[..., Awaitable[None]]]

    async def request(self, cast_to: object, options: Options, **kwargs: object) -> object:
        """
        Send a request if the guard lets it.

        Raises:
            GuardrailStopped, CallRefused: It may not be sent, and nothing was.
        """
        edge = self.runrails_edge
        plan = edge.plan(self, options)
        if plan is None:
            return await self.runrails_request(cast_to, options, **kwargs)
        ticket = await edge.abegin(plan)
        token = sending.set(ticket)
        try:
            answer = await self.runrails_request(cast_to, edge.prepared(ticket, options), **kwargs)
        except BaseException as exc:
            await ticket.asettle(ticket.error(exc))
            raise
        finally:
            sending.reset(token)
        result = ticket.result(answer)
        if result is not None:
            await ticket.asettle(result)
        return answer

    async def _prepare_request(self, request: object) -> None:
        await self.runrails_prepare(request)
        ticket = sending.get()
        if ticket is not None:
            ticket.sent = True

    async def _sleep_for_retry(self, **kwargs: object) -> None:
        _retrying(kwargs)
        await cast("Awaitable[None]", inherited(self, "_sleep_for_retry")(**kwargs))


def guard_client(guard: Guard, client: object, dialect: Dialect, *, is_async: bool, sealed: str | None = None) -> None:
    """
    Make `client` an instance of a generated subclass of its own class, which guards it and its copies.

    Args:
        guard: Whose limits apply.
        client: The client; it is changed.
        dialect: What the adapter knows of its requests.
        is_async: Whether its methods are coroutine functions.
        sealed: An attribute of it that is read only to open a connection past `request`, and to copy it.

    Raises:
        ConfigError: Another guard has it, or this version of its SDK is not known.
    """
    kind = type(client)
    with _lock:
        edge: object = getattr(kind, "runrails_edge", None)
        if isinstance(edge, Edge):
            if edge.guard is guard or guard.yields:
                return
            if not edge.guard.yields:
                raise ConfigError(
                    "This client is guarded by another guard already: its calls would be paid twice.",
                    next_step="Make a client of its own for each guard, or use the same Guard for both.",
                )
            kind = kind.__bases__[0]
        missing = [name for name in HOOKS if not hasattr(kind, name)]
        missing += [name for name in (sealed,) if name is not None and name not in vars(client)]
        if missing:
            raise ConfigError(
                f"This version of {kind.__module__.partition('.')[0]} has no {missing[0]}, which guarding needs.",
                next_step="Install a version in the range of runrails' extra for it.",
            )
        own = AsyncGuarded if is_async else SyncGuarded
        edge = Edge(guard, dialect)
        more = {} if sealed is None else sealing(edge, sealed, [name for name in _COPIERS if hasattr(kind, name)])
        # What is called for every request is found without going through `super`.
        more |= {"runrails_request": getattr(kind, HOOKS[0]), "runrails_prepare": getattr(kind, HOOKS[1])}
        made = subclass_of(kind, own, HOOKS, more)
        type.__setattr__(made, "runrails_edge", edge)
        client.__class__ = made


def _after_fork() -> None:
    """Another thread of the parent may have been guarding a client just then; in a forked child it never ends."""
    global _lock  # noqa: PLW0603 -- a process has one
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)


def _retrying(kwargs: dict[str, object]) -> None:
    ticket = sending.get()
    if ticket is not None:
        ticket.retrying(kwargs.get("response"))
