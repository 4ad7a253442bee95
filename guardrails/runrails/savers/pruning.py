"""
What of a long conversation is sent: its instructions, its task and its newest part, with tool calls and results whole.

One algorithm for every wire form: an adapter says of each message what `Item` it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from runrails.loops.explain import MARK
from runrails.savers.shares import Share, share

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal
    from fractions import Fraction

__all__ = ["Item", "Pruned", "Pruning", "marker", "prune"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """
    Shorter requests for `Limits(pruning=Pruning(...))`, made by guarded clients and `GuardrailMiddleware`.

    A request with more than `after_messages` messages is sent without its oldest ones; the conversation itself is
    never changed. System prompts, the first user message and at least `keep_last` messages in all stay; a tool
    call and its results stay or go together, so somewhat more may be sent. What is left out changes only once in
    `after_messages - keep_last` messages: in between every request begins as the one before, so that the provider's
    prompt cache goes on working. A short note says how many messages were left out.

    Args:
        after_messages: Most messages that are sent, the system prompt included.
        keep_last: How many are kept at least.
        alert_at: From this share of `after_messages`, or of the model's context window (by what the provider reports of
            the input), there is one event `context_filling` a run, whatever adapter is in use.

    Raises:
        TypeError: A number is not an int, or the share is a float.
        ValueError: A number is out of range.
    """

    after_messages: int = 40
    keep_last: int = 20
    alert_at: str | Decimal | Fraction = "0.80"

    share: Share = field(init=False, repr=False, compare=False)
    """`alert_at` as a ratio."""

    def __post_init__(self) -> None:
        for name in ("after_messages", "keep_last"):
            value: object = getattr(self, name)
            if type(value) is not int:
                raise TypeError(f"Pruning({name}=…) must be a whole number (an int), not {type(value).__name__}.")
        if not 1 <= self.keep_last < self.after_messages:
            raise ValueError("Pruning(keep_last=…) must be at least 1 and less than after_messages.")
        object.__setattr__(self, "share", share(self.alert_at, "Pruning(alert_at=…)"))


class Item(NamedTuple):
    """One message of a conversation, or one item of a list that is more finely divided."""

    kind: Literal["system", "user", "other"]
    asks: tuple[str, ...] = ()
    """Ids of the tool calls it holds."""
    gives: tuple[str, ...] = ()
    """Ids of the tool calls whose results it holds."""
    tied: bool = False
    """Whether it may not be parted from what follows it, as reasoning from the call that it led to."""


class Pruned(NamedTuple):
    """What of a conversation is sent."""

    head: tuple[int, ...]
    """Positions of the messages before the gap: instructions and the task."""
    tail: int
    """Position from which on everything is sent."""
    left_out: int
    """How many messages that leaves out."""


def prune(items: Sequence[Item], pruning: Pruning) -> Pruned | None:
    """What of a conversation is to be sent; None if all of it."""
    total = len(items)
    if total <= pruning.after_messages:
        return None
    step = pruning.after_messages - pruning.keep_last
    # The note that takes its place is a message too.
    excess = -(-(total + 1 - pruning.after_messages) // step) * step
    task = next((place for place, item in enumerate(items) if item.kind == "user" and not item.gives), None)
    always = {place for place, item in enumerate(items) if item.kind == "system"} | ({task} - {None})
    others = [place for place in range(total) if place not in always]
    if not others:
        return None
    newest = max(1, pruning.keep_last - len(always))
    tail = _legal_cut(items, others[min(excess, max(0, len(others) - newest))])
    head = tuple([place for place in range(tail) if place in always])
    left_out = tail - len(head)
    return Pruned(head, tail, left_out) if left_out > 0 else None


def marker(left_out: int) -> str:
    """What the model is told in the place of what is left out."""
    what = "1 earlier message of this conversation was" if left_out == 1 else (
        f"{left_out:,} earlier messages of this conversation were"
    )  # fmt: skip
    return f"{MARK} {what} left out here to keep the request short."


def _legal_cut(items: Sequence[Item], wanted: int) -> int:
    """The newest place up to `wanted` at which no tool call is parted from its result, nor reasoning from its call."""
    cut = wanted
    # A result belongs to the newest call of its id: some providers count their ids anew for every answer.
    asked: dict[str, int] = {}
    spans: list[tuple[int, int]] = []
    for place, item in enumerate(items):
        spans.extend((asked[call], place) for call in item.gives if call in asked)
        asked.update(dict.fromkeys(item.asks, place))
        if item.tied:
            spans.append((place, place + 1))
    for first, last in sorted(spans, key=lambda span: span[1], reverse=True):
        if first < cut <= last:
            cut = first
    return cut
