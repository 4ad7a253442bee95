"""What a request of the anthropic SDK may cost: which paths cost money, and what bounds messages."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Protocol, cast

from runrails.answers.anthropic import MessageEvents, answer
from runrails.calls import ModelCall, ModelResult
from runrails.clients.keys import has_own_auth
from runrails.clients.plan import Plan, is_straight, request_body
from runrails.clients.sse import SseReader
from runrails.errors import BoundUnknown
from runrails.keyroutes import KeyPlace
from runrails.request_wire import anthropic_messages
from runrails_anthropic.eventstream import BedrockReader

if TYPE_CHECKING:
    from runrails.clients.plan import Options

__all__ = ["AnthropicDialect"]

Body = Mapping[str, object]

_FREE = re.compile(
    r"v1/(?:messages/count_tokens|(?:files|models|skills|user_profiles|organizations|vaults|environments"
    r"|memory_stores|tunnels)(?:/.*)?|.*/(?:cancel|pause|archive))"
)
"""What may be posted for nothing: records that are kept, counts, and whatever ends something."""
_READING = frozenset({"get", "head", "options", "delete"})
_OTHER_AUTH = ("custom_auth", "_token_cache", "credentials")
"""Attributes of clients that put something else than a key into their requests, as the last thing before they leave."""


class _Url(Protocol):
    @property
    def host(self) -> str: ...


class _Client(Protocol):
    max_retries: int

    @property
    def base_url(self) -> _Url: ...
    @property
    def user_agent(self) -> str: ...


class AnthropicDialect:
    """Reads requests of `Anthropic` and `AnthropicBedrock`, synchronous or not."""

    def __init__(self, *, on_bedrock: bool) -> None:
        self._on_bedrock = on_bedrock

    def plan(self, client: object, options: Options) -> Plan | None:
        """
        What a request may cost; None if it is free.

        Raises:
            BoundUnknown: It costs money, and nobody can tell how much.
        """
        if options.method.lower() in _READING:
            return None
        path = options.url.partition("?")[0].strip("/")
        if path != "v1/messages":
            if _FREE.fullmatch(path) and is_straight(path):
                return None
            raise BoundUnknown(
                f"What a request to {_shown(path)} costs cannot be told beforehand.",
                next_step="Use a client that is not guarded for it, or leave it out; messages are guarded.",
                endpoint=_shown(path),
            )
        body = request_body(options)
        wire = anthropic_messages(body)
        known = cast("_Client", client)
        retries = options.get_max_retries(known.max_retries)
        call = ModelCall(
            model=wire.model, provider="bedrock" if self._on_bedrock else "anthropic",
            region=_region(client) if self._on_bedrock else None, prompt=wire.prompt,
            max_tokens=wire.max_tokens, can_cap=not wire.reasoning, cache_write=wire.cache_write,
            endpoint="/v1/messages", user_agent=known.user_agent,
            retries=retries if type(retries) is int and retries > 0 else 0,
        )  # fmt: skip
        stream = None
        if body.get("stream") is True:
            events = MessageEvents(reasoning=wire.reasoning, names_model=not self._on_bedrock)
            stream = BedrockReader(events) if self._on_bedrock else SseReader(events)
        return Plan(call, self._answer, stream, {}, "max_tokens")

    def place(self, client: object) -> KeyPlace | None:
        """Where the client's key goes. See `runrails.clients.keys.SupportsKeys`."""
        if self._on_bedrock or has_own_auth(client, _OTHER_AUTH):
            return None
        url = cast("_Client", client).base_url
        return KeyPlace("anthropic", None if self.is_home(url.host) else str(url))

    def is_home(self, host: str) -> bool:
        """Whether a host is Anthropic's own."""
        return host == "api.anthropic.com"

    def put_key(self, headers: MutableMapping[str, str], key: str) -> None:
        """See `runrails.clients.keys.SupportsKeys`."""
        headers.pop("Authorization", None)
        headers["X-Api-Key"] = key

    def _answer(self, body: Body) -> ModelResult:
        return answer(body, names_model=not self._on_bedrock)


def _region(client: object) -> str | None:
    """Where a client of Bedrock calls: prices depend on it."""
    region: object = getattr(client, "aws_region", None)
    return region if isinstance(region, str) and region else None


def _shown(path: str) -> str:
    """The path without what may be an id."""
    return "/" + "/".join(part if re.fullmatch(r"[a-z_]{1,40}|v1", part) else "…" for part in path.split("/")[:4])
