"""What a gateway needs before it can serve on one machine, made once: its secrets, and a key to administer it with."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING

from runrails.credentials.ring import SETTING as MASTER_KEYS
from runrails.documents.opening import documents_url, open_documents
from runrails.identity.apikeys import ApiKeys
from runrails.identity.apikeys.hashing import SETTING as PEPPERS
from runrails.identity.apikeys.opening import peppers_of_environment
from runrails.identity.principal import SCOPES
from runrails.machinesecrets import make_secret

if TYPE_CHECKING:
    from runrails.identity.apikeys.format import Environment
    from runrails.secretvalue import Secret

__all__ = ["ADMIN", "admin_key", "make_secrets"]

ADMIN = "admin"
"""Whose key the first one is."""


def make_secrets(vault: str | None = None) -> tuple[str, ...]:
    """
    See that there are a pepper and a master key. Returns what a setting would have to say for those of this machine.

    What a setting names is left to it. A vault that several machines share has no secrets of one of them, so both have
    to be named there.

    Raises:
        ConfigError: A shared vault, and a setting is missing; or a secret cannot be written.
    """
    made: list[str] = []
    if not os.environ.get(PEPPERS, "").strip():
        made.append(f"{PEPPERS}={make_secret('pepper', vault)}")
    local = documents_url(vault).startswith("sqlite:")
    # A shared vault may do without: then nobody can bring a key of their own.
    if local and not os.environ.get(MASTER_KEYS, "").strip():
        made.append(f"{MASTER_KEYS}={make_secret('master-key', vault)}")
    return tuple(made)


def admin_key(user: str = ADMIN, vault: str | None = None, *, environment: Environment = "live") -> Secret | None:
    """
    A key with every scope for `user`, who has none yet; None where there is one already, which nobody can show again.

    Raises:
        ConfigError: There is no pepper.
        StoreUnavailable: The vault is out of reach.
    """
    with (
        closing(open_documents(vault)) as documents,
        closing(ApiKeys(documents, peppers_of_environment(vault), environment=environment)) as keys,
    ):
        if keys.list(user):
            return None
        _, secret = keys.create(user, scopes=SCOPES, name="first start")
    return secret
