"""What a request's parameters ask for beside its messages, as the provider will read them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from runrails.tiers import premium

__all__ = ["NOTHING", "Asked", "asked_of", "given_in", "given_to"]

Params = Mapping[str, object]

_OWN_TOOLS = ("function", "custom")
_CLIENT_TOOLS = re.compile(r"(bash|text_editor|computer|memory)_\d+")
"""The provider describes them, and the client executes them."""
_HOSTED = ("code_execution", "code_interpreter", "enterprise_web_search", "file_search", "google_maps",
           "google_search", "google_search_retrieval", "retrieval", "systemTool", "url_context")  # fmt: skip
"""Tools that Google's and Amazon's wires tell by their name alone; an empty object asks for one as well."""
_UNBOUNDED = (
    "container", "guardrail_config", "guardrailIdentifier", "mcp_servers", "plugins", "prediction",
    "search_parameters", "web_search_options",
)  # fmt: skip
"""Parameters that cost what no price card has; again an empty object may ask for it."""
_REPLACING = ("contents", "input", "messages", "model", "models", "preset", "system")
"""What in an extra body would take the place of what was measured."""
_GIVEN = ("container", "guardrail_config", "inference_geo", "mcp_servers", "performance_config", "service_tier")
"""What a model was made with that some of LangChain's models send without telling their callbacks."""
_NESTED = ("additional_model_request_fields", "model_kwargs", "extra_body")
"""Parameters that are put into the request, or beside it, as they are."""
_STORED = ("cached_content", "conversation", "previous_response_id")
"""With these the provider adds what it keeps."""
NOTHING: Params = {}
_NOT_ASKED: tuple[object, ...] = (None, False, "", (), [])


class Asked(NamedTuple):
    """The parameters as they are sent, and what they say of the price."""

    params: Params
    """With what an extra body puts into the request, and without a tier that has a price of its own."""
    tier: str | None = None
    """The service tier, if one is named that may be dearer."""
    unbounded: str | None = None
    stored: str | None = None


def given_in(serialized: object) -> Params:
    """What a model was made with, by what LangChain tells its callbacks of that."""
    kwargs = cast("Params", serialized).get("kwargs") if isinstance(serialized, Mapping) else None
    return cast("Params", kwargs) if isinstance(kwargs, Mapping) else NOTHING


def given_to(model: object) -> Params:
    """What a model was made with, by itself."""
    return {key: getattr(model, key, None) for key in (*_GIVEN, *_NESTED, "region_name")}


def asked_of(params: Params, given: Params) -> Asked:
    """
    Read what a call is about to be sent with.

    Args:
        params: Its invocation parameters: the model's own, and what is bound to the call.
        given: What the model was made with; the parameters go before it.
    """
    missing = {key: value for key in _GIVEN if (value := given.get(key)) is not None and params.get(key) is None}
    if missing:
        params = {**params, **missing}
    unbounded: str | None = None
    for name in _NESTED:
        body = params.get(name) or given.get(name)
        if isinstance(body, Mapping) and body:
            known = cast("Params", body)
            unbounded = _unbounded(known) or unbounded
            if name == "extra_body":  # It is laid over the rest.
                seen = next((key for key in _REPLACING if known.get(key) is not None), None)
                unbounded = f"{seen} beside what the model sends" if seen else unbounded
                params = {**params, **known}
            else:
                params = {**known, **{key: value for key, value in params.items() if value is not None}}
    unbounded = _unbounded(params) or unbounded
    stored = next((key for key in _STORED if params.get(key)), None)
    tier = params.get("service_tier")
    if not isinstance(tier, str) or premium({"service_tier": tier}) is None:
        return Asked(params, None, unbounded, stored)
    return Asked({**params, "service_tier": None}, tier, unbounded, stored)


def _unbounded(params: Params) -> str | None:
    found = next(filter(None, map(_hosted, _items(params.get("tools")))), None)
    latency = params.get("performance_config")
    if isinstance(latency, Mapping) and cast("Params", latency).get("latency") not in (None, "standard"):
        found = "latency-optimized inference"
    return next((key for key in _UNBOUNDED if params.get(key) not in _NOT_ASKED), found)


def _hosted(tool: object) -> str | None:
    """What a tool is called that the provider executes, as often as the model likes, and bills by the call."""
    if not isinstance(tool, Mapping):
        return None
    known = cast("Params", tool)
    kind = known.get("type")
    if isinstance(kind, str):
        return None if kind in _OWN_TOOLS or _CLIENT_TOOLS.fullmatch(kind) else f"the tool {kind}"
    return next((f"the tool {name}" for name in _HOSTED if known.get(name) is not None), None)


def _items(value: object) -> Sequence[object]:
    return cast("Sequence[object]", value) if isinstance(value, list | tuple) else ()
