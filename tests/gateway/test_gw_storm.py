"""Short storms: many callers, several workers, one of them killed, one budget. The whole ones: `gateway_storm.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway_storm import storm


@pytest.mark.parametrize("scope", ["run", "key"])
def test_no_call_too_many_on_sqlite(scope: str, tmp_path: Path) -> None:
    """As many calls as are paid for reach the provider, and the ledger is the bill."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    came = storm(tmp_path, url, scope=scope, requests=300, connections=64, workers=4, calls=40)
    assert [] == came.faults(40)


def test_a_killed_worker_costs_no_call_too_many(tmp_path: Path) -> None:
    """What it had under way is charged at its holds, and nobody gets that money again."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    came = storm(tmp_path, url, scope="run", requests=44, connections=12, workers=4, kills=1, calls=40, delay_ms=150)
    assert ([], 1) == (came.faults(40), came.killed)
