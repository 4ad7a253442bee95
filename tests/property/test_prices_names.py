"""No model name, however mangled, is priced at nothing unless a person wrote 0."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runrails.errors import PriceUnknown
from runrails.pricing import Price, PriceBook, Term, cost_pusd, dearest_pusd
from runrails.pricing.snapshot import read_snapshot
from runrails.usage import Usage

SNAPSHOT = read_snapshot()
NAMES = sorted({model for provider in SNAPSHOT.provider_ids() for model in SNAPSHOT.model_ids(provider)})
PROVIDERS = [
    None, "", " ", *SNAPSHOT.provider_ids(), "azure_openai", "bedrock", "amazon_bedrock", "google_genai", "vertexai",
    "ollama", "vllm", "lm_studio", "huggingface_pipeline", "openai-compatible", "litellm_proxy", "my-gateway", "OPENAI",
]  # fmt: skip
ODD = [
    "\x00",
    "\u200b",
    "\ufeff",
    "ｇ",
    "а",
    "İ",
    "ß",
    "\n",
    "\ud800",
    ":",
    "/",
    "@",
    ".",
    "-",
    "::",
    "*",
    " ",
    "0",
    "free",
]
AFFIXES = [
    "us.", "eu.", "apac.", "us-gov.", "global.", "openai/", "openai:", "ollama/", "azure/eu/", "models/", "ft:",
    "bedrock/",
    "arn:aws:bedrock:sa-east-1::foundation-model/", "arn:aws:bedrock:us-east-1:1:application-inference-profile/",
    "projects/p/locations/l/publishers/google/models/", "sa-east-1/", "free/",
]  # fmt: skip
SUFFIXES = [
    ":free",
    "-free",
    ":0",
    "-v1:0",
    "-20260101",
    "@20250929",
    "-latest",
    "-audio",
    "-mini",
    ":extended",
    ":beta",
]
BOOKS = [
    PriceBook(),
    PriceBook(assume="dearest"),
    PriceBook(contract=[Term(percent="-99.999999")], overrides={"somebody:else": "0"}),
]
MOMENTS = st.integers(min_value=1_700_000_000_000, max_value=1_900_000_000_000)


@st.composite
def mangled(draw: st.DrawFn) -> str:
    """A real name, taken apart and put together wrongly."""
    name = draw(st.sampled_from(NAMES))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(name)))
        match draw(st.integers(0, 5)):
            case 0:
                name = name[:at] + draw(st.sampled_from(ODD)) + name[at:]
            case 1:
                name = name[:at] + name[at + 1 :]
            case 2:
                name = draw(st.sampled_from(AFFIXES)) + name
            case 3:
                name += draw(st.sampled_from(SUFFIXES))
            case 4:
                name = name.swapcase()
            case _:
                name = name[at:] + name[:at]
    return name


@given(name=mangled() | st.text(max_size=40), provider=st.sampled_from(PROVIDERS), now_ms=MOMENTS)
@example(name="deepseek/deepseek-r1:free", provider="openrouter", now_ms=1_795_000_000_000)
@example(name="gpt-9", provider=None, now_ms=1_795_000_000_000)
@example(name="claude-sonnet-4-20250514", provider="anthropic", now_ms=1_795_000_000_000)
@settings(max_examples=600, deadline=None)
def test_no_name_is_priced_at_nothing(name: str, provider: str | None, now_ms: int) -> None:
    """It is refused, or every kind of token on its card costs something, in every tier that has a price."""
    for book in BOOKS:
        try:
            card = book.card(name, provider=provider, now_ms=now_ms)
        except PriceUnknown:
            continue
        for each in (card, *card.service_tiers):
            assert not each.free
            for usage in (Usage(input_tokens=1), Usage(output_tokens=1)):
                assert cost_pusd(each, usage) > 0, (name, provider, each.model)
            assert dearest_pusd(each, input_tokens=1, output_tokens=1) > 0


@given(name=mangled(), provider=st.sampled_from(PROVIDERS))
@settings(max_examples=200, deadline=None)
def test_a_zero_holds_for_the_name_it_was_written_for(name: str, provider: str | None) -> None:
    """What is free under one name makes no other name free."""
    book = PriceBook(overrides={"ollama:llama-of-mine": "0", "paid": Price(call="1")})
    try:
        card = book.card(name, provider=provider, now_ms=1_795_000_000_000)
    except PriceUnknown:
        return
    assert not card.free


@pytest.mark.parametrize("model", ["gpt-4o", "llama-of-mine", "arn:aws:bedrock:us-east-1:1:custom-model/x", "a b", "ß"])
def test_a_zero_is_found_again(model: str) -> None:
    """A person may write 0 for whatever name."""
    assert PriceBook(overrides={model: "0"}).card(model, now_ms=0).free
