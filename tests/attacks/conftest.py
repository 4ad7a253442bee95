"""What the tests with canaries share: a lookout that is open from a test's beginning to its end."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rr_canaries import Lookout, Shell


@pytest.fixture
def lookout(
    tmp_path: Path, _own_world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Lookout]:
    """Hears everything; at the end nothing that it looks out for may have been told."""
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Lookout(tmp_path, _own_world) as opened:
        yield opened
        Shell(opened, capsys).drain("after")
    assert [] == opened.found()


@pytest.fixture
def shell(lookout: Lookout, capsys: pytest.CaptureFixture[str]) -> Shell:
    """The command line, whose words are heard."""
    return Shell(lookout, capsys)
