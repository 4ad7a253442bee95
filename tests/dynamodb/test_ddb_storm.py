"""A short storm of callers on a table that all workers of a gateway share. The whole one: `gateway_storm.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway_storm import dynamodb, storm
from rr_dynamo import needs_server

pytestmark = needs_server


def test_no_call_too_many_reaches_the_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many calls as are paid for are made, and the ledger is the bill."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):  # so that they are gone afterwards
        monkeypatch.setenv(name, "local")
    url, settings = dynamodb()
    came = storm(
        tmp_path, url, scope="key", requests=60, connections=16, workers=2, kills=0, calls=20, delay_ms=60, **settings
    )  # fmt: skip
    assert [] == came.faults(20)
