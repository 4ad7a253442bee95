"""Choosing the key of every call from a vault; the rules are in `runrails.keyroutes`."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from runrails.clocks import Clock, monotonic_ms, system_ms
from runrails.credentials.errors import CredentialChanged, CredentialNotFound, CredentialSuspended
from runrails.credentials.records import LABEL, CredentialId
from runrails.credentials.vault import Vault
from runrails.errors import ConfigError, CredentialError, GuardFault
from runrails.forks import renew_after_fork
from runrails.keyroutes import (
    PLATFORM,
    Found,
    KeyPolicy,
    Route,
    check_allowed,
    is_place,
    next_payer,
    none_left,
    payers_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.attribution import Attribution
    from runrails.calls import ModelCall
    from runrails.credentials.records import CredentialInfo
    from runrails.keyroutes import KeyPlace, Payer
    from runrails.secretvalue import Secret

__all__ = ["Router"]

FRESH_MS_MAX = 5_000
KNOWN_MAX = 1_000


class _Known(NamedTuple):
    """What the vault said, and when."""

    at_ms: int
    info: CredentialInfo | None
    """None: there is no such key."""
    secret: Secret | None
    why_not: str


class Router:
    """
    Chooses keys for a guard: ``Guard(credentials=Router(vault))``. Thread-safe.

    Args:
        vault: Where the users', the organisations' and, if it is to be there, the platform's keys are.
        policy: What keys calls may go out on; or a function of whose call it is, asked for every call.
        label: Which of an owner's keys for a provider.
        fresh_ms: How long an answer of the vault is believed, at most 5,000: a key that is removed, replaced, suspended
            or marked elsewhere is used no longer than that.
        clock: Wall clock in milliseconds since the epoch, for noting when a key was refused.
        monotonic: Milliseconds of a clock that never jumps.

    Raises:
        ConfigError: The vault or the policy is none.
    """

    def __init__(
        self,
        vault: Vault,
        policy: KeyPolicy | Callable[[Attribution], KeyPolicy] | None = None,
        *,
        label: str = LABEL,
        fresh_ms: int = FRESH_MS_MAX,
        clock: Clock = system_ms,
        monotonic: Clock = monotonic_ms,
    ) -> None:
        _check(vault, policy)
        if not 0 <= fresh_ms <= FRESH_MS_MAX:
            raise ValueError(f"Router(fresh_ms=…) must be 0 to {FRESH_MS_MAX:,} milliseconds.")
        CredentialId("platform", "any", label)  # Checks the label.
        self._vault = vault
        self._policy = KeyPolicy() if policy is None else policy
        self._label = label
        self._fresh_ms = fresh_ms
        self._clock = clock
        self._monotonic = monotonic
        self._lock = Lock()
        self._known: dict[CredentialId, _Known] = {}
        renew_after_fork(self)

    @property
    def remote(self) -> bool:
        """Whether choosing may wait for a network."""
        return self._vault.remote

    def route(self, call: ModelCall, by: Attribution) -> Route:
        """The key for a call. See `runrails.keyroutes.SupportsRoutes.route`."""
        policy, place = self._policy_for(by), call.place
        check_allowed(policy, place, call)
        for payer in payers_of(policy):
            route = None if place is None else self._of(payer, place, by, policy)
            if route is not None:
                return route
            if payer == "platform":
                return PLATFORM
        raise none_left(policy, None if place is None else place.provider, by)

    def allows(self, call: ModelCall, by: Attribution) -> bool:
        """Whether the policy lets somebody call that model at all, whoever has a key for it."""
        try:
            check_allowed(self._policy_for(by), call.place, call)
        except CredentialError:
            return False
        return True

    def refused(self, route: Route) -> bool:
        """Mark a key that a provider has refused. See `runrails.keyroutes.SupportsRoutes.refused`."""
        owner, provider, label = route.name.split("/")
        credential_id = CredentialId(owner, provider, label)
        with self._lock:
            self._known.pop(credential_id, None)
        try:
            self._vault.mark(credential_id, "invalid", self._clock(), secret_id=route.secret_id)
        except (CredentialNotFound, CredentialChanged):
            return False
        return route.falls_back

    def _of(self, payer: Payer, place: KeyPlace, by: Attribution, policy: KeyPolicy) -> Route | None:
        """The key of one who may pay; None if there is none for that place. Raises CredentialError."""
        owner = _owner(payer, by)
        if owner is None:
            return None
        credential_id = CredentialId(owner, place.provider, self._label)
        known = self._look(credential_id)
        name = f"{owner}/{credential_id.provider}/{credential_id.label}"
        info = known.info
        if info is None or not is_place(info.base_url, place):
            return None  # One for another address is none here, whatever has become of it.
        found = Found(name, usable=not known.why_not, why_not=known.why_not)
        falls_back = policy.fall_back and payer != payers_of(policy)[-1]
        if next_payer(policy, payer, found) or known.secret is None:
            return None
        return Route(payer, name, known.secret, place, info.secret_id, falls_back)

    def _look(self, credential_id: CredentialId) -> _Known:
        now_ms = self._monotonic()
        with self._lock:
            known = self._known.get(credential_id)
        if known is not None and now_ms - known.at_ms < self._fresh_ms:
            return known
        known = self._ask(credential_id, now_ms)
        with self._lock:
            # What is believed no longer is not kept either: it has opened keys.
            oldest_ms = self._monotonic() - self._fresh_ms
            self._known = {each: said for each, said in self._known.items() if said.at_ms > oldest_ms}
            if self._fresh_ms and len(self._known) < KNOWN_MAX:
                self._known[credential_id] = known
        return known

    def after_fork(self) -> None:
        """In a child: another thread of the parent may have held the lock."""
        self._lock = Lock()
        self._known = {}

    def _ask(self, credential_id: CredentialId, now_ms: int) -> _Known:
        try:
            credential = self._vault.get(credential_id)
        except CredentialNotFound:
            return _Known(now_ms, None, None, "")
        except CredentialSuspended:
            return _Known(now_ms, self._vault.peek(credential_id), None, "suspended")
        info, secret = credential
        return _Known(now_ms, info, secret, "invalid" if info.status == "invalid" else "")

    def _policy_for(self, by: Attribution) -> KeyPolicy:
        if isinstance(self._policy, KeyPolicy):
            return self._policy
        fault = ""
        try:
            found: object = self._policy(by)
        except Exception as exc:  # noqa: BLE001 -- a deciding part of the user's: nothing goes out on anybody's key
            found, fault = None, f" It raised {type(exc).__name__}."
        if isinstance(found, KeyPolicy):
            return found
        raise GuardFault(
            f"The function that gives the key policy of a call gave none.{fault}",
            next_step="The call was not started. Let it return a KeyPolicy for everybody.",
        )


def _check(vault: object, policy: object) -> None:
    if not isinstance(vault, Vault):
        raise ConfigError(
            "A Router chooses keys from a Vault.", next_step="Write Router(open_vault()), or Router(vault)."
        )
    if policy is not None and not isinstance(policy, KeyPolicy) and not callable(policy):
        raise ConfigError(
            "A Router's policy is a KeyPolicy, or a function that gives one.",
            next_step='Write Router(vault, KeyPolicy(byok="prefer")).',
        )


def _owner(payer: Payer, by: Attribution) -> str | None:
    if payer == "platform":
        return "platform"
    name = by.user if payer == "user" else by.org
    return None if name is None else f"{payer}:{name}"
