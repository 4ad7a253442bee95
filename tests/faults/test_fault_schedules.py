"""A short run of the seeded schedules of `tests/fault_schedules.py`, which tells how to run a thousand of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rr_dynamo import ENDPOINT

PROGRAM = Path(__file__).parent.parent / "fault_schedules.py"
SCHEDULES = {"sqlite": 8, "dynamodb": 3}


@pytest.mark.parametrize("engine", ["sqlite", *(["dynamodb"] if ENDPOINT else [])])
def test_books_hold_while_writes_fail_and_a_process_dies(engine: str) -> None:
    """Eight processes a schedule, nearly half of the writes failing, one kill each: nothing overspent or lost."""
    command = [sys.executable, str(PROGRAM), "--engine", engine, "--schedules", str(SCHEDULES[engine])]
    played = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert 0 == played.returncode, played.stderr[-4_000:]
    found = json.loads(played.stdout)
    assert SCHEDULES[engine] == found["schedules"] == found["killed"]
    assert found["failed_percent"] >= 40
    assert [0, 0, 0] == [found[name] for name in ("overshoot", "lost", "doubled")]
