"""Which model is about to be called and with what caps, read from LangChain's metadata and invocation parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple, cast

__all__ = ["ModelFacts", "model_facts"]

Params = Mapping[str, object]

# The parameter LangChain's own metadata was made from comes last: a deployment's name decides no price.
_NAMES = (
    "model",
    "model_name",
    "base_model_id",
    "model_id",
    "azure_deployment",
    "deployment_name",
    "repo_id",
    "engine",
)
_CAPS = (
    "max_completion_tokens", "max_tokens", "max_output_tokens", "max_tokens_to_sample", "maxTokens", "max_new_tokens",
    "num_predict", "max_gen_len",
)  # fmt: skip
_NESTED = ("model_kwargs", "generation_config", "inferenceConfig", "extra_body", "additional_model_request_fields")
_REASONING = ("reasoning", "reasoning_effort", "thinking", "thinking_budget", "thinking_level", "include_thoughts")
_REASONERS = re.compile(
    r"(^|[/.:])(o[1-9]\b|gpt-(?!3|4)|gemini-(2\.5|[3-9])|grok-[3-9]|magistral|deepseek-r|fake-reasoner)"
    r"|reason|think|\br1\b|qwq"
)


class ModelFacts(NamedTuple):
    """What is known of the model before the call."""

    name: str
    provider: str | None
    max_tokens: int | None
    """The cap in the request; None if there is none."""
    n: int
    """How many answers are asked for."""
    reasoning: bool
    """Whether it may write reasoning that its answer does not show."""


def model_facts(metadata: Params | None, params: Params) -> ModelFacts:
    """Read LangChain's `ls_*` metadata first: integrations fill it in for tracing, with what is bound to the call."""
    about: Params = metadata or {}
    name = _text(about.get("ls_model_name")) or next(
        filter(None, (_text(params.get(key)) for key in _NAMES)), "unknown"
    )
    cap = _cap([params, *(cast("Params", nested) for key in _NESTED if isinstance(nested := params.get(key), Mapping))])
    if cap is None:
        cap = _count(about.get("ls_max_tokens"))
    return ModelFacts(
        name=name,
        provider=_text(about.get("ls_provider")),
        max_tokens=cap,
        n=max(_count(params.get("n")) or 1, _count(params.get("candidate_count")) or 1),
        reasoning=any(params.get(key) for key in _REASONING) or _reasons(name),
    )


def _cap(places: Iterable[Params]) -> int | None:
    # Where two places name a cap nothing here tells which of them wins, so the larger is taken for the bound.
    found: int | None = None
    for place in places:
        for key in _CAPS:
            if key in place:
                count = _count(place[key])
                if count is not None and (found is None or count > found):
                    found = count
    return found


_known: dict[str, bool] = {}


def _reasons(name: str) -> bool:
    known = _known.get(name)
    if known is None:
        known = _REASONERS.search(name.lower()) is not None
        if len(_known) < 1_024:
            _known[name] = known
    return known


def _count(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
