"""How a guarded process ends: a stop that nobody caught is told in a few lines, and word is left of what was done."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from runrails.autoguard.session import Session

__all__ = ["Ending"]


class Ending:
    """Of one process."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._pid = os.getpid()
        self._excepthook = sys.excepthook
        self._thread_excepthook = threading.excepthook

    def install(self) -> None:
        """Before the program begins, so that everything of its own that is done at the end comes first."""
        sys.excepthook = self._uncaught
        threading.excepthook = self._uncaught_in_thread
        atexit.register(self._at_exit)
        if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
            os.register_at_fork(after_in_child=self._session.forget)

    def in_worker(self, module: str) -> None:
        """Worker processes of `multiprocessing` that were forked end without what is registered to be done at exit."""
        del module
        from multiprocessing import util

        def finish_in_worker(session: Session) -> None:
            util.Finalize(None, session.end, exitpriority=-100)

        util.register_after_fork(self._session, finish_in_worker)

    def _uncaught(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        stopped = self._tell(error, trace)
        if stopped is None:
            self._excepthook(kind, error, trace)
        elif stopped:
            # Raised from here it becomes the exit code, and everything that is done at exit is done.
            raise SystemExit(self._session.plan.stop_code or 1)

    def _uncaught_in_thread(self, args: threading.ExceptHookArgs) -> None:
        if self._tell(args.exc_value, args.exc_traceback) is None:
            self._thread_excepthook(args)

    def _tell(self, error: BaseException | None, trace: TracebackType | None) -> bool | None:
        """Tell what is ours; whether it is a stop, and None for what is not ours."""
        from runrails.autoguard.telling import say, told, uncaught
        from runrails.errors import GuardrailStopped

        ours = uncaught(error)
        if ours is None:
            return None
        say(told(ours, trace, run_id=self._session.run_id))
        return isinstance(ours, GuardrailStopped)

    def _at_exit(self) -> None:
        session = self._session
        session.end()
        if session.is_first and self._pid == os.getpid():
            from runrails.autoguard.closing import close_run

            close_run(session)
