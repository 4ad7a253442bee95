"""Amounts on a bill: exact, never guessed, rounded up once a call."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runrails.billing.amounts import ZERO, added, parse_amount, whole_pusd
from runrails.money import to_decimal


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", "0"), ("0.0123", "0.0123"), (" 1234.50 ", "1234.50"), ("1,234.50", "1234.5"), ("$0.10", "0.1"),
        ("-0.50", "-0.5"), ("-$1,234,567", "-1234567"), ("(0.50)", "-0.5"), ("($2)", "-2"), (".5", "0.5"),
        ("5.", "5"), ("1.2E-05", "0.000012"), ("6e-2", "0.06"), ("0.06000000000000001", "0.06000000000000001"),
        ("00012", "12"),
    ],
)  # fmt: skip
def test_what_exports_write(text: str, amount: str) -> None:
    """Plain, with thousands, with a sign of dollars, as a credit, as a program's small number: exactly that."""
    assert Decimal(amount) == parse_amount(text)


@pytest.mark.parametrize(
    "text",
    [
        "1,234", "-1,234", "(1,234)", "1,234e2",
        "", " ", "x", "nan", "inf", "Infinity", "1,23", "0,012", "0,123.4", "1.234,50", "1 234", "--1", "-(1)", "(-1)",
        "()", "1e999", "1e", "1_000", "٣", "0x1", "$", "-", ".", "USD 1", "1 USD", "1" * 65, "€1", "1\n2", "1..2",
    ],
)  # fmt: skip
def test_what_is_no_amount(text: str) -> None:
    """What is no number, or could be read as two of them, is refused."""
    with pytest.raises(ValueError, match="no amount"):
        parse_amount(text)


@pytest.mark.parametrize("text", ["-0.000000000001", "9223372.1", "1e13"])
def test_what_no_call_costs(text: str) -> None:
    """The lines of a call come to something between nothing and what a ledger counts."""
    with pytest.raises(ValueError, match="comes to"):
        whole_pusd(parse_amount(text))


@settings(max_examples=200)
@given(st.lists(st.decimals(-1_000, 1_000, places=15), max_size=20))
def test_a_sum_is_exact_and_rounded_up_once(amounts: list[Decimal]) -> None:
    """Parts finer than a picodollar are added before anything is rounded; nothing is ever rounded down."""
    total = ZERO
    for amount in amounts:
        total = added(total, parse_amount(f"{amount:f}"))
    scaled = sum(int(amount.scaleb(15)) for amount in amounts)
    assert Decimal(scaled) == total.scaleb(15)
    if scaled >= 0:
        assert -(-scaled // 1_000) == whole_pusd(total)
        assert total <= to_decimal(whole_pusd(total)) < total + Decimal("1e-12")
