"""A gateway that speaks OpenAI's and Anthropic's HTTP, and lets no call start that its budgets do not cover."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runrails_gateway.app import create_app
    from runrails_gateway.config import GatewayConfig, Limited, Upstream

__all__ = ["GatewayConfig", "Limited", "Upstream", "create_app"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("runrails_gateway.app" if name == "create_app" else "runrails_gateway.config"), name)
