"""
For programs that attach no callback themselves; see `runrails.autoguard`.

LangChain asks its hooks whenever something is about to run, at every level anew. Ours gives the callback of the whole
process where no other callback of runrails is attached: what the program guards itself is guarded once, by its own.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, cast

from langchain_core.tracers.context import register_configure_hook

from runrails_langchain.explicit import Guarding

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import ContextVar

    from langchain_core.callbacks import BaseCallbackHandler

    from runrails.guard import Guard
    from runrails_langchain.handler import GuardrailCallbackHandler

__all__ = ["attach"]


def attach(guard: Guard) -> Callable[[], None]:
    """
    Guard everything that LangChain runs in this process, in whatever thread, task or context.

    Returns:
        What ends it.
    """
    everywhere = _Everywhere(guard)
    var = cast("ContextVar[BaseCallbackHandler | None]", everywhere)
    # Not inherited: at every level those callbacks come first that the program has attached there.
    register_configure_hook(var, inheritable=False, handle_class=cast("type[BaseCallbackHandler]", Guarding))
    return everywhere.end


class _Everywhere:
    """Stands where LangChain has a context variable, of which it only asks the value; contexts do not reach threads."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._ended = False
        self._forget()
        if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """In a forked child: what runs is the parent's, and its locks may be taken for ever."""
        self._lock = threading.Lock()
        self._handler: GuardrailCallbackHandler | None = None

    def end(self) -> None:
        """Give nobody the callback any more: LangChain has no way to take a hook back."""
        self._ended = True

    def get(self) -> GuardrailCallbackHandler | None:
        """The callback; None where code around has attached one that LangChain has not seen yet."""
        # Imported here, since LangChain is just being imported when this is registered.
        from runrails_langchain.attaching import some_attached
        from runrails_langchain.handler import GuardrailCallbackHandler

        if self._ended or some_attached():
            return None
        with self._lock:
            if self._handler is None:
                self._handler = GuardrailCallbackHandler(self._guard)
            return self._handler
