"""Master keys on this machine: a ring of AES-256 keys, of which one seals and all open."""

from __future__ import annotations

import base64
import binascii
import os
import re
from typing import TYPE_CHECKING, Self

from runrails.credentials import primitives
from runrails.credentials.errors import CredentialUnreadable
from runrails.credentials.wrapping import DATA_KEY_BYTES, DataKey
from runrails.errors import ConfigError
from runrails.secretrules import weakness
from runrails.secretvalue import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from runrails.credentials.wrapping import Context

__all__ = ["SETTING", "KeyRing", "check_key_id", "new_master_key"]

SETTING = "RUNRAILS_MASTER_KEYS"
KEYS_MAX = 16
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_RESERVED = "kms"
_WRAPPED_BYTES = primitives.NONCE_BYTES + DATA_KEY_BYTES + primitives.TAG_BYTES
_DOMAIN = b"runrails key ring 1"
_FORM = (
    f"Write {SETTING}=k1:file:/path/to/key, or k2:env:NAME,k1:file:/path for two, the one that seals first. "
    "`runrails byok init` makes a key."
)


class KeyRing:
    """
    A `KeyWrapper` with keys of its own. Safe in many threads.

    Args:
        active: The id of the key that seals.
        keys: Every key by its id: 32 random bytes, or their base64 or hexadecimal form.
        random: Random bytes, for tests.

    Raises:
        ConfigError: A key is missing, short, typed by somebody, or there twice. The message has no part of a key.
    """

    remote = False

    def __init__(self, active: str, keys: Mapping[str, Secret], *, random: Callable[[int], bytes] = os.urandom) -> None:
        self._active = active
        self._random = random
        self._masters: dict[str, Secret] = {}
        self._ciphers: dict[str, AESGCM] = {}
        """Of keys that were used: the library is 6 MB, which a gateway to which nobody brings a key does without."""
        if active not in keys:
            raise ConfigError("The key ring lacks its active key.", next_step=_FORM)
        if len(keys) > KEYS_MAX:
            raise ConfigError(
                f"A key ring has at most {KEYS_MAX} keys.",
                next_step="Run `runrails byok rewrap`, and leave out the keys that nothing is sealed with any more.",
            )
        masters = {check_key_id(key_id): _master_key(key_id, key) for key_id, key in keys.items()}
        _check_different(masters)
        self._masters = masters

    @classmethod
    def parse(cls, setting: str) -> Self:
        """
        The ring that a setting like ``k2:env:NAME,k1:file:/path`` names; the first key seals.

        Raises:
            ConfigError: It is malformed, or a key cannot be found or used.
        """
        from runrails.secretrefs import resolve

        keys: dict[str, Secret] = {}
        for item in setting.split(","):
            key_id, _, reference = item.strip().partition(":")
            if not reference:
                raise ConfigError(f"{SETTING} is malformed.", next_step=_FORM)
            if check_key_id(key_id) in keys:
                raise ConfigError(f"{SETTING} names {key_id} twice.", next_step=_FORM)
            keys[key_id] = resolve(reference, what=f"{SETTING} ({key_id})")
        return cls(next(iter(keys)), keys)

    @property
    def active(self) -> str:
        """The id of the key that seals."""
        return self._active

    def knows(self, key_id: str) -> bool:
        """Whether it has that key."""
        return key_id in self._masters

    def new_data_key(self, context: Context) -> DataKey:
        """A random key of 32 bytes, wrapped with the active key."""
        plain, nonce = Secret(self._random(DATA_KEY_BYTES)), self._random(primitives.NONCE_BYTES)
        cipher, aad = self._cipher(self._active), _aad(self._active, context)
        return DataKey(
            plain, nonce + primitives.encrypt(cipher, nonce, plain.reveal_bytes(), aad), self._active
        )  # fmt: skip

    def unwrap(self, wrapped: bytes, key_id: str, context: Context) -> Secret:
        """The data key. Raises CredentialUnreadable."""
        if key_id not in self._masters:
            raise CredentialUnreadable("unknown_key")
        opened = _unwrapped(self._cipher(key_id), wrapped, _aad(key_id, context))
        if opened is None:
            raise CredentialUnreadable("wrong_key")
        return opened

    def __repr__(self) -> str:
        return f"KeyRing(active={self._active!r}, keys={sorted(self._masters)!r})"

    def _cipher(self, key_id: str) -> AESGCM:
        known = self._ciphers.get(key_id)
        if known is None:
            known = self._ciphers[key_id] = primitives.aead(self._masters[key_id].reveal_bytes())
        return known


def check_key_id(key_id: str) -> str:
    """Return the id if it can name a key of a ring. Raises ConfigError."""
    if _ID.fullmatch(key_id) and key_id != _RESERVED:
        return key_id
    raise ConfigError(
        "A master key's name has 1 to 32 of a-z, 0-9 and -, and is not kms.", next_step="Name it k1, k2 and so on."
    )


def new_master_key() -> Secret:
    """A random master key in the form that `KeyRing` reads."""
    return Secret(base64.urlsafe_b64encode(os.urandom(DATA_KEY_BYTES)))


def _unwrapped(cipher: AESGCM, wrapped: bytes, aad: bytes) -> Secret | None:
    if len(wrapped) != _WRAPPED_BYTES:
        return None
    plain = primitives.decrypt(cipher, wrapped[: primitives.NONCE_BYTES], wrapped[primitives.NONCE_BYTES :], aad)
    return None if plain is None else Secret(plain)


def _aad(key_id: str, context: Context) -> bytes:
    name = key_id.encode()
    return _DOMAIN + len(name).to_bytes(1, "big") + name + context.encoded()


def _master_key(key_id: str, given: Secret) -> Secret:
    # No frame of an error has the key itself: some loggers print the local variables of each.
    key = _decoded(given)
    if key is None:
        raise ConfigError(
            f"The master key {key_id} is not 32 random bytes in base64 or hexadecimal form.",
            next_step="Make one with `runrails byok init` or `openssl rand -base64 32`.",
            key_id=key_id,
        )
    if _is_weak(key):
        raise ConfigError(
            f"The master key {key_id} is not random: it looks like a placeholder or a pass phrase.",
            next_step="Make one with `runrails byok init` or `openssl rand -base64 32`.",
            key_id=key_id,
        )
    return key


def _is_weak(key: Secret) -> bool:
    held = key.reveal_bytes()
    return weakness(held, bytes_min=DATA_KEY_BYTES) is not None or all(0x20 <= byte < 0x7F for byte in held)


def _decoded(given: Secret) -> Secret | None:
    """The 32 bytes themselves, or what their text says; None if it is neither."""
    held = given.reveal_bytes()
    if len(held) == DATA_KEY_BYTES:
        return given
    text = held.strip()
    try:
        if len(text) == 2 * DATA_KEY_BYTES:
            return Secret(binascii.unhexlify(text))
        standard = text.replace(b"-", b"+").replace(b"_", b"/").rstrip(b"=")
        key = base64.b64decode(standard + b"=", validate=True)
    except ValueError:
        return None
    return Secret(key) if len(key) == DATA_KEY_BYTES else None


def _check_different(masters: Mapping[str, Secret]) -> None:
    known = list(masters.items())
    for place, (key_id, master) in enumerate(known):
        for other, before in known[:place]:
            if master == before:
                raise ConfigError(
                    f"The master keys {other} and {key_id} are the same.",
                    next_step="Give every name a key of its own; `runrails byok init` makes one.",
                )
