"""
The most a call can cost, told before it starts and without a tokenizer.

No byte-pair tokenizer makes more tokens than its text has bytes. Some normalise the text first (NFKC: one character of
three bytes can become 18), so the bound is the larger of the bytes before and after. `runrails.textbound` says what of
a longer prompt is known to take less, and `runrails.exactcount` counts it if it can; `runrails.anchoring` bounds only
what is new since the call before.

Sources: measured over 25 languages and formats with seven tokenizers; image constants are the vendors' documented
maxima for one picture of any size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.errors import BoundUnknown
from runrails.pricing.cards import PriceCard, dearest_pusd
from runrails.textbound import SHORT_CHARS, bytes_bound, long_bound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from runrails.calls import ModelCall, Prompt
    from runrails.money import PicoUSD

    _Counting = Callable[[tuple[str, ...], str, str], int | None]

__all__ = [
    "call_bound_pusd", "image_tokens_max", "input_tokens_bound", "output_tokens_bound", "output_within",
    "prompt_text_bound", "text_tokens_bound",
]  # fmt: skip

MESSAGE_TOKENS_MAX = 16
"""Framing of one message (role, separators): providers document 3 to 5."""
REPLY_TOKENS_MAX = 16
"""Framing of the request as a whole."""
TOOL_TOKENS_MAX = 60
"""Framing of one tool on top of its schema; 53 measured at most."""
TOOLS_TOKENS_MAX = 600
"""The hidden prompt that teaches the use of tools; 549 measured at most."""
ANSWERS_MAX = 128
"""Most answers that one request may ask for, as OpenAI documents it."""

_IMAGE_TOKENS_MAX = {
    "anthropic": 5_000,  # pictures up to 2,576 pixels from Opus 4.7 on; about 1,600 before
    "google": 4_128,  # 16 tiles of 258
    "mistral": 4_288,  # 64 by 64 patches with a break after every row, rounded up
    "x-ai": 1_792,  # 7 tiles of 256
}
_ANY_IMAGE_TOKENS_MAX = 48_169
"""gpt-4o-mini: 2,833 and 5,667 for each of 8 tiles, the dearest documented picture of any provider."""


_counting: list[_Counting] = []


def text_tokens_bound(texts: Iterable[str]) -> int:
    """The most tokens that texts of any origin can be, in whatever tokens a model has written them: their bytes."""
    total = 0
    for text in texts:
        total += len(text) if text.isascii() else bytes_bound(text)
    return total


def prompt_text_bound(texts: tuple[str, ...], provider: str = "", model: str = "") -> int:
    """The most tokens that the texts of a prompt can be to a model, as its tokenizer splits them."""
    if sum(map(len, texts)) <= SHORT_CHARS:
        return text_tokens_bound(texts)
    count = (_counting[0] if _counting else _learn_to_count())(texts, provider, model)
    return long_bound(texts) if count is None else count


def _learn_to_count() -> _Counting:
    from runrails.exactcount import counted  # at the first long prompt: its patterns take a while to compile

    _counting.append(counted)
    return counted


def input_tokens_bound(
    prompt: Prompt, *, provider: str = "", model: str = "", context_tokens_max: int | None = None
) -> int:
    """
    The most input tokens that the prompt can be.

    Args:
        prompt: What will be sent.
        provider: Whose model it is, as on its price card; decides what a picture can cost.
        model: The model's name; decides the same for models on somebody else's platform.
        context_tokens_max: The largest input the model takes, if known; a longer one is refused there, free of charge.

    Raises:
        BoundUnknown: The prompt has content whose size cannot be told.
    """
    if prompt.unbounded is not None:
        raise BoundUnknown(
            f"The prompt contains {prompt.unbounded}, and how many tokens that becomes cannot be told beforehand.",
            next_step="Leave it out of guarded calls, or send its text instead if it is content.",
            content=prompt.unbounded,
        )
    if prompt.stored is not None and prompt.stored_tokens is None:
        if context_tokens_max is not None:
            return context_tokens_max
        raise BoundUnknown(
            f"The request refers to {prompt.stored}, whose size is known to the provider alone.",
            next_step="Send the messages themselves, or write Price(context_tokens_max=…) for the model.",
            content=prompt.stored,
        )
    total = prompt_text_bound(prompt.texts, provider, model)
    total += MESSAGE_TOKENS_MAX * max(prompt.messages, 1) + REPLY_TOKENS_MAX
    if prompt.tools:
        total += text_tokens_bound(prompt.tools) + TOOL_TOKENS_MAX * len(prompt.tools) + TOOLS_TOKENS_MAX
    if prompt.images:
        total += prompt.images * image_tokens_max(provider, model)
    if prompt.stored_tokens:
        total += prompt.stored_tokens
    return total if context_tokens_max is None else min(total, context_tokens_max)


def image_tokens_max(provider: str, model: str = "") -> int:
    """The most tokens that one picture of any size can be."""
    if "claude" in model:
        return _IMAGE_TOKENS_MAX["anthropic"]
    if "gemini" in model:
        return _IMAGE_TOKENS_MAX["google"]
    return _IMAGE_TOKENS_MAX.get(provider, _ANY_IMAGE_TOKENS_MAX)


def output_tokens_bound(call: ModelCall, card: PriceCard, input_tokens: int) -> int | None:
    """
    The most output tokens of one answer, reasoning included; None if neither the request nor the model has a cap.

    Args:
        call: The request.
        card: The model's price card, which knows its limits.
        input_tokens: The bound of the input; it is no help here, as the truth may be much smaller.

    Raises:
        BoundUnknown: The cap or the number of answers in the request makes no sense.
    """
    del input_tokens
    if not (call.n == 1 and type(call.n) is int and (call.max_tokens is None or type(call.max_tokens) is int)) or (
        call.max_tokens is not None and call.max_tokens < 1
    ):
        _check_counts(call)
    if call.request_type == "embedding":
        return 0
    # A written cap is taken at its word: tables of model limits are second-hand, and too low a one would overshoot.
    limit = card.output_tokens_max if call.max_tokens is None else call.max_tokens
    if limit is None or card.context_tokens_max is None:
        return limit
    return min(limit, max(card.context_tokens_max, card.output_tokens_max or 0))


def call_bound_pusd(
    card: PriceCard,
    *,
    input_tokens: int,
    output_tokens: int,
    n: int = 1,
    cache_write: bool = False,
    service_tier: str | None = None,
) -> PicoUSD:
    """
    The most the call can cost.

    Args:
        card: The prices.
        input_tokens: Bound of the input; sent once, however many answers are asked for.
        output_tokens: Bound of one answer.
        n: How many answers are asked for.
        cache_write: Whether the request may write the provider's prompt cache.
        service_tier: The service tier the request names, if it names one.

    Raises:
        PriceUnknown: That tier has no price.
    """
    # Audio in a prompt is refused as unbounded, so its rate, ten times that of text, need not be held.
    return dearest_pusd(
        card, input_tokens=input_tokens, output_tokens=output_tokens * n, cache_write=cache_write, input_audio=False,
        service_tier=service_tier,
    )  # fmt: skip


def output_within(amount_pusd: PicoUSD, cost: Callable[[int], PicoUSD], *, floor: int, ceiling: int) -> int | None:
    """
    The largest output in tokens whose bound is not above an amount; None if not even `floor` fits.

    Args:
        amount_pusd: What is left.
        cost: Bound of the call for an output of so many tokens; never falls as they rise.
        floor: The least output worth starting the call for.
        ceiling: The most that is wanted.
    """
    if cost(floor) > amount_pusd:
        return None
    low, high = floor, max(floor, ceiling)
    while low < high:
        middle = (low + high + 1) // 2
        if cost(middle) <= amount_pusd:
            low = middle
        else:
            high = middle - 1
    return low


def _check_counts(call: ModelCall) -> None:
    cap: object = call.max_tokens
    if cap is not None and (type(cap) is not int or cap < 1):
        raise BoundUnknown(
            "The request's cap on output tokens is not a whole number above zero.",
            next_step="Set max_tokens to a positive whole number, or leave it out.",
        )
    answers: object = call.n
    if type(answers) is not int or not 1 <= answers <= ANSWERS_MAX:
        raise BoundUnknown(
            f"The request asks for a number of answers that is not a whole number from 1 to {ANSWERS_MAX}.",
            next_step="Set n to such a number.",
        )
