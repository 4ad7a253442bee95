"""Usage: counts that can be true."""

from __future__ import annotations

import pytest

from runrails.usage import TOKENS_MAX, Usage

FIELDS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "input_audio_tokens",
    "output_tokens",
    "reasoning_tokens",
    "output_audio_tokens",
    "cache_read_audio_tokens",
)
FULL = Usage(
    input_tokens=1_000,
    cache_read_tokens=300,
    cache_write_5m_tokens=100,
    cache_write_1h_tokens=50,
    input_audio_tokens=200,
    cache_read_audio_tokens=40,
    output_tokens=500,
    reasoning_tokens=120,
    output_audio_tokens=30,
)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("bad", [-1, 1.5, 1.0, float("nan"), float("inf"), True, "1", None, TOKENS_MAX + 1])
def test_a_count_must_be_a_whole_number_of_tokens(field: str, bad: object) -> None:
    """No fraction, no bool, no text, nothing negative or absurd."""
    with pytest.raises(ValueError, match="whole numbers"):
        Usage(**{field: bad})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "counts",
    [
        {"input_tokens": 10, "cache_read_tokens": 11},
        {"input_tokens": 10, "cache_read_tokens": 5, "cache_write_5m_tokens": 3, "cache_write_1h_tokens": 3},
        {"input_tokens": 10, "input_audio_tokens": 11},
        {"input_tokens": 10, "cache_read_tokens": 6, "input_audio_tokens": 6},
        {"output_tokens": 10, "reasoning_tokens": 11},
        {"output_tokens": 10, "reasoning_tokens": 6, "output_audio_tokens": 6},
        {"input_tokens": 10, "cache_read_tokens": 5, "cache_read_audio_tokens": 5},
    ],
)
def test_parts_may_not_exceed_their_total(counts: dict[str, int]) -> None:
    """A part larger than its total would be billed at less than nothing."""
    with pytest.raises(ValueError, match="exceed"):
        Usage(**counts)


def test_what_is_left_of_the_totals() -> None:
    """Cached, written and audio tokens are each taken off once."""
    assert (550, 390, 350, 150, 1_500) == (
        FULL.uncached_input_tokens,
        FULL.plain_input_tokens,
        FULL.plain_output_tokens,
        FULL.cache_write_tokens,
        FULL.total_tokens,
    )


def test_the_largest_counts_are_fine() -> None:
    """The limit itself is allowed."""
    assert 2 * TOKENS_MAX == Usage(input_tokens=TOKENS_MAX, output_tokens=TOKENS_MAX).total_tokens


def test_usages_add_part_by_part() -> None:
    """The sum of two calls has every part doubled; zero is neutral."""
    doubled = FULL + FULL
    assert [2 * getattr(FULL, field) for field in FIELDS] == [getattr(doubled, field) for field in FIELDS]
    assert FULL == FULL + Usage()
