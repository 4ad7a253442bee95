"""The ledger against an independent recomputation in Decimal, over simulated calls of every kind."""

from __future__ import annotations

import pytest

pytest.importorskip("genai_prices", reason="the other bookkeeper reads the data of genai-prices")

from rr_sim_wire import NORMALISERS
from simulate_calls import WAYS, simulate


def _same_data() -> bool:
    from importlib.metadata import version

    from runrails.pricing.snapshot import read_snapshot

    return version("genai-prices") == read_snapshot().version


@pytest.mark.skipif(not _same_data(), reason="another version of genai-prices is installed: its prices may differ")
def test_the_ledger_is_what_another_bookkeeper_has() -> None:
    """
    Every shape of report, 41 languages and formats, every way to set a guard up: exact, and never more than held; the
    input of a conversation's later calls is held at 1.06 of the truth or less at the median, 1.7 in the tail.

    A million calls: `python tests/simulate_calls.py --calls 1000000`.
    """
    outcome = simulate(20_000, 20_261_122)
    assert [] == outcome.findings
    assert 20_000 == outcome.calls
    kinds = [*NORMALISERS, *WAYS, "pinned", "project", "run", "tier batch", "tier flex", "tier priority", "on SQLite"]
    assert [] == [kind for kind in kinds if outcome.counts[kind] < 20]
    assert len(outcome.models) > 600 and len(outcome.kinds) >= 41
    assert outcome.counts["held against genai-prices' calculator"] > 100
    for ratios in (outcome.ratios, outcome.bounded):
        ordered = sorted(ratios)
        assert len(ordered) > 3_000
        assert 1 <= ordered[0]
        assert ordered[len(ordered) // 2] <= 1.06
        assert ordered[len(ordered) * 95 // 100] <= 1.7
