"""Attaches to LangChain, so that everything inside ``with guard.run():`` is guarded without a callbacks argument."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING

from langchain_core.tracers.context import register_configure_hook

from runrails import entering
from runrails_langchain.handler import GuardrailCallbackHandler, tracker_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from runrails.run import Run

__all__ = ["attach", "attached", "some_attached"]

_hook: ContextVar[GuardrailCallbackHandler | None] = ContextVar("runrails_langchain", default=None)
_lock = threading.Lock()
_attached = False


def attach() -> None:
    """Register with LangChain and with the core's runs, once a process. Inert until a run is entered."""
    global _attached  # noqa: PLW0603 -- LangChain's registry of hooks is per process too
    with _lock:
        if not _attached:
            register_configure_hook(_hook, inheritable=True)
            entering.boundaries.append(_enter)
            _attached = True


def some_attached() -> bool:
    """Whether code around has a handler attached that LangChain finds by itself."""
    return _hook.get() is not None


@contextmanager
def attached(handler: GuardrailCallbackHandler) -> Generator[None]:
    """Everything LangChain starts in here has this handler, without a callbacks argument."""
    token = _hook.set(handler)
    try:
        yield
    finally:
        _put_back(handler, token)


def _enter(run: Run) -> Callable[[], None]:
    handler = GuardrailCallbackHandler(run.guard)
    token = _hook.set(handler)

    # What is in flight is settled when the run is closed, which for a remote store is off the event loop.
    run.entry.before_close.append(lambda: tracker_of(run.guard).left(run))
    return lambda: _put_back(handler, token)


def _put_back(handler: GuardrailCallbackHandler, token: Token[GuardrailCallbackHandler | None]) -> None:
    try:
        _hook.reset(token)
    except ValueError:  # entered in another context, as async generators do that another task finalises
        if _hook.get() is handler:
            _hook.set(None)
