"""
What is kept instead of a key: its HMAC-SHA-256 under a pepper, as ``hs256$<pepper id>$<hex>``.

A key's secret has 256 random bits, so nothing can be tried out, and a slow hash would only hand everybody a way to keep
this machine busy. The pepper is kept apart from the store: who has the store alone cannot make a hash for a key.
"""

from __future__ import annotations

import re
from hmac import compare_digest, digest
from typing import TYPE_CHECKING, Self

from runrails.errors import ConfigError
from runrails.secretrefs import check_distinct, check_strength, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runrails.secretvalue import Secret

__all__ = ["HOW_TO_SET", "PEPPERS_MAX", "SETTING", "Peppers"]

SETTING = "RUNRAILS_KEY_PEPPERS"
PEPPERS_MAX = 16
_TAG = "hs256"
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_HASH = re.compile(r"hs256\$([a-z0-9-]{1,32})\$([0-9a-f]{64})")
HOW_TO_SET = (
    f"Write {SETTING}=p1:env:NAME, or p2:file:/path,p1:env:NAME for two: the first makes hashes, all prove them. Make "
    'one with: python -c "import secrets; print(secrets.token_urlsafe(32))".'
)
_RECORD, _KEY = b"runrails record\0", b"runrails key\0"
"""What is hashed never means two things."""


class Peppers:
    """
    The secrets that keys are hashed with. Safe in many threads.

    Args:
        active: The id of the one that makes new hashes.
        peppers: Every one by its id. One that is taken away takes along the keys that were not used since the active
            one came: a key is hashed anew when it is proven.

    Raises:
        ConfigError: One is missing, weak, or there twice. The message has no part of it.
    """

    def __init__(self, active: str, peppers: Mapping[str, Secret]) -> None:
        if active not in peppers or len(peppers) > PEPPERS_MAX:
            raise ConfigError(
                f"There must be 1 to {PEPPERS_MAX} peppers, the active one among them.", next_step=HOW_TO_SET
            )
        for pepper_id, pepper in peppers.items():
            if not _ID.fullmatch(pepper_id):
                raise ConfigError("A pepper's name has 1 to 32 of a-z, 0-9 and -.", next_step=HOW_TO_SET)
            check_strength(pepper, what=f"{SETTING} ({pepper_id})")
        check_distinct({f"{SETTING} ({pepper_id})": pepper for pepper_id, pepper in peppers.items()})
        self._active = active
        self._peppers = dict(peppers)

    @classmethod
    def parse(cls, setting: str) -> Self:
        """
        The peppers that a setting like ``p2:env:NAME,p1:file:/path`` names; the first is the active one.

        Raises:
            ConfigError: It is malformed, or one cannot be found or used.
        """
        peppers: dict[str, Secret] = {}
        for item in setting.split(","):
            pepper_id, colon, reference = item.strip().partition(":")
            # Without a colon it may be the pepper itself, which must not be shown.
            if not colon or not _ID.fullmatch(pepper_id) or pepper_id in peppers:
                raise ConfigError(f"{SETTING} is malformed, or names one twice.", next_step=HOW_TO_SET, setting=SETTING)
            peppers[pepper_id] = resolve(reference, what=f"{SETTING} ({pepper_id})")
        return cls(next(iter(peppers)), peppers)

    @property
    def active(self) -> str:
        """The id of the pepper that makes new hashes."""
        return self._active

    @property
    def secrets(self) -> Mapping[str, Secret]:
        """All of them, to see that none is used elsewhere; see `runrails.secretrefs.check_distinct`."""
        return {f"{SETTING} ({pepper_id})": pepper for pepper_id, pepper in self._peppers.items()}

    def hash(self, text: str) -> str:
        """What is kept of a key."""
        return self._hash(self._active, text)

    def which(self, text: str, kept: Sequence[str]) -> int | None:
        """
        Of which of these hashes a key is the text; None: of none.

        Every answer takes the same work where all were made with one pepper. What is of another scheme, or under a
        pepper that is not there, is never proven.
        """
        made: dict[str, str] = {}
        proven: int | None = None
        for place, each in enumerate(kept):
            found = _HASH.fullmatch(each)
            pepper_id = found[1] if found is not None and found[1] in self._peppers else self._active
            right = made.get(pepper_id)
            if right is None:
                right = made[pepper_id] = self._hash(pepper_id, text)
            if compare_digest(right, each):
                proven = place
        return proven

    def is_current(self, kept: str) -> bool:
        """Whether a hash was made with the active pepper."""
        return kept.startswith(f"{_TAG}${self._active}$")

    def authenticate(self, pepper_id: str, record: bytes) -> bytes | None:
        """What proves that a record was written by somebody with that pepper; None: it is not there."""
        pepper = self._peppers.get(pepper_id)
        if pepper is None:
            return None
        return digest(pepper.reveal_bytes(), _RECORD + record, "sha256").hex().encode("ascii")

    def is_authentic(self, pepper_id: str, record: bytes, tag: bytes) -> bool:
        """Whether a record was."""
        right = self.authenticate(pepper_id, record)
        return right is not None and compare_digest(right, tag)

    def __repr__(self) -> str:
        return f"Peppers(active={self._active!r}, peppers={sorted(self._peppers)!r})"

    def _hash(self, pepper_id: str, text: str) -> str:
        message = _KEY + text.encode("utf-8", "surrogatepass")
        return f"{_TAG}${pepper_id}${digest(self._peppers[pepper_id].reveal_bytes(), message, 'sha256').hex()}"
