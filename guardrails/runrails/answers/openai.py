"""What the answers of OpenAI's API tell: usage, model, and the text of a stream that was left."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from runrails.answers.parsed import chat_usage, report_of
from runrails.answers.reading import Body, add_strings, event_of, map_of, read_usage, text_of
from runrails.calls import ModelResult
from runrails.request_wire import answer_texts
from runrails.tiers import served_tier
from runrails.usage_wire import from_openai_chat, from_openai_responses
from runrails.values import placed

if TYPE_CHECKING:
    from runrails.calls import ServedTier
    from runrails.usage import Usage

__all__ = ["ChatEvents", "ResponseEvents", "chat_answer", "response_answer"]

_NO_CONTENT = ("role", "type", "id")
"""Names under which nothing is said."""
_LAST = (b"response.completed", b"response.incomplete", b"response.failed")
_completed = placed(ModelResult, "end", "usage", "model", "tier", "answer", "answer_id")
_HEAD_BYTES = 200
"""How far into an event its type is looked for."""


def chat_answer(body: Body) -> ModelResult:
    """A chat completion, or embeddings."""
    model, answer_id = body.get("model"), body.get("id")
    return _completed(
        "completed", chat_usage(body.get("usage")), model if type(model) is str and model else text_of(model),
        served_tier(body), _said(body.get("choices")), answer_id if type(answer_id) is str and answer_id else None,
    )  # fmt: skip


def _said(choices: object) -> tuple[str, ...] | None:
    """The texts of the one answer, of the wire or parsed; None if they are not of the plain kinds."""
    if not isinstance(choices, list):
        return None
    answers: list[object] = choices  # pyright: ignore[reportUnknownVariableType] -- a cast is one call more
    if len(answers) != 1:
        return None
    message: object = getattr(answers[0], "message", None)
    if message is not None and not getattr(message, "tool_calls", None):  # of the SDK, and only text: by far the most
        content: object = getattr(message, "content", None)
        if content is None or type(content) is str:
            return (content,) if content else None
    message = _part(answers[0], "message")
    given = _part(message, "tool_calls")
    calls: list[tuple[str, str, object]] = []
    for call in cast("list[object]", given) if isinstance(given, list) else ():
        function = _part(call, "function")
        name, call_id = _part(function, "name"), _part(call, "id")
        if not isinstance(name, str) or not isinstance(call_id, str):
            return None
        calls.append((name, call_id, _part(function, "arguments")))
    return answer_texts(_part(message, "content"), calls)


def _part(value: object, name: str) -> object:
    if isinstance(value, dict):
        return cast("Body", value).get(name)
    return getattr(value, name, None)


def response_answer(body: Body) -> ModelResult:
    """A response. One that runs in the background has no usage yet."""
    usage = read_usage(from_openai_responses, report_of(body))
    return ModelResult(
        end="completed", usage=usage, model=text_of(body.get("model")), tier=served_tier(body),
        answer_id=text_of(body.get("id")),
    )  # fmt: skip


class ChatEvents:
    """
    The chunks of a chat completion; the usage comes in a last one without choices, if it was asked for.

    Some servers report what has been used so far in every chunk: until the answer is complete that is a floor.
    """

    signs: tuple[bytes, ...] = (b'_tokens"', b"[DONE]", b'"error"')
    goes_on = False

    def __init__(self, *, reasoning: bool, hides: bool, answers: int = 1) -> None:
        self.reasoning = reasoning
        self.hides = hides
        self.usage: Usage | None = None
        self.input_usage: Usage | None = None
        self.floor_usage: Usage | None = None
        self.tier: ServedTier | None = None
        self.model: str | None = None
        self.answer_id: str | None = None
        self.ended = False
        self.failed = False
        self._looked = False
        self._answers = answers
        self._finished: set[object] = set()
        """Indices of the answers that are known to be complete."""

    def telling(self, data: bytes) -> bool | None:
        """True: it told something; False: the caller did not ask for it; None: content."""
        # Inside a JSON text a quote is escaped, so these bytes are only ever a key.
        if b'"usage"' not in data or b'"usage":null' in data or b'"usage": null' in data:
            if data[5:].lstrip().startswith(b"[DONE]"):
                self.ended = True
                self.usage = self.usage or self.floor_usage
                return True
            if b'"error"' in data and b'"choices"' not in data:
                self.failed = True
                return True
            if not self._looked:  # every chunk names the tier, so one of them is enough
                self._looked = True
                if b'"service_tier"' in data:
                    self._see_tier(event_of(data))
            return None
        return self._report(event_of(data))

    def _report(self, chunk: Body) -> bool | None:
        usage = read_usage(from_openai_chat, map_of(chunk.get("usage")))
        if usage is None:
            return None
        self.model = text_of(chunk.get("model"))
        self.answer_id = text_of(chunk.get("id"))
        self._see_tier(chunk)
        choices = _list(chunk.get("choices"))
        self._finished.update(choice.get("index") for choice in choices if choice.get("finish_reason") is not None)
        if choices and len(self._finished) < self._answers:
            self.floor_usage = usage
            return None
        self.usage = usage
        return not (self.hides and not choices)

    def _see_tier(self, chunk: Body) -> None:
        self.tier = served_tier(chunk) or self.tier

    def text(self, data: bytes) -> str:
        """Whatever the choices' deltas hold."""
        texts: list[str] = []
        chunk = event_of(data)
        self.answer_id = self.answer_id or text_of(chunk.get("id"))
        for choice in _list(chunk.get("choices")):
            add_strings(choice.get("delta"), texts, _NO_CONTENT)
        return "".join(texts)


class ResponseEvents:
    """The events of a response; the last one has all of it."""

    signs: tuple[bytes, ...] = (*_LAST, b'"error"')
    hides = False

    def __init__(self, *, reasoning: bool, goes_on: bool = False) -> None:
        self.reasoning = reasoning
        self.goes_on = goes_on
        self.usage: Usage | None = None
        self.input_usage: Usage | None = None
        self.floor_usage: Usage | None = None
        self.tier: ServedTier | None = None
        self.model: str | None = None
        self.answer_id: str | None = None
        self.ended = False
        self.failed = False

    def telling(self, data: bytes) -> bool | None:
        """True: it told something; None: it may hold content."""
        head = data[:_HEAD_BYTES]
        if b".delta" in head:
            return None
        if b'"response.' not in head:
            self.failed = self.failed or b'"error"' in head
            return None
        if b"response.created" in head:
            response = map_of(event_of(data).get("response"))
            self.tier = served_tier(response)
            self.answer_id = text_of(response.get("id"))
        elif any(kind in head for kind in _LAST):
            response = map_of(event_of(data).get("response"))
            self.usage = read_usage(from_openai_responses, map_of(response.get("usage")))
            self.tier = served_tier(response)
            self.model = text_of(response.get("model"))
            self.answer_id = text_of(response.get("id"))
            self.ended = True
            return True
        return None

    def text(self, data: bytes) -> str:
        """What a delta adds; the events that sum up repeat it."""
        event = event_of(data)
        delta = event.get("delta")
        return delta if isinstance(delta, str) and str(event.get("type")).endswith(".delta") else ""


def _list(value: object) -> list[Body]:
    return [map_of(item) for item in cast("list[object]", value)] if isinstance(value, list) else []
