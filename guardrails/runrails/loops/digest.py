"""Short names for texts, which cannot be read back: 64 bits of BLAKE2b, the same in every process."""

from __future__ import annotations

from hashlib import blake2b

__all__ = ["digest64", "hex64"]


def digest64(*parts: str) -> int:
    """64 bits that stand for these texts. Lone surrogates are fine."""
    return int.from_bytes(blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def hex64(key: int) -> str:
    """A fingerprint as people and logs see it."""
    return f"{key:016x}"
