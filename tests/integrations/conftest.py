"""Settings of the integration tests."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """
    Ignore one warning of LangChain's own.

    Where an inline handler raises under `ainvoke`, `AsyncCallbackManager` leaves the events of the handlers after it
    unawaited. They are freed later, in whatever test then runs, so the filter is for all of them.
    """
    config.addinivalue_line("filterwarnings", "ignore:coroutine 'ahandle_event' was never awaited:RuntimeWarning")
    # Freed at an awkward moment, even saying so fails.
    unraisable = "ignore:Exception ignored in. <coroutine object ahandle_event:pytest.PytestUnraisableExceptionWarning"
    config.addinivalue_line("filterwarnings", unraisable)
