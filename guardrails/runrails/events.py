"""Events out: what happened, for sinks. A sink that fails never changes a user's result."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple, Protocol, runtime_checkable

__all__ = ["Deferring", "Emitter", "Event", "Outbox", "Sink", "log_sink"]

Level = Literal["info", "warning", "error"]
Field = str | int | bool | None


class Event(NamedTuple):
    """Something that happened: `runrails.<noun>_<past participle>` with flat fields, units in the field's name."""

    name: str
    level: Level
    fields: Mapping[str, Field]


Sink = Callable[[Event], None]


CLOSE_S = 2.0
"""How long closing a guard waits for what its sinks still have to send."""


@runtime_checkable
class Deferring(Protocol):
    """A sink that sends in the background, as a `Notifier` does."""

    def bind(self, store: object) -> None:
        """Keep what becomes of events in this store, if it can."""
        ...

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything is sent or given up, so many seconds at most. Whether it is."""
        ...


class Emitter:
    """Hands events to sinks. Counts the ones a sink failed on instead of raising."""

    def __init__(self, sinks: Iterable[Sink]) -> None:
        self.sinks = tuple(sinks)
        self.failures = 0
        """How many deliveries failed since the guard was made."""

    def __call__(self, name: str, level: Level = "info", /, **fields: Field) -> None:
        """Emit one event to every sink."""
        if not self.sinks:
            return
        event = Event(f"runrails.{name}", level, fields)
        for sink in self.sinks:
            try:
                sink(event)
            except Exception:  # noqa: BLE001 -- a sink observes; its bug must not reach the user's agent
                self.failures += 1

    def bind(self, store: object) -> None:
        """Tell sinks that send in the background where to keep what becomes of it."""
        for sink in self.sinks:
            if isinstance(sink, Deferring):
                sink.bind(store)

    def flush(self) -> None:
        """Wait a moment for such sinks, while the store that they keep their account in is open."""
        for sink in self.sinks:
            if isinstance(sink, Deferring):
                sink.flush(CLOSE_S)


class Outbox:
    """Events of one run that wait until its lock is given back: a sink may wait for a thread that needs the lock."""

    __slots__ = ("_emit", "_fields", "waiting")

    def __init__(self, emit: Emitter, **fields: Field) -> None:
        self._emit = emit
        self._fields = fields
        self.waiting: deque[tuple[str, Level, dict[str, Field]]] = deque()

    def add(self, name: str, level: Level, /, **fields: Field) -> None:
        """Emit it later, with the fields that all of them have."""
        self.waiting.append((name, level, {**self._fields, **fields}))

    def send(self) -> None:
        """Emit what waits, in order. Call it without the lock."""
        while self.waiting:
            try:
                name, level, fields = self.waiting.popleft()
            except IndexError:  # another thread has just sent it
                return
            self._emit(name, level, **fields)


def log_sink(event: Event) -> None:
    """The default sink: structlog over the standard logger `runrails`. Quiet below WARNING unless configured."""
    import logging

    logger = logging.getLogger("runrails")
    level = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}[event.level]
    if not logger.isEnabledFor(level):
        return
    import structlog

    from runrails.redaction import redact_processor

    # Our events have no secrets; but the name of a model or a user may come from anybody, and be one by mistake.
    render = structlog.processors.KeyValueRenderer(key_order=["event"])
    bound = structlog.wrap_logger(logger, processors=[redact_processor, render], cache_logger_on_first_use=False)
    bound.log(level, event.name, **event.fields)
