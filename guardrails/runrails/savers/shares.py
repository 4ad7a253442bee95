"""A share of something as an exact ratio: text, Decimal or Fraction, never a float."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fractions import Fraction

    ShareLike = str | Decimal | Fraction

__all__ = ["Share", "reached", "share"]

Share = tuple[int, int]
"""Numerator and denominator."""
_TEXT_CHARS_MAX = 20


def share(value: object, what: str) -> Share:
    """
    A share above 0 and at most 1.

    Raises:
        TypeError: A float, which would not be exact, or something else.
        ValueError: It is no number, or out of range.
    """
    if isinstance(value, str):
        try:
            value = Decimal(value) if len(value) <= _TEXT_CHARS_MAX else Decimal("NaN")
        except InvalidOperation:
            value = Decimal("NaN")
    ratio = getattr(value, "as_integer_ratio", None)
    if isinstance(value, float | bool) or ratio is None:
        raise TypeError(f'{what} must be a share as text, like "0.80", not {type(value).__name__}.')
    try:
        # An exponent of a billion would be a ratio of a billion digits.
        tiny = isinstance(value, Decimal) and value.is_finite() and value.adjusted() < -_TEXT_CHARS_MAX
        numerator, denominator = (0, 1) if tiny else ratio()
    except (ValueError, OverflowError):
        numerator, denominator = 0, 1
    if not 0 < numerator <= denominator:
        raise ValueError(f'{what} must be a share above 0 and at most 1, like "0.80".')
    return numerator, denominator


def reached(used: int, whole: int | None, least: Share) -> bool:
    """Whether `used` is at least that share of `whole`; never of nothing."""
    return whole is not None and whole > 0 and used * least[1] >= whole * least[0]
