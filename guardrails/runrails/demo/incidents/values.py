"""What an incident is, and what came of playing it. Values only: no agent, no clock, no screen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from runrails.demo.figures import Stopped, plain_usd
from runrails.pricing.cards import PriceCard, cost_pusd
from runrails.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ExecutorKind", "Growth", "Incident", "IncidentPass", "IncidentPlay", "Source", "words"]

BYTES_PER_TOKEN = 4
"""So much text stands for one token: about what English has."""
_FILLER = "The quick brown fox jumps over the lazy dog while the agent reads the same file again. "

ExecutorKind = Literal["sdk", "sdk_tools", "react", "fan_out"]
"""
What runs the script: a loop over the openai SDK whose client is wrapped; the same with its tools at the guard's door
too; LangChain's `create_agent` with the callback; many threads over one wrapped client.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where it was reported."""

    url: str
    date: str
    says: str
    """What it says, in our words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How many tokens each model call of the conversation has: every step adds as many."""

    base_tokens: int
    step_tokens: int
    output_tokens: int
    cached: bool
    """Whether the provider reads from its cache what it has seen in the call before."""

    def usage(self, number: int) -> Usage:
        """What the call with this number uses; the first has number 1."""
        tokens = self.base_tokens + self.step_tokens * (number - 1)
        seen = tokens - self.step_tokens if self.cached and number > 1 else 0
        return Usage(input_tokens=tokens, cache_read_tokens=seen, output_tokens=self.output_tokens)

    def cost_pusd(self, card: PriceCard, calls: int) -> int:
        """What so many calls cost together."""
        return sum(cost_pusd(card, self.usage(number)) for number in range(1, calls + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """A public incident as a script: what was reported, and how it is played again."""

    name: str
    title: str
    reported: str
    """What happened, in our words; every number in it is the source's."""
    sources: tuple[Source, ...]
    executor: ExecutorKind
    model: str
    provider: str
    growth: Growth
    calls_full: int
    """How many model calls the report tells of, or the defaults allow."""
    calls_full_are: str
    calls_played: int
    """How many of them are really made in the pass without a guard."""
    ours: str
    """What in the figures is assumed by us."""
    tool: str
    args: Mapping[str, str]
    result: str = field(repr=False)
    """What the tool answers, every time."""
    notice: str = field(default="", repr=False)
    """
    What the executor itself adds below each result; `{number}` is the number of the call. The guard is at the tool and
    does not see it: a result that counts its own failures would be another one each time.
    """
    thoughts: tuple[str, ...] = field(repr=False)
    system: str = field(repr=False)
    task: str = field(repr=False)
    guard_lines: str = field(repr=False)
    """What a user would have written."""

    def as_dict(self) -> dict[str, object]:
        """What was reported and how it is played, JSON-ready."""
        return {
            "incident": self.name,
            "title": self.title,
            "reported": self.reported,
            "sources": [{"url": each.url, "date": each.date, "says": each.says} for each in self.sources],
            "model": self.model,
            "assumed": self.ours,
            "full_length_model_calls": self.calls_full,
            "full_length_is": self.calls_full_are,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentPass:
    """One pass: with a guard or without."""

    billed: tuple[Usage, ...]
    """The provider's bill, one usage a model call, in the order of the calls."""
    curve_pusd: tuple[int, ...]
    """What had been spent after each of them."""
    executed: int
    """How often the tool was really executed."""
    ledger_pusd: int | None
    """What the guard's ledger says; None without a guard."""
    stopped: Stopped | None
    seconds: float

    @property
    def cost_pusd(self) -> int:
        """What the provider bills."""
        return self.curve_pusd[-1] if self.curve_pusd else 0

    def as_dict(self) -> dict[str, object]:
        """JSON-ready; `…_usd` is a decimal number as text, exact."""
        return {
            "model_calls": len(self.billed),
            "tool_executions": self.executed,
            "input_tokens": sum(usage.input_tokens for usage in self.billed),
            "output_tokens": sum(usage.output_tokens for usage in self.billed),
            "bill_usd": plain_usd(self.cost_pusd),
            "ledger_usd": None if self.ledger_pusd is None else plain_usd(self.ledger_pusd),
            "stop_reason": None if self.stopped is None else self.stopped.reason,
            "stop_exception": None if self.stopped is None else self.stopped.exception,
            "stop_message": None if self.stopped is None else self.stopped.message,
            "curve_usd": [plain_usd(pusd) for pusd in self.curve_pusd],
            "seconds": round(self.seconds, 2),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentPlay:
    """Both passes of an incident."""

    incident: Incident
    card: PriceCard
    unguarded: IncidentPass
    guarded: IncidentPass
    full_pusd: int
    """What all the calls cost that the report tells of or the defaults allow: computed from the same growth."""

    @property
    def ledger_equals_bill(self) -> bool:
        """Whether the guard's ledger and the provider's bill agree to the picodollar."""
        return self.guarded.ledger_pusd == self.guarded.cost_pusd

    def full_curve_pusd(self) -> tuple[int, ...]:
        """What has been spent after each call, to the last that was reported or allowed."""
        total, curve = 0, list[int]()
        for number in range(1, self.incident.calls_full + 1):
            total += cost_pusd(self.card, self.incident.growth.usage(number))
            curve.append(total)
        return tuple(curve)

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return {
            **self.incident.as_dict(),
            "full_length_usd": plain_usd(self.full_pusd),
            "passes": {"unguarded": self.unguarded.as_dict(), "guarded": self.guarded.as_dict()},
            "ledger_equals_bill": self.ledger_equals_bill,
        }


def words(tokens: int, begin: str = "") -> str:
    """Text of about so many tokens, beginning with `begin`."""
    size = tokens * BYTES_PER_TOKEN
    more = max(0, size - len(begin))
    return (begin + _FILLER * (more // len(_FILLER) + 1))[: max(size, len(begin))]
