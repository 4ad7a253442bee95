"""From settings to a vault: which master keys, and where it is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol, cast

from runrails.credentials.errors import CredentialUnreadable
from runrails.credentials.ring import SETTING, KeyRing
from runrails.errors import ConfigError
from runrails.machinesecrets import setting_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runrails.clocks import Clock
    from runrails.credentials.vault import Vault
    from runrails.credentials.wrapping import Context, DataKey, KeyWrapper
    from runrails.secretvalue import Secret

__all__ = ["ENTRY_POINTS", "Locked", "Opener", "Wrappers", "open_vault", "open_wrapper"]

ENTRY_POINTS = "runrails.wrappers"
"""Key services outside the core: the name is what an item of the setting begins with, the value an `Opener`."""


class Opener(Protocol):
    """Makes the wrapper of one key of a service."""

    def __call__(self, key: str) -> KeyWrapper:
        """`key` is what stands behind the service's name and its colon. Raises ConfigError."""
        ...


class Wrappers:
    """Several wrappers, of which the first seals and all open: to move from one service of keys to another."""

    def __init__(self, wrappers: Sequence[KeyWrapper]) -> None:
        self._wrappers = tuple(wrappers)

    @property
    def active(self) -> str:
        """The id of the key that seals."""
        return self._wrappers[0].active

    @property
    def remote(self) -> bool:
        """Whether any of them asks somebody over a network."""
        return any(wrapper.remote for wrapper in self._wrappers)

    def knows(self, key_id: str) -> bool:
        """Whether any of them has that key."""
        return any(wrapper.knows(key_id) for wrapper in self._wrappers)

    def new_data_key(self, context: Context) -> DataKey:
        """A data key of the first."""
        return self._wrappers[0].new_data_key(context)

    def unwrap(self, wrapped: bytes, key_id: str, context: Context) -> Secret:
        """The data key, from whoever has that key. Raises CredentialUnreadable."""
        for wrapper in self._wrappers:
            if wrapper.knows(key_id):
                return wrapper.unwrap(wrapped, key_id, context)
        raise CredentialUnreadable("unknown_key")


def open_wrapper(setting: str | None = None, *, vault: str | None = None) -> KeyWrapper:
    """
    The master keys that a setting names. Nothing is asked over a network yet.

    Args:
        setting: ``k2:env:NAME,k1:file:/path`` for keys on this machine, ``kms:ARN`` for one in AWS KMS, or several of
            either, the one that seals first. None: what ``RUNRAILS_MASTER_KEYS`` says, else the one that this machine
            has made for its vault (see `runrails.machinesecrets`).
        vault: The vault's URL, for that.

    Raises:
        ConfigError: There is none, it is malformed, or a key cannot be found or used.
    """
    if setting is None:
        setting = os.environ.get(SETTING, "").strip() or setting_of("master-key", vault) or ""
    setting = setting.strip()
    if not setting:
        raise ConfigError(
            "No master key is set, so provider keys can neither be stored nor used.",
            next_step=f"Make one with `runrails byok init`, and set {SETTING} to what it prints.",
            setting=SETTING,
        )
    items = [item.strip() for item in setting.split(",")]
    local = [item for item in items if _service(item) is None]
    wrappers = [opener(item.partition(":")[2]) for item in items if (opener := _service(item)) is not None]
    if local:
        # All keys of this machine are one ring, wherever they stand; the first item of all is what seals.
        wrappers.insert(0 if items[0] is local[0] else len(wrappers), KeyRing.parse(",".join(local)))
    return wrappers[0] if len(wrappers) == 1 else Wrappers(wrappers)


class Locked:
    """No master key at all: for who only looks at what is there, or removes it."""

    active = ""
    remote = False

    def knows(self, key_id: str) -> bool:
        """It has none."""
        del key_id
        return False

    def new_data_key(self, context: Context) -> DataKey:
        """Raises CredentialUnreadable."""
        del context
        raise CredentialUnreadable("unknown_key")

    def unwrap(self, wrapped: bytes, key_id: str, context: Context) -> Secret:
        """Raises CredentialUnreadable."""
        del wrapped, key_id, context
        raise CredentialUnreadable("unknown_key")


def open_vault(
    url: str | None = None, *, master_keys: str | None = None, clock: Clock | None = None, locked: bool = False
) -> Vault:
    """
    The vault that the settings name.

    Args:
        url: Where it is; see `runrails.documents.opening.open_documents`.
        master_keys: See `open_wrapper`.
        clock: Wall clock in milliseconds since the epoch.
        locked: Without master keys: keys can be listed and removed, and nothing can be opened.

    Raises:
        ConfigError: A setting is missing or malformed.
        StoreUnavailable: The vault cannot be reached.
    """
    from runrails.clocks import system_ms
    from runrails.credentials.vault import Vault
    from runrails.documents.opening import open_documents

    # The keys first: without one there is no reason to make a file.
    wrapper = Locked() if locked else open_wrapper(master_keys, vault=url)
    return Vault(open_documents(url, clock=clock), wrapper, clock=clock or system_ms)


def _service(item: str) -> Opener | None:
    """What opens an item that is not a key of this machine. Raises ConfigError if that is not installed."""
    name = item.partition(":")[0]
    if name != "kms":  # the one name that no key of a ring has
        return None
    from importlib.metadata import entry_points

    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == name:
            return cast("Opener", entry.load())
    raise ConfigError(
        "A master key in AWS KMS needs runrails[aws], which is not installed.", next_step="pip install 'runrails[aws]'"
    )
