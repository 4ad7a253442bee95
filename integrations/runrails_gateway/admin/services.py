"""What the endpoints work with: the parts of one gateway, and who is asking."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from runrails.clocks import Clock, monotonic_ms, system_ms
from runrails.identity.apikeys.desk import KeyDesk
from runrails.identity.authenticate import enter
from runrails.identity.errors import Forbidden
from runrails.identity.operations import OPERATIONS, authorise_limit
from runrails.ledger import Account, FullStore
from runrails.periods import month_of
from runrails_gateway.admin.errors import NotSetUp
from runrails_gateway.admin.kept import Kept

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runrails.credentials import Vault
    from runrails.credentials.revalidation import Validates
    from runrails.documents import DocumentStore
    from runrails.events import Field
    from runrails.guard import Guard
    from runrails.identity.apikeys import ApiKeys
    from runrails.identity.authenticate import Authenticator
    from runrails.identity.jwt.tokens import Tokens
    from runrails.identity.principal import Principal
    from runrails.run import Run
    from runrails_gateway.admin.live import Tape

__all__ = ["Caller", "Desk", "RunRegistry", "Services"]

TAPES_MAX = 64
"""Most organisations whose live spend is followed at once."""


class RunRegistry(Protocol):
    """Who knows the runs that are open in this process."""

    def open_runs(self) -> Iterable[Run]:
        """Those there are now, the latest used last. Safe in any thread, and quick."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts of a gateway. What is None is not set up, and what needs it says so."""

    guard: Guard
    authenticator: Authenticator
    api_keys: ApiKeys | None = None
    vault: Vault | None = None
    tokens: Tokens | None = None
    documents: DocumentStore | None = None
    validator: Validates | None = None
    """Who asks providers whether their keys are good; by default a `Validator` for the hosts that settings name."""
    clock: Clock = system_ms
    """Wall clock in milliseconds since the epoch."""
    monotonic: Clock = monotonic_ms
    runs: RunRegistry | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The services, and what is kept of answers that are dear to make."""

    services: Services
    kept: Kept = field(default_factory=Kept)
    tapes: dict[str | None, Tape] = field(default_factory=dict["str | None", "Tape"])
    """Live spend, by the organisation that it is shown to."""

    def tape(self, org: str | None) -> Tape:
        """What is known of the live spend of an organisation, or of all."""
        from runrails_gateway.admin.live import Tape

        while len(self.tapes) > TAPES_MAX:
            self.tapes.pop(next(iter(self.tapes)), None)
        return self.tapes.setdefault(org, Tape(org))

    @property
    def store(self) -> FullStore:
        """The ledger. Raises NotSetUp if it cannot list what it has."""
        store = self.services.guard.store
        if isinstance(store, FullStore):
            return store
        raise NotSetUp("This gateway's ledger cannot list what it has.", next_step="Use another RUNRAILS_STORE.")

    @property
    def keys(self) -> KeyDesk:
        """API keys. Raises NotSetUp."""
        if self.services.api_keys is None:
            raise NotSetUp("This gateway knows no API keys.", next_step="Give it peppers: RUNRAILS_KEY_PEPPERS.")
        return KeyDesk(self.services.api_keys)

    @property
    def vault(self) -> Vault:
        """Provider keys. Raises NotSetUp."""
        if self.services.vault is None:
            raise NotSetUp("This gateway keeps no provider keys.", next_step="Name a master key: RUNRAILS_MASTER_KEYS.")
        return self.services.vault

    @property
    def validator(self) -> Validates:
        """Who asks providers about keys."""
        from runrails.credentials.validation import Validator
        from runrails.settings import key_hosts

        return self.services.validator or Validator(allow_hosts=key_hosts())


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody who may do an operation at least to something, and has to ask for each thing it touches."""

    desk: Desk
    principal: Principal
    operation: str

    @property
    def org(self) -> str | None:
        """The organisation that an administrator is confined to; None: the platform's."""
        return self.principal.org

    def may(self, owner: str | None, owner_org: str | None = None) -> None:
        """See that the operation may touch that owner's things. Raises Forbidden."""
        enter(
            self.principal, self.operation, owner=owner, owner_org=owner_org, clock=self.desk.services.clock
        )  # fmt: skip

    def may_user(self, user: str) -> None:
        """See that it may touch a user's things. Raises Forbidden."""
        self.may(f"user:{user}", self.org_of(user))

    def may_within(self) -> None:
        """See that it may touch things of the caller's own organisation, or of all for the platform's."""
        own = OPERATIONS[self.operation].reach == "own"
        self.may(None if own or self.org is None else f"org:{self.org}")

    def may_allow(self, scope: str, limit: int | None, unit: str = "pusd") -> None:
        """See that it may set a limit as high as that. Raises Forbidden, NotSetUp."""
        if self.org is not None:
            own = self._limit_of(f"org:{self.org}", unit)
            authorise_limit(self.principal, self.operation, scope=scope, limit=limit, org_limit=own)

    def _limit_of(self, scope: str, unit: str) -> int | None:
        """The limit that a scope has now: an operator's, else the lowest that code gives it."""
        services, store = self.desk.services, self.desk.store
        for name, of, limit in store.limits():
            if (name, of) == (scope, unit):
                return limit
        guard = services.guard
        month = month_of(services.clock(), guard.zone)
        known = store.balance(Account(scope, month, unit)).limit
        in_code = guard.limits.org_month_pusd if unit == "pusd" else None
        return min((each for each in (known, in_code) if each is not None), default=None)

    def org_of(self, user: str) -> str | None:
        """The organisation of a user, as records say; not looked up for the platform's administrators."""
        if self.org is None or self.desk.services.api_keys is None:
            return None
        return self.desk.keys.org_of(self.principal, user)

    def reaches(self, owner: str, owner_org: str | None = None) -> bool:
        """Whether it may touch that owner's things."""
        try:
            self.may(owner, owner_org)
        except Forbidden:
            return False
        return True

    def told(self, **fields: Field) -> None:
        """Note for the operator's log that something was changed, and by whom. Never what is secret about it."""
        principal = self.principal
        self.desk.services.guard.emit(
            "setting_changed", operation=self.operation, by=principal.user, by_key=principal.key_id, **fields
        )
