"""The most a call can cost."""

from __future__ import annotations

import unicodedata

import pytest
import quicktok

from runrails import bounds
from runrails.bounds import (
    call_bound_pusd,
    image_tokens_max,
    input_tokens_bound,
    output_tokens_bound,
    text_tokens_bound,
)
from runrails.calls import ModelCall, Prompt
from runrails.errors import BoundUnknown
from runrails.money import usd
from runrails.pricing import Price, PriceBook, PriceCard

NOW_MS = 1_795_262_400_000  # 2026-11-21 12:00 UTC
GPT_4O = PriceBook().card("gpt-4o", now_ms=NOW_MS)

TEXTS = [
    "The quick brown fox jumps over the lazy dog. " * 20,
    "Die Größe überrascht Fußgänger. " * 20,
    "Съешь же ещё этих мягких французских булок. " * 20,
    "我们今天讨论的是大型语言模型的分词问题。" * 20,
    "これは日本語の文章です。カタカナもあります。" * 20,
    "한국어 문장은 어떻게 나뉘나요? " * 20,
    "ภาษาไทยไม่มีช่องว่างระหว่างคำ" * 20,
    "Η γρήγορη καφέ αλεπού πηδάει. " * 20,
    "שלום עולם, מה שלומך היום? " * 20,
    "مرحبا بالعالم كيف حالك اليوم؟ " * 20,
    "👩‍👩‍👧‍👦🏳️‍🌈🧑🏽‍🚀 " * 30,
    "def f(x):\n    return {k: v for k, v in x.items() if v is not None}\n" * 10,
    '{"id": "9f1c2d", "values": [1, 2.5, null, true], "text": "\\u00e9\\n"}' * 10,
    "3f786850e387550fdab836ed7e6dc881de23001b " * 20,
    "aGVsbG8gd29ybGQgdGhpcyBpcyBiYXNlNjQgZGF0YQ==" * 20,
    "0123456789" * 60,
    "a" * 2_000,
    " " * 500 + "\n" * 500 + "\t" * 100,
    "\ufdfa" * 50,
    "㏂㍿㌖½¾⅓ﬁﬂ" * 30,
    "\x00\x01\x7f\u200b\u2028\ufeff" * 30,
    "\U0001f9ff\U00020000\U0001d54f" * 50,
    "e\u0301a\u0308o\u0302" * 100,
    "<|endoftext|><|im_start|>" * 20,
    "\ud800\udfff" * 20,
]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_bytes_before_and_after_normalising_bound_the_text(text: str) -> None:
    """The larger of both sizes; a lone surrogate counts three bytes and does not raise."""
    plain = len(text.encode("utf-8", "surrogatepass"))
    normal = len(unicodedata.normalize("NFKC", text).encode("utf-8", "surrogatepass"))
    assert max(plain, normal) == text_tokens_bound([text])


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base", "llama3", "qwen3"])
def test_no_tokenizer_makes_more_tokens(name: str) -> None:
    """Four real vocabularies, on the text as it is and as a tokenizer that normalises would see it."""
    tokenizer = quicktok.get_encoding(name)
    for text in TEXTS[:-1]:
        for seen in (text, unicodedata.normalize("NFKC", text)):
            assert tokenizer.count(seen) <= text_tokens_bound([text])


def test_the_storys_normalising_trap() -> None:
    """Fifty times U+FDFA is 150 bytes and was 750 tokens; the bound is its 1,650 bytes after NFKC."""
    assert 1_650 == text_tokens_bound(["\ufdfa" * 50])


def test_a_prompt_is_bounded_by_all_its_parts() -> None:
    """Texts, framing of messages, tools and pictures add up."""
    prompt = Prompt(texts=("hello", "Größe"), messages=2, tools=('{"name":"f"}', "{}"), images=3)
    expected = 5 + 7 + 2 * 16 + 16 + (12 + 2 + 2 * 60 + 600) + 3 * 5_000
    assert expected == input_tokens_bound(prompt, provider="anthropic")


def test_an_empty_prompt_still_has_framing() -> None:
    """A caller that counts no messages is not bounded at zero."""
    assert 32 == input_tokens_bound(Prompt())


def test_tools_and_images_cost_nothing_where_there_are_none() -> None:
    """The hidden prompt for tools is only there with tools."""
    assert 1 + 32 == input_tokens_bound(Prompt(texts=("a",), messages=1))


def test_unbounded_content_is_refused_by_name() -> None:
    """A PDF may be any number of tokens, so the call cannot be reserved."""
    with pytest.raises(BoundUnknown, match="input_file") as caught:
        input_tokens_bound(Prompt(texts=("secret text",), unbounded="input_file"))
    assert "input_file" == caught.value.fields["content"]
    assert "secret" not in str(caught.value)


def test_the_context_window_caps_the_input() -> None:
    """More than the model takes is refused there."""
    prompt = Prompt(texts=("x" * 100_000,), messages=1)
    assert [8_192, 100_032] == [input_tokens_bound(prompt, context_tokens_max=8_192), input_tokens_bound(prompt)]


@pytest.mark.parametrize(
    ("provider", "model", "expected"),
    [
        ("anthropic", "claude-opus-5-5", 5_000),
        ("aws", "regional.anthropic.claude-opus-5-5", 5_000),
        ("google", "gemini-2.5-pro", 4_128),
        ("openai", "gpt-4o-mini", 48_169),
        ("", "somebody-elses", 48_169),
    ],
)
def test_a_picture_counts_as_the_providers_largest(provider: str, model: str, expected: int) -> None:
    """Its bytes say nothing about its tokens; an unknown provider gets the dearest of all."""
    assert expected == image_tokens_max(provider, model)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (ModelCall(model="m", max_tokens=100), 100),
        (ModelCall(model="m", max_tokens=20_000), 20_000),
        (ModelCall(model="m", max_tokens=10**9), 128_000),
        (ModelCall(model="m"), 16_384),
        (ModelCall(model="m", request_type="embedding"), 0),
        (ModelCall(model="m", max_tokens=5, request_type="agent"), 5),
    ],
)
def test_output_is_bounded_by_the_written_cap_else_by_the_model(call: ModelCall, expected: int) -> None:
    """A written cap counts as written, at most the context window."""
    assert expected == output_tokens_bound(call, GPT_4O, 10)


def test_without_any_cap_there_is_no_bound() -> None:
    """None, so that the caller decides what to do; never a guess."""
    card = PriceBook(overrides={"mine": Price(input="1", output="1")}).card("mine", now_ms=NOW_MS)
    assert None is output_tokens_bound(ModelCall(model="mine"), card, 10)
    assert 10**9 == output_tokens_bound(ModelCall(model="mine", max_tokens=10**9), card, 10)


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "10", float("nan")])
def test_a_senseless_cap_is_refused(bad: object) -> None:
    """A negative cap would bound the cost below zero."""
    with pytest.raises(BoundUnknown, match="cap on output"):
        output_tokens_bound(ModelCall(model="m", max_tokens=bad), GPT_4O, 10)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [0, -1, 129, True, 1.0])
def test_a_senseless_number_of_answers_is_refused(bad: object) -> None:
    """n multiplies the bound, so it must be a small whole number."""
    with pytest.raises(BoundUnknown, match="number of answers"):
        output_tokens_bound(ModelCall(model="m", n=bad), GPT_4O, 10)  # type: ignore[arg-type]


def _card(**rates: str) -> PriceCard:
    return PriceBook(overrides={"m": Price(**rates)}).card("m", now_ms=NOW_MS)  # type: ignore[arg-type]


def test_answers_multiply_output_and_not_input() -> None:
    """The prompt is billed once."""
    assert usd("0.0025") + 3 * usd("0.001") == call_bound_pusd(GPT_4O, input_tokens=1_000, output_tokens=100, n=3)


def test_cache_writes_are_bounded_at_the_dearest_write() -> None:
    """Only where the request may write the cache."""
    claude = PriceBook().card("claude-opus-5-5", now_ms=NOW_MS)
    plain, write = (
        call_bound_pusd(claude, input_tokens=1_000_000, output_tokens=0, cache_write=w) for w in (False, True)
    )
    assert (usd(4), usd(8)) == (plain, write)


def test_a_cache_that_is_written_unasked_is_always_bounded() -> None:
    """OpenAI bills cache writes of its newer models although no request asks for them."""
    card = PriceBook().card("gpt-6-sol", now_ms=NOW_MS)
    assert 100_000 * 2_500_000 == call_bound_pusd(card, input_tokens=100_000, output_tokens=0)


def test_the_tier_that_the_bound_reaches_applies() -> None:
    """One token above the cliff the whole request is dearer."""
    card = PriceBook().card("gpt-5.4", now_ms=NOW_MS)
    below, above = (call_bound_pusd(card, input_tokens=tokens, output_tokens=10) for tokens in (272_000, 272_001))
    assert (272_000 * 2_500_000 + 10 * 15_000_000, 272_001 * 5_000_000 + 10 * 22_500_000) == (below, above)


def test_a_tier_that_is_cheaper_does_not_lower_the_bound() -> None:
    """The true input may lie below the cliff."""
    from runrails.pricing.cards import make_card

    card = make_card(
        provider="p",
        model="m",
        source="run",
        base={"input": (10, 1), "output": (10, 1)},
        tiers={100: {"input": (1, 1), "output": (1, 1)}},
    )
    assert 2_000 == call_bound_pusd(card, input_tokens=150, output_tokens=50)


def test_a_flat_price_is_its_own_bound() -> None:
    """Tokens of a flat price cost nothing beside it."""
    assert usd("3.20") == call_bound_pusd(_card(call="3.20"), input_tokens=10**6, output_tokens=10**6)


def test_the_gpt_4_ceiling_of_the_story() -> None:
    """A whole gpt-4 call of 4,096 tokens in and 4,096 out costs at most $0.36864."""
    card = PriceBook().card("openai:gpt-4", now_ms=NOW_MS)
    assert usd("0.36864") == call_bound_pusd(card, input_tokens=4_096, output_tokens=4_096)
    assert 4_096 == output_tokens_bound(ModelCall(model="gpt-4"), card, 0)


def test_framing_is_generous() -> None:
    """The constants stay above what was measured: 5 tokens a message, 53 a tool, 549 for the tools as a whole."""
    assert bounds.MESSAGE_TOKENS_MAX >= 5
    assert bounds.TOOL_TOKENS_MAX >= 53
    assert bounds.TOOLS_TOKENS_MAX >= 549
