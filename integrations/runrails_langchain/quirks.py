"""
What LangChain's own callback managers do to a handler that raises on purpose, put right from the handler's side.

- `AsyncCallbackManager.on_llm_start` (models that take plain text) leaves out every handler that does not run inline as
  soon as another one does. `RunInline` answers it so that a handler off the event loop is called all the same.
- `AsyncCallbackManager.on_chat_model_start` makes a coroutine for each handler before it awaits one. Where one raises,
  Python reports the others as "never awaited"; `drop_unawaited` closes them.
- A hook off the event loop runs in a copy of the call's context. What it leaves for the layers below the model, that
  this call is guarded already, has to be put where both contexts see it; only the question comes from the right one.
- Every error of a handler is logged as a warning, also one that is raised on purpose; `be_quiet_about` keeps ours out.
"""

from __future__ import annotations

import logging
import sys
import threading
from inspect import CORO_CREATED, currentframe, getcoroutinestate, iscoroutine
from typing import TYPE_CHECKING, cast

from runrails.boundary import Trip
from runrails.cover import expect_cover
from runrails.errors import RunrailsError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

__all__ = ["RunInline", "be_quiet_about", "drop_unawaited"]

_COMPREHENSION = "<listcomp>"
"""Before Python 3.12 a list comprehension has a frame of its own."""
_FRAMES_MAX = 8
"""How far up LangChain's manager is looked for."""
_lock = threading.Lock()
_quiet: set[str] = set()


class RunInline:
    """The class attribute `run_inline` of a handler whose instances set `off_loop`; see this module's text."""

    def __get__(self, handler: object, owner: type | None = None) -> bool:
        """Whether the hook is to be called on the event loop, in answer to the very code that asks."""
        if not getattr(handler, "off_loop", False):
            return True
        here = currentframe()
        asking = None if here is None else here.f_back
        if asking is not None and asking.f_code.co_name == _COMPREHENSION:
            asking = asking.f_back
        name = "" if asking is None else asking.f_code.co_name
        if name in ("on_chat_model_start", "on_llm_start"):
            expect_cover()
        return asking is not None and name == "on_llm_start" and _is_left_out(asking)


def drop_unawaited() -> None:
    """Call it where a start hook raises: the hooks of handlers after it will not be called any more."""
    frame = currentframe()
    for _ in range(_FRAMES_MAX):
        frame = None if frame is None else frame.f_back
        if frame is not None and frame.f_code.co_name == "on_chat_model_start" and "inline_tasks" in frame.f_locals:
            for name in ("inline_tasks", "non_inline_tasks"):
                for task in cast("Iterable[object]", frame.f_locals.get(name, ())):
                    if iscoroutine(task) and getcoroutinestate(task) == CORO_CREATED:
                        task.close()
            return


def be_quiet_about(handler: object) -> None:
    """
    Keep LangChain from logging a warning for every stop and refusal that such a handler raises.

    The error itself reaches the caller with all it has to say; errors of any other kind are logged as ever.
    """
    with _lock:
        if not _quiet:
            logging.getLogger("langchain_core.callbacks.manager").addFilter(_keep)
        _quiet.add(type(handler).__name__)


def _keep(record: logging.LogRecord) -> bool:
    # LangChain logs inside its `except`, with the handler's class as the first argument.
    args = record.args
    if not isinstance(args, tuple) or not args or args[0] not in _quiet:
        return True
    return not isinstance(sys.exc_info()[1], RunrailsError | Trip)


def _is_left_out(asking: FrameType) -> bool:
    """Whether a handler of the manager that asks runs inline, so that those that do not would not be called."""
    handlers: Iterable[object] = getattr(asking.f_locals.get("self"), "handlers", ())
    return any(getattr(handler, "run_inline", False) for handler in handlers)
