"""
Asking a provider whether a key is good, by requests that cost nothing.

The requests are made by hand, through the egress guard: no SDK is asked, so that no base URL of the environment is
believed, nothing is retried or redirected, and neither a guard nor another check is ever entered on the way. There are
three answers, as everything but a clear word of the provider says nothing about the key.
"""

from __future__ import annotations

import json
from contextvars import Context
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias, cast

from runrails.egress import Answer, EgressFailed, Policy, fetch, system_resolver
from runrails.egress_rules import EgressRefused
from runrails.keyroutes import HOMES

if TYPE_CHECKING:
    import ssl
    from collections.abc import Collection, Mapping

    from runrails.credentials.records import Credential
    from runrails.egress import Resolver

__all__ = ["ENTRY_POINTS", "Check", "Validation", "Validator"]

ENTRY_POINTS = "runrails.keychecks"
"""Checks of other providers: the name is the vault's name of the provider, the value a `Check`."""
Verdict: TypeAlias = Literal["valid", "invalid", "unverified"]
TIMEOUT_MS = 5_000
_BODY_BYTES_MAX = 1_048_576
_ANTHROPIC_VERSION = "2023-06-01"


class Validation(NamedTuple):
    """What a check came to."""

    status: Verdict
    """`invalid` only if the provider says that it does not know the key; whatever else goes wrong is `unverified`."""
    reason: str
    """A word of ours: ``accepted``, ``refused``, ``forbidden``, ``rate_limited``, ``timeout``, …"""


class Check(Protocol):
    """Checks a key of one provider by requests that are free."""

    def __call__(self, credential: Credential, *, timeout_ms: int) -> Validation:
        """Never raises for what the provider or the network does."""
        ...


class Validator:
    """
    Checks keys of `openai` and `anthropic`, and of whatever else an installed package has a check for. Thread-safe.

    Args:
        allow_hosts: Hosts besides the providers' own that keys with a base URL of theirs may be sent to.
        networks: Networks that are not public and that you vouch for; see `runrails.egress.Policy`.
        timeout_ms: For one whole check.
        resolver: Finds the addresses of hosts.
        context: For certificates that only an authority of your own vouches for.
    """

    def __init__(
        self,
        *,
        allow_hosts: Collection[str] = (),
        networks: Collection[str] = (),
        timeout_ms: int = TIMEOUT_MS,
        resolver: Resolver = system_resolver,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._timeout_ms = timeout_ms
        self._resolver = resolver
        self._context = context
        self._policy = Policy(
            (*(home.host for home in HOMES.values()), *allow_hosts),
            networks=networks,
            body_bytes_max=_BODY_BYTES_MAX,
            timeout_ms=timeout_ms,
        )

    def validate(self, credential: Credential) -> Validation:
        """Ask the provider. Never raises for what the provider, the network or a check does."""
        # A context of its own: whatever run or guard the caller is in, nothing of this belongs to it.
        return Context().run(self._validate, credential)

    def _validate(self, credential: Credential) -> Validation:
        provider = credential.info.id.provider
        if provider in HOMES:
            return self._ask(credential, provider)
        check = _check_of(provider)
        if check is None:
            return Validation("unverified", "no_check")
        try:
            return check(credential, timeout_ms=self._timeout_ms)
        except Exception:  # noqa: BLE001 -- another package's; its words may have the key
            return Validation("unverified", "check_failed")

    def _ask(self, credential: Credential, provider: str) -> Validation:
        base = (credential.info.base_url or "https://{}{}".format(*HOMES[provider])).rstrip("/")
        try:
            headers = _HEADERS[provider](credential.secret.reveal())
            answer = fetch(
                f"{base}{_FREE[provider]}", policy=self._policy, headers=headers, resolver=self._resolver,
                context=self._context,
            )  # fmt: skip
        except EgressRefused as error:
            found = error.reason != "unresolved"
            return Validation("unverified", "address_not_allowed" if found else "host_unknown")
        except EgressFailed as error:
            return Validation("unverified", error.reason)
        except ValueError:  # what no header can hold
            return Validation("invalid", "malformed")
        return _judged(answer)


def _judged(answer: Answer) -> Validation:
    """What a provider's answer says about the key."""
    status = answer.status
    if status == 200:
        listed = _has_models(answer.body)
        return Validation("valid", "accepted") if listed else Validation("unverified", "not_understood")
    if status == 401:
        return Validation("invalid", "refused")
    if status == 403:  # A key of fewer powers may be good for calls and not for lists.
        return Validation("unverified", "forbidden")
    if status == 429:
        return Validation("unverified", "rate_limited")
    return Validation("unverified", "provider_error" if status >= 500 else "not_understood")


def _has_models(body: bytes) -> bool:
    """Whether it is a list of models: a captive portal also says 200."""
    try:
        told: object = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(told, dict) and isinstance(cast("dict[str, object]", told).get("data"), list)


def _openai(key: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {key}", "Accept": "application/json"}


def _anthropic(key: str) -> Mapping[str, str]:
    return {"X-Api-Key": key, "Anthropic-Version": _ANTHROPIC_VERSION, "Accept": "application/json"}


_FREE = {"openai": "/models", "anthropic": "/v1/models?limit=1"}
"""Lists, which are free: https://platform.openai.com/docs/api-reference/models, https://docs.claude.com/en/api/models-list."""
_HEADERS = {"openai": _openai, "anthropic": _anthropic}


def _check_of(provider: str) -> Check | None:
    from importlib.metadata import entry_points

    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == provider:
            return cast("Check", entry.load())
    return None
