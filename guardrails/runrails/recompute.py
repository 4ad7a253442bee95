"""
Works a line of the ledger out again, from the usage it keeps and the rates behind its fingerprint.

Only what was charged by rates can be worked out: a stand-in (a cut stream, a lost answer, an expired hold) is the most
a call can have cost, and says so by its state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from runrails.errors import PriceUnknown
from runrails.figures import due
from runrails.pricing.cards import cost_pusd

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.ledger import Discount, UsageRecord
    from runrails.pricing.cards import PriceCard
    from runrails.usage import Usage

    _Find = Callable[[str], PriceCard | None]

__all__ = ["Recomputed", "Verdict", "recompute"]

Verdict = Literal["equal", "differs", "stand_in", "open", "unkept", "billed"]
"""
`equal` or `differs`; `stand_in`: it was not charged by rates; `open`: it has not ended; `unkept`: nobody has kept the
rates; `billed`: a provider's bill took the place of what the rates had given.
"""


class Recomputed(NamedTuple):
    """What came of working a line out again."""

    verdict: Verdict
    price_card: str
    """Fingerprint of the card that the cost was made with."""
    expected_pusd: int | None = None
    """None if it could not be worked out."""
    assumed: bool = False
    """Whether the price was the dearest known, because nobody had written the model's down."""


def recompute(record: UsageRecord, find: _Find) -> Recomputed:
    """
    Work a line out again.

    Args:
        record: The line.
        find: The price card with a fingerprint, if anybody has kept it.
    """
    result = record.result
    fingerprint = (result.price_card if result is not None else "") or record.facts.price_card
    if record.actual_pusd is None or record.state == "held" or record.corrected:
        return Recomputed("billed" if record.corrected else "open", fingerprint)
    free = record.state == "released" or (result is not None and result.end in ("failed", "cached"))
    if free and record.state != "unresolved":
        return _compared(record, fingerprint, 0)
    if free or record.state == "unresolved" or result is None or result.usage is None:
        return Recomputed("stand_in", fingerprint)
    return _by_rates(record, fingerprint, result.usage, result.discount, find)


def _by_rates(
    record: UsageRecord, fingerprint: str, usage: Usage, discount: Discount | None, find: _Find
) -> Recomputed:  # fmt: skip
    card = find(fingerprint)
    net = _cost(card, usage)
    listed = None if discount is None else _cost(find(discount.list_card), usage)
    if card is None or net is None or (discount is not None and listed is None):
        return Recomputed("unkept", fingerprint)
    found = _compared(record, fingerprint, due(net, record.facts))._replace(assumed=card.source == "assumed")
    if discount is not None and listed is not None and listed - net != discount.pusd:
        return found._replace(verdict="differs")
    return found


def _cost(card: PriceCard | None, usage: Usage) -> int | None:
    try:
        return None if card is None else cost_pusd(card, usage)
    except PriceUnknown:
        return None


def _compared(record: UsageRecord, fingerprint: str, expected_pusd: int) -> Recomputed:
    return Recomputed("equal" if record.actual_pusd == expected_pusd else "differs", fingerprint, expected_pusd)
