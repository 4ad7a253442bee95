"""What a request of the openai SDK may cost: which paths cost money, and what bounds those that can be bounded."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol, cast

from runrails.calls import ModelCall
from runrails.clients.keys import has_own_auth
from runrails.clients.plan import is_straight, request_body
from runrails.clients.wireplans import chat_plan, embeddings_plan, response_plan
from runrails.errors import BoundUnknown
from runrails.keyroutes import KeyPlace
from runrails.request_wire import WireCall, openai_chat, openai_embeddings, openai_responses
from runrails.tiers import premium_tier
from runrails.values import placed

if TYPE_CHECKING:
    from runrails.calls import RequestType
    from runrails.clients.plan import Options, Plan

__all__ = ["OpenAIDialect"]

Body = Mapping[str, object]
_model_call = placed(
    ModelCall, "model", "provider", "prompt", "max_tokens", "n", "can_cap", "request_type", "endpoint", "user_agent",
    "retries",
)  # fmt: skip

_USUAL = {"/chat/completions": "chat/completions", "/responses": "responses", "/embeddings": "embeddings"}
"""What the SDK posts to; by far the most requests."""
_PAID = re.compile(r"(?:.*/)?(chat/completions|responses|embeddings)")
_FREE = re.compile(
    r"(?:openai/|v\d+/)*(?:(?:files|uploads|moderations|models|conversations|organization|projects|webhook_endpoints|assistants)"
    r"(?:/.*)?|threads(?:/(?!runs$)[^/]+(?:/messages(?:/[^/]+)?)?)?|chat/completions/[^/]+|responses/input_tokens"
    r"|.*/(?:cancel|pause))"
)
"""What may be posted for nothing: records that are kept, counts, and whatever ends something."""
_READING = frozenset({"get", "head", "options", "delete"})
_OTHER_AUTH = ("workload_identity", "_provider_runtime", "custom_auth")
"""Attributes of clients that put something else than a key into their requests, as the last thing before they leave."""
_ACCOUNT_HEADERS = ("OpenAI-Organization", "OpenAI-Project", "api-key")
"""What says whose account it is: the platform's, so it stays behind."""


class _Url(Protocol):
    @property
    def host(self) -> str: ...


class _Client(Protocol):
    max_retries: int

    @property
    def base_url(self) -> _Url: ...
    @property
    def user_agent(self) -> str: ...


class OpenAIDialect:
    """Reads requests of `OpenAI` and `AzureOpenAI`, synchronous or not."""

    def __init__(self, client: object) -> None:
        self._told = attrgetter(_address_of(client), "max_retries")
        """A client's address, and how often it may send again."""
        self._not_given: type | None = None
        """The type of the SDK's own mark for what was not given, once it was seen."""
        self._newest: tuple[object, str | None, str] = (None, None, "")
        """The newest address, whose it is, and what its client calls itself: most clients have one for life."""

    def plan(self, client: object, options: Options) -> Plan | None:
        """
        What a request may cost; None if it is free.

        Raises:
            BoundUnknown: It costs money, and nobody can tell how much.
        """
        told: dict[str, str] = vars(options)  # Asking the object itself for each takes several times as long.
        url = told["url"]
        method = told["method"]
        if method != "post" and method.lower() in _READING:
            return None
        kind = _USUAL.get(url) or _paid(url)
        if kind is None:
            path = _path(url)
            if _FREE.fullmatch(path) and is_straight(path):
                return None
            raise BoundUnknown(
                f"What a request to {_shown(path)} costs cannot be told beforehand.",
                next_step="Use a client that is not guarded for it, or leave it out; chat completions, responses and "
                "embeddings are guarded.",
                endpoint=_shown(path),
            )
        body = request_body(options)
        if "service_tier" in body:
            return self._in_tier(client, options, body, kind)
        if kind == "chat/completions":  # as `_chat` does it, which by far the most requests are spared
            wire = openai_chat(body)
            return chat_plan(body, wire, self._call(client, options, wire, "/chat/completions"))
        return self._planned(client, options, body, kind)

    def place(self, client: object) -> KeyPlace | None:
        """Where the client's key goes. See `runrails.clients.keys.SupportsKeys`."""
        told = cast("_Client", client)
        if hasattr(client, "_azure_deployment") or has_own_auth(client, _OTHER_AUTH):
            return None
        return KeyPlace("openai", None if _provider(told) == "openai" else str(told.base_url))

    def is_home(self, host: str) -> bool:
        """Whether a host is OpenAI's own."""
        return _is_home(host)

    def put_key(self, headers: MutableMapping[str, str], key: str) -> None:
        """See `runrails.clients.keys.SupportsKeys`."""
        for name in _ACCOUNT_HEADERS:
            headers.pop(name, None)
        headers["Authorization"] = f"Bearer {key}"

    def _in_tier(self, client: object, options: Options, body: Body, kind: str) -> Plan:
        """A request that names a dearer tier is held for at that tier's price, or refused where nobody knows it."""
        tier = premium_tier(body)
        if tier is None:
            return self._planned(client, options, body, kind)
        plan = self._planned(client, options, {**body, "service_tier": None}, kind)
        plan.call = replace(plan.call, service_tier=tier)
        return plan

    def _planned(self, client: object, options: Options, body: Body, kind: str) -> Plan:
        match kind:
            case "chat/completions":
                return self._chat(client, options, body)
            case "responses":
                wire = openai_responses(body)
                return response_plan(body, wire, self._call(client, options, wire, "/responses"))
            case _:
                return embeddings_plan(self._call(client, options, openai_embeddings(body), "/embeddings", "embedding"))

    def _chat(self, client: object, options: Options, body: Body) -> Plan:
        wire = openai_chat(body)
        return chat_plan(body, wire, self._call(client, options, wire, "/chat/completions"))

    def _call(
        self, client: object, options: Options, wire: WireCall, endpoint: str, kind: RequestType = "completion"
    ) -> ModelCall:
        address, retries = self._told(client)
        told: object = vars(options).get("max_retries")
        mark = type(told)
        if mark is not self._not_given:
            if mark.__name__ == "NotGiven":
                self._not_given = mark
            else:
                retries = options.get_max_retries(retries)
        known, provider, user_agent = self._newest
        if known is not address:
            told = cast("_Client", client)
            provider, user_agent = _provider(told), told.user_agent
            self._newest = (address, provider, user_agent)
        model, prompt, max_tokens, answers, _, _ = wire  # Quicker than by their names.
        return _model_call(
            model, provider, prompt, max_tokens, answers, kind == "completion", kind, endpoint, user_agent,
            retries if type(retries) is int and retries > 0 else 0,
        )  # fmt: skip


def _address_of(client: object) -> str:
    """Where the address of a client and its copies is; the SDK's own property for it executes an import each time."""
    owner = next((kind for kind in type(client).__mro__ if "base_url" in vars(kind)), object)
    plain = owner.__module__.partition(".")[0] == "openai" and "_base_url" in vars(client)
    return "_base_url" if plain else "base_url"


def _provider(client: _Client) -> str | None:
    """Whose prices apply, if the client tells: many servers speak OpenAI's wire."""
    if hasattr(client, "_azure_deployment"):
        return "azure"
    return "openai" if _is_home(client.base_url.host) else None


def _is_home(host: str) -> bool:
    return host == "api.openai.com" or host.endswith(".api.openai.com")


def _paid(url: str) -> str | None:
    paid = _PAID.fullmatch(_path(url))
    return None if paid is None else paid[1]


def _path(url: str) -> str:
    path = url.partition("?")[0]
    if "://" in path:
        path = path.partition("://")[2].partition("/")[2]
    return path.strip("/")


def _shown(path: str) -> str:
    """The path without what may be an id."""
    return "/" + "/".join(part if re.fullmatch(r"[a-z_]{1,40}", part) else "…" for part in path.split("/")[:4])
