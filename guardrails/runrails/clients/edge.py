"""One guarded client: which run its calls belong to, and the way of one call from permit to settlement."""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, cast

from runrails import aio
from runrails.calls import ModelResult
from runrails.clients.plan import capped
from runrails.cover import take_cover
from runrails.errors import ConfigError, GuardFault, RunrailsError
from runrails.run import current_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.calls import Permit
    from runrails.clients.plan import Dialect, Options, Plan
    from runrails.guard import Guard
    from runrails.run import Run

__all__ = ["Edge", "Ticket", "sending"]

_NOT_SENT = frozenset(
    {"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "InvalidURL", "ConnectionRefusedError",
     "gaierror"}
)  # fmt: skip
"""Errors of the HTTP libraries that come before a byte of the request has left."""
_CAUSES_MAX = 8


class Ticket:
    """One call that was let through. Settles once, whoever asks first."""

    __slots__ = ("_open", "edge", "lost", "permit", "plan", "run", "seen", "sent")

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
        self._open = [None]

    def settle(self, result: ModelResult) -> None:
        """Hand the permit back. Never raises."""
        if self._close():
            self._observed(self.run.after_model, self.permit, self._with_lost(result))

    async def asettle(self, result: ModelResult) -> None:
        """As `settle`, without blocking the event loop."""
        if not self._close():
            return
        try:
            await aio.after_model(self.run, self.permit, self._with_lost(result))
        except Exception as exc:  # noqa: BLE001 -- the answer is the user's; the hold expires by the ledger's rules
            self._failed(exc)

    def settle_later(self, result: Callable[[], ModelResult]) -> None:
        """Settle from a finaliser: it may run while this very thread has a lock, so another one does the work."""
        self.edge.guard.housekeeper.left_behind.append(lambda: self.settle(result()))

    def retrying(self, response: object) -> None:
        """The SDK is about to send again; without a response nobody knows what became of the attempt."""
        if self.sent and response is None and not _costs_nothing(sys.exception()):
            self.lost += 1
        self.sent = False

    def error(self, error: BaseException) -> ModelResult:
        """What a call came to that ended with an error."""
        if self.seen is not None:
            return self.seen
        return ModelResult(end="failed" if not self.sent or _costs_nothing(error) else "unknown")

    def answer(self, body: object) -> ModelResult:
        """What a decoded answer says. What cannot be read is settled at the hold."""
        if not self.sent:  # a cache in the client's own middleware
            return ModelResult(end="cached")
        try:
            if isinstance(body, Mapping):
                return self.plan.answer(cast("Mapping[str, object]", body))
        except Exception as exc:  # noqa: BLE001 -- see above; the answer is the user's
            self._failed(exc)
        return ModelResult(end="completed")

    def _close(self) -> bool:
        try:
            self._open.pop()
        except IndexError:
            return False
        return True

    def _with_lost(self, result: ModelResult) -> ModelResult:
        if not self.lost:
            return result
        from dataclasses import replace

        return replace(result, unknown_attempts=self.lost)

    def _observed(self, work: Callable[[Permit, ModelResult], None], permit: Permit, result: ModelResult) -> None:
        try:
            work(permit, result)
        except Exception as exc:  # noqa: BLE001 -- the answer is the user's; the hold expires by the ledger's rules
            self._failed(exc)

    def _failed(self, error: Exception) -> None:
        self.edge.guard.emit(
            "adapter_failed", "error", adapter="clients", hook="after_model", error=type(error).__name__,
            run=self.run.id,
        )  # fmt: skip


sending: ContextVar[Ticket | None] = ContextVar("runrails_sending", default=None)
"""The call whose attempts the SDK is making in this context."""


class Edge:
    """What the generated class of a guarded client knows. Thread-safe; copies of the client share it."""

    def __init__(self, guard: Guard, dialect: Dialect) -> None:
        self.guard = guard
        self.dialect = dialect
        self._lock = threading.Lock()
        self._shared: Run | None = None
        guard.before_close.add(self)

    def plan(self, client: object, options: Options) -> Plan | None:
        """
        What a request may cost; None if it is free, or covered by a layer above.

        Raises:
            CallRefused: Nobody can tell what it costs.
        """
        try:
            plan = self.dialect.plan(client, options)
        except RunrailsError:
            raise
        except Exception as exc:
            raise GuardFault(
                f"Reading what the client is about to send failed: {type(exc).__name__}.",
                next_step="The call was not started. Please report this with the traceback.",
            ) from exc
        return None if plan is None or take_cover(self.guard, plan.call) else plan

    def begin(self, plan: Plan) -> Ticket:
        """
        Leave to send.

        Raises:
            GuardrailStopped, CallRefused: It may not be sent.
        """
        self.guard.housekeeper.settle_left_behind()
        run = self._run()
        return Ticket(self, run, run.before_model(plan.call, sends=True), plan)

    async def abegin(self, plan: Plan) -> Ticket:
        """As `begin`, without blocking the event loop."""
        remote = self.guard.store.remote
        if not remote:
            self.guard.housekeeper.settle_left_behind()
        run = self._joined()
        if run is None:
            run = await aio.off_loop(self._share) if remote and self._shared is None else self._share()
        return Ticket(self, run, await aio.before_model(run, plan.call), plan)

    def prepared(self, ticket: Ticket, options: Options) -> Options:
        """The options to send: with the permit's cap and as many retries as are paid for."""
        plan, permit = ticket.plan, ticket.permit
        changes = capped(plan, permit)
        fewer = permit.retries < plan.call.retries and self.guard.mode == "enforce"
        parser = options.post_parser
        if not changes and not fewer and not callable(parser):
            return options
        changed = copy.copy(options)
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

    def close(self) -> None:
        """End the client's own run. Closing twice is fine."""
        with self._lock:
            run = self._shared
        if run is not None:
            run.close()

    def _run(self) -> Run:
        return self._joined() or self._share()

    def _joined(self) -> Run | None:
        run = current_run()
        if run is not None and run.guard is not self.guard:
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
                    run = self._shared = self.guard.run("client")
        return run


def _seeing(ticket: Ticket, parser: Callable[[object], object]) -> Callable[[object], object]:
    """The caller's own type is made from an answer that is paid for already, and that may fail."""
    from runrails.clients.reading import body_of

    def see(parsed: object) -> object:
        body = body_of(parsed)
        if body is not None:
            ticket.seen = ticket.answer(body)
        return parser(parsed)

    return see


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
