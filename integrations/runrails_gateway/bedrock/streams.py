"""The events of ConverseStream as the server-sent events of OpenAI and Anthropic. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from runrails.answers.anthropic import MessageEvents
from runrails.answers.openai import ChatEvents
from runrails_gateway.bedrock.chat import FINISHED, chat_usage
from runrails_gateway.bedrock.messages import STOPPED, messages_usage
from runrails_gateway.bedrock.parts import compact, map_of

if TYPE_CHECKING:
    from runrails.usage import Usage
    from runrails_gateway.bedrock.parts import Body, Json

__all__ = ["ChatStream", "LateInput", "MessagesStream", "Retold", "Thoughtful"]

THOUGHTS = b'data: {"runrails":"thoughts"}'
"""For whoever reads along, once in a stream."""


class Retold(Protocol):
    """Tells a stream anew, event by event."""

    def event(self, kind: str, told: Body) -> bytes:
        """What one event of ConverseStream becomes; nothing, for some."""
        ...

    def end(self) -> bytes:
        """What is still to be said when the provider has told all."""
        ...


class ChatStream:
    """
    Chunks of a chat completion. The last one has the usage, which the gateway hides from callers who did not ask.

    Thoughts are left out: a chat completion has no place for them. That there were some is said to `Thoughtful`, which
    keeps it from the caller.
    """

    def __init__(self, *, model: str, answer_id: str, created_s: int) -> None:
        self._head: Json = {
            "id": answer_id, "object": "chat.completion.chunk", "created": created_s, "model": model,
        }  # fmt: skip
        self._thinks = False
        self._calls: dict[object, int] = {}
        """Blocks that are tool calls, and which one each is."""
        self._usage: Body = {}

    def event(self, kind: str, told: Body) -> bytes:
        """See `Retold`."""
        match kind:
            case "messageStart":
                return self._delta({"role": "assistant", "content": ""})
            case "contentBlockStart":
                return self._call_begins(told)
            case "contentBlockDelta":
                return self._part(told)
            case "messageStop":
                return self._delta({}, finished=FINISHED.get(str(told.get("stopReason")), "stop"))
            case "metadata":
                self._usage = map_of(told.get("usage"))
            case _:
                pass
        return b""

    def end(self) -> bytes:
        """See `Retold`."""
        last = b""
        if self._usage:
            last = _data({**self._head, "choices": [], "usage": chat_usage(self._usage)})
        return last + b"data: [DONE]\n\n"

    def _call_begins(self, told: Body) -> bytes:
        use = map_of(map_of(told.get("start")).get("toolUse"))
        if not use:
            return b""
        place = self._calls[told.get("contentBlockIndex")] = len(self._calls)
        function = {"name": use.get("name"), "arguments": ""}
        call = {"index": place, "id": use.get("toolUseId"), "type": "function", "function": function}
        return self._delta({"tool_calls": [call]})

    def _part(self, told: Body) -> bytes:
        delta = map_of(told.get("delta"))
        if isinstance(delta.get("text"), str):
            return self._delta({"content": delta["text"]})
        if "reasoningContent" in delta and not self._thinks:
            self._thinks = True
            return THOUGHTS + b"\n\n"
        use = map_of(delta.get("toolUse"))
        place = self._calls.get(told.get("contentBlockIndex"))
        if not use or place is None:
            return b""
        return self._delta({"tool_calls": [{"index": place, "function": {"arguments": use.get("input")}}]})

    def _delta(self, delta: Json, *, finished: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finished}
        return _data({**self._head, "choices": [choice]})


class MessagesStream:
    """
    Events of a message. Converse tells the usage at its end only, so the input's at the beginning is 0 until then.

    See `LateInput` for whoever reads along.
    """

    def __init__(self, *, model: str, answer_id: str) -> None:
        self._message: Json = {
            "id": answer_id, "type": "message", "role": "assistant", "model": model, "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 0, "output_tokens": 0},
        }  # fmt: skip
        self._open: set[object] = set()
        self._stopped: str | None = None
        self._usage: Body = {}

    def event(self, kind: str, told: Body) -> bytes:
        """See `Retold`."""
        place = told.get("contentBlockIndex")
        match kind:
            case "messageStart":
                return _event("message_start", {"message": self._message})
            case "contentBlockStart":
                use = map_of(map_of(told.get("start")).get("toolUse"))
                block: Json = {"type": "tool_use", "id": use.get("toolUseId"), "name": use.get("name"), "input": {}}
                return self._begin(place, block) if use else b""
            case "contentBlockDelta":
                return self._part(place, map_of(told.get("delta")))
            case "contentBlockStop":
                if place not in self._open:
                    return b""
                self._open.discard(place)
                return _event("content_block_stop", {"index": place})
            case "messageStop":
                self._stopped = STOPPED.get(str(told.get("stopReason")), "end_turn")
            case "metadata":
                self._usage = map_of(told.get("usage"))
            case _:
                pass
        return b""

    def end(self) -> bytes:
        """See `Retold`."""
        ended: Json = {"delta": {"stop_reason": self._stopped or "end_turn", "stop_sequence": None}}
        # Without a report there is none: a zero would be a price.
        ended["usage"] = messages_usage(self._usage) if self._usage else {}
        return _event("message_delta", ended) + _event("message_stop", {})

    def _begin(self, place: object, block: Json) -> bytes:
        self._open.add(place)
        return _event("content_block_start", {"index": place, "content_block": block})

    def _part(self, place: object, delta: Body) -> bytes:
        made = _delta_of(delta)
        if made is None:
            return b""
        block, part = made
        # Converse announces tool calls only; Anthropic's clients wait for every block's beginning.
        begun = b"" if place in self._open else self._begin(place, block)
        return begun + (_event("content_block_delta", {"index": place, "delta": part}) if part else b"")


def _delta_of(delta: Body) -> tuple[Json, Json | None] | None:
    """The block that a delta of Converse belongs to, and the delta; None for what nobody knows."""
    if isinstance(delta.get("text"), str):
        return {"type": "text", "text": ""}, {"type": "text_delta", "text": delta["text"]}
    use, thought = map_of(delta.get("toolUse")), map_of(delta.get("reasoningContent"))
    if use:
        return {"type": "text", "text": ""}, {"type": "input_json_delta", "partial_json": use.get("input")}
    thinking: Json = {"type": "thinking", "thinking": "", "signature": ""}
    if isinstance(thought.get("text"), str):
        return thinking, {"type": "thinking_delta", "thinking": thought["text"]}
    if isinstance(thought.get("signature"), str):
        return thinking, {"type": "signature_delta", "signature": thought["signature"]}
    if isinstance(thought.get("redactedContent"), str):
        return {"type": "redacted_thinking", "data": thought["redactedContent"]}, None
    return None


class LateInput(MessageEvents):
    """Reads a `MessagesStream` along: the input of a stream that breaks off is not known, and not zero."""

    def telling(self, data: bytes) -> bool | None:
        """See `MessageEvents`."""
        told = super().telling(data)
        self.input_usage: Usage | None = None
        return told


class Thoughtful(ChatEvents):
    """Reads a `ChatStream` along: what is left out of it may have to be paid for, should it break off."""

    signs = (*ChatEvents.signs, THOUGHTS)

    def telling(self, data: bytes) -> bool | None:
        """See `ChatEvents`."""
        if not data.startswith(THOUGHTS):
            return super().telling(data)
        self.reasoning = True
        return False


def _data(value: Json) -> bytes:
    return b"data: " + compact(value) + b"\n\n"


def _event(kind: str, value: Json) -> bytes:
    return f"event: {kind}\n".encode() + _data({"type": kind, **value})
