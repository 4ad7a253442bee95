"""What a request's settings say of its cost: the cap, how many answers, and what nobody can bound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from runrails.request_wire import anthropic_messages, openai_chat, openai_responses
from runrails.tiers import premium

if TYPE_CHECKING:
    from runrails.calls import Prompt

__all__ = ["answers_of", "can_cap", "cap_of", "tier_of", "with_settings"]

Json = Mapping[str, object]

_BODIES = ("extra_body", "bedrock_additional_model_requests_fields")
"""Settings that are put into the request as they are."""
_CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "maxTokens")
"""Names of the cap in there; which of them counts depends on the wire."""
_NOT_SEEN = ("input", "messages", "model", "models", "plugins", "preset", "web_search_options")
"""What would replace what is measured, or add to it at the provider's; an empty object asks for it too."""
_UNBOUNDED = (
    "agent_count", "builtin_tools", "container", "guardrail_config", "model_armor_config", "models", "native_tools",
    "prediction", "preset",
)  # fmt: skip
"""Settings, without the provider's name before it, that cost what no price card has, or more than one answer."""
_STORED = ("cached_content", "conversation_id", "previous_response_id")
"""Settings that let the provider add what it keeps."""
_MODES = ("thinking", "tool_choice")
_DEARER = ("service_tier", "speed", "inference_geo")
_THINKING = ("anthropic_thinking", "thinking")
"""With these, a smaller cap may be refused: it must be larger than the budget for thoughts."""


def cap_of(settings: Json) -> int | None:
    """The largest cap on output tokens; a nonsensical one is passed on, and the bound refuses it by name."""
    caps = [cap for cap in (settings.get("max_tokens"), *_caps(settings)) if cap is not None]
    odd = next((cap for cap in caps if type(cap) is not int), None)
    return cast("int", odd) if odd is not None else max(cast("list[int]", caps), default=None)


def can_cap(settings: Json) -> bool:
    """Whether another `max_tokens` lowers the output: no other cap beside it, and no budget for thoughts above it."""
    return not any(place.get(key) for place in (settings, *_bodies(settings)) for key in _THINKING) and not any(
        cap is not None for cap in _caps(settings)
    )


def answers_of(settings: Json) -> int:
    """How many answers are asked for."""
    given = [body["n"] for body in _bodies(settings) if body.get("n") is not None]
    return cast("int", given[-1]) if given else 1


def with_settings(prompt: Prompt, settings: Json) -> Prompt:
    """The prompt, with what the settings add to it."""
    dearer = _dearer(settings)
    if _premium_tier(dearer) is not None:
        del dearer["service_tier"]
    unbounded, stored = premium(dearer) or prompt.unbounded, prompt.stored
    for key, value in settings.items():
        # Some of these are asked for by an empty object; a plain no is none.
        asked = value is not None and value is not False
        unbounded = key if asked and _names(key, _UNBOUNDED) else unbounded
        stored = key if asked and _names(key, _STORED) else stored
    latency = settings.get("bedrock_performance_configuration")
    if isinstance(latency, Mapping) and cast("Json", latency).get("latency") not in (None, "standard"):
        unbounded = "latency-optimized inference"
    tools = list(prompt.tools)
    for body in _bodies(settings):
        seen = next((key for key in _NOT_SEEN if body.get(key) is not None), None)
        chat, response = openai_chat(body).prompt, openai_responses(body).prompt
        own = chat.unbounded or anthropic_messages(body).prompt.unbounded
        unbounded = (seen and f"{seen} beside what the agent sends") or own or unbounded
        stored = response.stored or stored
        tools += chat.tools
    # A forced tool or thinking changes what the provider puts around the messages.
    mode = "".join(f"{key}={value!r}" for key, value in settings.items() if _names(key, _MODES))
    return replace(prompt, unbounded=unbounded, stored=stored, tools=tuple(tools), mode=mode)


def _bodies(settings: Json) -> Iterator[Json]:
    for name in _BODIES:
        body = settings.get(name)
        if isinstance(body, Mapping):
            yield cast("Json", body)


def _caps(settings: Json) -> Iterable[object]:
    return (body.get(name) for body in _bodies(settings) for name in _CAPS)


def _names(key: str, names: Iterable[str]) -> bool:
    return any(key == name or key.endswith(f"_{name}") for name in names)


def tier_of(settings: Json) -> str | None:
    """The service tier that is asked for, if it may be dearer: it is held for and charged at its own price."""
    return _premium_tier(_dearer(settings))


def _premium_tier(dearer: Json) -> str | None:
    tier = dearer.get("service_tier")
    return tier if isinstance(tier, str) and premium({"service_tier": tier}) is not None else None


def _dearer(settings: Json) -> dict[str, object]:
    """What may make the request dearer, whatever provider's name the setting has."""
    found: dict[str, object] = {}
    for key, value in settings.items():
        for name in _DEARER:
            if _names(key, (name,)):
                found[name] = cast("Json", value).get("type") if isinstance(value, Mapping) else value
    for body in _bodies(settings):
        found |= body
    return found
