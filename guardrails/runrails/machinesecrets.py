"""
Secrets that one machine makes for itself, beside the vault's file: the pepper of API keys and the first master key.

They are used where no setting names others, so that `runrails serve`, `runrails keys` and `runrails byok` mean the same
keys at once. Whoever can read the directory has both the vault and its key; a server that others share names its
secrets in `RUNRAILS_KEY_PEPPERS` and `RUNRAILS_MASTER_KEYS`, from another place.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from runrails.documents.opening import documents_url
from runrails.errors import ConfigError
from runrails.stores import parse_sqlite

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["KEY_ID", "Kind", "make_secret", "setting_of"]

Kind = Literal["pepper", "master-key"]
KEY_ID = "local"
"""What such a secret is called in records."""
_BYTES = 32


def setting_of(kind: Kind, url: str | None = None) -> str | None:
    """
    What a setting would have to say for this machine's own secret; None if there is none.

    Args:
        kind: Which one.
        url: The vault's; see `runrails.documents.opening.open_documents`.

    Raises:
        ConfigError: The URL names no vault.
    """
    path = _path(kind, url)
    if path is None or not os.path.isfile(path):  # noqa: PTH113 -- pathlib takes 3 ms to load
        return None
    return f"{KEY_ID}:file:{path}"


def make_secret(kind: Kind, url: str | None = None, *, random: Callable[[int], bytes] = os.urandom) -> str:
    """
    Make this machine's own secret, unless there is one, and say what a setting would have to say for it.

    Raises:
        ConfigError: The vault is not a file of this machine, or the secret cannot be written beside it.
    """
    path = _path(kind, url)
    if path is None:
        raise ConfigError(
            f"A vault that several machines share takes its {kind} from a place that they share as well.",
            next_step="Set RUNRAILS_KEY_PEPPERS=p1:env:NAME and RUNRAILS_MASTER_KEYS=k1:env:NAME (or ssm:, kms:).",
        )
    try:
        _write(path, random(_BYTES).hex().encode())
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(
            f"The {kind} cannot be written to {path}: {error.strerror}.",
            next_step="Choose another place for the vault with RUNRAILS_VAULT=sqlite:////path/to/vault.db.",
            path=path,
        ) from error
    return f"{KEY_ID}:file:{path}"


def _path(kind: Kind, url: str | None) -> str | None:
    scheme, _, rest = documents_url(url).partition(":")
    if scheme != "sqlite":
        return None
    path = os.path.abspath(parse_sqlite(rest)[0])  # noqa: PTH100 -- pathlib takes 3 ms to load
    if "," in path:  # which divides the items of such settings
        raise ConfigError(
            "A vault whose path has a comma in it cannot have secrets of this machine's own.",
            next_step="Choose another place with RUNRAILS_VAULT=sqlite:////path/to/vault.db.",
            path=path,
        )
    return f"{path.removesuffix('.db')}.{kind}"


def _write(path: str, text: bytes) -> None:
    """Whole or not at all, for whoever comes first; nobody else may ever read it. Raises OSError."""
    if os.path.exists(path):  # noqa: PTH110 -- as above
        raise FileExistsError
    beside = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(handle, "wb") as file:  # noqa: PTH123 -- of a handle
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(beside, path)  # fails where there is one by now
    finally:
        os.unlink(beside)  # noqa: PTH108 -- as above
