"""For programs that do not wrap their clients themselves; see `runrails.autoguard`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.guard import Guard

__all__ = ["attach"]


def attach(guard: Guard) -> Callable[[], None]:
    """
    Guard every client of the openai SDK that is made from now on.

    Returns:
        What ends it. Clients made meanwhile stay guarded.

    Raises:
        ConfigError: This version of the SDK is not known.
    """
    from openai import AsyncOpenAI, OpenAI

    from runrails.clients.constructing import guard_constructed

    return guard_constructed(guard, (OpenAI, AsyncOpenAI))
