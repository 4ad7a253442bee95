"""
The handlers of botocore's events that guard the calls of `bedrock-runtime` clients.

One logical call is one pass from `before-call`, where the request is complete and botocore's retries have not begun, to
`after-call` or `after-call-error`. What is known of it in between is in the call's own context, so that any number of
threads may use a client.
"""

from __future__ import annotations

import json
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol, cast

from runrails.calls import ModelResult
from runrails.clients.edge import Edge
from runrails.cover import take_cover
from runrails.errors import BoundUnknown, GuardFault
from runrails_aws.bedrock.flights import Flight
from runrails_aws.bedrock.plan import FREE, BedrockDialect, BedrockOptions, BedrockPlan
from runrails_aws.bedrock.streams import EventTap, tap_events

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping, Sequence

    from runrails.guard import Guard

__all__ = ["Emitter", "Gate", "gate_of"]

_SERVICE = "bedrock-runtime"
_ASK = f"runrails-gate.{_SERVICE}"
"""An event of our own: who guards here answers it, also in a copy of the emitter."""
_KEY = "runrails"
_OPERATIONS = ("Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream")
_STREAMED = {"ConverseStream": "stream", "InvokeModelWithResponseStream": "body"}
"""Under which name the answer has its stream."""


class Emitter(Protocol):
    """A botocore event emitter, as far as it is used here."""

    def register_first(self, event_name: str, handler: Callable[..., object], unique_id: str) -> None:
        """Register a handler that is called before others of the same event name."""
        ...

    def register_last(self, event_name: str, handler: Callable[..., object], unique_id: str) -> None:
        """Register a handler that is called after others of the same event name."""
        ...

    def unregister(self, event_name: str, handler: None, unique_id: str) -> None:
        """Forget the handler that was registered with this id."""
        ...

    def emit(self, event_name: str) -> Sequence[tuple[object, object]]:
        """Call the handlers; returns each with what it returned."""
        ...


class _Operation(Protocol):
    @property
    def name(self) -> str: ...


class _Request(Protocol):
    @property
    def context(self) -> Mapping[str, object]: ...


class _Response(Protocol):
    @property
    def status_code(self) -> int: ...


_unpaid: ContextVar[Flight | None] = ContextVar("runrails_bedrock_unpaid", default=None)
"""The call whose next attempt, which botocore is just making, is not paid for."""


class Gate:
    """What guards one client, or all clients of a session. Thread-safe."""

    def __init__(self, guard: Guard) -> None:
        self.edge = Edge(guard, BedrockDialect())

    def register(self, emitter: Emitter) -> None:
        """Guard whatever uses this emitter or, from now on, a copy of it."""
        # Last, so that what is read is what is sent, and what somebody else answers is not asked for.
        emitter.register_last(f"before-call.{_SERVICE}", self._before_call, unique_id="runrails-before-call")
        # After signing, which may still fail; an attempt that was created is taken for sent.
        emitter.register_last(f"request-created.{_SERVICE}", self._created, unique_id="runrails-created")
        emitter.register_first(f"before-send.{_SERVICE}", self._before_send, unique_id="runrails-before-send")
        emitter.register_first(f"needs-retry.{_SERVICE}", self._needs_retry, unique_id="runrails-needs-retry")
        for name in _OPERATIONS:
            # By the operation's name they come before those of the service, whose errors would keep us from settling.
            event = f"{_SERVICE}.{name}"
            emitter.register_first(f"after-call.{event}", self._after_call, unique_id=f"runrails-after-{name}")
            emitter.register_first(f"after-call-error.{event}", self._after_error, unique_id=f"runrails-error-{name}")
        emitter.register_first(_ASK, self._who, unique_id="runrails-who")

    def unregister(self, emitter: Emitter) -> None:
        """Guard it no more; copies that were made of it stay guarded."""
        for event in ("before-call", "request-created", "before-send", "needs-retry"):
            emitter.unregister(f"{event}.{_SERVICE}", None, f"runrails-{event.removeprefix('request-')}")
        for name in _OPERATIONS:
            emitter.unregister(f"after-call.{_SERVICE}.{name}", None, f"runrails-after-{name}")
            emitter.unregister(f"after-call-error.{_SERVICE}.{name}", None, f"runrails-error-{name}")
        emitter.unregister(_ASK, None, "runrails-who")

    # Deciding.

    def _before_call(
        self, model: _Operation, params: MutableMapping[str, object], context: MutableMapping[str, object], **_: object
    ) -> None:
        if model.name in FREE:
            return
        plan = self._plan(model.name, params, context)
        if plan is None:
            return
        ticket = self.edge.begin(plan)
        guard, permit = self.edge.guard, ticket.permit
        flight = Flight(ticket, attempts=1 + (permit.retries if guard.mode == "enforce" else plan.call.retries))
        try:
            body = plan.body_for(permit)
            if body is not None:
                params["body"] = json.dumps(body).encode()
            context[_KEY] = flight
        except Exception as exc:
            flight.end(ModelResult(end="failed"))
            raise GuardFault(
                f"Putting the cap into the request failed: {type(exc).__name__}.",
                next_step="The call was not started. Please report this with the traceback.",
            ) from exc

    def _plan(
        self, operation: str, params: MutableMapping[str, object], context: Mapping[str, object]
    ) -> BedrockPlan | None:
        read: object = getattr(params.get("body"), "read", None)
        if callable(read):
            params["body"] = read()
        try:
            options = BedrockOptions.read(operation, params, context)
        except BoundUnknown as refusal:
            self.edge.bypassed(refusal)
            return None
        plan = self.edge.plan(None, options)
        if not isinstance(plan, BedrockPlan) or (plan.unnamed and take_cover(self.edge.guard, plan.call, unnamed=True)):
            return None
        return plan

    # Attempts.

    def _created(self, request: _Request, **_: object) -> None:
        flight = request.context.get(_KEY)
        # Set for every attempt: one that came to nothing before it was sent must not answer the next one.
        _unpaid.set(flight if isinstance(flight, Flight) and not flight.attempt() else None)

    def _before_send(self, **_: object) -> object:
        """Answer an attempt that is not paid for with what came of the one before it."""
        flight = _unpaid.get()
        if flight is None:
            return None
        _unpaid.set(None)
        return flight.as_before()

    def _needs_retry(
        self, request_dict: Mapping[str, object], response: tuple[_Response, object] | None,
        caught_exception: BaseException | None, **_: object,
    ) -> None:  # fmt: skip
        flight = cast("Mapping[str, object]", request_dict["context"]).get(_KEY)
        if isinstance(flight, Flight):
            flight.came(None if response is None else response[0], caught_exception)

    # Observing: whatever goes wrong in here, the answer is the user's.

    def _after_call(
        self, http_response: _Response, parsed: Mapping[str, object], model: _Operation,
        context: MutableMapping[str, object], **_: object,
    ) -> None:  # fmt: skip
        flight = context.pop(_KEY, None)
        if not isinstance(flight, Flight):
            return
        try:
            self._answered(flight, http_response.status_code, parsed, model.name)
        except Exception as exc:  # noqa: BLE001 -- see above
            flight.ticket.failed(exc)
            flight.end(ModelResult(end="unknown"))

    def _answered(self, flight: Flight, status: int, parsed: Mapping[str, object], operation: str) -> None:
        ticket = flight.ticket
        plan = cast("BedrockPlan", ticket.plan)
        if not ticket.sent:
            flight.end(ModelResult(end="cached"))
        elif status >= 300:
            flight.end(ModelResult(end="failed"))
        elif plan.events is not None:
            tap_events(parsed[_STREAMED[operation]], EventTap(ticket, plan.events))
            flight.handed_over()
        elif operation == "Converse":
            flight.end(plan.answer(parsed))
        else:
            told = cast("Mapping[str, Mapping[str, object]]", parsed["ResponseMetadata"])
            flight.end(plan.answer(told["HTTPHeaders"]))

    def _after_error(self, exception: BaseException, context: MutableMapping[str, object], **_: object) -> None:
        flight = context.pop(_KEY, None)
        if isinstance(flight, Flight):
            flight.failed(exception)

    def _who(self, **_: object) -> Gate:
        return self


def gate_of(emitter: Emitter) -> Gate | None:
    """Who guards what uses this emitter; None if nobody does."""
    return next((answer for _, answer in emitter.emit(_ASK) if isinstance(answer, Gate)), None)
