"""Amounts of a bill, from text, exactly. Pure."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Context, Decimal

from runrails.ledger import AMOUNT_MAX

__all__ = ["ZERO", "added", "parse_amount", "whole_pusd"]

ZERO = Decimal(0)
_EXACT = Context(prec=250)
"""Enough for any sum of amounts of 64 characters with exponents of two digits."""
_CHARS_MAX = 64
# A group of thousands does not begin with 0: "0,012" is a fraction that somebody wrote with a comma. So may "1,234" be,
# which is a thousand times more: one comma alone is no separator of thousands.
_AMOUNT = re.compile(
    r"(?P<sign>-?)\$?(?P<digits>(?:[0-9]+|[1-9][0-9]{0,2}(?:,[0-9]{3}){2,})(?:\.[0-9]*)?"
    r"|[1-9][0-9]{0,2},[0-9]{3}\.[0-9]+|\.[0-9]+)"
    r"(?P<exponent>[eE][+-]?[0-9]{1,2})?"
)


def parse_amount(text: str) -> Decimal:
    """
    Dollars as a provider's export writes them: `0.0123`, `-$1,234.50`, `1.2e-05`, a credit also as `(0.50)`.

    Raises:
        ValueError: It is no amount, or could be two.
    """
    body = text.strip()
    credit = body.startswith("(") and body.endswith(")")
    found = _AMOUNT.fullmatch(body[1:-1] if credit else body) if len(body) <= _CHARS_MAX else None
    if found is None or (credit and found["sign"]):
        raise ValueError('is no amount of dollars; it must be like 0.0123, 1,234.50 or -0.50, with a "." for fractions')
    amount = Decimal(found["digits"].replace(",", "") + (found["exponent"] or ""))
    return amount.copy_negate() if credit or found["sign"] else amount


def added(amount: Decimal, more: Decimal) -> Decimal:
    """The exact sum."""
    return _EXACT.add(amount, more)


def whole_pusd(dollars: Decimal) -> int:
    """
    Picodollars, rounded up: once, of the sum of a call's lines.

    Raises:
        ValueError: Negative, or more than a ledger counts.
    """
    pusd = int(dollars.scaleb(12, _EXACT).to_integral_value(ROUND_CEILING, _EXACT))
    if dollars < 0:
        raise ValueError("comes to less than 0; the export must have every line of a call, not only its credits")
    if pusd > AMOUNT_MAX:
        raise ValueError("comes to more than any ledger counts ($9.22 million)")
    return pusd
