"""The two cryptographic functions that are used, with the only parameters they are used with. Nothing else does any."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["NONCE_BYTES", "TAG_BYTES", "aead", "check_nonce", "decrypt", "encrypt", "hkdf_sha256"]

NONCE_BYTES = 12
"""Another length would be hashed first, and meets the nonces of others sooner (NIST SP 800-38D, 8.2)."""
TAG_BYTES = 16


def aead(key: bytes) -> AESGCM:
    """AES-GCM with that key."""
    return _library()(key)


def encrypt(cipher: AESGCM, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """Seal; the tag follows the text. Raises ValueError for a nonce that has not 12 bytes."""
    return cipher.encrypt(check_nonce(nonce), plaintext, aad)


def decrypt(cipher: AESGCM, nonce: bytes, sealed: bytes, aad: bytes) -> bytes | None:
    """Open; None if it is not what was sealed with this key, nonce and context. Raises ValueError for such a nonce."""
    from cryptography.exceptions import InvalidTag

    try:
        return cipher.decrypt(check_nonce(nonce), sealed, aad)
    except InvalidTag:
        return None


def check_nonce(nonce: bytes) -> bytes:
    """Return a nonce of 12 bytes. Raises ValueError for any other."""
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"A nonce has {NONCE_BYTES} bytes.")
    return nonce


def hkdf_sha256(key: bytes, *, salt: bytes, info: bytes, size: int) -> bytes:
    """Keys from a key (RFC 5869). Raises ValueError for more than it can give."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=size, salt=salt, info=info).derive(key)


@lru_cache(maxsize=1)
def _library() -> type[AESGCM]:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM
