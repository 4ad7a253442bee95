"""The compiled cards against the calculator of the package their data comes from."""

from __future__ import annotations

import random
import zlib
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from runrails.money import PUSD_PER_USD
from runrails.pricing import cost_pusd
from runrails.pricing.cards import PriceCard
from runrails.pricing.snapshot import read_snapshot
from runrails.usage import Usage

genai = pytest.importorskip("genai_prices", reason="the oracle is genai-prices")
genai_data = pytest.importorskip("genai_prices.data", reason="the oracle is genai-prices")
SNAPSHOT = read_snapshot()
THRESHOLDS = (0, 1, 100_000, 128_000, 199_999, 200_000, 200_001, 256_000, 272_000, 272_001, 512_001, 1_000_000)
MODELS = [(provider, model) for provider in SNAPSHOT.provider_ids() for model in SNAPSHOT.model_ids(provider)]
DATED = [pair for pair in MODELS if (schedule := SNAPSHOT.schedule(*pair)) is not None and len(schedule.windows) > 1]


@pytest.fixture(scope="module", autouse=True)
def _same_data() -> None:
    from importlib.metadata import version

    if version("genai-prices") != SNAPSHOT.version:
        pytest.skip("another version of genai-prices is installed: its prices may rightly differ")


def _contexts(provider: str, model: str) -> dict[str, dict[str, str]]:
    own = next(p for p in genai_data.providers if p.id == provider)
    info = next(m for m in own.models if m.id == model)
    found: dict[str, dict[str, str]] = {}
    for variant in info.price_variants or ():
        ((key, value),) = variant.when.items()
        found[value if key in {"processing", "service_tier", "speed"} else f"{key}={value}"] = {key: value}
    return found


def _usage(rng: random.Random) -> Usage:
    total = rng.choice([rng.randrange(5_000), rng.choice(THRESHOLDS), rng.randrange(900_000)])
    parts = sorted(rng.randrange(total + 1) for _ in range(4)) if rng.random() < 0.8 else [0, 0, 0, 0]
    output = rng.randrange(50_000)
    reasoning = rng.randrange(output + 1) if rng.random() < 0.5 else 0
    drawn = rng.randrange(output - reasoning + 1) if rng.random() < 0.5 else 0
    # Two kinds of input never overlap here: the oracle refuses cached audio that is not spelled out.
    return Usage(
        input_tokens=total,
        cache_read_tokens=parts[0],
        cache_write_5m_tokens=parts[1] - parts[0],
        cache_write_1h_tokens=parts[2] - parts[1],
        input_audio_tokens=parts[3] - parts[2] if rng.random() < 0.3 else 0,
        output_tokens=output,
        reasoning_tokens=reasoning,
        output_audio_tokens=rng.randrange(output - reasoning - drawn + 1) if rng.random() < 0.3 else 0,
        input_image_tokens=rng.randrange(total - parts[3] + 1) if rng.random() < 0.3 else 0,
        output_image_tokens=drawn,
        web_searches=rng.randrange(9) if rng.random() < 0.2 else 0,
    )


def _oracle(provider: str, model: str, usage: Usage, now_ms: int, context: dict[str, str] | None = None) -> Decimal:
    own = next(p for p in genai_data.providers if p.id == provider)
    info = next(m for m in own.models if m.id == model)
    asked = genai.Usage(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_5m_tokens=usage.cache_write_5m_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        input_audio_tokens=usage.input_audio_tokens,
        cache_audio_read_tokens=usage.cache_read_audio_tokens,
        output_tokens=usage.output_tokens,
        output_reasoning_tokens=usage.reasoning_tokens,
        output_audio_tokens=usage.output_audio_tokens,
        input_image_tokens=usage.input_image_tokens,
        output_image_tokens=usage.output_image_tokens,
        cache_image_read_tokens=usage.cache_read_image_tokens,
        web_searches=usage.web_searches,
    )
    when = datetime.fromtimestamp(now_ms / 1_000, tz=UTC)
    return info.calc_price(asked, own, genai_request_timestamp=when, price_context=context).total_price


def _agrees(
    card: PriceCard, provider: str, model: str, usage: Usage, now_ms: int, context: dict[str, str] | None = None
) -> bool:
    # Where a rate is no whole number of picodollars our cost is the exact one rounded up, once.
    exact = _oracle(provider, model, usage, now_ms, context) * PUSD_PER_USD
    cost = cost_pusd(card, usage)
    return cost == exact if card.denominator == 1 else 0 <= cost - exact < 1


def _check(provider: str, model: str, rng: random.Random, first_ms: int = 1_735_689_600_000) -> bool:
    now_ms = rng.randrange(first_ms, 1_830_000_000_000)  # 2025 to the end of 2027
    schedule = SNAPSHOT.schedule(provider, model)
    card = None if schedule is None else schedule.at(now_ms)
    if card is None:
        return False
    usage = _fitting(card, _usage(rng))
    assert _agrees(card, provider, model, usage, now_ms), (provider, model, now_ms, usage)
    for tier, context in _contexts(provider, model).items():
        in_tier = card.tier(tier)
        if in_tier is not None and in_tier is not card:
            usage = _fitting(in_tier, _usage(rng))
            assert _agrees(in_tier, provider, model, usage, now_ms, context), (provider, model, tier, now_ms, usage)
    return True


def _fitting(card: PriceCard, usage: Usage) -> Usage:
    """The usage without what we price otherwise than the oracle, each for its reason."""
    if card.output_tokens_max == 0:  # embeddings: the oracle has no price for output, ours is that of input
        usage = Usage(input_tokens=usage.input_tokens, cache_read_tokens=usage.cache_read_tokens)
    if card.uses.web_search is None:  # a search without a price costs nothing there, and is refused here
        usage = replace(usage, web_searches=0)
    if card.rates.output_image > card.rates.output and not usage.output_image_tokens:
        # Output of a model that draws, whose parts nobody told: text there, a picture here.
        usage = replace(usage, output_tokens=0, reasoning_tokens=0, output_audio_tokens=0)
    return usage


def test_every_model_costs_what_the_oracle_says() -> None:
    """Every model of every provider, at random moments, twice, the second time in every service tier."""
    rng = random.Random(20_261_121)
    for first_ms in (1_735_689_600_000, 1_795_262_400_000):
        assert sum(_check(provider, model, rng, first_ms) for provider, model in MODELS) > 2_000


def test_every_tier_of_the_oracle_is_ours() -> None:
    """None is lost on the way, and before the day it is published from there is no price for it."""
    now_ms, before_ms = 1_795_262_400_000, 1_790_000_000_000  # 21 November and 21 September 2026
    missing, known = [], 0
    for provider, model in MODELS:
        schedule = SNAPSHOT.schedule(provider, model)
        card = None if schedule is None else schedule.at(now_ms)
        if schedule is None or card is None:
            continue
        tiers = [tier for tier in _contexts(provider, model) if tier != "default"]
        known += len(tiers)
        missing += [f"{provider}:{model} {tier}" for tier in tiers if card.tier(tier) is None]
        own = schedule.at(before_ms)
        dated = next(m for p in genai_data.providers if p.id == provider for m in p.models if m.id == model)
        first = {next(iter(v.when.values())): v.constraint for v in dated.price_variants or ()}
        if own is not None and first.get("batch") is not None:
            assert own.tier("batch") is None
    assert ([], True) == (missing, known > 170)


def test_what_the_oracle_prices_otherwise_is_listed() -> None:
    """Models priced by what a token count does not show are refused by us; there are few, and none has a card."""
    unpriced = {
        f"{provider}:{model}"
        for provider, model in MODELS
        if (schedule := SNAPSHOT.schedule(provider, model)) is not None and schedule.why is not None
    }
    assert 0 < len(unpriced) < 90
    for name in ("perplexity:sonar-deep-research", "google:gemini-omni-flash-preview"):
        assert name in unpriced


def test_dated_models_cost_what_the_oracle_says() -> None:
    """Every model with several prices, at random moments and around midnight."""
    rng = random.Random(891)
    for provider, model in DATED:
        for _ in range(3):
            _check(provider, model, rng)
    assert len(DATED) > 200


def test_tiered_models_cost_what_the_oracle_says_at_the_cliff() -> None:
    """On the threshold, one below and one above it."""
    cards = {}
    for provider, model in MODELS:
        schedule = SNAPSHOT.schedule(provider, model)
        card = None if schedule is None or len(schedule.windows) > 1 else schedule.windows[0].card
        if card is not None and card.tiers:
            cards[provider, model] = card
    assert len(cards) > 100
    for (provider, model), card in cards.items():
        for tier in card.tiers:
            for total in (tier.above_tokens - 1, tier.above_tokens, tier.above_tokens + 1):
                usage = Usage(
                    input_tokens=total,
                    cache_read_tokens=total // 3,
                    cache_write_1h_tokens=total // 4,
                    output_tokens=0 if card.output_tokens_max == 0 else 77,
                )
                assert _agrees(card, provider, model, usage, 1_795_262_400_000), (provider, model, total)


def test_names_lead_where_the_oracle_leads() -> None:
    """Every id, dated and prefixed, is found by our clauses where theirs find it."""
    differing = []
    for provider in genai_data.providers:
        for model in provider.models:
            suffix = ("", "-20260101", "-2026-01-01", ":latest")[zlib.crc32(model.id.encode()) % 4]
            name = (model.id + suffix).lower()
            theirs = provider.find_model(name, all_providers=genai_data.providers)
            ours = SNAPSHOT.find(provider.id, name)
            if (theirs.id if theirs else None) != (ours.model if ours else None):
                differing.append(f"{provider.id}:{name}")
    assert [] == differing


def test_bare_names_lead_to_the_oracles_provider() -> None:
    """Whose model it is, told by its name alone."""
    from genai_prices.data_snapshot import get_snapshot

    oracle = get_snapshot()
    differing = []
    for provider, model in MODELS[::3]:
        try:
            expected = oracle.find_provider(model.lower(), None, None).id
        except LookupError:
            expected = None
        if expected != SNAPSHOT.guess_provider(model.lower()):
            differing.append(f"{provider}:{model}")
    assert [] == differing
