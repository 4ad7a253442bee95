"""Provider, discount, mark-up and charge: what they are, that they add up, and that the books need keep one amount."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runrails import ConfigError
from runrails.figures import MARKUP_BP_MAX, Figures, check_markup_bp, due, figures_of, marked_up, net_of
from runrails.ledger import CallFacts, Discount, ResultFacts, UsageRecord
from runrails.settings import markup_bp

NETS = st.integers(0, 2**62)
BPS = st.integers(0, MARKUP_BP_MAX)


def record(actual: int | None, *, discount: int | None = None, **told: object) -> UsageRecord:
    """A record with this amount, discount and facts."""
    facts = CallFacts(user="alice", run="r1", **told)  # type: ignore[arg-type]
    result = ResultFacts(discount=None if discount is None else Discount(discount, "list"))
    return UsageRecord(
        id="a", state="settled", at_ms=0, settled_at_ms=0, estimated_pusd=0, actual_pusd=actual, facts=facts,
        result=result,
    )  # fmt: skip


@settings(max_examples=300)
@given(NETS, BPS)
def test_the_net_amount_is_found_again(net: int, bp: int) -> None:
    """The mark-up is rounded up, and what it was made from is found again to the picodollar, at every rate."""
    gross = marked_up(net, bp)
    assert 0 <= gross * 10_000 - net * (10_000 + bp) < 10_000
    assert net == net_of(gross, bp)


@settings(max_examples=300)
@given(NETS, BPS, st.booleans(), st.integers(-(2**40), 2**40))
def test_the_figures_add_up(net: int, bp: int, byok: bool, discount: int) -> None:
    """net = provider - discount; charged = net + mark-up, or nothing on a key of the user's own."""
    facts = CallFacts(user="alice", run="r1", byok=byok, markup_bp=bp)
    owed = due(net, facts)
    figures = figures_of(record(owed, discount=discount, byok=byok, markup_bp=bp))
    assert figures is not None
    assert net == figures.provider_pusd - figures.discount_pusd == figures.net_pusd
    assert figures.provider_pusd >= 0
    assert (0 if byok else net + figures.markup_pusd) == figures.charged_pusd
    assert (0 if byok else marked_up(net, bp) - net) == figures.markup_pusd
    assert owed == figures.charged_pusd + figures.own_key_pusd
    assert max(discount, -net) == figures.discount_pusd


@pytest.mark.parametrize(
    ("actual", "told", "expected"),
    [
        (100, {}, Figures(100, 0, 0, 100)),
        (102, {"markup_bp": 200}, Figures(100, 0, 2, 102)),
        (1, {"markup_bp": 200}, Figures(0, 0, 1, 1)),
        (2, {"markup_bp": 200}, Figures(1, 0, 1, 2)),
        (100, {"byok": True}, Figures(100, 0, 0, 0)),
        (100, {"byok": True, "markup_bp": 200}, Figures(100, 0, 0, 0)),
        (102, {"markup_bp": 200, "discount": 12}, Figures(112, 12, 2, 102)),
        (0, {"markup_bp": 200, "discount": -3}, Figures(0, 0, 0, 0)),
        (100, {"discount": -3}, Figures(97, -3, 0, 100)),
    ],
)
def test_examples(actual: int, told: Mapping[str, object], expected: Figures) -> None:
    """Two per cent of 100 is 2, of a picodollar a whole one; a record of before the mark-up has none."""
    assert expected == figures_of(record(actual, **told))  # type: ignore[arg-type]


def test_a_call_in_flight_has_none() -> None:
    """Nobody knows yet."""
    assert figures_of(record(None)) is None


@pytest.mark.parametrize("wrong", [-1, MARKUP_BP_MAX + 1, 2.0, True, "200", None])
def test_what_is_no_markup(wrong: object) -> None:
    """A mark-up is an int of basis points; the error names the setting."""
    with pytest.raises(ConfigError, match="markup_bp"):
        check_markup_bp(wrong)


@pytest.mark.parametrize(("written", "expected"), [("", 0), (" ", 0), ("0", 0), ("200", 200), ("10000", 10_000)])
def test_the_environment_may_say_it(monkeypatch: pytest.MonkeyPatch, written: str, expected: int) -> None:
    """`RUNRAILS_MARKUP_BP` is a whole number of basis points."""
    monkeypatch.setenv("RUNRAILS_MARKUP_BP", written)
    assert expected == markup_bp()


@pytest.mark.parametrize("wrong", ["2%", "-1", "10001", "2.5", "1e3", "9" * 5_000, "٢٠٠"])
def test_the_environment_is_checked(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    """The error names the variable and not what it holds."""
    monkeypatch.setenv("RUNRAILS_MARKUP_BP", wrong)
    with pytest.raises(ConfigError, match="RUNRAILS_MARKUP_BP") as caught:
        markup_bp()
    assert len(wrong) < 6 or wrong not in str(caught.value)
