"""Every test runs with stores and settings of its own; nothing touches the user's data or the network."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from pathlib import Path

# How long an example takes says what else the machine has to do. Where a submission is judged, what failed must fail
# again: examples are drawn from the test itself. Elsewhere they are new ones with every run, which is how drawn
# examples find something.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", settings.get_profile("unhurried"), derandomize=True)
settings.load_profile("repeatable" if os.environ.get("RUNRAILS_EXAMPLES") == "repeatable" else "unhurried")


@pytest.fixture(autouse=True)
def _own_world(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, a default store and an environment that belong to this test alone."""
    # Numbering them would look at all those before, which for thousands of tests takes longer than the tests.
    home = tmp_path_factory.mktemp(f"home-{uuid4().hex}", numbered=False)
    for name in (
        "RUNRAILS_USER", "RUNRAILS_PRICES", "RUNRAILS_VAULT", "RUNRAILS_MASTER_KEYS", "RUNRAILS_KEY_PEPPERS",
        "RUNRAILS_JWT_KEYS", "RUNRAILS_JOURNAL", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("RUNRAILS_STORE", f"sqlite:///{home}/ledger.db")
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    return home


MANY = 5
"""A test with more cases than this is sampled where `RUNRAILS_MATRIX_SHARE` asks for a share."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a test with many cases play every n-th, where another environment plays all; the matrix samples itself."""
    share = int(os.environ.get("RUNRAILS_MATRIX_SHARE", "1"))
    if share <= 1:
        return
    cases: defaultdict[tuple[str, str], list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.path.name != "test_matrix.py":
            cases[str(item.path), getattr(item, "originalname", item.name)].append(item)
    left_out = {id(item) for found in cases.values() if len(found) > MANY for item in set(found) - set(found[::share])}
    config.hook.pytest_deselected(items=[item for item in items if id(item) in left_out])
    items[:] = [item for item in items if id(item) not in left_out]
