"""A second opinion on tokens: what joserfc refuses, we refuse as well."""

from __future__ import annotations

from rr_jwt_differential import play


def test_nothing_is_taken_that_joserfc_refuses() -> None:
    """Of 2,000 tokens changed at random we take none that it refuses, and enough are taken for that to mean much."""
    both, stricter, neither, wrong = play(2_000)
    assert [] == wrong
    assert 2_000 == both + stricter + neither
    assert both > 300 and stricter > 100 and neither > 500
