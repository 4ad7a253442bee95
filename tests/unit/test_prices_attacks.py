"""Names and files that look right and are not: each is refused, none is priced by a guess or for nothing."""

from __future__ import annotations

import pytest

from runrails.errors import ConfigError, PriceUnknown
from runrails.pricing import Price, PriceBook
from runrails.pricing.cards import PriceCard
from runrails.pricing.project import parse_project

NOW_MS = 1_795_000_000_000
SHIPPED = PriceBook()


def _card(model: str, provider: str | None = None, *, book: PriceBook = SHIPPED) -> PriceCard:
    return book.card(model, provider=provider, now_ms=NOW_MS)


@pytest.mark.parametrize(
    "model", ["gpt-5-nano-prod", "o4-mini-x", "my-o4-mini", "claude-3-sonnet-mine", "deepseek-r1-x", "ft:gpt-4o-2024-x"]
)
def test_a_deployments_name_is_no_models_name(model: str) -> None:
    """On Azure people name their deployments as they like: a name that only begins like a model's is not priced."""
    with pytest.raises(PriceUnknown):
        _card(model, "azure")


@pytest.mark.parametrize(
    "model",
    ["gpt-5-nano", "gpt-4o-2024-08-06", "gpt-35-turbo", "o4-mini", "gpt-4", "gpt-5.1-chat", "claude-sonnet-4-5"],
)
def test_models_on_azure_have_their_price(model: str) -> None:
    """Names that the data knows in full stay priced."""
    assert 0 < _card(model, "azure").rates.input


@pytest.mark.parametrize(
    "model", ["gpt-4o-audio-preview", "gpt-4o-mini-audio-preview-2024-12-17", "openrouter:openai/gpt-audio"]
)
def test_a_model_that_speaks_is_not_priced_like_one_that_writes(model: str) -> None:
    """Audio costs many times what text does; a model of which only the price of text is known is refused."""
    with pytest.raises(PriceUnknown, match="audio"):
        _card(model)
    assert _card("gpt-audio").rates.input_audio > _card("gpt-audio").rates.input


def test_a_price_for_one_host_is_not_used_for_a_name_of_anothers() -> None:
    """What is free at home is not free where everybody else takes the name to be; saying the provider decides it."""
    book = PriceBook(overrides={"ollama:gpt-4o": "0"})
    with pytest.raises(PriceUnknown, match="openai"):
        _card("gpt-4o", book=book)
    assert [True, False] == [_card("gpt-4o", provider, book=book).free for provider in ("ollama", "openai")]
    assert _card("gpt-4o", book=PriceBook(overrides={"gpt-4o": "0", "ollama:gpt-4o": Price(call="1")})).free


def test_a_context_shorter_than_its_own_tier_is_not_believed() -> None:
    """Otherwise the bound would stop at 200,000 tokens, and the price for more than that would never be held."""
    card = _card("claude-sonnet-4-5")
    assert (None, 200_000) == (card.context_tokens_max, card.tiers[-1].above_tokens)


@pytest.mark.parametrize(
    "content",
    [
        b"x = " + b"[" * 100_000,
        b"x = " + b"9" * 5_000,
        b'[aliases]\nA = "gpt-4"\na = "gpt-4o"\n',
        b'[prices.m]\ninput = "1"\noutput = "1"\ncontext_tokens_max = 0\n',
    ],
)
def test_a_hostile_project_file_is_a_config_error(content: bytes) -> None:
    """Depth, digits, two aliases in one, a context of nothing (which would make every bound zero)."""
    with pytest.raises(ConfigError):
        PriceBook(project=parse_project(content))


def test_a_byte_order_mark_is_no_harm() -> None:
    """Some editors write one."""
    assert {"m": "0"} == parse_project(b'\xef\xbb\xbf[prices]\nm = "0"\n').prices
