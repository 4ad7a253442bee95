"""Prices through the whole book: as genai-prices' data has them or refused with a reason; nothing is free unsaid."""

from __future__ import annotations

import random
import string
from collections import Counter

import pytest

pytest.importorskip("genai_prices", reason="the oracle is genai-prices")

import rr_sim_books as books
from rr_sim_books import Parts
from runrails.errors import PriceUnknown
from runrails.pricing import Price, PriceBook, Term, cost_pusd
from runrails.pricing.cards import PriceCard, fingerprint_of
from runrails.pricing.patches import read_patches
from runrails.pricing.snapshot import read_snapshot
from runrails.usage import Usage

SNAPSHOT = read_snapshot()
FIRST_MS, LAST_MS = 1_735_689_600_000, 1_830_000_000_000
"""2025 to the end of 2027."""
NOW_MS = 1_795_262_400_000  # 2026-11-21 12:00 UTC
SIZES = (0, 1, 199_999, 200_000, 200_001, 272_001, 900_000)
REASONS = (
    "the price data has no price for it", "its price for audio", "published sources disagree",
    "the price data has no such model", "Bedrock's price in the region", "it is priced by",
    "Bedrock's price for the geography",
)  # fmt: skip
"""Why a model of the data may have no price with us; each is told to whoever asks for it."""
KINDS = string.ascii_letters + string.digits + "-_./:@ \t\u200b\u00e9\u0430\uff47\u0130\u2126\U0001f600\x00\u202e*%#"
FORMS = (
    "{}", "openai:{}", "openai/{}", "anthropic:{}", "anthropic/{}", "azure:{}", "azure/{}", "azure/eu/{}", "bedrock:{}",
    "bedrock/us-east-1/{}", "us.anthropic.{}-v1:0", "eu.{}", "us-gov.{}", "anthropic.{}", "vertex_ai/{}", "vertexai:{}",
    "projects/p/locations/eu/publishers/anthropic/models/{}", "publishers/google/models/{}", "models/{}",
    "ft:{}:acme::x",
    "arn:aws:bedrock:eu-west-1:1:inference-profile/eu.{}", "arn:aws:bedrock:us-east-1::foundation-model/{}",
    "openrouter/{}:free", "{}:free", "{}-free", "{}@20250929", "{}-latest", "ollama/{}", "litellm_proxy/{}", "{}\n",
    "FREE:{}", "0:{}", "{}-2030-01-01",
)  # fmt: skip


def _parts(draw: random.Random, *, embeds: bool) -> Parts:
    total = draw.choice((draw.randrange(5_000), draw.choice(SIZES), draw.randrange(900_000)))
    first, second, third = sorted(draw.randrange(total + 1) for _ in range(3))
    output = 0 if embeds else draw.randrange(50_000)
    reasoning = draw.randrange(output + 1) if draw.random() < 0.5 else 0
    return Parts(total - third, first, second - first, third - second, 0, output - reasoning, reasoning)


def _usage(parts: Parts) -> Usage:
    return Usage(
        input_tokens=parts.entered, cache_read_tokens=parts.read, cache_write_5m_tokens=parts.write_5m,
        cache_write_1h_tokens=parts.write_1h, output_tokens=parts.left, reasoning_tokens=parts.reasoning,
    )  # fmt: skip


def test_the_book_says_what_the_data_says_or_why_it_refuses() -> None:
    """Two random usages of every model at random moments, and one in every service tier, by the name the data has."""
    from importlib.metadata import version

    if version("genai-prices") != SNAPSHOT.version:
        pytest.skip("another version of genai-prices is installed: its prices may rightly differ")
    draw, book, counts, reasons = random.Random(891), PriceBook(), Counter[str](), set[str]()
    for ask in books.catalogue():
        for at_ms in (draw.randrange(FIRST_MS, LAST_MS), draw.randrange(NOW_MS, LAST_MS)):
            try:
                card = book.card(ask.name, provider=ask.provider, now_ms=at_ms, region=ask.region)
            except PriceUnknown as exc:
                reasons.add(str(exc.fields["reason"]))
                counts["refused"] += 1
                continue
            assert ("patch" if ask.pinned else "snapshot") == card.source
            assert ask.pinned == "" or "litellm" in card.note
            for tier in ("", *books.tiers_of(ask, at_ms)):
                rates = books.published(ask, at_ms, tier)
                parts = _parts(draw, embeds="output" not in rates)
                in_tier = card.tier(tier)
                assert in_tier is not None, (ask, tier)
                assert books.cost_pusd(rates, parts) == cost_pusd(in_tier, _usage(parts)), (ask, at_ms, tier, parts)
                counts["pinned" if ask.pinned else "tier" if tier else "equal"] += 1
                exact = None if tier else books.theirs(ask, parts, at_ms)
                if exact is not None:
                    assert 0 <= cost_pusd(in_tier, _usage(parts)) - exact < 1, (ask, at_ms, parts)
                    counts["by their own calculator"] += 1
    assert [] == [why for why in reasons if not why.startswith(REASONS)]
    assert counts["equal"] >= 3_000 and counts["by their own calculator"] >= 3_000
    assert counts["pinned"] >= 200 and counts["tier"] >= 300, counts


def _mangled(name: str, draw: random.Random) -> str:
    name = draw.choice(FORMS).format(name) if draw.random() < 0.5 else name
    for _ in range(draw.randrange(4)):
        at = draw.randrange(len(name) + 1)
        match draw.randrange(6):
            case 0:
                name = name[:at] + draw.choice(KINDS) + name[at:]
            case 1:
                name = name[:at] + name[at + 1 :]
            case 2:
                name = name.swapcase()
            case 3:
                name = name[at:] + name[:at]
            case 4:
                name = f"{draw.choice(' 	')}{name}{draw.choice(' 	')}"
            case _:
                name = draw.choice(FORMS).format(name)
    return name


def test_ten_thousand_mangled_names_are_refused_or_cost_something() -> None:
    """With any provider beside them, in any case, form and alphabet: nothing is free, in no tier, for no token."""
    draw = random.Random(10_000)
    pairs = [(owner, model) for owner in SNAPSHOT.provider_ids() for model in SNAPSHOT.model_ids(owner)]
    hosts = [*SNAPSHOT.provider_ids(), "bedrock", "vertexai", "azure_openai", "ollama", "", "my-gateway"]
    book, found = PriceBook(), Counter[str]()
    for _ in range(10_000):
        owner, model = draw.choice(pairs)
        name, host = _mangled(model, draw), draw.choice((None, owner, owner, draw.choice(hosts)))
        try:
            card = book.card(name, provider=host, now_ms=draw.randrange(FIRST_MS, LAST_MS))
        except PriceUnknown:
            found["refused"] += 1
            continue
        found["priced"] += 1
        for each in (card, *card.service_tiers):
            least = min(cost_pusd(each, Usage(input_tokens=1)), cost_pusd(each, Usage(output_tokens=1)))
            assert least > 0, (name, host)
    assert min(found.values()) > 500, found


@pytest.mark.parametrize(("day_ms", "tiers"), [(1_790_000_000_000, False), (NOW_MS, True)])
def test_a_tier_that_begins_on_a_day_begins_then_under_a_contract_too(day_ms: int, tiers: bool) -> None:
    """The standard price does not change on that day, so nothing but the moment tells the two cards apart."""
    book = PriceBook(contract=[Term(provider="openai", percent="-10")])
    for at_ms in (1_790_000_000_000, NOW_MS, day_ms):
        card = book.card("gpt-6-sol", provider="openai", now_ms=at_ms)
    assert tiers == (card.tier("priority") is not None)
    plain = PriceBook().card("gpt-6-sol", provider="openai", now_ms=day_ms)
    assert [each.service_tier for each in plain.service_tiers] == [each.service_tier for each in card.service_tiers]


def test_every_fingerprint_is_that_of_its_text() -> None:
    """Of every model, pinned price and tier, at every time: else the ledger would not keep the rates."""
    patches = read_patches()
    cards: list[PriceCard] = []
    for owner in SNAPSHOT.provider_ids():
        for model in SNAPSHOT.model_ids(owner):
            schedule = SNAPSHOT.schedule(owner, model)
            for window in () if schedule is None else patches.with_tiers(owner, schedule).windows:
                cards += () if window.card is None else (window.card, *window.card.service_tiers)
    for name in patches.names("aws"):
        pinned = patches.find("aws", name, None)
        assert pinned is not None and pinned.windows[0].card is not None
        cards += (pinned.windows[0].card, *pinned.windows[0].card.service_tiers)
    assert len(cards) > 3_000
    assert [] == [card.model for card in cards if card.fingerprint != fingerprint_of(card.text())]


def test_what_a_person_wrote_is_free_and_nothing_near_it() -> None:
    """A zero for one name says nothing of another case's alphabet, another host or another version."""
    book = PriceBook(overrides={"ollama:llama3.1": "0", "mine": "0", "paid": Price(call="1")})
    assert book.card("ollama:llama3.1", now_ms=NOW_MS).free and book.card("MINE ", now_ms=NOW_MS).free
    for name, host in (
        ("llama3.1:free", "ollama"), ("llama3.1", "groq"), ("m\u0456ne", None), ("mine-2", None), ("gpt-4o", None),
        ("paid", None),
    ):  # fmt: skip
        try:
            assert not book.card(name, provider=host, now_ms=NOW_MS).free
        except PriceUnknown:
            continue
