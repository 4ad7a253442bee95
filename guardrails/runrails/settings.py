"""What the environment says. Every variable has an argument that wins over it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runrails.figures import MARKUP_BP_MAX, check_markup_bp

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KEY_HOSTS", "key_hosts", "markup_bp", "price_file", "user"]

PROJECT_FILE = "runrails.toml"
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


def price_file() -> Path | None:
    """The project's price file: `RUNRAILS_PRICES`, else `runrails.toml` in the working directory if there is one."""
    named = os.environ.get("RUNRAILS_PRICES")
    if not named and not os.path.isfile(PROJECT_FILE):  # noqa: PTH113 -- pathlib costs 3 ms to load, mostly for nothing
        return None
    from pathlib import Path

    return Path(named or PROJECT_FILE)
