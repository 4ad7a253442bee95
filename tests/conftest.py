"""Every test runs with stores and settings of its own; nothing touches the user's data or the network."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _own_world(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, a default store and an environment that belong to this test alone."""
    # Numbering them would look at all those before, which for thousands of tests takes longer than the tests.
    home = tmp_path_factory.mktemp(f"home-{uuid4().hex}", numbered=False)
    for name in ("RUNRAILS_USER", "RUNRAILS_PRICES", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("RUNRAILS_STORE", f"sqlite:///{home}/ledger.db")
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    return home
