"""
Public keys as JSON (RFC 7517, 7518, 8037), for what others publish and what we do.

A published set is read whole or not at all: one that shows a secret, names two keys alike or is malformed in a key of
ours is not one to trust with the others. What is meant for other algorithms or uses is left out, as RFC 7517 asks.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, TypeGuard, cast

from runrails.errors import ConfigError
from runrails.identity.errors import Unauthenticated
from runrails.identity.jwt.keyset import KEYS_MAX, Algorithm, Key, KeySet, is_algorithm
from runrails.identity.jwt.strict import decode_segment, encode_segment, is_kid, read_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from runrails.identity.jwt.keyset import PublicKey

__all__ = ["is_for", "read_jwks", "to_jwk"]

_SIZE = 32
"""Bytes of a coordinate, of P-256 as of Ed25519."""
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""Members that only a private or shared key has."""
_FIELD = 2**255 - 19
_EIGHTH = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
_SMALL_ORDER = frozenset({0, 1, _FIELD - 1, _EIGHTH, _FIELD - _EIGHTH})
"""The y of the eight points of Ed25519 with which anybody can make signatures that verify; a key of zeroes is one."""


_KINDS: Mapping[Algorithm, tuple[str, str]] = MappingProxyType(
    {"EdDSA": ("OKP", "Ed25519"), "Ed25519": ("OKP", "Ed25519"), "ES256": ("EC", "P-256")}
)


def is_for(key: object, alg: Algorithm) -> bool:
    """Whether a public key is one that an algorithm takes."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if isinstance(key, EllipticCurvePublicKey):
        return alg == "ES256" and isinstance(key.curve, SECP256R1)
    return alg in {"EdDSA", "Ed25519"} and isinstance(key, Ed25519PublicKey)


def read_jwks(data: bytes) -> KeySet:
    """
    The keys of ours in a set that somebody publishes.

    Raises:
        ConfigError: It is no set, it shows a secret, two keys have one id, a key is malformed, or none is for us.
    """
    try:
        found = read_object(data)
        entries = found.get("keys")
        if not isinstance(entries, list):
            raise _refused("is none")
        given = cast("list[object]", entries)
        if len(given) > KEYS_MAX:
            raise _refused(f"has more than {KEYS_MAX} keys")
        _check_public(given)
        keys = [key for each in given if _is_object(each) and (key := _read_key(each)) is not None]
    except Unauthenticated:
        raise _refused("is malformed") from None
    if not keys:
        raise _refused("has no key for EdDSA or ES256")
    return KeySet(keys)


def _check_public(entries: list[object]) -> None:
    seen: set[object] = set()
    for each in entries:
        if not _is_object(each):
            raise _refused("is malformed")
        if each.get("kty") == "oct" or each.keys() & _PRIVATE:
            raise _refused("shows a secret")
        kid = each.get("kid")
        if isinstance(kid, str):
            if kid in seen:
                raise _refused("has two keys with one id")
            seen.add(kid)


def _is_object(found: object) -> TypeGuard[dict[str, object]]:
    return isinstance(found, dict)


def _read_key(entry: Mapping[str, object]) -> Key | None:
    """A key of ours; None: it is for something else."""
    kid = entry.get("kid")
    if not is_kid(kid) or not _is_for_verifying(entry):
        return None
    alg = entry["alg"] if "alg" in entry else _alg_by_kind(entry)
    if not is_algorithm(alg):
        return None
    if _KINDS.get(alg) != _kind_of(entry):
        raise _refused("has a key that does not fit its algorithm")
    return Key(kid, alg, _read_point(entry, alg))


def _is_for_verifying(entry: Mapping[str, object]) -> bool:
    if "use" in entry and entry["use"] != "sig":
        return False
    if "key_ops" not in entry:
        return True
    # RFC 7517, section 4.3: no operation twice, and none that is not of the same kind.
    return entry["key_ops"] in (["verify"], ["sign", "verify"], ["verify", "sign"])


def _kind_of(entry: Mapping[str, object]) -> tuple[object, object]:
    return entry.get("kty"), entry.get("crv")


def _alg_by_kind(entry: Mapping[str, object]) -> Algorithm | None:
    """What a key that does not say is for: of the two names for Ed25519, the older and more common one."""
    return next((alg for alg, kind in _KINDS.items() if kind == _kind_of(entry)), None)


def _read_point(entry: Mapping[str, object], alg: Algorithm) -> PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers

    x = _coordinate(entry.get("x"))
    if alg != "ES256":
        return _read_ed25519(x)
    y = _coordinate(entry.get("y"))
    try:
        return EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), SECP256R1()).public_key()
    except ValueError:
        raise _refused("has a point that is not on its curve") from None


def _read_ed25519(data: bytes) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    y = int.from_bytes(data, "little") & ~(1 << 255)
    if y >= _FIELD or y in _SMALL_ORDER:
        raise _refused("has a weak key")
    return Ed25519PublicKey.from_public_bytes(data)


def _coordinate(value: object) -> bytes:
    found = decode_segment(value) if isinstance(value, str) else b""
    if len(found) != _SIZE:
        raise _refused("has a key of another size")
    return found


def to_jwk(key: Key) -> dict[str, str]:
    """A public key for a set of ours. Raises ConfigError for a shared secret."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    base = {"kid": key.kid, "alg": key.alg, "use": "sig"}
    public = key.verifying
    if isinstance(public, Ed25519PublicKey):
        return {**base, "kty": "OKP", "crv": "Ed25519", "x": encode_segment(public.public_bytes_raw())}
    if isinstance(public, EllipticCurvePublicKey):
        numbers = public.public_numbers()
        x, y = (encode_segment(each.to_bytes(_SIZE)) for each in (numbers.x, numbers.y))
        return {**base, "kty": "EC", "crv": "P-256", "x": x, "y": y}
    raise ConfigError(
        "A shared secret is never published.", next_step="Use EdDSA or ES256 where more than one service verifies."
    )


def _refused(why: str) -> ConfigError:
    return ConfigError(f"The published set of keys {why}.", next_step="It is not used. Tell whoever publishes it.")
