"""
The way in: who are you, what may you do, and how much may you spend.

`Authenticator.enter` asks all three for a request's headers, `enter` the last two for somebody who is known already.
Every entry point calls one of them, and nothing else decides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

from runrails.clocks import system_ms
from runrails.errors import ConfigError
from runrails.identity.errors import Forbidden, Unauthenticated
from runrails.identity.operations import OPERATIONS, authorise
from runrails.money import to_decimal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from runrails.clocks import Clock
    from runrails.guard import Guard
    from runrails.identity.principal import Principal
    from runrails.limits import Limits
    from runrails.run import Run

__all__ = ["CREDENTIAL_CHARS_MAX", "HEADERS_MAX", "Authenticator", "Entered", "Headers", "Verifier", "enter"]

Headers: TypeAlias = "Iterable[tuple[str | bytes, str | bytes]]"
"""Names and values as they came, none left out: a mapping would hide that one came twice."""
HEADERS_MAX = 256
CREDENTIAL_CHARS_MAX = 8_192
_KEY_PREFIXES = ("rr_", "sk-")
_PROOF_PREFIX = "runrails-aws-"
_BEARER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] ([A-Za-z0-9._~+/=-]+)")
_PLAIN = re.compile(r"[A-Za-z0-9._~+/=-]+")
_FORMS: dict[str | bytes, re.Pattern[str]] = {
    "authorization": _BEARER, "x-api-key": _PLAIN, b"authorization": _BEARER, b"x-api-key": _PLAIN,
}  # fmt: skip
"""The headers that may carry a credential, and how. Anthropic's clients send the second."""


class Verifier(Protocol):
    """What proves credentials of one kind: `ApiKeys`, `Tokens`, an AWS identity."""

    def verify(self, text: str, /) -> Principal:
        """Whom a credential proves. Raises Unauthenticated."""
        ...


class Authenticator:
    """
    Finds the one credential in a request's headers and has it proven. What is not given here is not accepted.

    Args:
        api_keys: For what begins with `rr_`, or with `sk-` where older keys are known.
        tokens: For signed tokens.
        aws: For proofs of an AWS identity.
        clock: Wall clock in milliseconds since the epoch, where no guard has one.

    Raises:
        ConfigError: None of them is given.
    """

    def __init__(
        self, api_keys: Verifier | None = None, tokens: Verifier | None = None, aws: Verifier | None = None, *,
        clock: Clock = system_ms,
    ) -> None:  # fmt: skip
        if api_keys is None and tokens is None and aws is None:
            raise ConfigError("Nobody could ever come in.", next_step="Give an Authenticator ApiKeys, or Tokens.")
        self._api_keys = api_keys
        self._tokens = tokens
        self._aws = aws
        self._clock = clock
        given = [each for each in (api_keys, tokens, aws) if each is not None]
        self.waits = any(getattr(each, "waits", True) for each in given)
        """Whether `authenticate` may wait for a network: then an event loop asks `recall`, and it in a thread."""

    def authenticate(self, headers: Headers) -> Principal:
        """
        Who sends a request.

        Exactly one credential must be there, as `Authorization: Bearer …` or as `x-api-key: …`: of two, a proxy may
        have looked at the other.

        Raises:
            Unauthenticated: Nobody who is known; one message whatever the reason.
            AuthBusy: An older key or a proof of AWS could not be checked now.
            StoreUnavailable: A store is out of reach.
        """
        credential = _find(headers)
        verifier = self._verifier_of(credential)
        if verifier is None:
            raise Unauthenticated("kind_not_accepted")
        return verifier.verify(credential)

    def recall(self, headers: Headers) -> Principal | None:
        """
        Who sends a request, if that is known here without asking anybody; else None: ask `authenticate`.

        It waits for nothing, so an event loop may call it. It never lets anybody in whom `authenticate` would not.

        Raises:
            Unauthenticated: Nobody who is known; one message whatever the reason.
        """
        credential = _find(headers)
        recall: Callable[[str], Principal | None] | None
        recall = getattr(self._verifier_of(credential), "recall", None)
        return None if recall is None else recall(credential)

    def enter(
        self, headers: Headers, operation: str, *, guard: Guard | None = None, owner: str | None = None,
        owner_org: str | None = None,
    ) -> Entered:  # fmt: skip
        """All three questions for a request. See `enter` and `authenticate`."""
        principal = self.authenticate(headers)
        return enter(principal, operation, guard=guard, owner=owner, owner_org=owner_org, clock=self._clock)

    def _verifier_of(self, credential: str) -> Verifier | None:
        if credential.startswith(_KEY_PREFIXES):
            return self._api_keys
        if credential.startswith(_PROOF_PREFIX):
            return self._aws
        return self._tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Entered:
    """Somebody who may do something, and what it may cost."""

    principal: Principal
    operation: str
    guard: Guard | None
    """Who keeps the budgets; None where nothing is spent."""

    def run(
        self, name: str = "", *, id: str | None = None, limits: Limits | None = None,  # noqa: A002 -- as `Guard.run`
        tags: Mapping[str, str] | None = None, byok: bool | None = None,
    ) -> Run:  # fmt: skip
        """
        A run for the principal's money: its user's, its key's and its organisation's, and at its key's rates.

        The arguments are those of `Guard.run`. The key's own budget and rates stand in the place of the guard's general
        ones for keys.

        Raises:
            Forbidden: The operation spends nothing, or the credential is over by now.
            ConfigError: There is no guard.
        """
        if not OPERATIONS[self.operation].spends:
            raise Forbidden(self.operation)
        if self.guard is None:
            raise ConfigError("There is no guard to keep the budget.", next_step="Pass guard=… to enter.")
        principal = self.principal
        _check_time(principal, self.guard.clock())
        return self.guard.run(
            name, id=id, limits=_limits(self.guard.limits if limits is None else limits, principal),
            user=principal.user, key=principal.key_id, org=principal.org, tags=tags, byok=byok,
        )  # fmt: skip


def enter(
    principal: Principal, operation: str, *, guard: Guard | None = None, owner: str | None = None,
    owner_org: str | None = None, clock: Clock = system_ms,
) -> Entered:  # fmt: skip
    """
    What somebody may do, and for whose money.

    Args:
        principal: Who; from a credential, an AWS event or this machine itself, never from a request's words.
        operation: What for, a name in `OPERATIONS`.
        guard: Who keeps the budgets, for operations that spend.
        owner: Whose thing it touches; see `runrails.identity.operations.authorise`.
        owner_org: The organisation of an owner that is a user, as the record says.
        clock: Wall clock in milliseconds since the epoch, if there is no guard, which has one.

    Raises:
        Unauthenticated: The credential is over by now.
        Forbidden: It may not.
    """
    _check_time(principal, (clock if guard is None else guard.clock)())
    authorise(principal, operation, owner=owner, owner_org=owner_org)
    return Entered(principal=principal, operation=operation, guard=guard)


def _check_time(principal: Principal, now_ms: int) -> None:
    if principal.expires_ms is not None and now_ms >= principal.expires_ms:
        raise Unauthenticated("expired")


def _limits(usual: Limits, principal: Principal) -> Limits:
    if principal.month_pusd is None and principal.rates is None:
        return usual
    month = usual.key_month if principal.month_pusd is None else to_decimal(principal.month_pusd)
    return replace(usual, key_month=month, key_rates=principal.rates or usual.key_rates)


def _find(headers: Headers) -> str:
    """The one credential that is there. Raises Unauthenticated."""
    found: str | None = None
    for count, (name, value) in enumerate(headers, start=1):
        if count > HEADERS_MAX:
            raise Unauthenticated("too_many_headers")
        form = _FORMS.get(name) or _form_of(name)
        if form is None:
            continue
        if found is not None:
            raise Unauthenticated("several_credentials")
        found = _credential(_text(value), form)
    if found is None:
        raise Unauthenticated("no_credential")
    return found


def _form_of(name: str | bytes) -> re.Pattern[str] | None:
    """The same of a name that is not in small letters."""
    if type(name) is bytes and name.islower():  # as most servers give them: it is another one
        return None
    text = _text(name)
    # Lowering has letters of other scripts become ASCII: a Kelvin sign is no k.
    return _FORMS.get(text.lower()) if text.isascii() else None


def _credential(value: str, form: re.Pattern[str]) -> str:
    if len(value) > CREDENTIAL_CHARS_MAX:
        raise Unauthenticated("credential_too_long")
    matched = form.fullmatch(value)
    if matched is None:
        raise Unauthenticated("header_malformed")
    return matched[form.groups]


def _text(given: str | bytes) -> str:
    """As HTTP has it: each byte is a letter, and none is lost or joined."""
    return given.decode("latin-1") if isinstance(given, bytes) else given
