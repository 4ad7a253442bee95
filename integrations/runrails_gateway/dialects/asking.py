"""What all dialects see to before they read a request, and how what they read becomes a call."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from runrails.bounds import ANSWERS_MAX
from runrails.calls import ModelCall
from runrails.values import quick
from runrails_gateway.errors import BadRequest

if TYPE_CHECKING:
    from typing import LiteralString

    from runrails.calls import RequestType
    from runrails.keyroutes import KeyPlace
    from runrails.request_wire import WireCall
    from runrails_gateway.dialects.base import Body

__all__ = [
    "TOKENS_MAX", "Via", "check_answers", "check_count", "check_list", "check_names", "check_text", "flag",
    "model_call", "named_model", "refuse",
]  # fmt: skip

TOKENS_MAX = 2**31 - 1
"""More than any model writes; what is above it is refused before it is multiplied with a price."""
MODEL_CHARS_MAX = 256
_PART = r"[A-Za-z0-9@_][A-Za-z0-9._:@+~-]*"
_MODEL = re.compile(rf"{_PART}(?:/{_PART})*")
"""Names of models of all providers, ARNs too. No part of a path leads up, none is empty, nothing has to be escaped."""
_READ = frozenset(
    {"model", "messages", "input", "system", "instructions", "tools", "functions", "n", "stream", "stream_options",
     "max_tokens", "max_completion_tokens", "max_output_tokens", "service_tier", "background", "conversation", "prompt",
     "previous_response_id", "thinking", "thread", "fallbacks", "models", "plugins", "prediction", "audio",
     "web_search_options", "search_parameters", "enable_search", "mcp_servers", "container", "compaction",
     "context_management", "speed", "inference_geo"}
)  # fmt: skip
"""Members that decide what a request costs."""
_make_call = quick(ModelCall)


def check_names(body: Body) -> None:
    """
    See that no member is another spelling of one that costs: some servers take `Max_Tokens` for `max_tokens`, and of
    two such the last one.

    Raises:
        BadRequest: There is one. It is not named: it may be anything.
    """
    for name in body:
        if not (name.isascii() and name.islower()) and name.casefold() in _READ:
            raise BadRequest(
                "ambiguous_member", "A member of the request is another spelling of one that has a meaning.",
                next_step="Write the names of members in small letters.",
            )  # fmt: skip


def named_model(body: Body) -> str:
    """
    The model that a request names.

    Raises:
        BadRequest: It names none, or what it names can be the name of no model.
    """
    name = body.get("model")
    if type(name) is not str or not name:
        raise BadRequest("missing_model", "The request names no model.", next_step="Set `model`.", param="model")
    if len(name) > MODEL_CHARS_MAX or not _MODEL.fullmatch(name):
        raise BadRequest(
            "invalid_model", "What the request names can be the name of no model.", param="model",
            next_step="GET /v1/models lists those there are.",
        )  # fmt: skip
    return name


def flag(body: Body, name: LiteralString) -> bool:
    """A member that is true, false, null or left out: what one server takes for true, another may not."""
    value = body.get(name)
    if value is None or value is False:
        return False
    if value is not True:
        raise BadRequest("invalid_type", f"`{name}` must be true or false.", param=name)
    return True


def check_count(body: Body, name: LiteralString, most: int = TOKENS_MAX) -> None:
    """A whole number above zero, null or left out. Raises BadRequest."""
    value = body.get(name)
    if value is None:
        return
    if type(value) is not int:
        raise BadRequest("invalid_type", f"`{name}` must be a whole number.", param=name)
    if not 1 <= value <= most:
        raise BadRequest("invalid_value", f"`{name}` is out of range.", param=name)


def check_answers(body: Body) -> None:
    """How many answers are asked for. Raises BadRequest."""
    if "n" in body:
        check_count(body, "n", ANSWERS_MAX)


def check_list(body: Body, name: LiteralString, *, needed: bool = False) -> None:
    """A list; null or left out unless it is needed. Raises BadRequest."""
    value = body.get(name)
    if type(value) is list:
        if value or not needed:
            return
        raise BadRequest("invalid_value", f"`{name}` must not be empty.", param=name)
    if value is not None or needed:
        raise BadRequest("invalid_type", f"`{name}` must be a list.", param=name)


def check_text(body: Body, name: LiteralString) -> None:
    """A text, null or left out. Raises BadRequest."""
    if not isinstance(body.get(name), str | None):
        raise BadRequest("invalid_type", f"`{name}` must be a text.", param=name)


def refuse(body: Body, name: LiteralString, what: LiteralString) -> None:
    """What a gateway does not serve, if the request asks for it. Raises BadRequest."""
    if body.get(name):
        raise BadRequest("unsupported_parameter", what, next_step="Leave it out.", param=name)


class Via(NamedTuple):
    """The way a call takes. See `runrails_gateway.dialects.base.Dialect.read`."""

    provider: str | None
    place: KeyPlace | None
    region: str | None
    user_agent: str
    retries: int


def model_call(
    wire: WireCall, via: Via, *, endpoint: str, can_cap: bool = True, kind: RequestType = "completion",
    tier: str | None = None,
) -> ModelCall:  # fmt: skip
    """A call as it goes through the one door."""
    provider, place, region, user_agent, retries = via
    return _make_call(
        model=wire.model, provider=provider, region=region, service_tier=tier, prompt=wire.prompt,
        max_tokens=wire.max_tokens, n=wire.n, can_cap=can_cap, cache_write=wire.cache_write, request_type=kind,
        endpoint=endpoint, user_agent=user_agent, retries=retries, place=place,
    )  # fmt: skip
