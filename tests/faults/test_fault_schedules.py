"""Short runs of the seeded schedules of `fault_schedules` and `lease_schedules`, which tell how to run a thousand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rr_dynamo import ENDPOINT

TESTS = Path(__file__).parent.parent
SCHEDULES = {"sqlite": 8, "dynamodb": 3}
ENGINES = ["sqlite", *(["dynamodb"] if ENDPOINT else [])]


@pytest.mark.parametrize("engine", ENGINES)
def test_books_hold_while_writes_fail_and_a_process_dies(engine: str) -> None:
    """Eight processes a schedule, nearly half of the writes failing, one kill each: nothing overspent or lost."""
    found = play("fault_schedules.py", engine)
    assert [0, 0, 0] == [found[name] for name in ("overshoot", "lost", "doubled")]


@pytest.mark.parametrize("engine", ENGINES)
def test_leased_books_hold_as_well(engine: str) -> None:
    """The same in front of slices: whatever a killed process was told is charged, and only for its own slices."""
    found = play("lease_schedules.py", engine)
    assert [0, 0, 0, 0] == [found[name] for name in ("overshoot", "under_recorded", "lost", "doubled")]
    assert found["slices"] > 8 * SCHEDULES[engine]


def play(program: str, engine: str) -> dict[str, int]:
    """Play a few schedules; what was counted."""
    command = [sys.executable, str(TESTS / program), "--engine", engine, "--schedules", str(SCHEDULES[engine])]
    played = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert 0 == played.returncode, played.stderr[-4_000:]
    found: dict[str, int] = json.loads(played.stdout)
    assert SCHEDULES[engine] == found["schedules"] == found["killed"]
    assert found["failed_percent"] >= 40
    return found
