"""The runs of this process: a conversation comes in many requests, and all of them are one run."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from runrails import aio
from runrails.errors import RunrailsError
from runrails.ledger import RunArchive

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.identity.authenticate import Entered
    from runrails.identity.principal import Principal
    from runrails.limits import Limits
    from runrails.run import Run

__all__ = ["Kept", "RunKeeper"]

KEPT_MAX = 128
"""What they make of their own is gone soon after them, as long as they are few; see `app._tune_collector`."""
IDLE_MS_MAX = 900_000
TELL_EVERY_MS = 60_000
TOLD_MAX = 1_000
_AT_ONCE = 4
"""How many are let go for each that comes, so that no request pays for many."""


class _Key(NamedTuple):
    run_id: str
    user: str
    key_id: str | None
    org: str | None


class Kept:
    """A run, and how many requests of it are under way."""

    __slots__ = ("at_ms", "key", "open", "principal", "run")

    def __init__(self, key: _Key, run: Run, principal: Principal) -> None:
        self.key = key
        self.run = run
        self.principal = principal
        self.open = 0
        self.at_ms = 0


class RunKeeper:
    """
    Keeps runs for a while, the latest used ones longest. For one event loop.

    What a run has spent is in the ledger, by its id, so that another process, or this one after it was let go, goes on
    from there. A run that was stopped is let go at once: whoever raises a budget need not restart a gateway, and as
    long as the reason is there, the next request is stopped for it again.
    """

    def __init__(
        self, monotonic: Callable[[], int], limits: Limits, *, kept_max: int = KEPT_MAX,
        idle_ms_max: int = IDLE_MS_MAX,
    ) -> None:  # fmt: skip
        self._monotonic = monotonic
        self._limits = limits
        self._kept_max = kept_max
        self._idle_ms_max = idle_ms_max
        self._kept: OrderedDict[_Key, Kept] = OrderedDict()
        self._told_ms: dict[tuple[str | None, ...], int] = {}
        """When a run that nothing could start in was last told of, by whose it was and why."""
        self._going: list[Run] = []
        """Let go, and to be closed."""

    def __len__(self) -> int:
        return len(self._kept)

    def open_runs(self) -> list[Run]:
        """Those there are now, the latest used ones last. Safe in any thread."""
        return [kept.run for kept in list(self._kept.values())]

    def take(self, entered: Entered, run_id: str, name: str, steps_before: int) -> Kept:
        """
        The run of that id, for one request of somebody. Hand it back with `give`.

        Raises:
            Forbidden, StoreUnavailable, ConfigError: As `Entered.run`.
        """
        principal = entered.principal
        key = _Key(run_id, principal.user, principal.key_id, principal.org)
        kept = self._kept.get(key)
        if kept is not None and kept.principal is not principal and kept.principal != principal:
            self._let_go(kept)  # The key's own limits have changed.
            kept = None
        if kept is None:
            run = entered.run(name, id=run_id, limits=self._limits)
            if steps_before:
                run.took_over(steps=steps_before)
            kept = self._kept[key] = Kept(key, run, principal)
        else:
            self._kept.move_to_end(key)
        kept.open += 1
        kept.at_ms = self._monotonic()
        return kept

    async def give(self, kept: Kept) -> None:
        """A request of a run is over."""
        kept.open -= 1
        is_kept = self._kept.get(kept.key) is kept
        if not is_kept and not kept.open:
            self._going.append(kept.run)
        elif is_kept and (kept.run.stopped is not None or (not kept.open and kept.run.barren)):
            self._let_go(kept)
        self._let_oldest_go()
        if self._going:
            await self._close_those()

    async def close(self) -> None:
        """Close all of them."""
        self._going += [kept.run for kept in self._kept.values()]
        self._kept.clear()
        await self._close_those()

    def _may_tell(self, run: Run) -> bool:
        """
        Whether to keep a record of a run that nothing could start in: one a minute of each user, key and reason.
        Whoever is refused comes again at once, each time in a run of its own.
        """
        whose, now_ms = run.attribution, self._monotonic()
        why = (whose.user, whose.key, whose.org, run.stop_reason)
        before_ms = self._told_ms.get(why)
        if before_ms is not None and now_ms - before_ms < TELL_EVERY_MS:
            return False
        if len(self._told_ms) >= TOLD_MAX:
            self._told_ms.clear()
        self._told_ms[why] = now_ms
        return True

    def _let_oldest_go(self) -> None:
        before_ms = self._monotonic() - self._idle_ms_max
        for kept in list(islice(self._kept.values(), _AT_ONCE)):
            if kept.open:  # Its turn comes again, and those behind it are looked at next time.
                kept.at_ms = self._monotonic()
                self._kept.move_to_end(kept.key)
                continue
            if len(self._kept) <= self._kept_max and kept.at_ms >= before_ms:
                return
            self._let_go(kept)

    def _let_go(self, kept: Kept) -> None:
        """Whoever still has it in use closes it in the end."""
        del self._kept[kept.key]
        if not kept.open:
            self._going.append(kept.run)

    async def _close_those(self) -> None:
        going, self._going = self._going, []
        for run in going:
            # A single call is in the ledger; there is nothing more to tell of its run, nor of one that never began.
            close = run.close
            if run.barren:
                if not self._may_tell(run):
                    continue
                close = partial(_close_if_new, run)
            elif run.tally.model_calls == 0 or (run.tally.model_calls == 1 and run.stopped is None):
                continue
            guard = run.guard
            if guard.store.remote:
                await aio.off_loop(guard, close)
            else:
                close()


def _close_if_new(run: Run) -> None:
    """End a run that nothing could start in. One of that id may have ended before, whose record says more."""
    store = run.guard.store
    try:
        known = store.run(run.id) is not None if isinstance(store, RunArchive) else True
    except RunrailsError:
        return
    if not known:
        run.close()
