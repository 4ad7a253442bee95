"""
The contract suite runs on every engine: memory, a SQLite file in both of its modes, and DynamoDB where a server is
(`.ci/dynamodb` starts one; tests/dynamodb tells visibly if there is none).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rr_dynamo import ENDPOINT
from rr_lease import LEASED_KINDS, VERBS_CANNOT, open_leased
from rr_ledger import KINDS, START_MS, open_kind
from runrails.ledger import FullStore
from runrails.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """The store's clock, stopped."""
    return ManualClock(START_MS)


@pytest.fixture(params=(*KINDS, *LEASED_KINDS, *(("dynamodb", "leased-dynamodb") if ENDPOINT else ())))
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[FullStore]:
    """A fresh store."""
    if request.param.startswith("leased"):
        opened = open_leased(request.param, tmp_path, clock)
    else:
        opened = open_kind(request.param, tmp_path, clock)
    yield opened
    opened.close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What a leased store in front of one that cannot draw does not do is not asked of it: see `VERBS_CANNOT`."""
    left_out = {
        id(item) for item in items
        if "leased-verbs" in item.name and getattr(item, "originalname", "") in VERBS_CANNOT
    }  # fmt: skip
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if id(item) in left_out])
        items[:] = [item for item in items if id(item) not in left_out]
