"""
What a server's secrets must be before it serves: there, strong, and each for one thing.

One function for everybody who starts something, and the same by setting for `runrails doctor`, which tells of all.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from runrails.credentials.opening import open_wrapper
from runrails.credentials.ring import SETTING as MASTER_KEYS
from runrails.errors import ConfigError
from runrails.identity.apikeys.hashing import SETTING as PEPPERS
from runrails.identity.apikeys.opening import peppers_of_environment
from runrails.identity.jwt.opening import JWKS_URL, KEYS, read_keys
from runrails.machinesecrets import setting_of
from runrails.secretrefs import check_environment

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SETTINGS", "SecretSetting", "check_secrets", "examine_secrets"]

SETTINGS = (PEPPERS, MASTER_KEYS, KEYS)
"""The settings that name secrets. None of what they name may be named twice, in one of them or in two."""


class SecretSetting(NamedTuple):
    """What was found of one setting."""

    setting: str
    told: str
    """The names of what it names, never a secret; empty if it is not set."""
    fault: ConfigError | None = None


def check_secrets(vault: str | None = None) -> None:
    """
    See that every secret that is set can be found and is strong, and that none is used for two things.

    For the start of a server, before it serves. What is not set is no fault: whoever needs it says so.

    Args:
        vault: The vault's URL, for secrets that this machine has made for it; see `runrails.machinesecrets`.

    Raises:
        ConfigError: It names the setting and what mends it, never a secret.
    """
    for found in examine_secrets(vault):
        if found.fault is not None:
            raise found.fault


def examine_secrets(vault: str | None = None) -> list[SecretSetting]:
    """The same for each setting. Raises nothing."""
    named = _named(vault)
    if isinstance(named, ConfigError):
        return [SecretSetting(PEPPERS, "", named)]
    lookers: dict[str, Callable[[], str]] = {
        PEPPERS: lambda: f"{peppers_of_environment(vault).active} is active",
        MASTER_KEYS: lambda: f"{open_wrapper(vault=vault).active} is active",
        KEYS: lambda: repr(read_keys()),
    }
    found = [_examined(setting, look) for setting, look in lookers.items() if named[setting]]
    if any(each.fault is not None for each in found):
        return found
    # One secret in two places is a fault of the later one; what is weak or missing was told before.
    try:
        check_environment(named)
    except ConfigError as error:
        same, later = error, str(error.fields.get("setting", "")).partition("[")[0]
        return [each._replace(fault=same) if each.setting == later else each for each in found]
    return found


def _named(vault: str | None) -> dict[str, str] | ConfigError:
    """What the settings say, or would have to say for this machine's own secrets."""
    try:
        own = {PEPPERS: setting_of("pepper", vault), MASTER_KEYS: setting_of("master-key", vault)}
    except ConfigError as error:
        return error
    # Keys that another service publishes are no secret, but whoever sets both settings has one too many.
    own[KEYS] = os.environ.get(JWKS_URL, "").strip()
    return {setting: os.environ.get(setting, "").strip() or own[setting] or "" for setting in SETTINGS}


def _examined(setting: str, look: Callable[[], str]) -> SecretSetting:
    try:
        return SecretSetting(setting, look())
    except ConfigError as error:
        return SecretSetting(setting, "", error)
