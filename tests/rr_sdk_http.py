"""The HTTP library that an SDK stands on: httpx of old, httpx2 since openai 3 and anthropic 2."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any


def http_of(sdk: ModuleType) -> Any:
    """The library whose client the SDK's own is made of."""
    default: type = sdk.DefaultHttpxClient
    names = [each.__module__.partition(".")[0] for each in default.__mro__]
    return import_module(next(name for name in names if name.startswith("httpx")))
