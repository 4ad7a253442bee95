"""What a gateway is made of: a guard, who may come in, and the providers it passes requests on to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import urlsplit

from runrails.errors import ConfigError
from runrails.ids import check_id
from runrails.keyroutes import KeyPlace, is_place

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runrails.credentials import Vault
    from runrails.documents import DocumentStore
    from runrails.guard import Guard
    from runrails.identity.apikeys import ApiKeys
    from runrails.identity.authenticate import Authenticator
    from runrails.identity.jwt.tokens import Tokens
    from runrails.secretvalue import Secret
    from runrails_gateway.exchange import Watcher

    class Closable(Protocol):
        """What ends with the gateway."""

        def close(self) -> None:
            """End it. Closing twice is fine."""
            ...

    class Figures(Protocol):
        """What monitoring asks for; see `runrails_gateway.ops.metrics`."""

        content_type: str

        def text(self) -> bytes:
            """All of them, as of now."""
            ...


__all__ = ["BEDROCK_MODELS", "GatewayConfig", "Limited", "Upstream", "UpstreamDialect", "matches", "prices_of"]

UpstreamDialect = Literal["openai", "anthropic", "bedrock"]
_DIALECTS = ("openai", "anthropic", "bedrock")
_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}\*?|\*")
_REGION = re.compile(r"[a-z]{2,4}(-[a-z]{2,12}){1,3}-[0-9]{1,2}")
BEDROCK_MODELS = (
    "ai21.*", "amazon.*", "anthropic.*", "cohere.*", "deepseek.*", "google.*", "meta.*", "minimax.*", "mistral.*",
    "moonshot.*", "moonshotai.*", "nvidia.*", "openai.*", "qwen.*", "writer.*", "zai.*",
    "apac.*", "au.*", "ca.*", "eu.*", "global.*", "jp.*", "us.*", "us-gov.*",
)  # fmt: skip
"""
What names of models on Bedrock begin with: their maker, or the geography of an inference profile. ARNs are not among
them: an operator names those that may be called, as ``arn:aws:bedrock:eu-west-1:*`` or in full.
"""
RETRIES_MAX = 5
MS_MAX = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """
    A provider that requests are passed on to.

    Args:
        name: What it is called in headers, logs and metrics.
        dialect: Which HTTP it speaks.
        base_url: Where it is, as its SDK wants it: ``https://api.openai.com/v1``, ``https://api.anthropic.com``. On
            Bedrock it follows from the region.
        key: The platform's key for it; None where every caller must have one of their own, or none is needed. On
            Bedrock None, so that requests are signed with the AWS credentials of the process; or an API key of Bedrock.
        provider: Whose prices apply, as in price tables; None: OpenAI's and Anthropic's own addresses are known, and
            elsewhere the model's name must be enough.
        models: The models it serves; an entry may end in ``*``. On Bedrock ``*`` alone stands for `BEDROCK_MODELS`.
        region: The cloud region it is in, on Bedrock. Prices are that region's.
        retries: How often a request may be sent once more before its answer has begun. Each is paid for in advance,
            where there is money for it.
        connect_ms: How long a connection may take.
        silence_ms: How long it may be silent, before its answer and within it.

    Raises:
        ConfigError: Something is malformed.
    """

    name: str
    dialect: UpstreamDialect
    base_url: str = ""
    key: Secret | None = None
    provider: str | None = None
    models: tuple[str, ...] = ("*",)
    region: str | None = None
    retries: int = 1
    connect_ms: int = 10_000
    silence_ms: int = 300_000

    place: KeyPlace | None = field(init=False, repr=False, compare=False)
    """Where keys of users' own go; None where they cannot."""

    def __post_init__(self) -> None:
        _check(self._is_named(), "An upstream's name is malformed.", 'Write Upstream(name="openai", …).')
        _check(self.dialect in _DIALECTS, f"{self._what} speaks no known dialect.", f"Write one of {_DIALECTS}.")
        models: object = self.models
        _check(
            type(models) is tuple and all(map(_PATTERN.fullmatch, self.models)) and bool(self.models),
            f"{self._what} has a malformed list of models.", 'Write models=("gpt-*", "o3").',
        )  # fmt: skip
        _check(
            type(self.retries) is int and 0 <= self.retries <= RETRIES_MAX,
            f"{self._what} must have 0 to {RETRIES_MAX} retries.", "Write retries=1.",
        )  # fmt: skip
        for ms in (self.connect_ms, self.silence_ms):
            fine = type(ms) is int and 0 < ms <= MS_MAX
            _check(fine, f"{self._what} has a malformed time.", "Write connect_ms=10_000.")
        if self.dialect == "bedrock":
            self._settle_in_region()
        object.__setattr__(self, "base_url", self._checked_url())
        home = self._home()
        if self.provider is None:
            object.__setattr__(self, "provider", home or _PROVIDERS[self.dialect])
        own = None if home is not None else self.base_url
        object.__setattr__(self, "place", None if self.dialect == "bedrock" else KeyPlace(home or self.dialect, own))

    @property
    def _what(self) -> str:
        return f"The upstream {self.name}"

    def _is_named(self) -> bool:
        try:
            check_id(self.name, what="name")
        except ValueError:
            return False
        return True

    def _settle_in_region(self) -> None:
        region: object = self.region
        fine = isinstance(region, str) and _REGION.fullmatch(region) is not None
        _check(fine, f"{self._what} needs the AWS region it is in.", 'Write region="us-east-1".')
        end = "amazonaws.com.cn" if str(region).startswith("cn-") else "amazonaws.com"
        object.__setattr__(self, "base_url", self.base_url or f"https://bedrock-runtime.{region}.{end}")
        named = [BEDROCK_MODELS if name == "*" else (name,) for name in self.models]
        object.__setattr__(self, "models", tuple(name for names in named for name in names))

    def _checked_url(self) -> str:
        parts = urlsplit(self.base_url)
        fine = parts.scheme in ("https", "http") and bool(parts.hostname) and self.base_url.isascii()
        plain = not (parts.query or parts.fragment or "@" in parts.netloc or "\\" in self.base_url)
        _check(
            fine and plain and all("!" <= letter <= "~" for letter in self.base_url),
            f"{self._what} has a base URL that is none.", "Write https://host/path, without a user, ? or #.",
        )  # fmt: skip
        return self.base_url.rstrip("/")

    def _home(self) -> str | None:
        """The provider whose own address it is."""
        return self.dialect if is_place(self.base_url, KeyPlace(self.dialect, None)) else None


_PROVIDERS: dict[str, str | None] = {"openai": None, "anthropic": "anthropic", "bedrock": "bedrock"}
"""Whose prices apply to what speaks a dialect elsewhere: many servers copy OpenAI's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limited:
    """
    What a single request may take. The sizes are of bytes, the times of milliseconds.

    Args:
        headers_bytes_max: All headers together.
        body_bytes_max: The request's body; pictures come in it.
        body_ms_max: How long the body may take to come.
        request_ms_max: How long everything may take, answer included.
        answer_bytes_max: An answer that is no stream.
        drain_ms_max: How long an answer is read on after its caller has left, to learn what it cost.
        drain_bytes_max: How much of it.
        shutdown_ms_max: How long open requests are waited for when the gateway ends.
    """

    headers_bytes_max: int = 16_384
    body_bytes_max: int = 33_554_432
    body_ms_max: int = 60_000
    request_ms_max: int = 900_000
    answer_bytes_max: int = 67_108_864
    drain_ms_max: int = 60_000
    drain_bytes_max: int = 4_194_304
    shutdown_ms_max: int = 30_000

    def __post_init__(self) -> None:
        for name in self.__slots__:
            number: object = getattr(self, name)
            _check(type(number) is int and number > 0, f"Limited({name}=…) must be a whole number.", "Leave it out.")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """
    A gateway's parts.

    Args:
        guard: Limits, prices and the ledger; its `credentials` choose users' own keys.
        authenticator: Who may come in.
        upstreams: Where requests go. The first that serves a model is asked.
        documents: Where it is noted which run a conversation belongs to, for other workers; None: in memory.
        api_keys: What the admin API manages keys with.
        vault: What it manages providers' keys with.
        tokens: What it makes tokens with.
        limited: What a single request may take.
        hide_amounts: Whether callers are not told what calls cost and what is left.
        docs: Whether `/docs` and `/openapi.json` are served.
        authentication_waits: Whether credentials are proven off the loop, even where none has to be asked for far away.
        watchers: Who hears of every request that ended.
        metrics: What `/metrics` tells whoever may see everybody's usage; None: there is no such address.
        owned: What is closed with the gateway, in this order.

    Raises:
        ConfigError: There is no upstream, or two have one name.
    """

    guard: Guard
    authenticator: Authenticator
    upstreams: tuple[Upstream, ...]
    documents: DocumentStore | None = None
    api_keys: ApiKeys | None = None
    vault: Vault | None = None
    tokens: Tokens | None = None
    limited: Limited = field(default_factory=Limited)
    hide_amounts: bool = False
    docs: bool = False
    authentication_waits: bool = False
    watchers: tuple[Watcher, ...] = ()
    metrics: Figures | None = None
    owned: tuple[Closable, ...] = ()

    def __post_init__(self) -> None:
        names = [upstream.name for upstream in self.upstreams]
        how = "Set OPENAI_API_KEY, ANTHROPIC_API_KEY or RUNRAILS_UPSTREAMS."
        _check(bool(names), "A gateway needs an upstream.", how)
        _check(len(set(names)) == len(names), "Two upstreams have the same name.", "Give each a name of its own.")

    @classmethod
    def from_env(cls) -> GatewayConfig:
        """As the environment says; see `runrails_gateway.environment`. Raises ConfigError and StoreUnavailable."""
        from runrails_gateway.environment import config_of_environment

        return config_of_environment()

    def close(self) -> None:
        """Close what it owns. Closing twice is fine."""
        for each in self.owned:
            each.close()

    def serving(self, model: str, dialects: Iterable[str]) -> tuple[Upstream, ...]:
        """
        Who serves a model in one of these dialects. The first is asked; the others are where it can be asked instead:
        at the same prices, and on the same keys.
        """
        found = [each for each in self.upstreams if each.dialect in dialects and matches(each.models, model)]
        return tuple(each for each in found if prices_of(each) == prices_of(found[0]))


def prices_of(upstream: Upstream) -> tuple[str, str | None, str | None]:
    """Equal for upstreams that can stand in for one another: their prices, and whose keys they take."""
    return upstream.dialect, upstream.provider, upstream.region


def matches(patterns: Iterable[str], model: str) -> bool:
    """Whether a model is among these names, of which any may end in ``*``."""
    return any(model.startswith(name[:-1]) if name.endswith("*") else model == name for name in patterns)


def _check(fine: bool, what: str, next_step: str) -> None:  # noqa: FBT001 -- a check reads as a sentence
    if not fine:
        raise ConfigError(what, next_step=next_step)
