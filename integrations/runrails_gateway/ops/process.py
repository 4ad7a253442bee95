"""What this process takes of its machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["memory_bytes"]

_STATM = Path("/proc/self/statm")


def memory_bytes() -> int:
    """Resident memory, where the kernel tells it; else the most there has ever been; 0 where neither is told."""
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return _peak_bytes()


def _peak_bytes() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1_024
