"""
Which keys tokens are signed and verified with: a table of `kid`, and for each the one algorithm it is for.

A token's header chooses a row and never an algorithm. PyJWT computes the signatures, and nothing else of it is used.
Offered are HS256 for one box, and EdDSA (Ed25519) and ES256 (P-256) where more than one service verifies. RFC 9864 has
a second name for the former, Ed25519: a key is for one of the two, as whoever publishes it says, and never for both.
RSA is not offered: with it come weak moduli (ROCA), exponents and paddings that need checks of their own, and nothing
here needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeGuard, get_args

from runrails.errors import ConfigError
from runrails.identity.errors import Unauthenticated
from runrails.identity.jwt.strict import is_kid
from runrails.secretrefs import check_distinct, check_strength, resolve

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from runrails.identity.jwt.strict import Envelope
    from runrails.secretvalue import Secret

    PublicKey = Ed25519PublicKey | EllipticCurvePublicKey
    PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey

__all__ = ["ALGORITHMS", "KEYS_MAX", "Algorithm", "Key", "KeySet", "Keys", "is_algorithm", "verify"]

Algorithm = Literal["HS256", "EdDSA", "Ed25519", "ES256"]
ALGORITHMS: frozenset[str] = frozenset(get_args(Algorithm))
KEYS_MAX = 32


def is_algorithm(name: object) -> TypeGuard[Algorithm]:
    """Whether a key may be for it."""
    return isinstance(name, str) and name in ALGORITHMS


class _Engine(Protocol):
    """As much of PyJWT's algorithms as is used."""

    def sign(self, msg: bytes, key: object) -> bytes: ...
    def verify(self, msg: bytes, key: object, sig: bytes) -> bool: ...


class Key(NamedTuple):
    """One row of the table. It shows its names and never its key."""

    kid: str
    alg: Algorithm
    verifying: Secret | PublicKey
    signing: Secret | PrivateKey | None = None
    """None: this process may verify and not sign."""

    def __repr__(self) -> str:
        return f"Key({self.kid!r}, {self.alg!r})"


class Keys(Protocol):
    """Where keys are looked up."""

    def find(self, kid: str) -> Key | None:
        """The key of that id."""
        ...


class KeySet:
    """
    Keys that are known from the start.

    Several at once is how they are changed: add the new one everywhere, sign with it, and take the old one away when
    the last token that it signed has expired, after an hour.

    Args:
        keys: All that verify.
        signing: The id of the one that signs; None: this process only verifies.

    Raises:
        ConfigError: No key or too many, an id twice, shared secrets beside public keys, none that signs, a weak secret,
            or a key that does not fit its algorithm.
    """

    def __init__(self, keys: Iterable[Key], *, signing: str | None = None) -> None:
        listed = list(keys)
        self._keys = {each.kid: each for each in listed}
        if not 0 < len(listed) <= KEYS_MAX:
            raise _unusable(f"needs 1 to {KEYS_MAX} keys")
        if len(self._keys) != len(listed):
            raise _unusable("has two keys with one id")
        if len({each.alg == "HS256" for each in listed}) > 1:
            # Whoever verifies with a shared secret can sign as well; a set of both hides who can.
            raise _unusable("mixes shared secrets with public keys")
        for each in listed:
            _check_fits(each)
        self._signing = None if signing is None else self._keys.get(signing)
        if signing is not None and (self._signing is None or self._signing.signing is None):
            raise _unusable("has no private key of the id that shall sign")

    @classmethod
    def parse(cls, text: str, *, what: str = "RUNRAILS_JWT_KEYS") -> KeySet:
        """
        Read a setting: ``k2:EdDSA:file:/keys/k2.pem,k1:EdDSA:file:/keys/k1.pem``. The first one signs.

        Each key is its id, its algorithm and where it is kept, see `runrails.secretrefs`: for HS256 at least 32 bytes,
        for EdDSA and ES256 a private key in PEM.

        Raises:
            ConfigError: It is malformed, a secret cannot be read or is weak, or two are equal.
        """
        listed: list[Key] = []
        shared: dict[str, Secret] = {}
        for entry in text.split(",", KEYS_MAX):
            kid, _, rest = entry.strip().partition(":")
            alg, _, reference = rest.partition(":")
            name = f"{what}[{len(listed)}]"
            secret = resolve(reference, what=name)
            listed.append(load_key(kid, alg, secret, what=name))
            shared[name] = secret
        check_distinct(shared)
        return cls(listed, signing=listed[0].kid)

    @classmethod
    def shared(cls, secrets: Mapping[str, Secret], *, signing: str | None = None) -> KeySet:
        """Keys for HS256: id and secret; by default the first signs. Raises ConfigError for weak or equal ones."""
        check_distinct({f"the JWT key {check_name(kid)}": secret for kid, secret in secrets.items()})
        listed = [load_key(kid, "HS256", secret, what=f"the JWT key {kid}") for kid, secret in secrets.items()]
        return cls(listed, signing=signing or next(iter(secrets), None))

    def find(self, kid: str) -> Key | None:
        """The key of that id."""
        return self._keys.get(kid)

    @property
    def signer(self) -> Key | None:
        """The key that signs, if this process has one."""
        return self._signing

    def sign(self, data: bytes) -> bytes:
        """
        The signature of the key that signs.

        Raises:
            ConfigError: This process only verifies.
        """
        key = self._signing
        if key is None:
            raise ConfigError(
                "This process has no key to sign tokens with.", next_step="Give it one, or let another process sign."
            )
        return _engine(key.alg).sign(data, _material(key.signing))

    def public_jwks(self) -> dict[str, list[dict[str, str]]]:
        """
        What other services verify with (RFC 7517), ready for JSON.

        Raises:
            ConfigError: The keys are shared secrets, which are never published.
        """
        from runrails.identity.jwt.jwk import to_jwk

        return {"keys": [to_jwk(key) for key in self._keys.values()]}

    def __repr__(self) -> str:
        return f"KeySet({sorted(self._keys)})"


def verify(envelope: Envelope, keys: Keys) -> Key:
    """
    Verify a token's signature with the key that its header names. Returns that key.

    Raises:
        Unauthenticated: No such key, it is for another algorithm, or the signature is wrong.
    """
    key = keys.find(envelope.header.kid)
    if key is None:
        raise Unauthenticated("token-kid")
    if key.alg != envelope.header.alg:
        raise Unauthenticated("token-alg")
    if not _engine(key.alg).verify(envelope.signed, _material(key.verifying), envelope.signature):
        raise Unauthenticated("token-signature")
    return key


def load_key(kid: str, alg: str, secret: Secret, *, what: str) -> Key:
    """
    A key of our own, from its secret.

    Raises:
        ConfigError: The id or the algorithm is none of ours, or the secret does not fit it.
    """
    check_name(kid)
    if not is_algorithm(alg):
        raise ConfigError(
            f"{what} is for an algorithm that is not offered.",
            next_step="Write KID:HS256:REFERENCE, KID:EdDSA:REFERENCE or KID:ES256:REFERENCE.",
            setting=what,
        )
    if alg == "HS256":
        _check_shared(secret, what)
        return Key(kid, alg, secret, secret)
    private = _load_private(secret, what)
    public = private.public_key()
    from runrails.identity.jwt.jwk import is_for

    if not is_for(public, alg):
        raise ConfigError(
            f"The key in {what} is not for {alg}.",
            next_step="EdDSA and Ed25519 take an Ed25519 key, ES256 one of the curve P-256.",
            setting=what,
        )
    return Key(kid, alg, public, private)


def _check_fits(key: Key) -> None:
    """See that a key is for its algorithm, however it was put together. Raises ConfigError."""
    from runrails.secretvalue import Secret

    check_name(key.kid)
    if is_algorithm(key.alg):
        if isinstance(key.verifying, Secret):
            if key.alg == "HS256":
                return _check_shared(key.verifying, f"the JWT key {key.kid}")
        else:
            from runrails.identity.jwt.jwk import is_for

            if is_for(key.verifying, key.alg):
                return None
    raise _unusable("has a key that does not fit its algorithm")


def _check_shared(secret: Secret, what: str) -> None:
    check_strength(secret, what=what)
    if b"-----BEGIN" in secret.reveal_bytes():
        # A public key taken for a shared secret is a secret that everybody knows.
        raise ConfigError(f"{what} is a key in PEM, and HS256 takes none.", next_step="Write EdDSA or ES256.")


def check_name(kid: str) -> str:
    """A key's id. Raises ConfigError."""
    if not is_kid(kid):
        raise ConfigError(
            "A JWT key's id must be 1 to 128 letters, digits, dots, hyphens or underscores.",
            next_step="Name it by the month it was made in, like 2026-11.",
        )
    return kid


def _load_private(secret: Secret, what: str) -> PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(secret.reveal_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it is encrypted
        private = None
    if not isinstance(private, Ed25519PrivateKey | EllipticCurvePrivateKey):
        raise ConfigError(
            f"{what} is no private key in PEM of Ed25519 or P-256, without a passphrase.",
            next_step="Make one: openssl genpkey -algorithm ed25519.",
            setting=what,
        )
    return private


def _engine(alg: Algorithm) -> _Engine:
    engine = _engines.get(alg)
    if engine is None:
        try:
            from jwt import get_algorithm_by_name
        except ImportError:
            raise ConfigError("Tokens need PyJWT.", next_step="pip install 'runrails[jwt]'") from None
        engine = _engines[alg] = get_algorithm_by_name("EdDSA" if alg == "Ed25519" else alg)
    return engine


_engines: dict[Algorithm, _Engine] = {}


def _material(key: Secret | PublicKey | PrivateKey | None) -> object:
    from runrails.secretvalue import Secret

    return key.reveal_bytes() if isinstance(key, Secret) else key


def _unusable(why: str) -> ConfigError:
    return ConfigError(f"The set of JWT keys {why}.", next_step="Give each key an id of its own, and one kind of keys.")
