"""Money: properties that hold for every amount."""

from __future__ import annotations

import contextlib
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runrails.money import AMOUNT_MAX, apply_bp_up, ceil_div, format_usd, to_decimal, usd
from runrails.pricing.cards import Rates, cost_pusd, dearest_pusd, make_card
from runrails.usage import Usage

AMOUNTS = st.integers(min_value=-AMOUNT_MAX, max_value=AMOUNT_MAX)
COUNTS = st.integers(min_value=0, max_value=10**6)
RATIOS = st.tuples(st.integers(min_value=0, max_value=10**9), st.integers(min_value=1, max_value=12))


@given(AMOUNTS)
@settings(max_examples=200)
def test_what_is_shown_can_be_read_back(pusd: int) -> None:
    """Text and Decimal lose nothing."""
    assert pusd == usd(format_usd(pusd)) == usd(to_decimal(pusd))


@given(st.decimals(allow_nan=True, allow_infinity=True))
@settings(max_examples=200)
def test_a_decimal_is_read_exactly_or_refused(value: Decimal) -> None:
    """There is no third way: never a rounded amount."""
    try:
        pusd = usd(value)
    except ValueError:
        return
    assert to_decimal(pusd) == value


@given(st.text(max_size=30))
@settings(max_examples=300)
def test_any_text_is_an_amount_or_a_value_error(text: str) -> None:
    """Nothing else comes out of a form field."""
    with contextlib.suppress(ValueError):
        assert -AMOUNT_MAX <= usd(text) <= AMOUNT_MAX


@given(st.floats())
@settings(max_examples=50)
def test_no_float_is_ever_money(value: float) -> None:
    """Not even a whole one."""
    with pytest.raises(TypeError):
        usd(value)  # type: ignore[arg-type]


@given(st.integers(min_value=0, max_value=AMOUNT_MAX), st.integers(min_value=0, max_value=100_000))
@settings(max_examples=100)
def test_a_mark_up_is_never_short_and_less_than_a_picodollar_over(pusd: int, bp: int) -> None:
    """Rounded up once."""
    assert 0 <= apply_bp_up(pusd, bp) * 10_000 - pusd * bp < 10_000
    assert apply_bp_up(pusd, bp) == ceil_div(pusd * bp, 10_000)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """A usage with every part, cached audio included."""
    plain, read, five, hour, audio, both, seen, seen_before = (draw(COUNTS) for _ in range(8))
    out, reasoning, spoken, drawn = (draw(COUNTS) for _ in range(4))
    return Usage(
        input_tokens=plain + read + five + hour + audio + both + seen + seen_before,
        cache_read_tokens=read + both + seen_before,
        cache_write_5m_tokens=five,
        cache_write_1h_tokens=hour,
        input_audio_tokens=audio + both,
        cache_read_audio_tokens=both,
        input_image_tokens=seen + seen_before,
        cache_read_image_tokens=seen_before,
        output_tokens=out + reasoning + spoken + drawn,
        reasoning_tokens=reasoning,
        output_audio_tokens=spoken,
        output_image_tokens=drawn,
    )


@given(
    usages(),
    st.fixed_dictionaries(
        {"input": RATIOS},
        optional=dict.fromkeys(
            [
                "output",
                "cache_read",
                "cache_write",
                "cache_write_1h",
                "input_audio",
                "cache_read_audio",
                "reasoning",
                "output_audio",
                "input_image",
                "cache_read_image",
                "output_image",
            ],
            RATIOS,
        ),
    ),
)
@settings(max_examples=200)
def test_the_cost_is_the_sum_over_every_token_rounded_up_once(usage: Usage, rates: dict[str, tuple[int, int]]) -> None:
    """An independent sum over twelve kinds of token, in exact ratios, agrees; and the bound is not below it."""
    table = {name: (up, down) for name, (up, down) in rates.items()}
    card = make_card(provider="p", model="m", source="run", base=table)
    both = usage.cache_read_audio_tokens
    counts = Rates(
        input=usage.plain_input_tokens,
        cache_read=usage.cache_read_tokens - both - usage.cache_read_image_tokens,
        cache_write_5m=usage.cache_write_5m_tokens,
        cache_write_1h=usage.cache_write_1h_tokens,
        input_audio=usage.input_audio_tokens - both,
        cache_read_audio=both,
        output=usage.plain_output_tokens,
        reasoning=usage.reasoning_tokens,
        output_audio=usage.output_audio_tokens,
        input_image=usage.input_image_tokens - usage.cache_read_image_tokens,
        cache_read_image=usage.cache_read_image_tokens,
        output_image=usage.output_image_tokens,
    )
    if not counts.output_image and card.rates.output_image > card.rates.output:
        # Nobody said what the answer was made of: its dearest kind.
        counts = counts._replace(output=0, output_image=counts.output)
    exact = sum(count * rate for count, rate in zip(counts, card.rates, strict=True))
    cost = cost_pusd(card, usage)
    assert 0 <= cost * card.denominator - exact < card.denominator
    assert cost <= dearest_pusd(
        card, input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cache_write=True
    )
