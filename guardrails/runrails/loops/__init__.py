"""Is this run stuck? Decisions over fingerprints: no clock, no I/O, no model; nothing of a call's content is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.loops.policy import LoopPolicy, ToolRule

if TYPE_CHECKING:
    from runrails.loops.detector import LoopDetector

__all__ = ["LoopDetector", "LoopPolicy", "ToolRule"]


def __getattr__(name: str) -> object:
    """The detector is loaded with the first run, not with `from runrails import Limits`."""
    if name != "LoopDetector":
        raise AttributeError(f"module 'runrails.loops' has no attribute {name!r}")
    from runrails.loops.detector import LoopDetector

    return LoopDetector
