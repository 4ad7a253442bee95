"""Once stopped, a run stays stopped. A child run is stopped when a run it is part of is."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.errors import GuardrailStopped

__all__ = ["Latch"]


class Latch:
    """The stop of one run, and through `parent` those of the runs it is part of; they share one lock."""

    __slots__ = ("elsewhere", "lock", "own", "parent", "refuse", "scope", "tripped")

    def __init__(self, scope: str, parent: Latch | None = None, *, tripped: Callable[[], None] = lambda: None) -> None:
        self.scope = scope
        self.parent = parent
        self.tripped = tripped
        """Called once when the run stops."""
        self.elsewhere: Callable[[], GuardrailStopped | None] | None = None
        """Asks for the stop of a run that has other processes."""
        self.refuse: Callable[[GuardrailStopped], BaseException] | None = None
        """Makes what is raised for every attempt after the stop; a fresh copy of the stop, if it is left out."""
        self.own: GuardrailStopped | None = None
        self.lock: threading.RLock = threading.RLock() if parent is None else parent.lock

    @property
    def stop(self) -> GuardrailStopped | None:
        """What ended this run or one it is part of; None while it may go on."""
        if self.own is not None:
            return self.own
        if self.parent is not None:
            return self.parent.stop
        return None if self.elsewhere is None else self.elsewhere()

    def refusal(self, stop: GuardrailStopped) -> BaseException:
        """What to raise for one more attempt after `stop`."""
        latch = self
        while latch.parent is not None:
            latch = latch.parent
        return stop.again() if latch.refuse is None else latch.refuse(stop)

    def trip(self, stop: GuardrailStopped) -> bool:
        """
        Stop the run; if the stop is about a run it is part of, that one as well.

        Returns:
            True for the first stop of this run, False if it had one already.
        """
        with self.lock:
            first = self.own is None
            if first:
                # A copy: the one that is raised gathers a traceback, and with it what the caller was about to send.
                self.own = stop.again()
                self.tripped()
            outer = self.parent
            while outer is not None:
                if outer.own is None and stop.fields.get("scope") == outer.scope:
                    outer.own = stop.again()
                    outer.tripped()
                outer = outer.parent
            return first
