"""The generated classes of guarded clients. They stand above the SDK's retries: one logical call is one event."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, ClassVar, cast

from runrails.calls import ModelResult
from runrails.clients.edge import Edge, sending
from runrails.clients.keys import Chosen, akey_refused, covered_route, key_refused, put_chosen_key, unredirected
from runrails.clients.reading import inherited, subclass_of
from runrails.clients.saving import CACHE_HOOKS, spare
from runrails.clients.sealed import sealing
from runrails.current import given_up
from runrails.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from runrails.clients.edge import Ticket
    from runrails.clients.plan import Dialect, Options
    from runrails.clients.saving import Keeping
    from runrails.guard import Guard

__all__ = ["HOOKS", "AsyncGuarded", "SyncGuarded", "guard_client"]

HOOKS = ("request", "_prepare_request", "_sleep_for_retry")
"""What this needs of an SDK; the last two tell whether something was sent and what became of it."""
_STORED = ("_runrails_stored", "_runrails_covered")
_SEEN = ("_process_response",)
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
            if edge.routes:
                return self._runrails_covered(edge, cast_to, options, kwargs)
            return self.runrails_request(cast_to, options, **kwargs)
        keeping = None
        if edge.guard.saves:
            options, plan, keeping = spare(edge, edge.run(), self, options, plan, kwargs)
            if keeping is not None and keeping.stored is not None:
                return self._runrails_stored(keeping, edge.begin(plan), cast_to, options)
        while True:
            ticket = edge.begin(plan)
            ticket.keeping = keeping
            around = sending.get()
            sending.set(ticket)
            chosen = Chosen(edge, ticket.permit.route) if edge.routes else None
            try:
                answer = self.runrails_request(cast_to, edge.prepared(ticket, options), **kwargs)
                break
            except BaseException as exc:
                ticket.settle(ticket.error(exc))
                if not (edge.routes and key_refused(edge, ticket.permit.route, exc)):
                    raise
            finally:
                sending.set(around)
                if chosen is not None:
                    chosen.end()
        result = ticket.result(answer)
        if result is not None:
            if keeping is not None:
                keeping.keep(ticket, result)
            ticket.settle(result)
        return answer

    def _runrails_covered(
        self, edge: Edge, cast_to: object, options: Options, kwargs: Mapping[str, object]
    ) -> object:  # fmt: skip
        """A request that a layer above has the permit for, or a free one; the permit may say on which key it goes."""
        route = covered_route()
        chosen = Chosen(edge, route)
        try:
            return self.runrails_request(cast_to, options if route is None else unredirected(options), **kwargs)
        except BaseException as exc:
            key_refused(edge, route, exc)
            raise
        finally:
            chosen.end()

    def _runrails_stored(self, keeping: Keeping, ticket: Ticket, cast_to: object, options: Options) -> object:
        """An answer that is there already: a step of the run, for which nothing is sent and nothing paid."""
        try:
            return keeping.answer(self, cast_to, options)
        finally:
            ticket.settle(keeping.stored or ModelResult(end="failed"))

    def _process_response(self, **kwargs: object) -> object:
        _seen(kwargs)
        return inherited(self, "_process_response")(**kwargs)

    def _prepare_request(self, request: object) -> None:
        self.runrails_prepare(request)
        ticket = sending.get()
        if self.runrails_edge.routes:
            put_chosen_key(request)
        if ticket is not None:
            ticket.sent = True

    def _sleep_for_retry(self, **kwargs: object) -> None:
        _retrying(kwargs)
        inherited(self, "_sleep_for_retry")(**kwargs)
        _not_if_left_alone()


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
            if edge.routes:
                return await self._runrails_covered(edge, cast_to, options, kwargs)
            return await self.runrails_request(cast_to, options, **kwargs)
        keeping = None
        if edge.guard.saves:
            options, plan, keeping = spare(edge, await edge.arun(), self, options, plan, kwargs)
            if keeping is not None and keeping.stored is not None:
                return await self._runrails_stored(keeping, await edge.abegin(plan), cast_to, options)
        while True:
            ticket = await edge.abegin(plan)
            ticket.keeping = keeping
            around = sending.get()
            sending.set(ticket)
            chosen = Chosen(edge, ticket.permit.route) if edge.routes else None
            try:
                answer = await self.runrails_request(cast_to, edge.prepared(ticket, options), **kwargs)
                break
            except BaseException as exc:
                await ticket.asettle(ticket.error(exc))
                if not (edge.routes and await akey_refused(edge, ticket.permit.route, exc)):
                    raise
            finally:
                sending.set(around)
                if chosen is not None:
                    chosen.end()
        result = ticket.result(answer)
        if result is not None:
            if keeping is not None:
                keeping.keep(ticket, result)
            await ticket.asettle(result)
        return answer

    async def _runrails_covered(
        self, edge: Edge, cast_to: object, options: Options, kwargs: Mapping[str, object]
    ) -> object:  # fmt: skip
        """A request that a layer above has the permit for, or a free one; the permit may say on which key it goes."""
        route = covered_route()
        chosen = Chosen(edge, route)
        try:
            return await self.runrails_request(cast_to, options if route is None else unredirected(options), **kwargs)
        except BaseException as exc:
            await akey_refused(edge, route, exc)
            raise
        finally:
            chosen.end()

    async def _runrails_stored(self, keeping: Keeping, ticket: Ticket, cast_to: object, options: Options) -> object:
        """An answer that is there already: a step of the run, for which nothing is sent and nothing paid."""
        try:
            return await cast("Awaitable[object]", keeping.answer(self, cast_to, options))
        finally:
            await ticket.asettle(keeping.stored or ModelResult(end="failed"))

    async def _process_response(self, **kwargs: object) -> object:
        _seen(kwargs)
        return await cast("Awaitable[object]", inherited(self, "_process_response")(**kwargs))

    async def _prepare_request(self, request: object) -> None:
        await self.runrails_prepare(request)
        ticket = sending.get()
        if self.runrails_edge.routes:
            put_chosen_key(request)
        if ticket is not None:
            ticket.sent = True

    async def _sleep_for_retry(self, **kwargs: object) -> None:
        _retrying(kwargs)
        await cast("Awaitable[None]", inherited(self, "_sleep_for_retry")(**kwargs))
        _not_if_left_alone()


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
        hooks = HOOKS if guard.cache is None else (*HOOKS, *CACHE_HOOKS)
        missing = [name for name in hooks if not hasattr(kind, name)]
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
        made = subclass_of(kind, own, (*HOOKS, *_STORED, *(_SEEN if guard.cache is not None else ())), more)
        type.__setattr__(made, "runrails_edge", edge)
        client.__class__ = made


def _after_fork() -> None:
    """Another thread of the parent may have been guarding a client just then; in a forked child it never ends."""
    global _lock  # noqa: PLW0603 -- a process has one
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)


def _seen(kwargs: dict[str, object]) -> None:
    """The SDK is about to make something of a response, which may be kept as it is."""
    ticket = sending.get()
    if ticket is not None and ticket.keeping is not None:
        ticket.keeping.seen = kwargs.get("response")


def _retrying(kwargs: dict[str, object]) -> None:
    ticket = sending.get()
    if ticket is not None:
        ticket.retrying(kwargs.get("response"))
        _not_if_left_alone()


def _not_if_left_alone() -> None:
    """What a time limit left alone is not sent again; the time may be up before the wait or during it."""
    stop = given_up()
    if stop is not None:
        raise stop.again()
