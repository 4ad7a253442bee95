"""Waking an event loop, so that an interrupt is heard."""

from __future__ import annotations

import asyncio

__all__ = ["Waker"]


class Waker:
    """
    Of the event loop that a cell was begun on, if there is one.

    ipykernel's handler of SIGINT leaves word on the loop, in the loop's own thread, which does not wake it: a cell that
    awaits a slow answer would hear of the interrupt only with the next message.
    """

    def __init__(self) -> None:
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None
        self._asked = False

    def wake(self) -> None:
        """Wake it. Where it is busy with a cell of its own, one word waits for it, not one each time."""
        if self._loop is None or self._asked:
            return
        self._asked = True
        try:
            self._loop.call_soon_threadsafe(self._heard)
        except RuntimeError:  # closed meanwhile
            self._loop = None

    def _heard(self) -> None:
        self._asked = False
