"""What a fake provider is asked and what it answers: plain values, whatever the wire."""

from __future__ import annotations

import json
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping, Sequence

    from runrails.usage import Usage

__all__ = [
    "Answer",
    "Delay",
    "Error",
    "HangUp",
    "Json",
    "ProviderMessage",
    "ProviderRequest",
    "Reporting",
    "Stall",
    "Text",
    "ToolCalls",
    "ToolUse",
    "Wire",
]

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

Wire = Literal[
    "openai_chat", "openai_responses", "openai_embeddings", "anthropic", "bedrock", "bedrock_invoke", "in_process"
]
"""How a request came in; `in_process` is `FakeModel`, which needs no wire."""

Reporting = Literal["full", "none", "old", "running"]
"""
Whether an answer tells its usage: `full` as the wire's documentation says; `none` not at all (it is billed all the
same); `old` the older Anthropic stream form, whose message_delta carries output tokens only (`full` elsewhere);
`running` what was used so far in every chunk of a chat completion, as some servers have it (`full` elsewhere).
"""


@dataclass(frozen=True, slots=True)
class ToolUse:
    """One tool call. Arguments given as text go out as they are, well-formed or not."""

    name: str
    args: Mapping[str, Json] | str = field(default_factory=dict[str, Json], repr=False)
    id: str | None = None
    """None: the provider makes one up, different for every call."""

    @property
    def args_json(self) -> str:
        """The arguments as compact JSON text."""
        return self.args if isinstance(self.args, str) else json.dumps(self.args, separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderMessage:
    """A message of the request, in one form for all wires. A tool's result has the role `tool`."""

    role: str
    text: str = field(default="", repr=False)
    tool_uses: tuple[ToolUse, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderRequest:
    """A request as a script sees it. Its repr shows neither headers nor content."""

    wire: Wire
    path: str
    number: int
    """1 for the first request to an endpoint that can cost money, retries counted."""
    model: str
    messages: tuple[ProviderMessage, ...] = field(default=(), repr=False)
    tools: tuple[str, ...] = field(default=(), repr=False)
    """Every tool on offer, as the compact JSON that came in."""
    max_tokens: int | None = None
    n: int = 1
    stream: bool = False
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """Header names are in lower case."""
    body: Mapping[str, Json] = field(default_factory=dict[str, Json], repr=False)

    @property
    def last(self) -> ProviderMessage | None:
        """The newest message, or None."""
        return self.messages[-1] if self.messages else None


@dataclass(frozen=True, slots=True)
class Text:
    """
    An answer in words.

    `usage` is what is billed; left out, it is counted from the bytes, four to a token. It is capped at the request's
    max_tokens (and the text shortened) unless `ignores_max_tokens`.
    """

    text: str = field(repr=False)
    _: KW_ONLY
    usage: Usage | None = None
    report: Reporting = "full"
    wire_usage: Mapping[str, Json] | None = None
    """Reported instead of the truth, key for key as the wire has it, for instance to be malformed."""
    ignores_max_tokens: bool = False
    chunks: int | None = None
    """In how many pieces a stream sends the text; None: word by word."""
    chunk_delay_ms: int = 0
    """Pause before each piece of a stream."""


@dataclass(frozen=True, slots=True)
class ToolCalls:
    """An answer that asks for tools, all at once if there are several. The other fields are those of `Text`."""

    calls: Sequence[ToolUse]
    _: KW_ONLY
    text: str = field(default="", repr=False)
    usage: Usage | None = None
    report: Reporting = "full"
    wire_usage: Mapping[str, Json] | None = None
    ignores_max_tokens: bool = False
    chunks: int | None = None
    chunk_delay_ms: int = 0


@dataclass(frozen=True, slots=True)
class Error:
    """An error answer, in the wire's own shape. Free, unless `usage` says that it was billed."""

    status: int
    _: KW_ONLY
    code: str | None = None
    """OpenAI's `code`, Anthropic's error type, Bedrock's exception name; None: the usual one for the status."""
    message: str = "scripted error"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Delay:
    """
    Wait, then answer. A client that leaves meanwhile is billed for the whole of a plain answer, and for the input and
    the hidden reasoning of a stream.
    """

    ms: int
    then: Answer


@dataclass(frozen=True, slots=True)
class Stall:
    """
    Wait until a test sets the event (or the client leaves, or the provider closes), then go on; billed like `Delay`.

    With `after_chunks` a stream stalls after that many pieces; a client that leaves there is billed for those pieces.
    """

    until: threading.Event
    then: Answer = field(default_factory=lambda: Text("ok"))
    _: KW_ONLY
    after_chunks: int | None = None


@dataclass(frozen=True, slots=True)
class HangUp:
    """
    Close the connection: before the headers, or after some pieces of a stream (half-way through a plain body).

    What was generated is billed: everything before the headers and for a plain body, the pieces sent for a stream.
    """

    then: Answer = field(default_factory=lambda: Text("ok"))
    _: KW_ONLY
    after_chunks: int | None = None
    billed: bool = True
    error: Error | None = None
    """Said as an error event inside the stream before hanging up."""
    reset: bool = False
    """Reset the connection instead of closing it; what was sent and not read yet is lost with it."""


Answer = Text | ToolCalls | Error | Delay | Stall | HangUp
