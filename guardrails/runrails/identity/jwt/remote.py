"""
Keys that another service publishes, at one fixed URL.

They are fetched through the egress guard, never from an address in a token. A token with an unknown key may ask for
them again, but not more often than once a minute: otherwise whoever makes up key ids makes us fetch for each. Keys that
could not be fetched again are used for an hour and no longer, since one that was taken away must stop working.
"""

from __future__ import annotations

from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple, Protocol

from runrails.clocks import Clock, monotonic_ms
from runrails.egress_rules import ANY_HOST, HTTPS_PORTS, EgressRefused, check_url
from runrails.errors import ConfigError, RunrailsError
from runrails.forks import renew_after_fork

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.egress import Answer, Policy
    from runrails.egress_rules import Target
    from runrails.identity.jwt.keyset import Key, KeySet

__all__ = ["Fetch", "RemoteKeys"]

FLOOR_MS = 60_000
FRESH_MS = 300_000
STALE_MS_MAX = 3_600_000
JWKS_BYTES_MAX = 65_536


class Fetch(Protocol):
    """Asks the URL."""

    def __call__(self, url: str, /) -> Answer:
        """Raises EgressRefused or EgressFailed if there is no usable answer."""
        ...


class _Held(NamedTuple):
    keys: KeySet
    fetched_ms: int


class RemoteKeys:
    """
    The keys of a published set.

    Args:
        url: Where it is. The operator's own setting, so its host is allowed by being written here.
        policy: What may be asked besides the rules for public hosts; by default https at port 443.
        fetch: Asks the URL; by default through `runrails.egress.fetch`.
        clock: Monotonic.
        on_failure: Told the reason, as a word of ours, whenever a fetch failed.

    Raises:
        ConfigError: The URL must not be asked.
    """

    def __init__(
        self,
        url: str,
        *,
        policy: Policy | None = None,
        fetch: Fetch | None = None,
        clock: Clock = monotonic_ms,
        on_failure: Callable[[str], None] | None = None,
    ) -> None:
        self._url = _checked(url, policy)
        self._fetch = fetch
        self._policy = policy
        self._clock = clock
        self._on_failure = on_failure
        self._lock = Lock()
        self._held: _Held | None = None
        self._tried_ms: int | None = None
        renew_after_fork(self)

    def find(self, kid: str) -> Key | None:
        """The key of that id; None also while the set cannot be had."""
        keys = self._current()
        found = None if keys is None else keys.find(kid)
        if found is None and self._may_try():
            self._refresh(wait=True)
            keys = self._usable()
            found = None if keys is None else keys.find(kid)
        return found

    def after_fork(self) -> None:
        """In a child: the thread that was fetching is not there, so it neither ends nor counts as an attempt."""
        self._lock = Lock()
        self._tried_ms = None

    def _current(self) -> KeySet | None:
        held, now_ms = self._held, self._clock()
        if held is None or now_ms - held.fetched_ms >= FRESH_MS:
            # While one caller fetches, the others go on with what there is, as long as it may be used.
            self._refresh(wait=self._usable() is None)
        return self._usable()

    def _usable(self) -> KeySet | None:
        held = self._held
        return None if held is None or self._clock() - held.fetched_ms >= STALE_MS_MAX else held.keys

    def _may_try(self) -> bool:
        tried_ms = self._tried_ms
        return tried_ms is None or self._clock() - tried_ms >= FLOOR_MS

    def _refresh(self, *, wait: bool) -> None:
        if not self._lock.acquire(blocking=wait):
            return
        try:
            if self._may_try():  # another caller may have just done it
                self._try()
        finally:
            self._lock.release()

    def _try(self) -> None:
        from runrails.egress import EgressFailed
        from runrails.identity.jwt.jwk import read_jwks

        self._tried_ms = began_ms = self._clock()
        try:
            answer = _ask(self._url, self._policy) if self._fetch is None else self._fetch(self._url)
            if answer.status != 200:
                raise EgressFailed("status", host=_target(self._url, self._policy).host)
            self._held = _Held(read_jwks(answer.body), began_ms)
        except RunrailsError as error:
            if self._on_failure is not None:
                with suppress(Exception):  # it observes
                    self._on_failure(str(error.fields.get("reason") or error.code))

    def __repr__(self) -> str:
        return f"RemoteKeys({_target(self._url, self._policy).origin!r})"


def _ask(url: str, policy: Policy | None) -> Answer:
    """Through the guard. The host is allowed because it is in the setting itself."""
    from runrails.egress import Policy, fetch

    allowed = policy or Policy()
    size = min(allowed.body_bytes_max, JWKS_BYTES_MAX)
    return fetch(
        url,
        policy=allowed._replace(allow_hosts=(_target(url, policy).host,), body_bytes_max=size),
        headers={"Accept": "application/jwk-set+json, application/json"},
    )


def _target(url: str, policy: Policy | None) -> Target:
    listed = () if policy is None else tuple(policy.allow_hosts)
    return check_url(url, allow_hosts=(*listed, ANY_HOST), ports=HTTPS_PORTS if policy is None else policy.ports)


def _checked(url: str, policy: Policy | None) -> str:
    try:
        _target(url, policy)
    except EgressRefused as error:
        raise ConfigError(f"Keys cannot be fetched from there. {error.what}", next_step=error.next_step) from None
    return url
