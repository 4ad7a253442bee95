"""
Fakes that ship: real objects with scripted behaviour, for our tests and for yours.

Nothing is loaded until it is asked for, so importing this package costs nothing and needs no extra.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runrails.testing.clock import ManualClock
    from runrails.testing.langchain import ScriptedChatModel
    from runrails.testing.model import FakeModel, FakeProviderError
    from runrails.testing.prices import PRICES
    from runrails.testing.provider import (
        Answer,
        Delay,
        Error,
        FakeProvider,
        HangUp,
        ProviderRequest,
        Stall,
        Text,
        ToolCalls,
        ToolUse,
        echo,
        never_gives_up,
        repeating,
        until_morning,
        works_through,
    )
    from runrails.testing.stores import Fault, FlakyStore

__all__ = [
    "PRICES",
    "Answer",
    "Delay",
    "Error",
    "FakeModel",
    "FakeProvider",
    "FakeProviderError",
    "Fault",
    "FlakyStore",
    "HangUp",
    "ManualClock",
    "ProviderRequest",
    "ScriptedChatModel",
    "Stall",
    "Text",
    "ToolCalls",
    "ToolUse",
    "echo",
    "never_gives_up",
    "repeating",
    "until_morning",
    "works_through",
]

# Public name -> module that defines it. A new fake is one line here, one under TYPE_CHECKING and one in __all__.
_HOMES = {
    "PRICES": "runrails.testing.prices",
    "Answer": "runrails.testing.provider",
    "Delay": "runrails.testing.provider",
    "Error": "runrails.testing.provider",
    "FakeModel": "runrails.testing.model",
    "FakeProvider": "runrails.testing.provider",
    "FakeProviderError": "runrails.testing.model",
    "Fault": "runrails.testing.stores",
    "FlakyStore": "runrails.testing.stores",
    "HangUp": "runrails.testing.provider",
    "ManualClock": "runrails.testing.clock",
    "ProviderRequest": "runrails.testing.provider",
    "ScriptedChatModel": "runrails.testing.langchain",
    "Stall": "runrails.testing.provider",
    "Text": "runrails.testing.provider",
    "ToolCalls": "runrails.testing.provider",
    "ToolUse": "runrails.testing.provider",
    "echo": "runrails.testing.provider",
    "never_gives_up": "runrails.testing.provider",
    "repeating": "runrails.testing.provider",
    "until_morning": "runrails.testing.provider",
    "works_through": "runrails.testing.provider",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
