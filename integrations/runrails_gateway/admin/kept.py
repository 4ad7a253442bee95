"""Answers that are dear to make, kept for a moment: however many ask, making them takes a bounded share of the time."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar, cast

from runrails.clocks import monotonic_ms
from runrails_gateway.admin.errors import Busy

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from runrails.clocks import Clock

__all__ = ["Kept"]

_T = TypeVar("_T")
KEPT_MS = 1_000
"""How long an answer counts at least."""
SHARE = 10
"""And this many times as long as it took to make."""
KEPT_MS_MAX = 600_000
COUNT_MAX = 64
WAIT_S_MAX = 10.0
"""How long somebody waits for an answer that another one is making, where there is no older one."""


class _Made(NamedTuple):
    value: object
    until_ms: int


class _Maker(Generic[_T]):
    """One answer, and the lock of who makes it."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.made: _Made | None = None


class Kept:
    """
    Keeps up to `count_max` answers. Thread-safe; of those who ask for the same at once, one makes it anew, and the
    others have the older one. They hold up no threads but where there is none yet.

    Args:
        count_max: The oldest is forgotten beyond that.
        monotonic: Milliseconds of a clock that never jumps.
    """

    def __init__(self, count_max: int = COUNT_MAX, *, monotonic: Clock = monotonic_ms) -> None:
        self._count_max = count_max
        self._monotonic = monotonic
        self._lock = Lock()
        self._makers: dict[Hashable, _Maker[object]] = {}

    def get(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """
        The answer under that key; made if there is none, or it is too old.

        Raises:
            Busy: Somebody is making it, and takes longer than one should wait.
            Exception: What `make` raises.
        """
        maker = self._maker(key)
        older = maker.made
        if older is not None and self._monotonic() < older.until_ms:
            return cast("_T", older.value)
        if not maker.lock.acquire(timeout=WAIT_S_MAX if older is None else 0):
            if older is None:
                raise Busy
            return cast("_T", older.value)
        try:
            return cast("_T", self._made(maker, make))
        finally:
            maker.lock.release()

    def _made(self, maker: _Maker[object], make: Callable[[], object]) -> object:
        """Somebody else may have made it while one waited."""
        began_ms = self._monotonic()
        if maker.made is not None and began_ms < maker.made.until_ms:
            return maker.made.value
        value = make()
        ended_ms = self._monotonic()
        for_ms = min(KEPT_MS_MAX, max(KEPT_MS, SHARE * (ended_ms - began_ms)))
        maker.made = _Made(value, ended_ms + for_ms)
        return value

    def _maker(self, key: Hashable) -> _Maker[object]:
        with self._lock:
            maker = self._makers.pop(key, None) or _Maker()
            if len(self._makers) >= self._count_max:
                del self._makers[next(iter(self._makers))]
            self._makers[key] = maker  # at the end: the one asked for longest ago goes first
            return maker
