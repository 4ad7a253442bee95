"""The compiled cards against the calculator of the package their data comes from."""

from __future__ import annotations

import random
import zlib
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


def _usage(rng: random.Random) -> Usage:
    total = rng.choice([rng.randrange(5_000), rng.choice(THRESHOLDS), rng.randrange(900_000)])
    parts = sorted(rng.randrange(total + 1) for _ in range(4)) if rng.random() < 0.8 else [0, 0, 0, 0]
    output = rng.randrange(50_000)
    reasoning = rng.randrange(output + 1) if rng.random() < 0.5 else 0
    # Two kinds of input never overlap here: the oracle refuses cached audio that is not spelled out.
    return Usage(
        input_tokens=total,
        cache_read_tokens=parts[0],
        cache_write_5m_tokens=parts[1] - parts[0],
        cache_write_1h_tokens=parts[2] - parts[1],
        input_audio_tokens=parts[3] - parts[2] if rng.random() < 0.3 else 0,
        output_tokens=output,
        reasoning_tokens=reasoning,
        output_audio_tokens=rng.randrange(output - reasoning + 1) if rng.random() < 0.3 else 0,
    )


def _oracle(provider: str, model: str, usage: Usage, now_ms: int) -> Decimal:
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
    )
    when = datetime.fromtimestamp(now_ms / 1_000, tz=UTC)
    return info.calc_price(asked, own, genai_request_timestamp=when).total_price


def _agrees(card: PriceCard, provider: str, model: str, usage: Usage, now_ms: int) -> bool:
    # Where a rate is no whole number of picodollars our cost is the exact one rounded up, once.
    exact = _oracle(provider, model, usage, now_ms) * PUSD_PER_USD
    cost = cost_pusd(card, usage)
    return cost == exact if card.denominator == 1 else 0 <= cost - exact < 1


def _check(provider: str, model: str, rng: random.Random) -> bool:
    now_ms = rng.randrange(1_735_689_600_000, 1_830_000_000_000)  # 2025 to the end of 2027
    schedule = SNAPSHOT.schedule(provider, model)
    card = None if schedule is None else schedule.at(now_ms)
    if card is None:
        return False
    usage = _usage(rng)
    if card.output_tokens_max == 0:  # embeddings: the oracle has no price for output, ours is that of input
        usage = Usage(input_tokens=usage.input_tokens, cache_read_tokens=usage.cache_read_tokens)
    assert _agrees(card, provider, model, usage, now_ms), (provider, model, now_ms, usage)
    return True


def test_random_calls_cost_what_the_oracle_says() -> None:
    """Six hundred models of all providers with random usages and moments, to the last picodollar."""
    rng = random.Random(20_261_121)
    assert sum(_check(*rng.choice(MODELS), rng) for _ in range(600)) > 500


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
