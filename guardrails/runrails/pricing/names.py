"""
Names of models as people and frameworks write them, made into a provider and a model name.

`provider:model`, `provider/model`, `models/gemini-…`, Bedrock profiles and ARNs are all understood. A form whose price
is not decided by the name (an application inference profile, a data zone, the region in an ARN) is refused with the
reason: a guess would be silent.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

# The expressions are compiled when they are first needed, by `re` itself, which keeps them.

__all__ = [
    "LOCAL_RUNTIMES",
    "BedrockPlace",
    "ModelName",
    "NameRefused",
    "bedrock_key",
    "bedrock_place",
    "canonical_provider",
    "has_geography",
    "in_commercial_region",
    "in_plain_region",
    "is_usable",
    "looks_like_bedrock",
    "needs_confirmation",
    "parse_name",
]

NAME_LENGTH_MAX = 512

LOCAL_RUNTIMES = frozenset(
    {
        "hosted_vllm",
        "huggingface_pipeline",
        "llamacpp",
        "llamafile",
        "lm_studio",
        "lmstudio",
        "local",
        "mlx",
        "ollama",
        "ollama_chat",
        "vllm",
        "xinference",
    }
)
"""Runtimes on the user's own machines: what they cost only their owner knows."""

_ALIASES = {
    "amazon_bedrock": "aws",
    "anthropic_bedrock": "aws",
    "anthropic_vertex": "google",
    "azure_ai": "azure",
    "azure_openai": "azure",
    "azureopenai": "azure",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "fireworks_ai": "fireworks",
    "gemini": "google",
    "google_anthropic_vertex": "google",
    "google_genai": "google",
    "google_gla": "google",
    "google_vertex": "google",
    "google_vertexai": "google",
    "mistralai": "mistral",
    "moonshot": "moonshotai",
    "perplexityai": "perplexity",
    "together_ai": "together",
    "vertex_ai": "google",
    "vertexai": "google",
    "voyage": "voyageai",
    "xai": "x-ai",
}
_LOOKALIKE = r"compat|like|custom|proxy"
"""`openai-compatible` and its kind: somebody else's server, at somebody else's price."""

_ARN = r"arn:(aws[a-z-]*):bedrock:([a-z0-9-]*):[0-9]*:([a-z-]+)/(.+)"
_REGION = r"[a-z]{2}(-[a-z]+)+-[0-9]"
_GEOGRAPHY = r"([a-z]{2,4}(?:-gov)?)\.(?=[a-z0-9]+\.)"
_PLAIN_GEOGRAPHIES = frozenset({"us", "global"})
_PRICED_REGIONS = frozenset({"us-east-1", "us-east-2", "us-west-2"})
_BEDROCK_SHAPE = (
    r"(?:[a-z]{2,6}(?:-gov)?\.)?(?:ai21|amazon|anthropic|cohere|deepseek|google|luma|meta|minimax|mistral|moonshotai|nvidia|openai"
    r"|qwen|stability|twelvelabs|writer|zai)\.[a-z]"
)
_VERSION = r"(:[0-9]+)(:[0-9a-z]+)?$"
_OPENAI_OWN = r"ft:(gpt-|o[134]|davinci|babbage)|text-embedding-(3-|ada-)|chatgpt-|codex-"
"""Bare names that are nobody else's and that the price data finds only with their provider."""
_PUBLISHER = r"publishers/([a-z0-9-]+)/models/(.+)"


class NameRefused(ValueError):
    """The name does not decide the price."""


class BedrockPlace(NamedTuple):
    """A model id on Bedrock, and the region it runs in if anybody said so."""

    name: str
    region: str | None


class ModelName(NamedTuple):
    """A model's name, lower case, and its provider if the name or the caller said so."""

    provider: str | None
    model: str

    def key(self) -> str:
        """As it is written in `runrails.toml`: `provider:model`."""
        return self.model if self.provider is None else f"{self.provider}:{self.model}"


def canonical_provider(name: str, known: Callable[[str], str | None]) -> str | None:
    """
    The provider id for a name that frameworks use, or None.

    Args:
        name: For instance `azure_openai`, `bedrock`, `google_genai`.
        known: Finds the provider in the price data.
    """
    key = name.strip().lower()
    plain = key.replace("-", "_")
    if plain in LOCAL_RUNTIMES:
        return plain
    if plain in _ALIASES:
        return _ALIASES[plain]
    if re.search(_LOOKALIKE, plain):
        return None
    return known(key)


def is_usable(name: str) -> bool:
    """Whether a model can have this name at all."""
    return bool(name) and len(name) <= NAME_LENGTH_MAX and name.isprintable()


def parse_name(model: str, provider: str | None, known: Callable[[str], str | None]) -> ModelName:
    """
    Take a name apart.

    Args:
        model: As the caller wrote it.
        provider: Whose model it is, if the caller knows.
        known: Finds a provider in the price data.

    Raises:
        NameRefused: Empty, absurdly long, or a provider that nobody knows.
    """
    name = model.strip().lower()
    if not is_usable(name):
        raise NameRefused("the model has no usable name.")
    said = None
    if provider:
        said = canonical_provider(provider, known)
        if said is None:
            raise NameRefused("no price is known for anything of this provider.")
    name, named = _split_provider(name, said, known)
    if named is None and re.match(_OPENAI_OWN, name):
        named = "openai"
    return ModelName(named, _google_name(name) if named in {"google", None} else name)


def bedrock_place(name: str, region: str | None) -> BedrockPlace:
    """
    The model id inside a Bedrock name or ARN, and the region it runs in.

    Args:
        name: Lower-case id, profile or ARN; `sa-east-1/…` before an id names a region.
        region: The client's region, if the caller knows; what the name says wins.

    Raises:
        NameRefused: The name does not tell the model.
    """
    arn = re.fullmatch(_ARN, name)
    if name.startswith("arn:"):
        if arn is None or arn[3] not in {"foundation-model", "inference-profile"}:
            raise NameRefused("this ARN does not say which model is behind it; give it a model under [aliases].")
        profile = arn[3] == "inference-profile"
        if arn[1] not in {"aws", "aws-us-gov"} or (arn[1] != "aws") != arn[2].startswith("us-gov-"):
            raise NameRefused("Bedrock's price in this ARN's region is not in the data.")
        if profile and (arn[1] != "aws") != arn[4].startswith("us-gov."):
            raise NameRefused("Bedrock's price in this ARN's region is not in the data.")
        return BedrockPlace(arn[4], arn[2] or region)
    if "inference-profile/" in name:
        raise NameRefused("this profile does not say which model is behind it; give it a model under [aliases].")
    head, slash, rest = name.partition("/")
    if slash and rest and re.fullmatch(_REGION, head):
        return BedrockPlace(rest, head)
    return BedrockPlace(name, None if region is None else region.strip().lower() or None)


def in_plain_region(region: str) -> bool:
    """Whether Bedrock's published prices are of this region."""
    return region in _PRICED_REGIONS


def in_commercial_region(region: str) -> bool:
    """Whether it is a region that a surcharge for regional endpoints holds in: neither GovCloud nor China."""
    return re.fullmatch(_REGION, region) is not None and not region.startswith(("us-gov-", "us-iso", "cn-"))


def needs_confirmation(name: str) -> bool:
    """Whether the name is of a Bedrock geography whose surcharge one source alone was seen to miss."""
    geography = re.match(_GEOGRAPHY, name)
    return geography is not None and geography[1] not in _PLAIN_GEOGRAPHIES


def has_geography(name: str) -> bool:
    """Whether a Bedrock name says where it runs."""
    return re.match(_GEOGRAPHY, name) is not None


def bedrock_key(name: str) -> str:
    """The id without its trailing version, under which the cross-check keeps it."""
    return re.sub(_VERSION, "", name)


def _split_provider(name: str, said: str | None, known: Callable[[str], str | None]) -> tuple[str, str | None]:
    for mark in (":", "/"):
        head, found, rest = name.partition(mark)
        if not found or not rest or head in {"ft", "arn", "models", "publishers", "projects", "accounts"}:
            continue
        named = canonical_provider(head, _exactly(known))
        if named is None:
            continue
        if said is None or said == named:
            return rest, named
        if mark == ":":
            raise NameRefused(f"the name says provider {named!r}, the caller says {said!r}.")
    return name, said


def _exactly(known: Callable[[str], str | None]) -> Callable[[str], str | None]:
    # As a prefix only the provider's very id counts: "meta-llama/…" is a name at a host, not the provider "meta".
    return lambda name: name if known(name) == name else None


def _google_name(name: str) -> str:
    publisher = re.fullmatch(_PUBLISHER, name)
    if publisher is not None:
        return publisher[2]
    if name.startswith("projects/"):
        raise NameRefused("the price of a Vertex endpoint depends on its region, which runrails does not know.")
    return name.removeprefix("models/")


def looks_like_bedrock(name: str) -> bool:
    """Whether a name without a provider is a Bedrock model id, profile or ARN."""
    return name.startswith("arn:") or re.match(_BEDROCK_SHAPE, name) is not None
