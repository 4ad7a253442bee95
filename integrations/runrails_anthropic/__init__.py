"""
runrails for the anthropic SDK: `client = guard.wrap(Anthropic())`, also for Claude on Bedrock.

Messages are guarded on every way the SDK offers them: create, parse, stream, raw and streaming responses, the beta
namespace, copies made with `with_options`. Requests that are free (counting tokens, lists, files) pass; requests that
cost something nobody can bound (batches, agent sessions, server tools) are refused by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from runrails.guard import Guard

__all__ = ["wrap"]

_C = TypeVar("_C")


def wrap(guard: Guard, client: _C) -> _C:
    """
    Guard an `Anthropic`, `AsyncAnthropic`, `AnthropicBedrock` or `AsyncAnthropicBedrock` client; see `Guard.wrap`.

    Raises:
        ConfigError: It is none of these, or another guard has it.
    """
    from anthropic import Anthropic, AsyncAnthropic
    from anthropic.lib.bedrock import AnthropicBedrock, AsyncAnthropicBedrock

    from runrails.clients.guarded import guard_client
    from runrails.errors import ConfigError
    from runrails_anthropic.requests import AnthropicDialect

    if not isinstance(client, Anthropic | AsyncAnthropic | AnthropicBedrock | AsyncAnthropicBedrock):
        raise ConfigError(
            f"runrails cannot guard a {type(client).__module__}.{type(client).__qualname__}; of anthropic it guards: "
            "Anthropic, AsyncAnthropic, AnthropicBedrock, AsyncAnthropicBedrock.",
            next_step="Pass a client object, not its class or one of its resources.",
        )
    dialect = AnthropicDialect(on_bedrock=isinstance(client, AnthropicBedrock | AsyncAnthropicBedrock))
    guard_client(guard, client, dialect, is_async=isinstance(client, AsyncAnthropic | AsyncAnthropicBedrock))
    return client
