"""
The form of a token, before and after its signature is verified. Pure.

A token has one spelling: three segments of canonical base64url, each JSON without duplicate members, a header of three
names and claims of a short list. Libraries take more than that, each in its own way, and what two of them read
differently is how a token that was signed for one thing is used for another. Stricter than RFC 7519 on purpose: times
are whole seconds, the audience is one text, and unknown claims are refused.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from binascii import Error as BinasciiError
from binascii import a2b_base64
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TypeGuard, cast

from runrails.identity.errors import Unauthenticated
from runrails.identity.principal import SCOPES
from runrails.ids import check_id

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import LiteralString

__all__ = [
    "LEEWAY_S",
    "LIFETIME_S_MAX",
    "TOKEN_BYTES_MAX",
    "TYP",
    "TYPE",
    "Claims",
    "Envelope",
    "Header",
    "check_claims",
    "decode_segment",
    "encode_segment",
    "is_kid",
    "read_envelope",
    "read_object",
]

TOKEN_BYTES_MAX = 4_096
"""Ours have about 500. Everything below is linear in this."""
LIFETIME_S_MAX = 3_600
"""Whoever steals a token has it for so long at most, and so long a revocation must be remembered."""
LEEWAY_S = 30
"""How far the clocks of two machines may be apart."""
TYP = "JWT"
"""The header's type."""
TYPE = "service"
"""The claim that tells an access token from whatever else one key may once sign."""
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
_KID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._=-]{0,127}")
"""No file name, query or address fits into it."""
_TIME_S_MAX = 2**43
"""Of milliseconds, 2**53 is the last whole number that every reader of JSON gets right."""
_DIGITS_MAX = 16
_HEADER = frozenset({"alg", "typ", "kid"})
_NEEDED = frozenset({"iss", "aud", "sub", "iat", "exp", "jti", "type", "scopes"})
_ALLOWED = _NEEDED | {"nbf", "org"}


class Header(NamedTuple):
    """What a token says of its signature. It chooses among our keys and decides nothing else."""

    alg: str
    kid: str
    typ: str
    """Empty if there is none."""


class Envelope(NamedTuple):
    """A token that is well formed. Nothing in it may be believed yet."""

    header: Header
    payload: bytes
    signed: bytes
    """What the signature is of."""
    signature: bytes


class Claims(NamedTuple):
    """What a token whose signature was verified says, and may be believed."""

    user: str
    org: str | None
    scopes: frozenset[str]
    jti: str
    expires_s: int


def _refuse(reason: LiteralString) -> NoReturn:
    raise Unauthenticated(reason)


def read_envelope(text: object) -> Envelope:
    """
    Take a token apart.

    Raises:
        Unauthenticated: It is not in the one spelling that a token has, or its header has more or less than alg, kid
            and perhaps typ.
    """
    if not isinstance(text, str) or not text.isascii():
        _refuse("token-letters")
    if len(text) > TOKEN_BYTES_MAX:
        _refuse("token-size")
    segments = text.split(".")
    if len(segments) != 3:
        _refuse("token-segments")
    header, payload, signature = [decode_segment(each) for each in segments]
    signed = text[: text.rindex(".")].encode()
    return Envelope(_read_header(header), payload, signed, signature)


def decode_segment(text: str) -> bytes:
    """
    The bytes of canonical base64url without padding.

    Raises:
        Unauthenticated: It is empty, has other letters, or another spelling of the same bytes.
    """
    if not _SEGMENT.fullmatch(text):
        _refuse("token-letters")
    try:
        found = a2b_base64(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4))
    except BinasciiError:
        found = b""
    if encode_segment(found) != text:
        _refuse("token-encoding")
    return found


def encode_segment(data: bytes) -> str:
    """Base64url without padding (RFC 7515, section 2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def read_object(data: bytes) -> dict[str, object]:
    """
    One JSON object, read so that no two readers differ about it: UTF-8 without a mark, no member twice, no NaN or
    infinity, no number that is not a short whole one.

    Raises:
        Unauthenticated: It is anything else.
    """
    try:
        found: object = json.loads(
            data.decode(),
            object_pairs_hook=_once,
            parse_constant=_no_number,
            parse_float=_no_number,
            parse_int=_short_int,
        )
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        found = None
    # Outside of the clause: the errors of Python's own readers carry what was read.
    if not _is_object(found):
        _refuse("token-json")
    return found


def _is_object(found: object) -> TypeGuard[dict[str, object]]:
    return isinstance(found, dict)


def _once(members: Sequence[tuple[str, object]]) -> dict[str, object]:
    found = dict(members)
    if len(found) != len(members):
        raise ValueError
    return found


def _no_number(text: str) -> NoReturn:
    del text
    raise ValueError


def _short_int(text: str) -> int:
    if len(text) > _DIGITS_MAX:
        raise ValueError
    return int(text)


def _read_header(data: bytes) -> Header:
    found = read_object(data)
    if not found.keys() <= _HEADER:
        _refuse("token-header")
    alg, kid, typ = found.get("alg"), found.get("kid"), found.get("typ", "")
    if not isinstance(alg, str) or not isinstance(typ, str):
        _refuse("token-header")
    if not is_kid(kid):
        _refuse("token-kid")
    return Header(alg, kid, typ)


def is_kid(kid: object) -> TypeGuard[str]:
    """Whether it is the id of a key."""
    return isinstance(kid, str) and _KID.fullmatch(kid) is not None


def check_claims(envelope: Envelope, *, issuer: str, audience: str, now_ms: int) -> Claims:
    """
    Read what a token says, after its signature was verified.

    Args:
        envelope: The token.
        issuer: Who must have made it, letter by letter.
        audience: Whom it must be for, letter by letter and alone.
        now_ms: The time, since the epoch.

    Raises:
        Unauthenticated: A rule is broken; the reason says which.
    """
    if envelope.header.typ != TYP:
        _refuse("token-typ")
    found = read_object(envelope.payload)
    if not _NEEDED <= found.keys() <= _ALLOWED:
        _refuse("token-claims")
    if found["type"] != TYPE:
        _refuse("token-type")
    if found["iss"] != issuer:
        _refuse("token-issuer")
    if found["aud"] != audience:
        _refuse("token-audience")
    expires_s = _check_times(found, now_ms)
    return Claims(
        user=_id_of(found["sub"], "token-subject"),
        org=_id_of(found["org"], "token-org") if "org" in found else None,
        scopes=_scopes_of(found["scopes"]),
        jti=_id_of(found["jti"], "token-jti"),
        expires_s=expires_s,
    )


def _check_times(found: dict[str, object], now_ms: int) -> int:
    issued_s, expires_s = _second_of(found["iat"]), _second_of(found["exp"])
    begins_s = _second_of(found["nbf"]) if "nbf" in found else issued_s
    if not 0 < expires_s - issued_s <= LIFETIME_S_MAX:
        _refuse("token-lifetime")
    if now_ms >= (expires_s + LEEWAY_S) * 1_000:
        _refuse("token-expired")
    if issued_s * 1_000 > now_ms + LEEWAY_S * 1_000:
        _refuse("token-future")
    if begins_s * 1_000 > now_ms + LEEWAY_S * 1_000:
        _refuse("token-early")
    return expires_s


def _second_of(value: object) -> int:
    # A bool is an int to Python, and to nobody else.
    if type(value) is not int or not 0 <= value < _TIME_S_MAX:
        _refuse("token-time")
    return value


def _id_of(value: object, reason: LiteralString) -> str:
    try:
        return check_id(value, what="A claim")
    except ValueError:
        pass
    _refuse(reason)


def _scopes_of(value: object) -> frozenset[str]:
    if not isinstance(value, list):
        _refuse("token-scopes")
    given = cast("list[object]", value)
    found = frozenset(each for each in given if isinstance(each, str) and each in SCOPES)
    # One that is unknown, twice or no text makes the two differ.
    if not found or len(found) != len(given):
        _refuse("token-scopes")
    return found
