"""In which time zone the months of a scope begin: fixed at its first use, checked once a scope and guard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.errors import ConfigError, StoreUnavailable
from runrails.ledger import Store, SupportsZones

if TYPE_CHECKING:
    from runrails.attribution import Attribution
    from runrails.events import Emitter

__all__ = ["Zones"]

SCOPES_KNOWN_MAX = 10_000


class Zones:
    """Thread-safe and bounded; a scope that is forgotten is asked for again."""

    def __init__(self, store: Store, zone: str, emit: Emitter, *, tolerant: bool) -> None:
        # Asked once: of a protocol that takes as long as the rest of opening a run.
        self._store = store if isinstance(store, SupportsZones) else None
        self._zone = zone
        self._emit = emit
        self._tolerant = tolerant
        """Whether calls may start while the ledger is out of reach."""
        self._known: set[str] = set()

    def fix(self, by: Attribution) -> None:
        """
        See that every scope of `by` has this guard's zone. Cheap once that is known; else it asks the store.

        Raises:
            ConfigError: One of them had another zone at its first use.
            StoreUnavailable: The ledger is out of reach, and calls may not start without it.
        """
        store = self._store
        if store is None:
            return
        try:
            for kind, name in (
                ("user", by.user),
                ("key", by.key),
                ("org", by.org),
                ("byok", by.user if by.byok else None),
            ):
                if name is not None and f"{kind}:{name}" not in self._known:
                    self._fix(store, f"{kind}:{name}")
        except StoreUnavailable as exc:
            if not self._tolerant:
                raise
            self._emit("store_bypassed", "error", reason=exc.what)

    def _fix(self, store: SupportsZones, scope: str) -> None:
        fixed = store.fix_zone(scope, self._zone)
        if fixed != self._zone:
            raise ConfigError(
                f"The months of {scope} begin in time zone {fixed}, not {self._zone}: it was fixed at first use.",
                next_step=f'Write Guard(zone="{fixed}"), or use another store.',
                scope=scope,
            )
        if len(self._known) >= SCOPES_KNOWN_MAX:
            self._known.clear()
        self._known.add(scope)
