"""Which model is about to be called and with what caps, read from LangChain's metadata and invocation parameters."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple, cast

__all__ = ["ModelFacts", "model_facts", "placed"]

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


_BEDROCK = "amazon_bedrock"
_INVOKED = "ls_invocation_params"
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")


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
    region: str | None = None
    """Bedrock's region, where LangChain tells it: prices depend on it."""


def placed(metadata: Params | None, given: Params) -> Params | None:
    """
    A call's metadata, with the region of `ChatBedrock`, of which unlike of its sister nothing is said there.

    Args:
        metadata: What LangChain tells.
        given: What the model was made with; without a region in there the environment's is taken, as LangChain does.
    """
    if metadata is None or metadata.get("ls_provider") != _BEDROCK or _region(metadata):
        return metadata
    region = next(filter(None, (given.get("region_name"), *map(os.environ.get, _REGIONS))), None)
    return metadata if region is None else {**metadata, _INVOKED: {"region_name": region}}


def _region(about: Params) -> str | None:
    if about.get("ls_provider") != _BEDROCK:
        return None
    told = about.get(_INVOKED)
    return _text(cast("Params", told).get("region_name")) if isinstance(told, Mapping) else None


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
        region=_region(about),
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
