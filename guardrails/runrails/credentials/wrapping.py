"""What seals data keys: the words that envelopes and key rings share."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from runrails.secretvalue import Secret

__all__ = ["DATA_KEY_BYTES", "KEY_ID_BYTES_MAX", "WRAPPED_BYTES_MAX", "Context", "DataKey", "KeyWrapper"]

DATA_KEY_BYTES = 32
KEY_ID_BYTES_MAX = 255
WRAPPED_BYTES_MAX = 6_144
"""As much as AWS KMS ever returns."""


class Context(NamedTuple):
    """
    What a sealed value is about. It opens only where all of it is the same.

    Every part is written with its length before it, so that no two contexts have one form.
    """

    owner: str
    provider: str
    label: str
    version: int
    """Of the document that it is kept in."""
    purpose: str
    public: bytes = b""
    """What is kept beside it to be read without opening it."""

    def encoded(self) -> bytes:
        """The bytes that are authenticated."""
        texts = (self.owner, self.provider, self.label, str(self.version), self.purpose)
        parts = [*(text.encode() for text in texts), self.public]
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)

    def fields(self) -> dict[str, str]:
        """What a key service is told, and writes into its logs: nothing secret."""
        return {
            "owner": self.owner, "provider": self.provider, "label": self.label, "version": str(self.version),
            "purpose": self.purpose,
        }  # fmt: skip


class DataKey(NamedTuple):
    """A fresh key for one record, plain and as it is kept."""

    plain: Secret
    wrapped: bytes
    key_id: str
    """By what it was wrapped."""


class KeyWrapper(Protocol):
    """Master keys, here or in a key service. Safe in many threads."""

    @property
    def active(self) -> str:
        """The id of the key that new data keys are wrapped with."""
        ...

    @property
    def remote(self) -> bool:
        """Whether wrapping asks somebody over a network."""
        ...

    def knows(self, key_id: str) -> bool:
        """Whether it has the key of that id."""
        ...

    def new_data_key(self, context: Context) -> DataKey:
        """A random key of 32 bytes. Raises CredentialUnreadable."""
        ...

    def unwrap(self, wrapped: bytes, key_id: str, context: Context) -> Secret:
        """The data key that was wrapped for just this context. Raises CredentialUnreadable."""
        ...
