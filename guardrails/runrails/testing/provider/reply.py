"""From a scripted answer to what goes out: ids, counted usage, the cap on output, the pieces of a stream."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from runrails.testing.provider.values import Json, ProviderRequest, Reporting, Text, ToolCalls, ToolUse
from runrails.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CREATED_S", "Finish", "Reply", "count_tokens", "input_tokens", "make_reply"]

Finish = Literal["stop", "length", "tools"]
CREATED_S = 1_763_683_200
"""When every answer says it was made: a fixed second, so that two runs of a test get the same bytes."""
_WORDS = re.compile(r"\S+\s*|\s+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer that has been decided on."""

    id: str
    model: str
    """The name the answer gives the model."""
    text: str = field(repr=False)
    tool_uses: tuple[ToolUse, ...]
    """Every one with an id."""
    usage: Usage
    finish: Finish
    report: Reporting
    wire_usage: Mapping[str, Json] | None
    n: int
    chunks: int | None
    chunk_delay_ms: int

    def pieces(self) -> list[str]:
        """The text in the pieces a stream sends, at most `chunks` of them."""
        if self.chunks is None:
            return _WORDS.findall(self.text)
        return _slices(self.text, self.chunks)

    def argument_pieces(self, use: ToolUse) -> list[str]:
        """A tool call's argument text in two pieces, as providers break it anywhere."""
        return _slices(use.args_json, 2)


def make_reply(request: ProviderRequest, answer: Text | ToolCalls, *, served_model: str) -> Reply:
    """Decide everything that the answer leaves open. The same request number gives the same reply."""
    asked = tuple(answer.calls) if isinstance(answer, ToolCalls) else ()
    uses = tuple(
        use if use.id is not None else replace(use, id=f"call_{request.number}_{place}")
        for place, use in enumerate(asked, start=1)
    )
    usage = answer.usage or _counted(request, answer.text, uses)
    cap = None if request.max_tokens is None or answer.ignores_max_tokens else request.max_tokens * request.n
    text, finish = answer.text, "tools" if uses else "stop"
    if cap is not None and usage.output_tokens > cap:
        # A capped request for tools keeps its calls whole: half an argument helps no test.
        text = text[: len(text) * cap // usage.output_tokens]
        finish = finish if uses else "length"
        usage = _capped(usage, cap)
    return Reply(
        id=f"{request.number:06d}",
        model=served_model,
        text=text,
        tool_uses=uses,
        usage=usage,
        finish=_FINISH[finish],
        report=answer.report,
        wire_usage=answer.wire_usage,
        n=request.n,
        chunks=answer.chunks,
        chunk_delay_ms=answer.chunk_delay_ms,
    )


_FINISH: Mapping[str, Finish] = {"stop": "stop", "length": "length", "tools": "tools"}


def count_tokens(text: str) -> int:
    """Tokens of a text as this provider counts them: four UTF-8 bytes each, rounded up. Never above any sound bound."""
    return (len(text.encode("utf-8", "surrogatepass")) + 3) // 4


def input_tokens(request: ProviderRequest) -> int:
    """Tokens of a request as this provider counts them: texts, tool calls and schemas, and 3 a message."""
    texts = [*request.tools]
    for message in request.messages:
        texts.append(message.text)
        texts.extend(use.name + use.args_json for use in message.tool_uses)
    return sum(map(count_tokens, texts)) + 3 * len(request.messages)


def _counted(request: ProviderRequest, text: str, uses: tuple[ToolUse, ...]) -> Usage:
    output = count_tokens(text) + sum(count_tokens(use.name) + count_tokens(use.args_json) for use in uses)
    output = 0 if request.wire == "openai_embeddings" else max(output, 1) * request.n
    return Usage(input_tokens=input_tokens(request), output_tokens=output)


def _capped(usage: Usage, cap: int) -> Usage:
    reasoning = min(usage.reasoning_tokens, cap)
    audio = min(usage.output_audio_tokens, cap - reasoning)
    return replace(usage, output_tokens=cap, reasoning_tokens=reasoning, output_audio_tokens=audio)


def _slices(text: str, count: int) -> list[str]:
    count = max(min(count, len(text)), 1)
    bounds = [len(text) * place // count for place in range(count + 1)]
    return [text[start:end] for start, end in pairwise(bounds)]
