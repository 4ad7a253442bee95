"""Whether what a command writes is there when it has ended."""

from __future__ import annotations

from runrails.documents.opening import SETTING, documents_url
from runrails.errors import ConfigError

__all__ = ["check_lasting"]


def check_lasting(vault: str | None) -> None:
    """
    Refuse a vault in memory: a key that was made there works nowhere, and what was taken back there goes on working.

    Raises:
        ConfigError: It is in memory.
    """
    if documents_url(vault).partition(":")[0] == "memory":
        raise ConfigError(
            "A vault in memory ends with this command, and nobody else sees it. Nothing was done.",
            next_step=f"Name the vault that the servers use: --vault URL, or {SETTING}.",
            setting=SETTING,
        )
