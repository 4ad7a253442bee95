"""One short line for every command: how it is mostly written. Help and documentation show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EXAMPLES", "example_of"]

_ID = "3f9a"
EXAMPLES: Mapping[str, str] = {
    "demo": "--retries 20",
    "run": "--run 2.00 --month 50 -- python agent.py",
    "audit": "runs.jsonl --fail-on-stop",
    "budget set": "user:alice 50.00",
    "budget show": "user:alice --period 2026-11",
    "budget list": "--period 2026-11",
    "usage": "--by model --month 2026-11",
    "usage export": "--month 2026-11 --out november.csv",
    "usage reconcile": "bill.csv --dry-run",
    "usage corrections": "",
    "ledger verify": "",
    "ledger reclaim": "",
    "ledger migrate": "sqlite:///ledger.db 'dynamodb://runrails?region=eu-west-1'",
    "byok init": "",
    "byok add": "openai --owner user:alice",
    "byok validate": "openai --owner user:alice",
    "byok rotate": "openai --owner user:alice",
    "byok remove": "openai --owner user:alice",
    "byok suspend": "openai --owner user:alice",
    "byok resume": "openai --owner user:alice",
    "byok list": "--owner user:alice",
    "byok rewrap": "",
    "prices show": "gpt-4o",
    "prices check": "runrails.toml",
    "prices diff": "",
    "prices verify": "--since 2026-11-01",
    "prices refresh": "",
    "runs": "--user alice -n 50",
    "report": f"{_ID} --html run.html",
    "keys create": "alice --name laptop --expires-in 90d",
    "keys adopt": "old-keys.jsonl",
    "keys list": "--user alice",
    "keys show": _ID,
    "keys suspend": _ID,
    "keys resume": _ID,
    "keys revoke": _ID,
    "keys rotate": _ID,
    "tokens issue": "alice --ttl 1h",
    "tokens revoke": _ID,
    "tokens jwks": "",
    "watch": "--every 5",
    "init": "",
    "doctor": "--store sqlite:///ledger.db",
}
"""By the command's name, what is written behind it. `tests/unit/test_cli_examples.py` reads each as the shell does."""


def example_of(name: str) -> str | None:
    """The whole line; None for a command that has none here, as those of integrations."""
    rest = EXAMPLES.get(name)
    return None if rest is None else f"runrails {name} {rest}".rstrip()
