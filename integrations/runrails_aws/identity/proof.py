"""
What a caller sends to prove who they are: five plain fields, and nothing of a request. Pure.

Whoever takes a URL, headers or a body from the caller and forwards them lets the caller choose what AWS answers
(CVE-2020-16250). Out of these five the server builds the request itself; see `canonical`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from runrails.secretvalue import Secret

__all__ = ["PREFIX", "PROOF_CHARS_MAX", "Proof", "is_proof", "parse_proof"]

PREFIX = "runrails-aws-v1."
"""What a proof begins with as text, so that it is never taken for a key or a token."""
PROOF_CHARS_MAX = 4096

_REGION = re.compile(r"[a-z]{2}(?:-[a-z]{1,16}){1,3}-[0-9]{1,2}")
_KEY_ID = re.compile(r"(?:AKIA|ASIA)[A-Z0-9]{12,60}")
_DATE = re.compile(r"20[0-9]{6}T[0-9]{6}Z")
_SIGNATURE = re.compile(r"[0-9a-f]{64}")
_TOKEN = re.compile(r"[A-Za-z0-9+/_-]{16,4000}={0,2}")
_TEMPORARY = "ASIA"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """
    A signature of one request, `sts:GetCallerIdentity`, to one server of ours, and what is needed to check it.

    Raises:
        ValueError: A field is malformed; the message names the field, never the value.
    """

    region: str
    """Which region's STS it is for."""
    key_id: str
    """The access key's public id."""
    date: str
    """When it was signed, as `X-Amz-Date` has it: `20261122T063000Z`."""
    signature: Secret
    """64 lower-case hexadecimal digits: there is one spelling, so a used one is known again."""
    token: Secret | None = None
    """The session token of temporary credentials; they have one, and long-lived ones have none."""

    def __post_init__(self) -> None:
        _check(self.region, _REGION, "region")
        _check(self.key_id, _KEY_ID, "access key id")
        _check(self.date, _DATE, "date")
        _check(_revealed(self.signature), _SIGNATURE, "signature")
        if self.token is not None:
            _check(_revealed(self.token), _TOKEN, "session token")
        if self.key_id.startswith(_TEMPORARY) is not (self.token is not None):
            raise ValueError("A proof has a session token if, and only if, its access key is temporary.")
        _moment_ms(self.date)

    @property
    def signed_ms(self) -> int:
        """When it was signed, in milliseconds since the epoch."""
        return _moment_ms(self.date)

    def reveal(self) -> str:
        """
        The proof as one text, for `Authorization: Bearer …`: good for one login within five minutes.

        Its fields are separated by dots, which none of them can contain, so it has one spelling and needs no parser.
        """
        fields = [self.region, self.key_id, self.date, self.signature.reveal()]
        if self.token is not None:
            fields.append(self.token.reveal())
        return PREFIX + ".".join(fields)


def is_proof(text: str) -> bool:
    """Whether a credential claims to be a proof."""
    return text.startswith(PREFIX)


def parse_proof(text: str) -> Proof:
    """
    Read what `Proof.reveal` has written.

    Raises:
        ValueError: It is not exactly that; the message never has the value.
    """
    if len(text) > PROOF_CHARS_MAX:
        raise ValueError(f"A proof has at most {PROOF_CHARS_MAX:,} characters.")
    fields = text.removeprefix(PREFIX).split(".")
    if not is_proof(text) or len(fields) not in (4, 5):
        raise ValueError("This is not a proof: it must have a prefix and four or five fields.")
    region, key_id, date, signature, *token = fields
    return Proof(
        region=region, key_id=key_id, date=date, signature=Secret(signature), token=Secret(token[0]) if token else None
    )


def _check(value: object, form: re.Pattern[str], what: str) -> None:
    if not (isinstance(value, str) and form.fullmatch(value)):
        raise ValueError(f"A proof's {what} is malformed.")


def _revealed(secret: object) -> str | None:
    return secret.reveal() if isinstance(secret, Secret) else None


def _moment_ms(date: str) -> int:
    from datetime import UTC, datetime

    year, month, day, hour, minute, second = map(int, (date[:4], *(date[at : at + 2] for at in (4, 6, 9, 11, 13))))
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        raise ValueError("A proof's date does not exist.") from None
    return int(moment.timestamp()) * 1_000
