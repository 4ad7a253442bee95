"""The answer to one recorded run, and the complaint about one that could not be read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from runrails.money import PicoUSD, to_decimal

__all__ = ["BadInput", "RunAudit"]

_Verdict = Literal["ok", "hint", "stop"]
_Value = str | int | Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAudit:
    """What the guard would have said to one recorded run."""

    id: str | int
    hint_at: int | None = None
    block_at: int | None = None
    stop_at: int | None = None
    rule: str | None = None
    """The detector's rule that spoke, for instance `repeated_failure`."""
    tool: str | None = None
    tokens: int | None = None
    """Input and output tokens of the model calls that reported usage; None if none did."""
    cost_pusd: PicoUSD | None = None
    avoided_pusd: PicoUSD | None = None
    model_calls: int = 0
    reported_calls: int = 0
    """How many of the model calls reported usage: those that `tokens` and `cost_pusd` speak of."""

    @property
    def verdict(self) -> _Verdict:
        """`stop` if a guarded run would have stopped, `hint` if the model would have been told something, else `ok`."""
        if self.stop_at is not None:
            return "stop"
        return "ok" if self.hint_at is None and self.block_at is None else "hint"

    def as_dict(self) -> dict[str, _Value]:
        """The answer's fields in their fixed order; dollars as exact Decimals."""
        return {
            "id": self.id,
            "verdict": self.verdict,
            "hint_at": self.hint_at,
            "block_at": self.block_at,
            "stop_at": self.stop_at,
            "rule": self.rule,
            "tool": self.tool,
            "tokens": self.tokens,
            "cost_usd": None if self.cost_pusd is None else to_decimal(self.cost_pusd),
            "avoided_usd": None if self.avoided_pusd is None else to_decimal(self.avoided_pusd),
        }

    def as_json(self) -> str:
        """The answer as one line of pure ASCII JSON. Dollars are JSON numbers with every digit written out."""
        return "{" + ", ".join(f'"{key}": {_encode(value)}' for key, value in self.as_dict().items()) + "}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BadInput:
    """A line, or a whole file, that could not be read. It quotes nothing of the recording."""

    source: str
    line: int | None
    """1-based; None if the whole file could not be read."""
    what: str
    fix: str

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        return f"{place}: {self.what} {self.fix}"


def _encode(value: _Value) -> str:
    if not isinstance(value, Decimal):
        return json.dumps(value)
    # json has no encoder for Decimal that keeps it a number, and a float would not be the exact amount.
    whole, _, places = f"{value:f}".partition(".")
    places = places.rstrip("0")
    return f"{whole}.{places}" if places else whole
