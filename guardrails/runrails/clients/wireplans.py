"""What a request to OpenAI comes to, once it was read: alike for its guarded clients and for a gateway. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from runrails.answers.openai import ChatEvents, ResponseEvents, chat_answer, response_answer
from runrails.clients.plan import Plan
from runrails.clients.sse import SseReader
from runrails.values import placed

if TYPE_CHECKING:
    from runrails.calls import ModelCall
    from runrails.request_wire import WireCall

__all__ = ["chat_plan", "embeddings_plan", "response_plan"]

Body = Mapping[str, object]
_NOTHING: Body = {}
_plan = placed(Plan, "call", "answer", "stream", "changes", "cap_name")
_NEWER = frozenset({"openai", "azure"})


def chat_plan(body: Body, wire: WireCall, call: ModelCall, *, relayed: bool = False) -> Plan:
    """
    A chat completion.

    Args:
        body: The request.
        wire: What was read of it.
        call: The same as a call.
        relayed: Whether it is somebody else's request, and its stream is passed on: then its usage is asked for even
            where the request says that it is not wanted, and whole lines are handed on, so that an error can follow.
    """
    # OpenAI's newer models know the longer name alone, the servers that copied it the shorter one.
    newer = call.provider in _NEWER and body.get("max_tokens") is None
    cap_name = "max_completion_tokens" if newer or body.get("max_completion_tokens") is not None else "max_tokens"
    if body.get("stream") is not True:
        return _plan(call, chat_answer, None, _NOTHING, cap_name)
    changes: Body = {}
    given = body.get("stream_options")
    asked: Body = cast("Body", given) if isinstance(given, Mapping) else {}
    if "include_usage" not in asked or (relayed and asked["include_usage"] is not True):
        changes = {"stream_options": {**asked, "include_usage": True}}
    events = ChatEvents(reasoning=wire.reasoning, hides=bool(changes), answers=wire.n)
    return Plan(call, chat_answer, SseReader(events, whole_lines=relayed), changes, cap_name)


def response_plan(body: Body, wire: WireCall, call: ModelCall, *, relayed: bool = False) -> Plan:
    """A response. See `chat_plan`."""
    stream = None
    if body.get("stream") is True:
        # What runs in the background is worked on and billed whether somebody reads it or not.
        events = ResponseEvents(reasoning=wire.reasoning, goes_on=bool(body.get("background")))
        stream = SseReader(events, whole_lines=relayed)
    return Plan(call, response_answer, stream, _NOTHING, "max_output_tokens")


def embeddings_plan(call: ModelCall) -> Plan:
    """Embeddings."""
    return Plan(call, chat_answer, None, _NOTHING, "")
