"""From what happened in a pass to the figures of the demo. Values only: no agent, no clock, no screen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from runrails.money import format_usd, usd
from runrails.pricing.cards import PriceCard, cost_pusd
from runrails.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["STORY_PUSD", "Demo", "Entry", "Facts", "PassKey", "Play", "Stopped", "figure", "plain_usd"]

STORY_PUSD = usd("3.20")
"""What the founding article says an iteration cost. 4,000 tokens of GPT-4 cost 13 to 27 times less."""
PassKey = Literal["unguarded", "guarded", "budget"]
"""`unguarded`; `guarded` with the one callback; `budget` with the loop detector off and a $10 run budget."""


class Entry(NamedTuple):
    """One call as the guard's ledger has it."""

    cost_pusd: int
    usage: Usage | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """How a guarded agent ended."""

    reason: str
    """`loop_detected` or `budget_exceeded`."""
    exception: str
    """The exception's class, as a traceback names it."""
    message: str
    """Word for word what the exception says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What happened in one pass, counted where it happened: at the provider and inside the tools."""

    key: PassKey
    billed: tuple[Usage, ...]
    """The provider's bill, one usage a model call."""
    executed: Mapping[str, int]
    """How often each tool was really executed."""
    failing_executions: int
    """How often the one failing call (same tool, same review) was executed."""
    model_calls_after_last_failure: int
    ledger: tuple[Entry, ...] | None
    """The guard's own books; None without a guard."""
    stopped: Stopped | None
    topics: Mapping[str, str]
    """What was classified, by review: kept whatever happened later."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """The figures of one pass."""

    facts: Facts
    model_calls: int
    tool_calls: int
    tokens: int
    story_retries_pusd: int
    """The failing executions at the article's price an iteration."""
    story_pusd: int
    """The whole run at the article's price, a model call each."""
    table_pusd: int
    """The whole run at the price table."""
    ledger_pusd: int | None
    """What the guard's ledger says, at the article's price; None without a guard."""

    @property
    def ledger_equals_bill(self) -> bool | None:
        """Whether the guard's ledger and the provider's bill agree, in money and call by call in tokens."""
        if self.facts.ledger is None:
            return None
        return self.ledger_pusd == self.story_pusd and [e.usage for e in self.facts.ledger] == [*self.facts.billed]

    def as_dict(self) -> dict[str, object]:
        """JSON-ready; `…_usd` is a decimal number as text, exact."""
        facts = self.facts
        return {
            "model_calls": self.model_calls,
            "tool_calls": self.tool_calls,
            "executed": dict(sorted(facts.executed.items())),
            "failing_tool_executions": facts.failing_executions,
            "model_calls_after_last_failing_execution": facts.model_calls_after_last_failure,
            "tokens": self.tokens,
            "input_tokens": sum(usage.input_tokens for usage in facts.billed),
            "output_tokens": sum(usage.output_tokens for usage in facts.billed),
            "article_retries_usd": plain_usd(self.story_retries_pusd),
            "article_run_usd": plain_usd(self.story_pusd),
            "price_table_run_usd": plain_usd(self.table_pusd),
            "ledger_usd": None if self.ledger_pusd is None else plain_usd(self.ledger_pusd),
            "ledger_equals_bill": self.ledger_equals_bill,
            "stopped": facts.stopped is not None,
            "stop_reason": None if facts.stopped is None else facts.stopped.reason,
            "stop_exception": None if facts.stopped is None else facts.stopped.exception,
            "stop_message": None if facts.stopped is None else facts.stopped.message,
            "stopped_before_model_call": None if facts.stopped is None else self.model_calls + 1,
            "classified": dict(sorted(facts.topics.items())),
            "seconds": round(facts.seconds, 2),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """All three passes."""

    retries: int
    model: str
    reviews: int
    story_card: PriceCard
    """The article's figure, as the user override it is."""
    table_card: PriceCard
    """The model's card in the price table."""
    plays: Mapping[PassKey, Play] = field(default_factory=dict[PassKey, Play])

    @property
    def ledger_equals_bill(self) -> bool:
        """Whether every guarded pass agrees with the provider's bill to the picodollar."""
        return all(play.ledger_equals_bill is not False for play in self.plays.values())

    @property
    def avoided_pusd(self) -> int:
        """What the callback saved on the failing retries, at the article's price an iteration."""
        return self.plays["unguarded"].story_retries_pusd - self.plays["guarded"].story_retries_pusd

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return {
            "retries": self.retries,
            "model": self.model,
            "reviews": self.reviews,
            "article_usd_per_iteration": plain_usd(self.story_card.call_pusd),
            "article_figure_is": "a user override, as the founding article tells it; not computed from tokens",
            "price_table_source": self.table_card.source,
            "passes": {key: play.as_dict() for key, play in self.plays.items()},
            "avoided_article_usd": plain_usd(self.avoided_pusd),
            "ledger_equals_bill": self.ledger_equals_bill,
        }


def figure(facts: Facts, *, story_card: PriceCard, table_card: PriceCard) -> Play:
    """Price what happened: at the article's figure and at the price table."""
    nothing = Usage()
    return Play(
        facts=facts,
        model_calls=len(facts.billed),
        tool_calls=sum(facts.executed.values()),
        tokens=sum(usage.total_tokens for usage in facts.billed),
        story_retries_pusd=facts.failing_executions * cost_pusd(story_card, nothing),
        story_pusd=sum(cost_pusd(story_card, usage) for usage in facts.billed),
        table_pusd=sum(cost_pusd(table_card, usage) for usage in facts.billed),
        ledger_pusd=None if facts.ledger is None else sum(entry.cost_pusd for entry in facts.ledger),
    )


def plain_usd(pusd: int) -> str:
    """Dollars for a program: `2851.20`, no sign and no separators, exact."""
    return format_usd(pusd).replace("$", "").replace(",", "")
