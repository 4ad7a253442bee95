"""The contract suite runs on every engine: memory, and a SQLite file in both of its modes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rr_ledger import KINDS, START_MS, open_kind
from runrails.ledger import FullStore
from runrails.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """The store's clock, stopped."""
    return ManualClock(START_MS)


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[FullStore]:
    """A fresh store."""
    opened = open_kind(request.param, tmp_path, clock)
    yield opened
    opened.close()
