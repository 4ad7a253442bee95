"""Whatever a conversation says and however it is parted: no bound is below the truth."""

from __future__ import annotations

from itertools import pairwise

import quicktok
from hypothesis import given, settings
from hypothesis import strategies as st

from runrails.anchoring import anchor_of, extends, input_bound
from runrails.bounds import MESSAGE_TOKENS_MAX, SHORT_CHARS, text_tokens_bound
from runrails.calls import ModelCall, Prompt
from runrails.pricing import Price, PriceBook
from runrails.textbound import bytes_bound, text_bound

NOW_MS = 1_795_262_400_000  # 2026-11-21 12:00 UTC
TOKENIZERS = {name: quicktok.get_encoding(name) for name in ("o200k_base", "cl100k_base", "llama3", "qwen3")}
BOOK = PriceBook(overrides={"openai:gpt-4o": Price(input="1", output="1"), "m": Price(input="1", output="1")})

CHUNKS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            "the status of ",
            "return self.value",
            "\n\n",
            "    ",
            "заказ ",
            "一个文件",
            "ありがとう",
            "가나다",
            "zqzq",
            "1234",
        ]
    ),
    st.text(alphabet="abcdeilmnoprstuy zqxjvk'_-.", max_size=40),
).flatmap(lambda text: st.integers(1, 12).map(lambda times: text * times))
TEXT = st.lists(CHUNKS, min_size=1, max_size=12).map("".join)


def truth(text: str) -> int:
    """The most tokens that any of the tokenizers makes of it."""
    return max(tokenizer.count(text) for tokenizer in TOKENIZERS.values())


@settings(max_examples=150, deadline=None)
@given(TEXT, st.lists(st.integers(0, 400), max_size=6))
def test_any_text_in_any_split(text: str, cuts: list[int]) -> None:
    """Parted anywhere, joined again by the provider or not."""
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    texts = tuple(text[start:end] for start, end in pairwise(places)) or ("",)
    bound = text_bound(texts)
    assert bound >= truth(text)
    assert bound >= max(sum(map(tokenizer.count, texts)) for tokenizer in TOKENIZERS.values())
    assert bound <= sum(map(bytes_bound, texts))
    assert text_tokens_bound(texts) == sum(map(bytes_bound, texts))


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXT, min_size=2, max_size=8), st.integers(1, 7), st.sampled_from(["m", "gpt-4o"]))
def test_anchored_is_never_below_the_truth_nor_far_above_the_whole(said: list[str], known: int, model: str) -> None:
    """
    Whatever was counted before, it counts with what is new; and it is no looser than the bound without it, but that
    little text is bounded by its bytes where a longer one is counted.
    """
    provider = "openai" if model == "gpt-4o" else ""
    card = BOOK.card(model, provider=provider or None, now_ms=NOW_MS)
    tokenizer = TOKENIZERS["o200k_base"]
    first = Prompt(texts=tuple(said[: min(known, len(said) - 1)]), messages=min(known, len(said) - 1))
    whole = Prompt(texts=tuple(said), messages=len(said))
    counted = [sum(map(tokenizer.count, prompt.texts)) + 4 * prompt.messages + 3 for prompt in (first, whole)]
    anchor = anchor_of(first, counted[0])
    if anchor is None:  # hardly a token for many characters
        return
    assert extends(whole, anchor)
    call = ModelCall(model=model, provider=provider or None, prompt=whole)
    anchored, plain = input_bound(call, card, anchor), input_bound(call, card)
    assert anchored >= counted[1]
    assert plain >= counted[1]
    fresh = said[first.messages :]
    short = sum(map(len, fresh)) <= SHORT_CHARS
    by_bytes = counted[0] + text_tokens_bound(fresh) + MESSAGE_TOKENS_MAX * len(fresh) if short else 0
    assert anchored <= max(plain, by_bytes) + 16 + 256
