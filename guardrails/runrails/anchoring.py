"""
The input bound of a call that continues a conversation: what the provider counted last time, and what is new since.

Most of a prompt was in the call before, and the provider has said how many tokens that was. If a prompt's texts begin
with exactly those of a call that ended, with the same model, tools and pictures, only what was added has to be bounded.
Nothing of a text is kept: hashes, which Python makes anew for every process, and counts.

What is bounded is watched: a provider that reports more input than that gets a margin, which never shrinks again.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from runrails.bounds import MESSAGE_TOKENS_MAX, image_tokens_max, input_tokens_bound, prompt_text_bound
from runrails.money import ceil_div

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runrails.calls import ModelCall, Prompt
    from runrails.pricing.cards import PriceCard

__all__ = [
    "PLAIN_BP", "SLACK_TOKENS", "Anchor", "Anchors", "Margins", "anchor_of", "extends", "input_bound",
    "new_tokens_bound",
]  # fmt: skip

PLAIN_BP = 10_000
"""The margin of a model whose input was never underestimated: none."""
MARGIN_BP_MAX = 1_000_000
HEADROOM_BP = 11_000
"""An underestimate is followed by a bound so much above what would have been enough."""
SLACK_TOKENS = 16
"""What a provider may add to a longer conversation of its own."""
REPLY_TOKENS_MAX = 16
"""Framing of each part of an answer that is sent back: what it says, and the name, id and arguments of its calls."""
CHARS_A_TOKEN_MAX = 8
"""A reported input with more characters a token than that cannot be all of it, so nothing is built on it."""
ANCHORS_A_CALLER = 8
CALLERS_MAX = 64
MODELS_MAX = 1_024


class Anchor(NamedTuple):
    """What is remembered of a call that ended."""

    texts: int
    """How many texts its prompt had."""
    digest: int
    """Hash of them."""
    chars: int
    messages: int
    images: int
    pictures: int
    """Hash of what the pictures are."""
    setting: int
    """Hash of the tools and of what else decides the hidden prompt."""
    input_tokens: int
    """What the provider reported, cached or not."""
    reply: tuple[int, int, int] | None = None
    """How many texts the answer is, their hash, and its reported output tokens."""


_Caller = tuple[str, str, str]
"""Path of the agent, provider, model."""


def anchor_of(
    prompt: Prompt, input_tokens: int, *, output_tokens: int = 0, answer: Sequence[str] | None = None,
    before: Anchor | None = None,
) -> Anchor | None:  # fmt: skip
    """
    What to remember of a call; None if nothing can be built on it.

    Args:
        prompt: What was sent.
        input_tokens: What the provider reported of it, cached tokens included.
        output_tokens: What it reported of the answer.
        answer: The answer's texts as a next request would send them back, if the adapter can tell.
        before: What it extends, if that is known: so much of it has been counted already.
    """
    if prompt.unbounded is not None or prompt.stored is not None:
        return None
    texts = prompt.texts
    chars = sum(map(len, texts)) if before is None else before.chars + sum(map(len, texts[before.texts :]))
    if not texts or input_tokens <= 0 or input_tokens * CHARS_A_TOKEN_MAX < chars:
        return None
    reply = None
    if answer and output_tokens > 0:
        said = tuple(answer)
        reply = (len(said), hash(said), output_tokens)
    pictures = hash(prompt.pictures) if prompt.images else 0
    return Anchor(
        len(texts), hash(texts), chars, prompt.messages, prompt.images, pictures, hash((prompt.tools, prompt.mode)),
        input_tokens, reply,
    )  # fmt: skip


def extends(prompt: Prompt, anchor: Anchor) -> bool:
    """Whether a prompt begins with exactly what the anchor's call had sent."""
    texts, count = prompt.texts, anchor.texts
    if len(texts) < count or prompt.messages < anchor.messages or prompt.images < anchor.images:
        return False
    if prompt.unbounded is not None or prompt.stored is not None:
        return False
    if hash(texts[:count]) != anchor.digest:
        return False
    if hash((prompt.tools, prompt.mode)) != anchor.setting:
        return False
    if not anchor.images:
        return True
    pictures = prompt.pictures
    # A picture that nobody can tell from another may have been replaced by a larger one.
    return len(pictures) == prompt.images and hash(pictures[: anchor.images]) == anchor.pictures


def new_tokens_bound(prompt: Prompt, anchor: Anchor, *, provider: str = "", model: str = "") -> int:
    """The most tokens that a prompt which extends the anchor's can have more."""
    fresh = prompt.texts[anchor.texts :]
    total = SLACK_TOKENS + MESSAGE_TOKENS_MAX * (prompt.messages - anchor.messages)
    if anchor.reply is not None:
        count, digest, tokens = anchor.reply
        said = fresh[:count]
        if hash(said) == digest:
            fresh = fresh[count:]
            total += min(prompt_text_bound(said, provider, model), tokens + REPLY_TOKENS_MAX * count)
    total += prompt_text_bound(fresh, provider, model)
    images = prompt.images - anchor.images
    return total + images * image_tokens_max(provider, model) if images else total


class Anchors:
    """What one run remembers of its calls. Thread-safe: what is kept is replaced as a whole."""

    __slots__ = ("kept",)

    def __init__(self) -> None:
        self.kept: dict[_Caller, tuple[Anchor, ...]] = {}
        """The newest of each caller first."""

    def find(self, call: ModelCall, card: PriceCard) -> Anchor | None:
        """The newest call that this one continues, with the longest prompt; None if it continues none."""
        if not self.kept:
            return None
        best: Anchor | None = None
        for anchor in self.kept.get((call.agent, card.provider, call.model), ()):
            if (best is None or anchor.texts > best.texts) and extends(call.prompt, anchor):
                best = anchor
        return best

    def keep(self, call: ModelCall, card: PriceCard, anchor: Anchor) -> None:
        """Remember a call that ended; the oldest of its caller's is forgotten for it."""
        caller = (call.agent, card.provider, call.model)
        kept = self.kept.get(caller)
        if kept is None:
            if len(self.kept) >= CALLERS_MAX:
                self.kept.pop(next(iter(self.kept)), None)
            kept = ()
        others = [one for one in kept if one.digest != anchor.digest or one.setting != anchor.setting]
        self.kept[caller] = (anchor, *others[: ANCHORS_A_CALLER - 1])

    def drop(self, call: ModelCall, card: PriceCard) -> None:
        """Forget everything of a model whose input was underestimated, whoever of the run called it."""
        self.kept = {
            caller: kept for caller, kept in tuple(self.kept.items()) if caller[1:] != (card.provider, call.model)
        }


class Margins:
    """By how much the input bounds of a guard's models are widened. Thread-safe; nothing shrinks while it lives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bp: dict[tuple[str, str], int] = {}
        self.any = False
        """Whether any model has one."""

    def of(self, provider: str, model: str) -> int:
        """The factor for a model, in basis points; 10,000 for one that was never underestimated."""
        return self._bp.get((provider, model), PLAIN_BP) if self._bp else PLAIN_BP

    def widen(self, provider: str, model: str, *, predicted: int, actual: int, had_bp: int = PLAIN_BP) -> int:
        """An input was larger than its bound, made with `had_bp`: let the next be enough for that, and a tenth more."""
        key = (provider, model)
        enough = ceil_div(had_bp * actual, max(predicted, 1))
        wanted = min(MARGIN_BP_MAX, ceil_div(enough * HEADROOM_BP, PLAIN_BP))
        with self._lock:
            margin = max(self._bp.get(key, PLAIN_BP), wanted)
            if key in self._bp or len(self._bp) < MODELS_MAX:
                self._bp[key] = margin
                self.any = True
            return margin


def input_bound(call: ModelCall, card: PriceCard, anchor: Anchor | None = None, margin_bp: int = PLAIN_BP) -> int:
    """
    The most input tokens that a call can have.

    Args:
        call: The call; its prompt extends the anchor's.
        card: Its model's price card, which knows the provider and the context.
        anchor: The call that it continues, if there is one.
        margin_bp: The margin of the model.

    Raises:
        BoundUnknown: The prompt has content whose size cannot be told.
    """
    if anchor is None:
        whole = input_tokens_bound(
            call.prompt, provider=card.provider, model=card.model, context_tokens_max=card.context_tokens_max
        )
    else:
        whole = anchor.input_tokens + new_tokens_bound(call.prompt, anchor, provider=card.provider, model=card.model)
        if card.context_tokens_max is not None:
            whole = min(whole, card.context_tokens_max)
    # A model that was underestimated may take more than its card says.
    return whole if margin_bp == PLAIN_BP else ceil_div(whole * margin_bp, PLAIN_BP)
