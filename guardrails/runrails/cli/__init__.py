"""The command line: `runrails`. Typer and Rich are loaded when a command runs, never by importing this package."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code (the console script `runrails`)."""
    from runrails.cli.shell import run

    sys.exit(run(sys.argv[1:] if args is None else args))
