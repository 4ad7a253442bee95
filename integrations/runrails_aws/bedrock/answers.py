"""What Bedrock's answers tell: usage in the answer, in its headers, or in the events of a stream."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, cast

from runrails.answers.reading import read_usage
from runrails.calls import ModelResult
from runrails.clients.coming import Coming
from runrails.tiers import served_tier
from runrails.usage_wire import from_anthropic, from_bedrock, from_openai_chat
from runrails_aws.bedrock.converse import list_of, map_of

if TYPE_CHECKING:
    from runrails.calls import ServedTier
    from runrails.clients.plan import Leaving
    from runrails.usage import Usage
    from runrails_aws.bedrock.invoke import Invocation

__all__ = ["ConverseEvents", "EventsReader", "InvokeEvents", "converse_answer", "invoke_answer"]

Body = Mapping[str, object]
_P = TypeVar("_P", str, bytes)

_METRICS = "amazon-bedrock-invocationMetrics"
_WITHOUT_TEXT = frozenset({"message_start", "message_delta", "message_stop"})
"""Types of Anthropic's events that tell about a message and have nothing of it."""
_HEADER = "x-amzn-bedrock-{}-token-count"


def converse_answer(body: Body) -> ModelResult:
    """An answer of Converse. It names no model."""
    usage = read_usage(from_bedrock, map_of(body.get("usage")))
    named = map_of(body.get("ResponseMetadata")).get("RequestId")
    answer_id = named if isinstance(named, str) else None
    return ModelResult(end="completed", usage=usage, tier=_tier(body), answer_id=answer_id)


def invoke_answer(headers: Body, asked: Invocation) -> ModelResult:
    """
    An answer of InvokeModel, by its headers: the body is the caller's to read.

    The input count leaves the cached tokens out. Where caching was asked for and the headers do not speak of it, what
    was cached is not known, so that nothing counts as reported.
    """
    counts = {name: _number(headers.get(_HEADER.format(name))) for name in ("input", "output")}
    read, written = (_number(headers.get(_HEADER.format(f"cache-{name}-input"))) for name in ("read", "write"))
    if asked.embedding and counts["output"] is None:
        counts["output"] = 0
    if None in counts.values() or (asked.wire.cache_write and read is None and written is None):
        return ModelResult(end="completed")
    usage: dict[str, object] = {
        "inputTokens": counts["input"], "outputTokens": counts["output"], "cacheReadInputTokens": read,
        "cacheWriteInputTokens": written,
    }  # fmt: skip
    if written and asked.wants_hour:
        # The headers do not split the writes by their time to live, so the dearer one is taken for all.
        usage["cacheDetails"] = [{"ttl": "1h", "inputTokens": written}]
    tier = served_tier({"service_tier": headers.get("x-amzn-bedrock-service-tier")})
    return ModelResult(end="completed", usage=read_usage(from_bedrock, usage), tier=tier)


class EventsReader(Protocol):
    """Reads along with the events of one stream."""

    @property
    def coming(self) -> Coming[str] | Coming[bytes]:
        """The content that has come."""
        ...

    @property
    def told(self) -> bool:
        """Whether it has told all: what it cost, and that it is over."""
        ...

    def see(self, event: Body) -> None:
        """Read an event as botocore gives it."""
        ...

    def outcome(self, how: Leaving) -> ModelResult:
        """What the stream came to."""
        ...


class _Events(Generic[_P]):
    """What both kinds of streams have in common."""

    __slots__ = ("_begun", "_reasoning", "coming", "ended", "tier", "usage")

    def __init__(self, coming: Coming[_P], *, reasoning: bool) -> None:
        self._reasoning = reasoning
        self._begun = False
        self.coming: Coming[_P] = coming
        self.usage: Usage | None = None
        self.tier: ServedTier | None = None
        self.ended = False

    @property
    def told(self) -> bool:
        """Whether it has told all: what it cost, and that it is over."""
        return self.ended and self.usage is not None

    def outcome(self, how: Leaving) -> ModelResult:
        """What the stream came to; what it has told is the truth, however it was left."""
        if self.usage is not None:
            return ModelResult(end="completed", usage=self.usage, tier=self.tier)
        if self.ended:
            return ModelResult(end="completed", tier=self.tier)
        # A provider that answers has begun to work: of one that was lost before that, nobody knows how far it came.
        if how != "left" and not self._begun:
            return ModelResult(end="unknown", tier=self.tier)
        return ModelResult(
            end="cut", output_text=self.coming.texts(), reasoning=self._reasoning, input_usage=self.coming.input_usage,
            tier=self.tier,
        )  # fmt: skip


class ConverseEvents(_Events[str]):
    """The events of ConverseStream; the usage comes in the last one, after the message has ended."""

    __slots__ = ()

    def __init__(self, *, reasoning: bool) -> None:
        super().__init__(Coming("".join), reasoning=reasoning)

    def see(self, event: Body) -> None:
        """Read an event as botocore gives it: an object whose one key is its kind."""
        self._begun = True
        block = cast("Mapping[str, Mapping[str, object]] | None", event.get("contentBlockDelta"))
        if block is not None:
            text = block["delta"].get("text")
            if isinstance(text, str) and text.isascii():
                self.coming.keep(text)
            else:
                self.coming.keep_wide(_text_in(block if text is None else text))
        elif "metadata" in event:
            told = map_of(event["metadata"])
            self.usage = read_usage(from_bedrock, map_of(told.get("usage")))
            self.tier = _tier(told)
        elif "messageStop" in event:
            self.ended = True
        else:
            self.coming.keep(_text_in(event.get("contentBlockStart")))


class InvokeEvents(_Events[bytes]):
    """
    The chunks of InvokeModelWithResponseStream: the maker's own events, as bytes.

    Bedrock adds its metrics to the last one, whoever made the model. Anthropic's events also tell how long what was
    written to the cache stays there, so they go before.
    """

    __slots__ = ("_reported",)

    def __init__(self, *, reasoning: bool) -> None:
        super().__init__(Coming(_text_of), reasoning=reasoning)
        self._reported: dict[str, object] = {}

    def see(self, event: Body) -> None:
        """Read an event as botocore gives it."""
        self._begun = True
        data = map_of(event.get("chunk")).get("bytes")
        if not isinstance(data, bytes):
            return
        # Inside a JSON text a quote is escaped, so these bytes are only ever a key or a type.
        if b'"usage"' in data or b'"message_stop"' in data or b'"amazon-bedrock-' in data:
            chunk = _decoded(data)
            self._told(chunk)
            if chunk.get("type") in _WITHOUT_TEXT:
                return
        self.coming.keep(data)

    def _told(self, chunk: Body) -> None:
        kind, usage = chunk.get("type"), map_of(chunk.get("usage"))
        if kind == "message_start":
            self._reported = dict(map_of(map_of(chunk.get("message")).get("usage")))
            if self._reported:
                self.coming.told(read_usage(from_anthropic, {**self._reported, "output_tokens": 0}), None)
        elif kind == "message_delta":
            report = {**self._reported, **{name: value for name, value in usage.items() if value is not None}}
            # Without the input this is half of the truth; before there is a reason to stop, it is not the last word.
            if usage and "input_tokens" in report and map_of(chunk.get("delta")).get("stop_reason") is not None:
                self.usage = read_usage(from_anthropic, report)
        elif usage:
            self.usage = read_usage(from_openai_chat, usage)
        if kind == "message_stop":
            self.ended = True
        metrics = map_of(chunk.get(_METRICS))
        if metrics:
            self.ended = True
            self.usage = self.usage or read_usage(from_bedrock, _as_usage(metrics))


def _as_usage(metrics: Body) -> Body:
    return {
        "inputTokens": metrics.get("inputTokenCount"),
        "outputTokens": metrics.get("outputTokenCount"),
        "cacheReadInputTokens": metrics.get("cacheReadInputTokenCount"),
        "cacheWriteInputTokens": metrics.get("cacheWriteInputTokenCount"),
    }


def _tier(told: Body) -> ServedTier | None:
    return served_tier({"service_tier": map_of(told.get("serviceTier")).get("type")})


def _number(text: object) -> int | None:
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() else None


def _decoded(data: bytes) -> Body:
    try:
        return map_of(json.loads(data))
    except ValueError:
        return {}


def _text_of(kept: list[bytes]) -> str:
    return "".join([_text_in(_decoded(data)) for data in kept])


def _text_in(content: object) -> str:
    texts: list[str] = []
    _strings(content, texts)
    return "".join(texts)


def _strings(value: object, texts: list[str]) -> None:
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, bytes):
        texts.append("x" * len(value))
    elif isinstance(value, Mapping):
        for name, part in cast("Body", value).items():
            if name != "type":
                _strings(part, texts)
    elif isinstance(value, list):
        for part in list_of(cast("object", value)):
            _strings(part, texts)
