"""
runrails for Bedrock under boto3: `client = guard.wrap(boto3.client("bedrock-runtime"))`.

Converse, ConverseStream, InvokeModel and InvokeModelWithResponseStream are guarded; counting tokens and looking after
asynchronous jobs is free and passes; everything else costs something nobody can bound, and is refused by name. It works
by botocore's own events, so that no class is patched, and botocore's retries are below it: one call of yours is one.

Clients of aiobotocore are not guarded, and wrapping one is refused. A presigned URL is sent by somebody else, and is
not seen.
"""

from __future__ import annotations

import sys
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from runrails.errors import ConfigError
from runrails_aws.bedrock.gate import Emitter, Gate, gate_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.guard import Guard

__all__ = ["attach", "guard_session", "wrap"]

_C = TypeVar("_C")
_S = TypeVar("_S")


class _ServiceModel(Protocol):
    @property
    def service_name(self) -> str: ...


class _Meta(Protocol):
    @property
    def events(self) -> Emitter: ...
    @property
    def service_model(self) -> _ServiceModel: ...


class _Botocore(Protocol):
    def register_initializer(self, callback: Callable[[object], None]) -> None: ...
    def unregister_initializer(self, callback: Callable[[object], None]) -> None: ...


def wrap(guard: Guard, client: _C) -> _C:
    """
    Guard a `bedrock-runtime` client of boto3 or botocore; see `Guard.wrap`.

    Raises:
        ConfigError: It is none, or another guard has it.
    """
    _refuse_asynchronous(client)
    meta = cast("_Meta | None", getattr(client, "meta", None))
    service = None if meta is None else meta.service_model.service_name
    if meta is None or service != "bedrock-runtime":
        raise ConfigError(
            f"runrails cannot guard a {type(client).__module__}.{type(client).__qualname__}; of boto3 it guards "
            "clients of bedrock-runtime.",
            next_step='Pass boto3.client("bedrock-runtime").',
        )
    gate = _guard(guard, meta.events, "client")
    client.__dict__["runrails_edge"] = gate.edge
    return client


def guard_session(guard: Guard, session: _S) -> _S:
    """
    Guard every `bedrock-runtime` client that a boto3 or botocore session makes from now on. Twice is once.

    Clients it has made before are left alone; other services are none of our business.

    Raises:
        ConfigError: It is no session, or another guard has it.
    """
    _refuse_asynchronous(session)
    _guard(guard, _emitter_of(session), "session")
    return session


def attach(guard: Guard) -> Callable[[], None]:
    """
    Guard every session of this process that is made from now on, and boto3's default session if it exists.

    botocore calls initialisers for each session it makes (`botocore.register_initializer`), so nothing is patched.
    Sessions that exist already are not found, nor are aiobotocore's guarded.

    Returns:
        What ends it. Sessions made meanwhile stay guarded.

    Raises:
        ConfigError: Another guard is attached.
    """
    with _lock:
        attached = _attached.get("gate")
        if attached is not None and attached.edge.guard is not guard:
            raise ConfigError(
                "Another guard is attached to botocore already: its calls would be paid twice.",
                next_step="Use the same Guard for both, or detach the first one.",
            )
        if attached is None:
            gate = _attached["gate"] = Gate(guard)
            _botocore().register_initializer(_initialise)
            default: object = getattr(sys.modules.get("boto3"), "DEFAULT_SESSION", None)
            if default is not None and gate_of(_emitter_of(default)) is None:
                gate.register(_emitter_of(default))
    return lambda: _detach(guard)


_lock = threading.Lock()
_attached: dict[str, Gate] = {}
"""The one gate of the process: initialisers are per process as well."""


def _detach(guard: Guard) -> None:
    with _lock:
        gate = _attached.get("gate")
        if gate is not None and gate.edge.guard is guard:
            del _attached["gate"]
            _botocore().unregister_initializer(_initialise)


def _initialise(session: object) -> None:
    gate = _attached.get("gate")
    if gate is not None and not _is_asynchronous(session):
        gate.register(_emitter_of(session))


def _guard(guard: Guard, emitter: Emitter, what: str) -> Gate:
    with _lock:
        gate = gate_of(emitter)
        if gate is not None and gate.edge.guard.yields and not guard.yields:
            gate.unregister(emitter)
            gate = None
        if gate is None:
            gate = Gate(guard)
            gate.register(emitter)
        elif gate.edge.guard is not guard and not guard.yields:
            raise ConfigError(
                f"This {what} is guarded by another guard already: its calls would be paid twice.",
                next_step=f"Make a {what} of its own for each guard, or use the same Guard for both.",
            )
        return gate


def _emitter_of(session: object) -> Emitter:
    events: object = getattr(session, "events", None)
    if events is None:
        get_component: object = getattr(session, "get_component", None)
        events = get_component("event_emitter") if callable(get_component) else None
    if not hasattr(events, "register_last"):
        raise ConfigError(
            f"runrails cannot guard a {type(session).__module__}.{type(session).__qualname__}: it is no session.",
            next_step="Pass a boto3.Session or a botocore.session.Session.",
        )
    return cast("Emitter", events)


def _is_asynchronous(given: object) -> bool:
    return any(kind.__module__.partition(".")[0] == "aiobotocore" for kind in type(given).__mro__)


def _refuse_asynchronous(given: object) -> None:
    if _is_asynchronous(given):
        raise ConfigError(
            "runrails does not guard aiobotocore: its events and streams are others than botocore's.",
            next_step="Use boto3, in a thread if need be, or AsyncAnthropicBedrock, which can be guarded.",
        )


def _botocore() -> _Botocore:
    return cast("_Botocore", import_module("botocore"))
