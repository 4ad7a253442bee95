"""One guarded client: which run its calls belong to, and the way of one call from permit to settlement."""

from __future__ import annotations

import atexit
import copy
import os
import sys
import threading
from collections.abc import Mapping
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Protocol, cast
from weakref import WeakSet

from runrails import aio
from runrails import current as around
from runrails.calls import ModelResult
from runrails.clients.keys import in_place, note_cover, unredirected
from runrails.clients.plan import capped
from runrails.clients.reading import body_of, response_of
from runrails.clients.tapping import Tap, tap_response
from runrails.cover import covering, take_cover
from runrails.current import current, current_run, enclosing, is_of, run_around
from runrails.errors import CallRefused, ConfigError, GuardFault

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.calls import Permit
    from runrails.clients.plan import Dialect, Options, Plan
    from runrails.clients.reading import Response
    from runrails.clients.saving import Keeping
    from runrails.errors import GuardrailStopped
    from runrails.guard import Guard
    from runrails.run import Run

__all__ = ["Edge", "Reading", "Ticket", "sending"]

_NOT_SENT = frozenset(
    {"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "InvalidURL", "ConnectionRefusedError",
     "gaierror"}
)  # fmt: skip
"""Errors of the HTTP libraries that come before a byte of the request has left."""
_CAUSES_MAX = 8


class Reading(Protocol):
    """An answer that is still being read."""

    def drop(self) -> None:
        """Nobody will read on. Settles later, in another place: it may be a finaliser that says so."""
        ...


class Ticket:
    """One call that was let through. Settles once, whoever asks first."""

    __slots__ = ("_open", "edge", "keeping", "lost", "permit", "plan", "run", "seen", "sent")

    def __init__(self, edge: Edge, run: Run, permit: Permit, plan: Plan) -> None:
        self.edge = edge
        self.run = run
        self.permit = permit
        self.plan = plan
        self.sent = False
        """Whether the latest attempt has left."""
        self.lost = 0
        """Earlier attempts whose outcome is unknown."""
        self.seen: ModelResult | None = None
        """What an answer said that the SDK may still fail to make something of."""
        self.keeping: Keeping | None = None
        """Where its answer is kept, if it is."""
        self._open = [None]

    def settle(self, result: ModelResult) -> None:
        """Hand the permit back. Never raises."""
        try:
            self._open.pop()
        except IndexError:
            return
        try:
            self.run.after_model(self.permit, self._with_lost(result) if self.lost else result)
        except Exception as exc:  # noqa: BLE001 -- the answer is the user's; the hold expires by the ledger's rules
            self.failed(exc)

    async def asettle(self, result: ModelResult) -> None:
        """As `settle`, without blocking the event loop."""
        if not self._close():
            return
        try:
            await aio.after_model(self.run, self.permit, self._with_lost(result) if self.lost else result)
        except Exception as exc:  # noqa: BLE001 -- the answer is the user's; the hold expires by the ledger's rules
            self.failed(exc)

    def settle_later(self, result: Callable[[], ModelResult]) -> None:
        """Settle from a finaliser: it may run while this very thread has a lock, so another one does the work."""
        self.edge.guard.housekeeper.left_behind.append(lambda: self.settle(result()))

    def retrying(self, response: object) -> None:
        """The SDK is about to send again; without a response nobody knows what became of the attempt."""
        if self.sent and response is None and not self._cost_nothing(sys.exception()):
            self.lost += 1
        self.sent = False

    def error(self, error: BaseException) -> ModelResult:
        """What a call came to that ended with an error."""
        if self.seen is not None:
            return self.seen
        return ModelResult(end="failed" if not self.sent or self._cost_nothing(error) else "unknown")

    def result(self, answer: object) -> ModelResult | None:
        """What the call came to; None if its answer is still to be read, and will settle it. Never raises."""
        if self.seen is not None:
            return self.seen
        try:
            body = body_of(answer)
            if not self.sent:  # a cache in the client's own middleware
                return ModelResult(end="cached")
            if body is not None:
                read = self.plan.answer
                return read(body)
            response = response_of(answer)
            if response is None or response.is_closed:
                return self._closed(response)
            tap_response(response, Tap(self))
        except Exception as exc:  # noqa: BLE001 -- the answer is the user's
            self.failed(exc)
            return ModelResult(end="unknown")
        return None

    def answer(self, body: object) -> ModelResult:
        """What a decoded answer says. What cannot be read is settled at the hold. Never raises."""
        if not self.sent:  # a cache in the client's own middleware
            return ModelResult(end="cached")
        try:
            if type(body) is dict or isinstance(body, Mapping):
                return self.plan.answer(cast("Mapping[str, object]", body))
        except Exception as exc:  # noqa: BLE001 -- see above; the answer is the user's
            self.failed(exc)
            return ModelResult(end="unknown")
        return ModelResult(end="completed")

    def failed(self, error: Exception) -> None:
        """Something of ours went wrong, which must not change what the user gets: tell of it."""
        self.edge.guard.emit(
            "adapter_failed", "error", adapter="clients", hook="after_model", error=type(error).__name__,
            run=self.run.id,
        )  # fmt: skip

    def closed(self, reason: GuardrailStopped | CallRefused) -> None:
        """Its stream is closed, as what comes is no longer paid for: tell of it."""
        self.edge.guard.emit(
            "stream_closed", "warning", run=self.run.id, reservation=self.permit.id, reason=reason.code
        )

    def _cost_nothing(self, error: BaseException | None) -> bool:
        try:
            return _costs_nothing(error)
        except Exception as exc:  # noqa: BLE001 -- the error is the user's
            self.failed(exc)
            return False

    def _closed(self, response: Response | None) -> ModelResult:
        try:
            body = None if response is None else response.json()
        except Exception:  # noqa: BLE001 -- no JSON tells no usage: settled at the hold; the answer is the user's
            return ModelResult(end="completed")
        return self.answer(body)

    def _close(self) -> bool:
        try:
            self._open.pop()
        except IndexError:
            return False
        return True

    def _with_lost(self, result: ModelResult) -> ModelResult:
        from dataclasses import replace

        return replace(result, unknown_attempts=self.lost)


sending: ContextVar[Ticket | None] = ContextVar("runrails_sending", default=None)
"""The call whose attempts the SDK is making in this context."""


class Edge:
    """What the generated class of a guarded client knows. Thread-safe; copies of the client share it."""

    def __init__(self, guard: Guard, dialect: Dialect) -> None:
        self.guard = guard
        self.dialect = dialect
        self.routes = guard.credentials is not None
        """Whether a key is chosen for every call."""
        self._lock = threading.Lock()
        self._shared: Run | None = None
        self._taps: WeakSet[Reading] = WeakSet()
        self._pid = os.getpid()
        guard.before_close.add(self)
        _all.add(self)

    def plan(self, client: object, options: Options) -> Plan | None:
        """
        What a request may cost; None if it is free, or covered by a layer above.

        Raises:
            CallRefused: Nobody can tell what it costs.
        """
        try:
            plan = self.dialect.plan(client, options)
        except CallRefused as exc:
            self.bypassed(exc)
            return None
        except Exception as exc:  # noqa: BLE001 -- a deciding part: it becomes the refusal
            fault = _fault("Reading what the client is about to send", exc)
            fault.__cause__ = exc
            self.bypassed(fault)
            return None
        if plan is None:
            return None
        if covering.get() is not None and take_cover(self.guard, plan.call):
            if self.routes:
                note_cover(self)
            return None
        return in_place(self, client, plan) if self.routes else plan

    def bypassed(self, refusal: CallRefused) -> None:
        """Something is about to be sent that cannot be guarded: raise the refusal, or only tell of it if observing."""
        if self.guard.mode != "observe":
            raise refusal
        self.guard.emit("call_would_refuse", "warning", **refusal.as_dict())

    def begin(self, plan: Plan) -> Ticket:
        """
        Leave to send.

        Raises:
            GuardrailStopped, CallRefused: It may not be sent.
        """
        keeper = self.guard.housekeeper
        if keeper.left_behind:
            keeper.settle_left_behind()
        run = self._shared
        if run is None or current.get() is not None or around.default is not None or enclosing:
            run = self.run()
        return Ticket(self, run, run.before_model(plan.call, sends=True), plan)

    async def abegin(self, plan: Plan) -> Ticket:
        """As `begin`, without blocking the event loop."""
        remote = self.guard.store.remote
        if not remote:
            self.guard.housekeeper.settle_left_behind()
        run = await self.arun()
        return Ticket(self, run, await aio.before_model(run, plan.call), plan)

    def run(self) -> Run:
        """The run that a call belongs to which is made here and now."""
        run = None
        if current.get() is not None or around.default is not None or enclosing:
            run = self._joined()
        return run or self._shared or self._share()

    async def arun(self) -> Run:
        """As `run`, without blocking the event loop."""
        run = self._joined()
        if run is None:
            far = self.guard.store.remote and self._shared is None
            run = await aio.off_loop(self.guard, self._share) if far else self._share()
        return run

    def prepared(self, ticket: Ticket, options: Options) -> Options:
        """
        The options to send: with the permit's cap and as many retries as are paid for.

        Raises:
            GuardFault: They cannot be made; nothing may be sent.
        """
        plan, permit = ticket.plan, ticket.permit
        try:
            call = plan.call
            if (
                permit.max_tokens == call.max_tokens and permit.retries == call.retries
                and permit.route is None and not plan.changes
                and not callable(vars(options).get("post_parser", callable))
            ):  # fmt: skip
                return options
            return self._changed(options, ticket, capped(plan, permit))
        except Exception as exc:
            raise _fault("Putting the limits into the request", exc) from exc

    def _changed(self, options: Options, ticket: Ticket, changes: Mapping[str, object]) -> Options:
        plan, permit = ticket.plan, ticket.permit
        fewer = permit.retries < plan.call.retries and self.guard.mode == "enforce"
        parser = options.post_parser
        keyed = permit.route is not None and permit.route.secret is not None
        if not changes and not fewer and not callable(parser) and not keyed:
            return options
        changed = unredirected(options) if keyed else copy.copy(options)
        if changes:
            changed.json_data = {**cast("Mapping[str, object]", options.json_data), **changes}
            extra = options.extra_json
            if isinstance(extra, Mapping) and not changes.keys().isdisjoint(cast("Mapping[str, object]", extra)):
                changed.extra_json = {**cast("Mapping[str, object]", extra), **changes}
        if fewer:
            changed.max_retries = permit.retries
        if callable(parser):
            changed.post_parser = _seeing(ticket, parser)
        return changed

    def own_run(self) -> Run:
        """The run that the client's calls belong to outside of any `with guard.run():`."""
        return self._share()

    def tapped(self, tap: Reading) -> None:
        """The body of an answer is being read; should the program end before that does, it is settled then."""
        self._taps.add(tap)

    def close(self) -> None:
        """End the client's own run. Closing twice is fine."""
        with self._lock:
            run = self._shared
        if run is not None:
            run.close()

    def at_exit(self) -> None:
        """The program ends: settle the streams that nobody closed, and end the client's own run."""
        if self._pid != os.getpid():
            return  # A forked child: all of this is its parent's.
        for tap in list(self._taps):
            tap.drop()
        self.guard.housekeeper.settle_left_behind()
        self.close()

    def _joined(self) -> Run | None:
        run = current_run()
        if run is None:
            return run_around(self.guard) if enclosing else None
        if not is_of(run, self.guard):
            if run.guard.yields:
                return None
            raise ConfigError(
                "A client guarded by one guard is used inside a run of another: its calls would be paid twice.",
                next_step="Use the same Guard for both.",
            )
        return run

    def _share(self) -> Run:
        run = self._shared
        if run is None:
            with self._lock:
                run = self._shared
                if run is None:
                    # Outside of whatever run the asking code is in.
                    run = self._shared = Context().run(self.guard.run, "client")
        return run


_all: WeakSet[Edge] = WeakSet()


def _at_exit() -> None:
    for edge in list(_all):
        edge.at_exit()


atexit.register(_at_exit)


def _seeing(ticket: Ticket, parser: Callable[[object], object]) -> Callable[[object], object]:
    """The caller's own type is made from an answer that is paid for already, and that may fail."""

    def see(parsed: object) -> object:
        try:
            body = body_of(parsed)
            if body is not None:
                ticket.seen = ticket.answer(body)
        except Exception as exc:  # noqa: BLE001 -- the answer is the user's
            ticket.failed(exc)
        return parser(parsed)

    return see


def _fault(what: str, error: Exception) -> GuardFault:
    return GuardFault(
        f"{what} failed: {type(error).__name__}.",
        next_step="The call was not started. Please report this with the traceback.",
    )


def _costs_nothing(error: BaseException | None) -> bool:
    cause = error
    for _ in range(_CAUSES_MAX):
        if cause is None:
            return False
        status = getattr(cause, "status_code", None)
        if (isinstance(status, int) and 400 <= status <= 599) or type(cause).__name__ in _NOT_SENT:
            return True
        cause = cause.__cause__
    return False
