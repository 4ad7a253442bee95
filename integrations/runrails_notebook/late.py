"""A guard that is made when it is first needed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from runrails.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LateGuard"]

_LAST = "zones"
"""What a guard has only once it is whole."""


class LateGuard(Guard):
    """
    Stands where a guard is wanted while nobody has said yet which ledger it keeps, and opens none before a client is
    made or a call begins. Thread-safe.

    SDKs that are attached hold one guard for the life of a process, so it cannot be replaced by another later.
    """

    def __init__(self, make: Callable[[], Guard]) -> None:
        # Nothing of Guard's own is called: that is what `__getattr__` has done later.
        self._late_make = make
        self._late_lock = threading.RLock()

    @property
    def is_made(self) -> bool:
        """Whether anything has been opened."""
        return _LAST in vars(self)

    def __getattr__(self, name: str) -> object:
        if name.startswith("_late_") or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        with self._late_lock:
            if not self.is_made:
                made = self._late_make()
                made.yields = True
                vars(self).update(vars(made))
        try:
            found: object = vars(self)[name]
        except KeyError:
            raise AttributeError(f"'Guard' object has no attribute {name!r}") from None
        return found

    def close(self) -> None:
        """End it, if there is anything to end."""
        if self.is_made:
            super().close()

    def make_anew(self) -> None:
        """Close it; whoever asks next gets another. Clients that are guarded stay so. Nothing may have been called."""
        with self._late_lock:
            if not self.is_made:
                return
            clients = tuple(self.before_close)
            super().close()
            for name in [name for name in vars(self) if not name.startswith("_late_")]:
                delattr(self, name)
            for client in clients:
                self.before_close.add(client)

    def forget_lock(self) -> None:
        """In a forked child: another thread of the parent may have been making it."""
        self._late_lock = threading.RLock()
