"""Between LangChain's messages and those of the fake provider."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import ToolCall, invalid_tool_call, tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk

from runrails.testing.provider.values import Json, ProviderMessage, Text, ToolCalls, ToolUse
from runrails.usage_wire import from_langchain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from langchain_core.messages import InvalidToolCall

    from runrails.testing.provider.reply import Reply
    from runrails.testing.provider.values import Reporting
    from runrails.usage import Usage

__all__ = ["chat_chunks", "chat_message", "provider_messages", "reply_of"]

_ROLES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant"}
_FINISH = {"stop": "stop", "length": "length", "tools": "tool_calls"}


def provider_messages(messages: Sequence[BaseMessage]) -> tuple[ProviderMessage, ...]:
    """The messages of a request, as a script sees them."""
    return tuple(_provider_message(message) for message in messages)


def _provider_message(message: BaseMessage) -> ProviderMessage:
    uses = tuple(_tool_use(call) for call in message.tool_calls) if isinstance(message, AIMessage) else ()
    return ProviderMessage(
        role=_ROLES.get(message.type, message.type),
        text=_text(message),
        tool_uses=uses,
        tool_call_id=message.tool_call_id if isinstance(message, ToolMessage) else None,
    )


def _text(message: BaseMessage) -> str:
    """The words of a message. Its own `text` is a method in older versions and a property in newer ones."""
    if isinstance(message.content, str):
        return message.content
    return "".join(block if isinstance(block, str) else _block_text(block) for block in message.content)


def _block_text(block: Mapping[str, object]) -> str:
    text = block.get("text")
    return text if isinstance(text, str) else ""


def _tool_use(call: ToolCall) -> ToolUse:
    return ToolUse(call["name"], call["args"], call["id"])


def reply_of(message: AIMessage) -> Text | ToolCalls:
    """A ready message as a scripted answer, so that it can be streamed and billed. Without usage it is counted."""
    usage = from_langchain(message.usage_metadata)
    uses = [_tool_use(call) for call in message.tool_calls]
    report: Reporting = "none" if usage is None else "full"
    if uses:
        return ToolCalls(uses, text=_text(message), usage=usage, report=report)
    return Text(_text(message), usage=usage, report=report)


def chat_message(reply: Reply) -> AIMessage:
    """A reply as a message. Arguments that are no JSON object become an invalid tool call, as real models do it."""
    calls: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for use in reply.tool_uses:
        args = _arguments(use)
        if args is None:
            invalid.append(invalid_tool_call(name=use.name, args=use.args_json, id=use.id, error=None))
        else:
            calls.append(ToolCall(name=use.name, args=dict(args), id=use.id))
    return AIMessage(
        content=reply.text,
        tool_calls=calls,
        invalid_tool_calls=invalid,
        usage_metadata=_usage_metadata(reply),
        response_metadata=_metadata(reply),
    )


def chat_chunks(reply: Reply) -> Iterator[tuple[ChatGenerationChunk, bool]]:
    """A reply as chunks, and whether each carries a piece of it. The usage comes in the last one."""
    for piece in reply.pieces():
        yield ChatGenerationChunk(message=AIMessageChunk(content=piece)), True
    for index, use in enumerate(reply.tool_uses):
        head = tool_call_chunk(name=use.name, args="", id=use.id, index=index)
        yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[head])), False
        for piece in reply.argument_pieces(use):
            part = tool_call_chunk(args=piece, index=index)
            yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[part])), True
    last = AIMessageChunk(
        content="", usage_metadata=_usage_metadata(reply), response_metadata=_metadata(reply), chunk_position="last"
    )
    yield ChatGenerationChunk(message=last), False


def _arguments(use: ToolUse) -> Mapping[str, Json] | None:
    if not isinstance(use.args, str):
        return use.args
    try:
        parsed: Json = json.loads(use.args)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _metadata(reply: Reply) -> dict[str, str]:
    return {"model_name": reply.model, "finish_reason": _FINISH[reply.finish], "id": f"fake-{reply.id}"}


def _usage_metadata(reply: Reply) -> UsageMetadata | None:
    if reply.report == "none":
        return None
    return _shown(reply.usage)


def _shown(usage: Usage) -> UsageMetadata:
    read = InputTokenDetails(cache_read=usage.cache_read_tokens, cache_creation=usage.cache_write_5m_tokens)
    if usage.cache_write_1h_tokens:
        # As LangChain's Anthropic and Bedrock models do it: lifetimes under keys the type does not know, and 0 here.
        read["cache_creation"] = 0
        read["ephemeral_5m_input_tokens"] = usage.cache_write_5m_tokens  # type: ignore[typeddict-unknown-key]
        read["ephemeral_1h_input_tokens"] = usage.cache_write_1h_tokens  # type: ignore[typeddict-unknown-key]
    if usage.input_audio_tokens:
        read["audio"] = usage.input_audio_tokens
    written = OutputTokenDetails(reasoning=usage.reasoning_tokens)
    if usage.output_audio_tokens:
        written["audio"] = usage.output_audio_tokens
    return UsageMetadata(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        input_token_details=read,
        output_token_details=written,
    )
