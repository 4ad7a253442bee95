"""
What has come of a streamed model call, as the callback hears it: token by token.

A callback cannot close a stream, and a stop is never raised at a token; so the hold grows with what came as long as
there is room for it, and what goes beyond is recorded in full when the call ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk

from runrails.calls import ModelResult
from runrails.growth import Growth
from runrails.tiers import served_tier
from runrails_langchain.messages import text_of

if TYPE_CHECKING:
    from runrails.calls import Permit
    from runrails.run import Run
    from runrails.usage import Usage

__all__ = ["Arriving", "settle_untold"]

_WIDE = 4
"""UTF-8 bytes of a character that is not ASCII, at most."""


class Arriving:
    """One call whose tokens are heard by one handler; another handler of the same guard hears the same ones."""

    __slots__ = ("_texts", "_tier", "floor_usage", "growth", "input_usage", "listener", "tokens")

    def __init__(self, run: Run, permit: Permit, listener: object) -> None:
        self.growth = Growth(run, permit)
        self.listener = listener
        self._texts: list[str] = []
        self._tier = permit.call.service_tier
        self.tokens = 0
        """The most that came, counted generously."""
        self.input_usage: Usage | None = None
        self.floor_usage: Usage | None = None

    def token(self, token: object, chunk: object) -> None:
        """One more has come."""
        text = token if isinstance(token, str) and token else _text(token, chunk)
        self._texts.append(text)
        self.tokens += len(text) if text.isascii() else _WIDE * len(text)
        if self.tokens > self.growth.tokens_max:
            self.growth.grow(self, closes=False)

    def cut(self, *, reasoning: bool) -> ModelResult:
        """What the call came to if no more will come."""
        tier = self._tier
        return ModelResult(
            end="cut", output_text=("".join(self._texts),), reasoning=reasoning, held_pusd=self.growth.held_pusd,
            tier=None if tier is None else served_tier({"service_tier": tier}),
        )  # fmt: skip


class _Entry(Protocol):
    permit: Permit | None
    arriving: Arriving | None
    reasoning: bool


def settle_untold(run: Run, entry: _Entry, *, over: bool = False) -> None:
    """A call whose end LangChain does not tell: where it is `over` for sure, what came is all; else nobody knows."""
    if entry.permit is None:
        return
    if over and entry.arriving is not None:
        run.after_model(entry.permit, entry.arriving.cut(reasoning=entry.reasoning))
    else:
        run.after_model(entry.permit, ModelResult(end="unknown"))


def _text(token: object, chunk: object) -> str:
    texts = text_of(token)
    message = chunk.message if isinstance(chunk, ChatGenerationChunk) else None
    if isinstance(message, AIMessageChunk):
        for part in message.tool_call_chunks:
            texts += [part["name"] or "", part["args"] or ""]
    return "".join(texts)
