"""
What one call came to in four figures: what the provider asks, what a contract takes off, our mark-up, what we bill.

    net = provider - discount        charged = net + mark-up, or 0 if the key is the user's own (then mark-up is 0)

A budget counts what its owner pays: net and mark-up, or net alone on a key of the user's own. That is the amount in the
books. The figures are worked out of it when they are read: the mark-up is rounded up to a picodollar once a call, and
from what that gives the net amount is found again, exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runrails.errors import ConfigError
from runrails.money import apply_bp_up

if TYPE_CHECKING:
    from runrails.ledger import CallFacts, UsageRecord

__all__ = ["MARKUP_BP_MAX", "Figures", "check_markup_bp", "due", "figures_of", "marked_up", "net_of"]

MARKUP_BP_MAX = 10_000
"""The provider's price once more."""
_WHOLE_BP = 10_000


class Figures(NamedTuple):
    """All in picodollars."""

    provider_pusd: int
    """The price without a contract."""
    discount_pusd: int
    """What a contract took off; negative for a surcharge."""
    markup_pusd: int
    charged_pusd: int
    """What the platform bills."""

    @property
    def net_pusd(self) -> int:
        """What the provider gets."""
        return self.provider_pusd - self.discount_pusd

    @property
    def own_key_pusd(self) -> int:
        """What was paid to the provider on a key of the user's own."""
        return self.net_pusd + self.markup_pusd - self.charged_pusd


def check_markup_bp(value: object, *, what: str = "markup_bp") -> int:
    """
    Return `value` if it is a mark-up in basis points.

    Raises:
        ConfigError: No int, negative, or more than `MARKUP_BP_MAX`.
    """
    if type(value) is int and 0 <= value <= MARKUP_BP_MAX:
        return value
    raise ConfigError(
        f"{what} must be an int of basis points, at least 0 and at most {MARKUP_BP_MAX:,}.",
        next_step="Write 200 for 2 %, or leave it out for none.",
    )


def marked_up(net_pusd: int, markup_bp: int) -> int:
    """The amount and its mark-up, rounded up."""
    return apply_bp_up(net_pusd, _WHOLE_BP + markup_bp)


def net_of(amount_pusd: int, markup_bp: int) -> int:
    """The amount without its mark-up: exactly what `marked_up` was given."""
    return amount_pusd * _WHOLE_BP // (_WHOLE_BP + markup_bp) if markup_bp else amount_pusd


def due(net_pusd: int, facts: CallFacts) -> int:
    """What a call's owner pays if its provider gets that."""
    return net_pusd if facts.byok or not facts.markup_bp else marked_up(net_pusd, facts.markup_bp)


def figures_of(record: UsageRecord) -> Figures | None:
    """The figures of a call in the books; None while it is in flight."""
    amount, facts, result = record.actual_pusd, record.facts, record.result
    if amount is None:
        return None
    net = net_of(amount, 0 if facts.byok else facts.markup_bp)
    # A bill may come to less than the surcharge that was expected of it.
    discount = 0 if result is None or result.discount is None else max(result.discount.pusd, -net)
    return Figures(net + discount, discount, amount - net, 0 if facts.byok else amount)
