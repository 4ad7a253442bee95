"""Memory that is free goes back to the system: long requests leave gaps between what stays, which glibc would keep."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["keep_trimmed", "trimmer"]

EVERY_S = 2.0
"""It takes a tenth of a millisecond, and one after requests with 100 kB of history, in which nothing else is done."""


async def keep_trimmed(trim: Callable[[], None] | None, every_s: float = EVERY_S) -> None:
    """Give memory back now and then, until it is cancelled. Nothing to do where there is no `trim`."""
    while trim is not None:
        trim()
        await asyncio.sleep(every_s)


def trimmer() -> Callable[[], None] | None:
    """What gives memory back; None where the C library has none, as only glibc does."""
    if sys.platform != "linux":
        return None
    from ctypes import CDLL

    with suppress(OSError, AttributeError):
        call = CDLL(None).malloc_trim

        def trim() -> None:
            call(0)

        return trim
    return None
