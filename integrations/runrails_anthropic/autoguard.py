"""For programs that do not wrap their clients themselves; see `runrails.autoguard`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.guard import Guard

__all__ = ["attach"]


def attach(guard: Guard) -> Callable[[], None]:
    """
    Guard every client of the anthropic SDK that is made from now on, those for Bedrock included.

    Returns:
        What ends it. Clients made meanwhile stay guarded.

    Raises:
        ConfigError: This version of the SDK is not known.
    """
    from anthropic import Anthropic, AsyncAnthropic
    from anthropic.lib.bedrock import AnthropicBedrock, AsyncAnthropicBedrock

    from runrails.clients.constructing import guard_constructed

    return guard_constructed(guard, (Anthropic, AsyncAnthropic, AnthropicBedrock, AsyncAnthropicBedrock))
