"""Money: dollars in, integer picodollars inside, exact dollars out."""

from __future__ import annotations

from decimal import Decimal

import pytest

from runrails.money import AMOUNT_MAX, PUSD_PER_USD, apply_bp_up, ceil_div, check_pusd, format_usd, to_decimal, usd


@pytest.mark.parametrize("value", [0.1, 3.20, float("nan"), float("inf")])
def test_a_float_is_a_type_error_that_says_why(value: float) -> None:
    """Floats are refused with the reason and the way to write it."""
    with pytest.raises(TypeError, match=r"is a float.*2851\.199999999975.*Write it as text"):
        usd(value, what="run limit")  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [True, False, None, b"1", [], 1j])
def test_other_types_are_type_errors(value: object) -> None:
    """A bool is no amount although it is an int to Python."""
    with pytest.raises(TypeError, match="must be dollars as text, int or Decimal"):
        usd(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-",
        "$",
        ".",
        "nan",
        "inf",
        "-inf",
        "1e3",
        "1_000",
        "0x10",
        "1.2.3",
        "--1",
        "+-1",
        "1,00",
        "1,0000",
        ",100",
        "1.000,50",
        "0.10 USD",
        "٣",
        "１",
        "1" * 65,
    ],
)
def test_malformed_text_is_a_value_error(text: str) -> None:
    """Only what a person writes for money is read."""
    with pytest.raises(ValueError, match="amount"):
        usd(text)


@pytest.mark.parametrize(
    "value", ["0.0000000000001", Decimal("1e-13"), Decimal("1e-999999999"), Decimal("0.3333333333333")]
)
def test_finer_than_a_picodollar_is_refused(value: str | Decimal) -> None:
    """Nothing is rounded away silently."""
    with pytest.raises(ValueError, match="finer than a picodollar"):
        usd(value)


@pytest.mark.parametrize(
    "value", ["9223372.036854775808", 9_223_373, -9_223_373, Decimal("1e999999999"), Decimal("-1e20"), "99999999999"]
)
def test_more_than_a_ledger_holds_is_refused(value: str | int | Decimal) -> None:
    """The range is that of a 64-bit integer of picodollars."""
    with pytest.raises(ValueError, match="out of range"):
        usd(value)


@pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("-Infinity")])
def test_a_decimal_that_is_not_finite_is_refused(value: Decimal) -> None:
    """NaN would switch every comparison off."""
    with pytest.raises(ValueError, match="finite"):
        usd(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0.10", 10**11),
        ("$2,851.20", 2_851_200_000_000_000),
        ("-$0.10", -(10**11)),
        ("0.00000045", 450_000),
        ("0.000000000001", 1),
        (".5", 5 * 10**11),
        ("5.", 5 * 10**12),
        (" 1 ", 10**12),
        ("0", 0),
        (7, 7 * 10**12),
        (-7, -7 * 10**12),
        (Decimal("1E-12"), 1),
        (Decimal("1E+2"), 10**14),
        (Decimal("-0"), 0),
        ("9223372.036854775807", AMOUNT_MAX),
        ("-9223372.036854775807", -AMOUNT_MAX),
    ],
)
def test_dollars_become_picodollars(value: str | int | Decimal, expected: int) -> None:
    """Text, int and Decimal are read exactly, up to the largest amount."""
    assert expected == usd(value)


def test_the_storys_bill_is_exact() -> None:
    """891 iterations at $3.20 are $2,851.20, not 2851.199999999975."""
    assert "$2,851.20" == format_usd(891 * usd("3.20"))
    assert sum([usd("3.20")] * 891) == 891 * usd("3.20")


@pytest.mark.parametrize(
    ("pusd", "expected"),
    [
        (0, "$0.00"),
        (1, "$0.000000000001"),
        (-1, "-$0.000000000001"),
        (450_000, "$0.00000045"),
        (10**11, "$0.10"),
        (-(10**11), "-$0.10"),
        (2_851_200_000_000_000, "$2,851.20"),
        (10**12 * 1_234_567, "$1,234,567.00"),
        (123 * 10**9, "$0.123"),
    ],
)
def test_amounts_are_shown_in_full(pusd: int, expected: str) -> None:
    """At least two places, never rounded."""
    assert expected == format_usd(pusd)


def test_decimal_is_exact_at_both_ends() -> None:
    """The largest amount and one picodollar survive the way through Decimal."""
    assert Decimal("9223372.036854775807") == to_decimal(AMOUNT_MAX)
    assert Decimal("0.000000000001") == to_decimal(1)


@pytest.mark.parametrize(
    ("pusd", "bp", "expected"),
    [(1, 10_200, 2), (100, 10_200, 102), (0, 10_200, 0), (3, 10_000, 3), (1, 0, 0), (-1, 5_000, 0)],
)
def test_mark_up_rounds_up(pusd: int, bp: int, expected: int) -> None:
    """One rounding, upward."""
    assert expected == apply_bp_up(pusd, bp)


def test_negative_basis_points_are_refused() -> None:
    """A mark-up below nothing is a mistake."""
    with pytest.raises(ValueError, match="basis points"):
        apply_bp_up(1, -1)


@pytest.mark.parametrize(("a", "b", "expected"), [(0, 3, 0), (1, 3, 1), (3, 3, 1), (4, 3, 2), (-1, 3, 0), (-4, 3, -1)])
def test_ceil_div(a: int, b: int, expected: int) -> None:
    """Towards plus infinity."""
    assert expected == ceil_div(a, b)


@pytest.mark.parametrize("value", [True, 1.0, "1", None])
def test_an_amount_must_be_an_int(value: object) -> None:
    """What goes to a ledger is an int of picodollars."""
    with pytest.raises(TypeError, match="must be an int of picodollars"):
        check_pusd(value, what="hold")


@pytest.mark.parametrize("value", [-1, 2**63])
def test_an_amount_must_fit(value: int) -> None:
    """0 ≤ x < 2⁶³."""
    with pytest.raises(ValueError, match="between 0 and"):
        check_pusd(value, what="hold")


def test_an_amount_that_fits_is_given_back() -> None:
    """Both ends of the range are fine."""
    assert [0, AMOUNT_MAX] == [check_pusd(0, what="hold"), check_pusd(AMOUNT_MAX, what="hold")]
    assert PUSD_PER_USD == usd("1")
