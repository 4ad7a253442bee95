"""What Anthropic's messages tell: usage, model, and the text of a stream that was left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from runrails.answers.parsed import report_of
from runrails.answers.reading import Body, add_strings, event_of, map_of, read_usage, text_of
from runrails.calls import ModelResult
from runrails.request_wire import answer_texts
from runrails.tiers import served_tier
from runrails.usage_wire import from_anthropic

if TYPE_CHECKING:
    from runrails.calls import ServedTier
    from runrails.usage import Usage

__all__ = ["MessageEvents", "answer"]

_NO_CONTENT = ("type",)
"""Names under which nothing is said."""
_HEAD_BYTES = 100
"""How far into an event its type is looked for."""
_CONTENT = b"content_block"


def answer(body: Body, *, names_model: bool) -> ModelResult:
    """A whole message. On Bedrock its `model` is not the name that has the price."""
    told = report_of(body)
    usage = read_usage(from_anthropic, told)
    model = text_of(body.get("model")) if names_model else None
    said = _said(body.get("content"))
    return ModelResult(
        end="completed", usage=usage, model=model, tier=served_tier(told), answer=said,
        answer_id=text_of(body.get("id")),
    )  # fmt: skip


def _said(blocks: object) -> tuple[str, ...] | None:
    """The texts of an answer, of the wire or parsed; None if it has other blocks than text and calls of tools."""
    given = cast("list[object]", blocks) if isinstance(blocks, list) else []
    if len(given) == 1 and getattr(given[0], "type", None) == "text":  # of the SDK, and only text: by far the most
        alone: object = getattr(given[0], "text", None)
        if type(alone) is str:
            return (alone,) if alone else None
    texts: list[str] = []
    for block in given:
        kind = _part(block, "type")
        if kind == "text":
            said = answer_texts(_part(block, "text"))
        elif kind == "tool_use":
            said = answer_texts(None, [(str(_part(block, "name")), str(_part(block, "id")), _part(block, "input"))])
        else:
            return None
        if said is None:
            return None
        texts += said
    return tuple(texts) or None


def _part(value: object, name: str) -> object:
    return cast("Body", value).get(name) if isinstance(value, Mapping) else getattr(value, name, None)


class MessageEvents:
    """
    The events of a message: the input's usage comes first, the output's last.

    The last event may repeat the input's usage or, in the older form, leave it out. Counts that come before the
    message has a reason to stop are of what was used so far.
    """

    signs: tuple[bytes, ...] = (b"message_", b'"error"')
    hides = False
    goes_on = False

    def __init__(self, *, reasoning: bool, names_model: bool) -> None:
        self.reasoning = reasoning
        self._names_model = names_model
        self._reported: dict[str, object] = {}
        self.usage: Usage | None = None
        self.input_usage: Usage | None = None
        self.floor_usage: Usage | None = None
        self.tier: ServedTier | None = None
        self.model: str | None = None
        self.answer_id: str | None = None
        self.ended = False
        self.failed = False

    def telling(self, data: bytes) -> bool | None:
        """True: it told something; None: content."""
        if _CONTENT in data[:_HEAD_BYTES]:
            return None
        event = event_of(data)
        kind = event.get("type")
        if kind == "message_start":
            message = map_of(event.get("message"))
            self.answer_id = text_of(message.get("id"))
            self._reported = dict(map_of(message.get("usage")))
            if self._reported:
                self.input_usage = read_usage(from_anthropic, {**self._reported, "output_tokens": 0})
                self.tier = served_tier(self._reported)
            self.model = text_of(message.get("model")) if self._names_model else None
        elif kind == "message_delta":
            self._report(map_of(event.get("usage")), whole=map_of(event.get("delta")).get("stop_reason") is not None)
        elif kind == "message_stop":
            self.ended = True
            self.usage = self.usage or self.floor_usage
        elif kind == "error":
            self.failed = True
        else:
            return None
        return True

    def text(self, data: bytes) -> str:
        """What a delta adds, and the name and id a tool call begins with."""
        texts: list[str] = []
        event = event_of(data)
        for key in ("delta", "content_block"):
            add_strings(event.get(key), texts, _NO_CONTENT)
        return "".join(texts)

    def _report(self, told: Body, *, whole: bool) -> None:
        if not told:
            return
        known = {name: value for name, value in told.items() if value is not None}
        # Without the input, of the start or of the end, this is half of the truth.
        if "input_tokens" not in known and "input_tokens" not in self._reported:
            return
        report = {**self._reported, **known}
        self.tier = served_tier(report)
        usage = read_usage(from_anthropic, report)
        if whole:
            self.usage = usage
        else:
            self.floor_usage = usage or self.floor_usage
