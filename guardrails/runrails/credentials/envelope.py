"""
One secret in one envelope: sealed with a data key of its own, which is sealed with a master key.

::

    magic | id of the master key | wrapped data key | commitment | nonce | sealed secret and its tag

What is before the sealed secret is its header. All of the header and the context are authenticated. AES-GCM alone opens
one envelope with two keys if somebody takes the trouble to make it so; the commitment, which HKDF derives from the data
key beside the key that encrypts, makes that as hard as finding equal hashes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from runrails.credentials import primitives
from runrails.credentials.errors import CredentialUnreadable, Reason
from runrails.credentials.wrapping import DATA_KEY_BYTES, KEY_ID_BYTES_MAX, WRAPPED_BYTES_MAX
from runrails.secretvalue import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.credentials.wrapping import Context, DataKey, KeyWrapper

__all__ = ["MAGIC", "key_id_of", "open_", "seal"]

T = TypeVar("T")

MAGIC = b"rre1"
_COMMITMENT_BYTES = 32
_INFO = b"runrails envelope 1"


class _Parts(NamedTuple):
    key_id: str
    wrapped: bytes
    commitment: bytes
    nonce: bytes
    header: bytes
    sealed: bytes


def seal(
    secret: Secret, context: Context, wrapper: KeyWrapper, *, random: Callable[[int], bytes] = os.urandom
) -> bytes:
    """
    Seal a secret for one context.

    Raises:
        CredentialUnreadable: The wrapper gives no data key.
    """
    data_key = _asked(lambda: wrapper.new_data_key(context))
    if not _is_sound(data_key):
        raise CredentialUnreadable("wrapper_failed")
    key_id = data_key.key_id.encode()
    key, commitment = _derive(data_key.plain)
    nonce = random(primitives.NONCE_BYTES)
    header = b"".join(
        (
            MAGIC, len(key_id).to_bytes(1, "big"), key_id, len(data_key.wrapped).to_bytes(2, "big"), data_key.wrapped,
            commitment, nonce,
        )
    )  # fmt: skip
    cipher = primitives.aead(key.reveal_bytes())
    return header + primitives.encrypt(cipher, nonce, secret.reveal_bytes(), header + context.encoded())


def open_(blob: bytes, context: Context, wrapper: KeyWrapper) -> Secret:
    """
    Open what was sealed for just this context.

    Raises:
        CredentialUnreadable: It is anything else, or the wrapper does not give the data key.
    """
    parts = _parse(blob)
    if parts is None:
        raise CredentialUnreadable("malformed")
    if not _asked(lambda: wrapper.knows(parts.key_id)):
        raise CredentialUnreadable("unknown_key")
    opened = _decrypted(parts, context, _asked(lambda: wrapper.unwrap(parts.wrapped, parts.key_id, context)))
    # Raised here, where no frame holds a key: some loggers print the local variables of every frame.
    if not isinstance(opened, Secret):
        raise CredentialUnreadable(opened)
    return opened


def key_id_of(blob: bytes) -> str | None:
    """By which master key it is sealed, as it says itself; None if it is no envelope."""
    parts = _parse(blob)
    return None if parts is None else parts.key_id


def _decrypted(parts: _Parts, context: Context, data_key: Secret) -> Secret | Reason:
    from hmac import compare_digest

    if len(data_key.reveal_bytes()) != DATA_KEY_BYTES:
        return "wrapper_failed"
    key, commitment = _derive(data_key)
    if not compare_digest(commitment, parts.commitment):
        return "altered"
    cipher = primitives.aead(key.reveal_bytes())
    plaintext = primitives.decrypt(cipher, parts.nonce, parts.sealed, parts.header + context.encoded())
    return Secret(plaintext) if plaintext else "altered"


def _derive(data_key: Secret) -> tuple[Secret, bytes]:
    """The key that encrypts, and the commitment to it."""
    size = DATA_KEY_BYTES + _COMMITMENT_BYTES
    derived = primitives.hkdf_sha256(data_key.reveal_bytes(), salt=b"", info=_INFO, size=size)
    return Secret(derived[:DATA_KEY_BYTES]), derived[DATA_KEY_BYTES:]


def _asked(question: Callable[[], T]) -> T:
    """A wrapper's answer; whatever it raises is our one error, without what it said."""
    reason: Reason
    try:
        return question()
    except CredentialUnreadable as error:
        reason = error.reason
    except Exception:  # noqa: BLE001 -- a wrapper may be anybody's, and its errors may tell of keys
        reason = "wrapper_failed"
    raise CredentialUnreadable(reason)


def _is_sound(data_key: DataKey) -> bool:
    return (
        len(data_key.plain.reveal_bytes()) == DATA_KEY_BYTES
        and data_key.key_id.isascii()
        and 0 < len(data_key.key_id) <= KEY_ID_BYTES_MAX
        and 0 < len(data_key.wrapped) <= WRAPPED_BYTES_MAX
    )


def _parse(blob: bytes) -> _Parts | None:
    """The parts of an envelope; None if it is none."""
    place = len(MAGIC)
    if blob[:place] != MAGIC:
        return None
    key_id, place = _prefixed(blob, place, 1)
    wrapped, place = _prefixed(blob, place, 2)
    end = place + _COMMITMENT_BYTES + primitives.NONCE_BYTES
    if not key_id or not key_id.isascii() or not wrapped or len(blob) <= end + primitives.TAG_BYTES:
        return None
    commitment, nonce = blob[place : place + _COMMITMENT_BYTES], blob[place + _COMMITMENT_BYTES : end]
    return _Parts(key_id.decode("ascii"), wrapped, commitment, nonce, blob[:end], blob[end:])


def _prefixed(blob: bytes, place: int, size: int) -> tuple[bytes, int]:
    """A part that has its length before it, and where it ends; empty if the blob ends before it does."""
    first = place + size
    end = first + int.from_bytes(blob[place:first], "big")
    return (blob[first:end], end) if end <= len(blob) else (b"", len(blob))
