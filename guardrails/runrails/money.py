"""
Money as integer picodollars.

One dollar is 10¹² picodollars. Nanodollars are not exact for 3 to 7 % of the published rates, floats for none of the
interesting ones; picodollars are exact for all but a few repeating decimals, and 63 bits of them are $9.22 million.
"""

from __future__ import annotations

from decimal import Context, Decimal, InvalidOperation
from typing import TypeAlias

__all__ = [
    "AMOUNT_MAX",
    "PUSD_PER_USD",
    "PicoUSD",
    "apply_bp_up",
    "ceil_div",
    "check_pusd",
    "format_usd",
    "to_decimal",
    "usd",
]

PicoUSD: TypeAlias = int
"""An amount in picodollars, 1e-12 US dollars."""

PUSD_PER_USD = 10**12
AMOUNT_MAX = 2**63 - 1
"""Largest amount that every ledger engine can hold: $9,223,372.036854775807."""

_EXACT = Context(prec=200)
_TEXT_LENGTH_MAX = 64
_WHOLE_BP = 10_000


def usd(value: str | int | Decimal, *, what: str = "amount") -> PicoUSD:
    """
    Picodollars from a number of dollars.

    Args:
        value: Dollars as text (``"0.10"``, a leading ``$`` and thousands commas are fine), int or Decimal.
        what: What the number is, for the error's text.

    Raises:
        TypeError: The value is a float (it would not be exact), a bool or something else.
        ValueError: The text is no plain number, is not finite, is finer than a picodollar or larger than any ledger
            holds.
    """
    if isinstance(value, str):
        amount = _parse(value, what)
    elif type(value) is int:
        if abs(value) > AMOUNT_MAX // PUSD_PER_USD:
            raise ValueError(f"{what} is out of range: at most $9,223,372 fits in a ledger.")
        return value * PUSD_PER_USD
    elif isinstance(value, Decimal):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers are not all typed
        amount = value
    else:
        raise _wrong_type(value, what)
    return _to_pusd(amount, what)


def check_pusd(value: object, *, what: str) -> PicoUSD:
    """
    Return `value` if it is an amount a ledger can hold: an int (never a bool) with 0 ≤ value < 2⁶³.

    Raises:
        TypeError: Not an int.
        ValueError: Negative or too large.
    """
    if type(value) is not int:
        raise TypeError(f"{what} must be an int of picodollars, not {type(value).__name__}; make one with usd(…).")
    if not 0 <= value <= AMOUNT_MAX:
        raise ValueError(f"{what} must be between 0 and 2**63-1 picodollars.")
    return value


def format_usd(pusd: PicoUSD) -> str:
    """
    Dollars for people: ``$2,851.20``, ``-$0.10``, ``$0.00000045``. At least two places and never rounded.
    """
    sign = "-" if pusd < 0 else ""
    whole, rest = divmod(abs(pusd), PUSD_PER_USD)
    places = f"{rest:012d}".rstrip("0").ljust(2, "0")
    return f"{sign}${whole:,}.{places}"


def to_decimal(pusd: PicoUSD) -> Decimal:
    """Dollars as an exact Decimal."""
    return Decimal(pusd).scaleb(-12, _EXACT)


def apply_bp_up(pusd: PicoUSD, bp: int) -> PicoUSD:
    """
    The amount times `bp` basis points (10,000 leaves it as it is, 10,200 is a mark-up of 2 %), rounded up.

    Raises:
        ValueError: `bp` is negative.
    """
    if bp < 0:
        raise ValueError("basis points must not be negative; 10,000 leaves an amount as it is.")
    return ceil_div(pusd * bp, _WHOLE_BP)


def ceil_div(numerator: int, denominator: int) -> int:
    """The quotient rounded towards plus infinity. `denominator` must be positive."""
    return -(-numerator // denominator)


def _parse(text: str, what: str) -> Decimal:
    if len(text) > _TEXT_LENGTH_MAX or not text.isascii():
        raise ValueError(f'{what} is not a number of dollars; write it like "0.10".')
    body = text.strip()
    negative = body.startswith("-")
    digits = body[1:] if negative else body
    digits = digits.removeprefix("$")
    if "," in digits:
        digits = _without_commas(digits, what)
    # Decimal also takes signs, underscores, exponents and words; only what a person writes for money is wanted here.
    if not digits.replace(".", "", 1).isdigit():
        raise ValueError(f'{what} must be a number of dollars like "0.10", not {text!r}.')
    try:
        return Decimal(f"-{digits}" if negative else digits)
    except InvalidOperation as exc:  # pragma: no cover -- the check above leaves nothing that Decimal refuses
        raise ValueError(f'{what} must be a number of dollars like "0.10", not {text!r}.') from exc


def _without_commas(digits: str, what: str) -> str:
    whole, _, rest = digits.partition(".")
    head, *groups = whole.split(",")
    if "," in rest or not 1 <= len(head) <= 3 or any(len(group) != 3 for group in groups):
        raise ValueError(f'{what} has commas that do not separate thousands; write it like "1,000.50" or "1000.50".')
    return digits.replace(",", "")


def _to_pusd(amount: Decimal, what: str) -> PicoUSD:
    if not amount.is_finite():
        raise ValueError(f"{what} must be a finite number of dollars.")
    # Bounding the exponent first keeps Decimal("1e999999999") from being written out.
    if amount and not -13 - len(amount.as_tuple().digits) < amount.adjusted() < 8:
        raise ValueError(_range_or_grain(amount, what))
    scaled = amount.scaleb(12, _EXACT)
    pusd = int(scaled)
    if pusd != scaled:
        raise ValueError(f"{what} is finer than a picodollar (12 decimal places).")
    if abs(pusd) > AMOUNT_MAX:
        raise ValueError(f"{what} is out of range: at most $9,223,372 fits in a ledger.")
    return pusd


def _range_or_grain(amount: Decimal, what: str) -> str:
    if amount.adjusted() > 0:
        return f"{what} is out of range: at most $9,223,372 fits in a ledger."
    return f"{what} is finer than a picodollar (12 decimal places)."


def _wrong_type(value: object, what: str) -> TypeError:
    if isinstance(value, float):
        return TypeError(
            f"{what} is a float, and floats cannot hold most amounts of money exactly: 891 times 3.20 summed up is "
            "2851.199999999975. "
            f'Write it as text: "{value:.2f}".'
        )
    return TypeError(f"{what} must be dollars as text, int or Decimal, not {type(value).__name__}.")
