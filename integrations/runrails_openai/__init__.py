"""
runrails for the openai SDK: `client = guard.wrap(OpenAI())`.

Chat completions, responses and embeddings are guarded on every way the SDK offers them: create, parse, stream, raw and
streaming responses, copies made with `with_options`. Requests that are free (lists, files, moderations) pass; requests
that cost something nobody can bound (images, audio, batches, fine-tuning, hosted tools) are refused by name, and so is
opening a websocket (realtime, responses, live), whose traffic nobody would see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from runrails.guard import Guard

__all__ = ["wrap"]

_C = TypeVar("_C")


def wrap(guard: Guard, client: _C) -> _C:
    """
    Guard an `OpenAI`, `AsyncOpenAI`, `AzureOpenAI` or `AsyncAzureOpenAI` client; see `Guard.wrap`.

    Raises:
        ConfigError: It is none of these, or another guard has it.
    """
    from openai import AsyncOpenAI, OpenAI

    from runrails.clients.guarded import guard_client
    from runrails.errors import ConfigError
    from runrails_openai.requests import OpenAIDialect

    if not isinstance(client, OpenAI | AsyncOpenAI):
        raise ConfigError(
            f"runrails cannot guard a {type(client).__module__}.{type(client).__qualname__}; of openai it guards: "
            "OpenAI, AsyncOpenAI, AzureOpenAI, AsyncAzureOpenAI.",
            next_step="Pass a client object, not its class or one of its resources.",
        )
    is_async = isinstance(client, AsyncOpenAI)
    guard_client(guard, client, OpenAIDialect(client), is_async=is_async, sealed="websocket_base_url")
    return client
