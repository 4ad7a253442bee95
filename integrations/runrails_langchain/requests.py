"""LangChain's model requests: what a request is about to send, where a cap goes into it, and a note to the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableBinding

from runrails.calls import ModelCall
from runrails_langchain.asked import Asked, asked_of, given_to
from runrails_langchain.keys import key_place, serialized_of
from runrails_langchain.messages import prompt_of
from runrails_langchain.models import ModelFacts, model_facts, placed

if TYPE_CHECKING:
    from langchain.agents.middleware import ModelRequest
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AnyMessage, BaseMessage

    from runrails.attribution import Attribution

__all__ = ["Planned", "capped_settings", "plan", "with_text"]

Settings = Mapping[str, object]

_SETTABLE = ("max_completion_tokens", "max_tokens", "max_output_tokens", "num_predict", "maxTokens")
_BY_PROVIDER = {
    "amazon_bedrock": "maxTokens", "anthropic": "max_tokens", "azure": "max_completion_tokens", "fake": "max_tokens",
    "google_genai": "max_output_tokens", "google_vertexai": "max_output_tokens", "mistralai": "max_tokens",
    "ollama": "num_predict", "openai": "max_completion_tokens",
}  # fmt: skip
"""By which name a cap is bound to a call, where the model does not show one already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What a request would send if no layer below changed it."""

    call: ModelCall
    cap: str | None
    """The setting that caps the output; None if nobody knows one that works."""

    def capped(self, request: ModelRequest[Any], max_tokens: int) -> ModelRequest[Any] | None:
        """The request with a smaller cap; None if the model would not take it."""
        if self.cap is None:
            return None
        capped = request.override(model_settings={**request.model_settings, self.cap: max_tokens})
        return capped if _facts(request.model, _bound(capped))[0].max_tokens == max_tokens else None


def plan(request: ModelRequest[Any], by: Attribution | None) -> Planned:
    """Read a request, made for `by`, the way the callback will read what is sent."""
    settings = _bound(request)
    facts, params, asked = _facts(request.model, settings)
    said: list[BaseMessage] = [*request.messages]
    if request.system_message is not None:
        said.insert(0, request.system_message)
    sized = prompt_of(said, asked.params, unbounded=asked.unbounded, stored=asked.stored)
    cap = None if params.get("thinking") else _cap_name(facts, params)
    call = ModelCall(
        model=facts.name, provider=facts.provider, region=facts.region, service_tier=asked.tier, prompt=sized.prompt,
        max_tokens=facts.max_tokens, n=facts.n, can_cap=cap is not None, cache_write=sized.cache_write, by=by,
        place=key_place(request.model.metadata, serialized_of(request.model)),
    )  # fmt: skip
    return Planned(call=call, cap=cap)


def capped_settings(model: BaseChatModel, settings: Settings, max_tokens: int) -> Settings | None:
    """The settings of a call of the model without tools, with that cap; None if nobody knows one that works."""
    facts, params, _ = _facts(model, settings)
    cap = _cap_name(facts, params)
    if cap is None:
        return None
    capped = {**settings, cap: max_tokens}
    return capped if _facts(model, capped)[0].max_tokens == max_tokens else None


def with_text(messages: list[AnyMessage], text: str) -> list[AnyMessage]:
    """The messages with a text at the end of the last one; never in the model's own words."""
    if not messages or isinstance(messages[-1], AIMessage):
        return messages
    last = messages[-1]
    content: object = last.content
    longer: object = f"{content}\n\n{text}" if isinstance(content, str) else _longer(content, text)
    return [*messages[:-1], last.model_copy(update={"content": longer})]


def _longer(content: object, text: str) -> list[object]:
    return [*cast("list[object]", content), {"type": "text", "text": text}]


def _bound(request: ModelRequest[Any]) -> Settings:
    """What LangChain binds to the model for this request."""
    model = request.model
    if not request.tools:
        return request.model_settings
    bound: object = model.bind_tools(request.tools, tool_choice=request.tool_choice, **request.model_settings)
    return cast("Settings", bound.kwargs) if isinstance(bound, RunnableBinding) else request.model_settings


def _facts(model: BaseChatModel, settings: Settings) -> tuple[ModelFacts, Settings, Asked]:
    asked = cast("dict[str, Any]", dict(settings))
    # Both are what LangChain itself makes the callback's metadata and parameters of.
    told = cast("Settings", model._get_ls_params(stop=None, **asked))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] -- there is no public form
    given = given_to(model)  # once: each name that a model has not takes pydantic microseconds to tell
    params = cast("Settings", model._get_invocation_params(stop=None, **asked))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] -- as above
    asked_for = asked_of(params, given)
    return model_facts(placed(told, given), asked_for.params), params, asked_for


def _cap_name(facts: ModelFacts, params: Settings) -> str | None:
    name = _BY_PROVIDER.get(facts.provider or "")
    if name is None or facts.provider == "amazon_bedrock":
        return name
    return next((key for key in _SETTABLE if key in params), name)
