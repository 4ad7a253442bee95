"""A fake provider of language models on 127.0.0.1, for the real SDKs: scripted, and with a bill of its own."""

from __future__ import annotations

from runrails.testing.provider.bill import Bill, BilledCall, PriceFunction
from runrails.testing.provider.script import Script, ScriptFunction, repeating
from runrails.testing.provider.server import FakeProvider
from runrails.testing.provider.stories import (
    REWORDINGS,
    echo,
    founding,
    looks_empty,
    never_gives_up,
    until_morning,
    works_through,
)
from runrails.testing.provider.values import (
    Answer,
    Delay,
    Error,
    HangUp,
    ProviderMessage,
    ProviderRequest,
    Reporting,
    Stall,
    Text,
    ToolCalls,
    ToolUse,
)

__all__ = [
    "REWORDINGS",
    "Answer",
    "Bill",
    "BilledCall",
    "Delay",
    "Error",
    "FakeProvider",
    "HangUp",
    "PriceFunction",
    "ProviderMessage",
    "ProviderRequest",
    "Reporting",
    "Script",
    "ScriptFunction",
    "Stall",
    "Text",
    "ToolCalls",
    "ToolUse",
    "echo",
    "founding",
    "looks_empty",
    "never_gives_up",
    "repeating",
    "until_morning",
    "works_through",
]
