"""From settings to tokens: which keys, whose, and for whom."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runrails.clocks import Clock, system_ms
from runrails.errors import ConfigError
from runrails.identity.jwt.keyset import KeySet
from runrails.identity.jwt.remote import RemoteKeys
from runrails.identity.jwt.tokens import Tokens
from runrails.secretrefs import check_environment

if TYPE_CHECKING:
    from runrails.documents import DocumentStore
    from runrails.identity.jwt.keyset import Keys

__all__ = ["JWKS_URL", "KEYS", "open_keys", "open_tokens", "read_keys"]

KEYS = "RUNRAILS_JWT_KEYS"
JWKS_URL = "RUNRAILS_JWT_JWKS_URL"
_ISSUER, _AUDIENCE = "RUNRAILS_JWT_ISSUER", "RUNRAILS_JWT_AUDIENCE"


def open_keys() -> Keys:
    """
    The keys that the environment names: ``RUNRAILS_JWT_KEYS`` (see `KeySet.parse`), or ``RUNRAILS_JWT_JWKS_URL`` where
    another service signs.

    Raises:
        ConfigError: Neither or both are set, a key cannot be read or is weak, or one is used elsewhere as well.
    """
    found = read_keys()
    if isinstance(found, KeySet):
        check_environment()
    return found


def read_keys() -> Keys:
    """The same, wherever else they are used. Raises ConfigError."""
    keys, url = os.environ.get(KEYS, ""), os.environ.get(JWKS_URL, "")
    if bool(keys) == bool(url):
        raise ConfigError(
            f"Tokens need {'one of ' if keys else ''}{KEYS} {'and' if keys else 'or'} {JWKS_URL}.",
            next_step=f"Set {KEYS}=k1:HS256:env:NAME, or k1:EdDSA:file:/path where several services verify.",
            setting=KEYS,
        )
    if url:
        return RemoteKeys(url)
    return KeySet.parse(keys, what=KEYS)


def open_tokens(documents: DocumentStore, *, clock: Clock = system_ms) -> Tokens:
    """
    Tokens by the environment: the keys of `open_keys`, ``RUNRAILS_JWT_ISSUER`` and ``RUNRAILS_JWT_AUDIENCE``.

    Args:
        documents: Where revocations are kept.
        clock: Wall clock in milliseconds since the epoch.

    Raises:
        ConfigError: A setting is missing or malformed.
    """
    names = [os.environ.get(setting, "") for setting in (_ISSUER, _AUDIENCE)]
    for setting, name in zip((_ISSUER, _AUDIENCE), names, strict=True):
        if not name:
            raise ConfigError(
                f"Tokens need {setting}.", next_step="Name who makes them and whom they are for.", setting=setting
            )
    return Tokens(open_keys(), names[0], names[1], documents=documents, clock=clock)
