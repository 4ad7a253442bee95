"""What the environment and the project's file say. Everything has an argument in code that wins over it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runrails.figures import MARKUP_BP_MAX, check_markup_bp
from runrails.projectfile import find_project_file, project_settings

if TYPE_CHECKING:
    from pathlib import Path

    from runrails.limits import Limits

__all__ = ["KEY_HOSTS", "key_hosts", "limits", "markup_bp", "price_file", "user"]

KEY_HOSTS = "RUNRAILS_KEY_HOSTS"


def user() -> str:
    """`RUNRAILS_USER`, else `local`."""
    return os.environ.get("RUNRAILS_USER") or "local"


def markup_bp() -> int:
    """`RUNRAILS_MARKUP_BP`, else 0. Raises ConfigError."""
    written = os.environ.get("RUNRAILS_MARKUP_BP", "").strip()
    if not written:
        return 0
    plain = written.isascii() and written.isdigit() and len(written) <= len(str(MARKUP_BP_MAX))
    return check_markup_bp(int(written) if plain else written, what="RUNRAILS_MARKUP_BP")


def key_hosts() -> list[str]:
    """`RUNRAILS_KEY_HOSTS`: hosts besides the providers' own that users' keys may be sent to, to check them."""
    return [host.strip() for host in os.environ.get(KEY_HOSTS, "").split(",") if host.strip()]


def limits() -> Limits:
    """The limits in the project's file, else `Limits()`. Raises ConfigError."""
    from runrails.limits import Limits

    if find_project_file() is None:
        return Limits()
    return project_settings().limits or Limits()


def price_file() -> Path | None:
    """The project's file: `RUNRAILS_PRICES`, else `runrails.toml` in the working directory if there is one."""
    found = find_project_file()
    if found is None:
        return None
    from pathlib import Path

    return Path(found)
