"""
Whose key a call goes out on: the user's own, else the organisation's, else the platform's. Pure.

A key that is there but cannot be used never gives way to another one unless the policy says so: who pays would change
without anybody's word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from runrails.attribution import Attribution
from runrails.errors import ConfigError, CredentialError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runrails.calls import ModelCall
    from runrails.secretvalue import Secret

__all__ = [
    "HOMES", "PLATFORM", "Found", "Home", "KeyPlace", "KeyPolicy", "Payer", "Place", "Route", "SupportsRoutes",
    "address_of", "check_allowed", "check_routes", "is_place", "is_sendable", "next_payer", "none_left", "payers_of",
]  # fmt: skip

Payer = Literal["user", "org", "platform"]
ByokWord = Literal["prefer", "require", "forbid"]
_ORDERS: dict[str, tuple[Payer, ...]] = {
    "prefer": ("user", "org", "platform"), "require": ("user", "org"), "forbid": ("platform",),
}  # fmt: skip


_PORTS = {"https": 443, "http": 80}
_SENDABLE = re.compile(rb"[!-~]+")


class Home(NamedTuple):
    """A provider's own address, as its SDK has it."""

    host: str
    path: str


HOMES = {"openai": Home("api.openai.com", "/v1"), "anthropic": Home("api.anthropic.com", "")}
"""Providers whose keys are one header, by the vault's names."""


class Place(NamedTuple):
    """An address in its one spelling."""

    scheme: str
    host: str
    port: int
    path: str
    """Without a slash at its end."""


def address_of(url: str) -> Place | None:
    """Where a URL leads, however its host, port and last slash are written; None if it is none."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    return Place(parts.scheme, parts.hostname, port, parts.path.rstrip("/")) if parts.hostname else None


def is_sendable(key: bytes) -> bool:
    """Whether a header can hold a key: HTTP libraries quote what they cannot send in their errors."""
    return _SENDABLE.fullmatch(key) is not None


class KeyPlace(NamedTuple):
    """Where a call's key goes, and so which keys may go there."""

    provider: str
    """As in the vault: `openai`, `anthropic`."""
    base_url: str | None
    """Where the client sends its requests; None for the provider's own address. A key is sent nowhere else."""


def is_place(base_url: str | None, place: KeyPlace) -> bool:
    """Whether a key that is kept for this base URL (None: the provider's own) belongs there."""
    if base_url is None or place.base_url is None:
        return base_url == place.base_url or (place.base_url is None and _is_home(base_url, place.provider))
    kept = address_of(base_url)
    return kept is not None and kept == address_of(place.base_url)


def _is_home(base_url: str | None, provider: str) -> bool:
    home, kept = HOMES.get(provider), None if base_url is None else address_of(base_url)
    if home is None or kept is None or (kept.scheme, kept.port) != ("https", 443):
        return False
    return kept.host == home.host or kept.host.endswith(f".{home.host}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPolicy:
    """
    What keys calls may go out on.

    Args:
        byok: `prefer` the user's own key, then the organisation's, then the platform's; `require` one of the first two;
            or `forbid` them.
        providers: Providers that may be called, by the vault's names. None: all.
        models: Models that may be called, as requests name them; an entry may end in ``*``. None: all.
        fall_back: Whether the next key is taken where one cannot be used: marked invalid, suspended, or refused by the
            provider. Otherwise the call is refused, so that nobody pays in another's place unawares.

    Raises:
        ConfigError: `byok` is another word, `fall_back` no bool, or a list none of names.
    """

    byok: ByokWord = "prefer"
    providers: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    fall_back: bool = False

    def __post_init__(self) -> None:
        if type(self.byok) is not str or self.byok not in _ORDERS:  # pyright: ignore[reportUnnecessaryComparison] -- callers without types exist
            raise ConfigError(
                'KeyPolicy(byok=…) must be "prefer", "require" or "forbid".', next_step='Write byok="prefer".'
            )
        if type(self.fall_back) is not bool:  # pyright: ignore[reportUnnecessaryComparison] -- as above
            raise ConfigError("KeyPolicy(fall_back=…) must be True or False.", next_step="Write fall_back=False.")
        for name in ("providers", "models"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))


class Found(NamedTuple):
    """A key that somebody has for a provider."""

    name: str
    """For people and records: ``user:alice/openai/default``."""
    usable: bool
    why_not: str = ""
    """A word on why it cannot be used: `invalid`, `suspended`."""


@dataclass(frozen=True, slots=True)
class Route:
    """The key that a call goes out on."""

    payer: Payer
    name: str = ""
    """Which key of the vault; empty for the platform's own, which the client has."""
    secret: Secret | None = None
    """What the adapter puts into the request; None: nothing, the client's own key goes out."""
    place: KeyPlace | None = None
    secret_id: str = ""
    """Which secret of that key, should it be replaced while the call is under way."""
    falls_back: bool = False
    """Whether the next key may be taken if the provider refuses this one."""

    @property
    def byok(self) -> bool:
        """Whether somebody else's key pays than the platform's."""
        return self.payer != "platform"

    def of(self, by: Attribution | None) -> Attribution:
        """Whose money the call is, with that said."""
        said = _OWN_KEY if self.byok else _PLATFORMS
        return said if by is None else said.over(by)


_OWN_KEY, _PLATFORMS = Attribution(byok=True), Attribution(byok=False)


PLATFORM = Route("platform")
"""The client's own key."""


class SupportsRoutes(Protocol):
    """Chooses keys. Thread-safe."""

    @property
    def remote(self) -> bool:
        """Whether choosing may wait for a network."""
        ...

    def route(self, call: ModelCall, by: Attribution) -> Route:
        """
        The key for a call made for `by`.

        Raises:
            CredentialError: There is none that it may go out on. Nothing was sent.
            StoreUnavailable: The vault cannot be reached.
        """
        ...

    def refused(self, route: Route) -> bool:
        """The provider has refused the key (401): mark it. True if the call may be made again, on the next one."""
        ...


def check_routes(credentials: object) -> None:
    """See that it can choose keys. Raises ConfigError."""
    able = not isinstance(credentials, type) and hasattr(credentials, "remote")
    if (
        not able
        or not callable(getattr(credentials, "route", None))
        or not callable(getattr(credentials, "refused", None))
    ):
        raise ConfigError(
            f"Guard(credentials=…) must choose keys; a {type(credentials).__name__} does not.",
            next_step="Write Guard(credentials=Router(vault)), with runrails.credentials.router.Router.",
        )


def payers_of(policy: KeyPolicy) -> tuple[Payer, ...]:
    """Whose keys may pay, the first one first."""
    return _ORDERS[policy.byok]


def check_allowed(policy: KeyPolicy, place: KeyPlace | None, call: ModelCall) -> None:
    """
    See that a policy lets the model be called at all.

    Raises:
        CredentialError: It does not.
    """
    provider = call.provider if place is None else place.provider
    if policy.providers is not None and provider not in policy.providers:
        raise CredentialError(
            "The key policy does not let this provider be called.",
            next_step="Call an allowed one, or add it to KeyPolicy(providers=…).", provider=provider or "",
        )  # fmt: skip
    if policy.models is not None and not any(_matches(entry, call.model) for entry in policy.models):
        raise CredentialError(
            "The key policy does not let this model be called.",
            next_step="Call an allowed one, or add it to KeyPolicy(models=…).", model=call.model,
        )  # fmt: skip


def next_payer(policy: KeyPolicy, payer: Payer, found: Found | None) -> bool:
    """
    Whether to look further than this payer, who has that key (None: none).

    Raises:
        CredentialError: The key is there, cannot be used, and nobody else may pay instead.
    """
    if found is None:
        return True
    if found.usable:
        return False
    if policy.fall_back and payers_of(policy)[-1] != payer:
        return True
    words = _WHY_NOT.get(found.why_not, "It cannot be used.")
    raise CredentialError(
        f"The key {found.name} may not be used for this call. {words}",
        next_step="Validate it with `runrails byok validate`, replace it with `runrails byok rotate`, or let calls go "
        "out on the next key with KeyPolicy(fall_back=True).",
        credential=found.name,
    )  # fmt: skip


def none_left(policy: KeyPolicy, provider: str | None, by: Attribution) -> CredentialError:
    """Nobody who may pay has a key; None as the provider: or could have one."""
    if not provider:
        return CredentialError(
            "The key policy asks for a key of the user's or the organisation's own, but nobody can put one into the "
            "requests of this client.",
            next_step="Guard the client itself (guard.wrap), or LangChain's model with runrails_langchain.use_keys.",
            byok=policy.byok,
        )
    who = " and ".join(part for part in (by.user and f"user:{by.user}", by.org and f"org:{by.org}") if part)
    return CredentialError(
        f"The key policy asks for a key of the user's or the organisation's own, and {who or 'nobody named'} has none "
        f"for {provider}.",
        next_step='Add one with `runrails byok add`, or allow the platform\'s with KeyPolicy(byok="prefer").',
        provider=provider,
        byok=policy.byok,
    )


_WHY_NOT = {
    "invalid": "The provider has refused it.",
    "suspended": "It is suspended.",
}


def _matches(entry: str, model: str) -> bool:
    return model.startswith(entry[:-1]) if entry.endswith("*") else model == entry


def _names(what: str, given: Iterable[str] | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    if isinstance(given, str):
        raise ConfigError(f"KeyPolicy({what}=…) must be a list of names.", next_step=f'Write {what}=["{what[:-1]}"].')
    names = tuple(given)
    if not all(isinstance(name, str) for name in names):  # pyright: ignore[reportUnnecessaryIsInstance] -- as above
        raise ConfigError(f"KeyPolicy({what}=…) must be a list of names.", next_step=f'Write {what}=["{what[:-1]}"].')
    return names
