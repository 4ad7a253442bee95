"""The two clocks. Everything that needs the time is given one of these or a stand-in; nothing else asks the system."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Milliseconds; since the epoch (UTC) for wall clocks, since any fixed moment for monotonic ones."""


def system_ms() -> int:
    """Wall-clock time in milliseconds since the epoch, UTC."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """Milliseconds since an arbitrary moment; never jumps."""
    return time.monotonic_ns() // 1_000_000
