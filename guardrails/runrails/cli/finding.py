"""One row of what `runrails doctor` finds."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["Finding", "FindingState"]

FindingState = Literal["ok", "note", "problem"]


class Finding(NamedTuple):
    """One row of the doctor's table."""

    check: str
    state: FindingState
    detail: str
    fix: str = ""
    """What to do about it; never empty for a problem."""
