"""The peppers that the environment names."""

from __future__ import annotations

import os

from runrails.errors import ConfigError
from runrails.identity.apikeys.hashing import HOW_TO_SET, SETTING, Peppers
from runrails.machinesecrets import setting_of

__all__ = ["peppers_of_environment"]


def peppers_of_environment(vault: str | None = None) -> Peppers:
    """
    What `RUNRAILS_KEY_PEPPERS` names, like `p1:env:NAME`; else the one that this machine has made for its vault.

    Args:
        vault: The vault's URL; see `runrails.documents.opening.open_documents`.

    Raises:
        ConfigError: It is not set or malformed, or a pepper cannot be found or used.
    """
    setting = os.environ.get(SETTING, "").strip()
    if not setting:
        own = setting_of("pepper", vault)
        if own is not None:
            return Peppers.parse(own)
        raise ConfigError(
            f"API keys are hashed with a pepper, and {SETTING} names none.", next_step=HOW_TO_SET, setting=SETTING
        )
    return Peppers.parse(setting)
