"""Bad settings are clear errors that name the fix; nothing is started or written."""

from __future__ import annotations

from decimal import Decimal

import pytest

from rr_core import Bench
from runrails import ConfigError, Guard, Limits, LoopPolicy
from runrails.stores.memory import MemoryStore


@pytest.mark.parametrize("name", ["run", "month", "key_month", "org_month"])
def test_money_as_a_float_is_a_type_error_that_says_why(name: str) -> None:
    """0.1 is not a tenth; the message shows how to write it."""
    with pytest.raises(TypeError, match=f"{name}.*float"):
        Limits(**{name: 0.1})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["0", "-1", "0.00", -5, Decimal("-0.01")])
def test_zero_and_negative_money_are_refused(value: str | int | Decimal) -> None:
    """A budget of nothing is a mistake, not a setting."""
    with pytest.raises(ValueError, match=r"more than \$0"):
        Limits(run=value)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "", "1e400", "one", "1,00", Decimal("NaN"), "0.0000000000001"])
def test_money_that_is_no_number_is_refused(value: str | Decimal) -> None:
    """Not a number, infinite, too large, or finer than a picodollar."""
    with pytest.raises(ValueError, match="run"):
        Limits(run=value)


@pytest.mark.parametrize("name", ["tokens", "steps", "model_calls", "tool_calls", "seconds"])
@pytest.mark.parametrize("value", [0, -1, 2**63])
def test_counts_out_of_range_are_refused(name: str, value: int) -> None:
    """At least 1, and what 64 bits hold."""
    with pytest.raises(ValueError, match=name):
        Limits(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [1.5, "10", True])
def test_counts_that_are_no_ints_are_refused(value: object) -> None:
    """Text, fractions and booleans are not counts."""
    with pytest.raises(TypeError, match="steps"):
        Limits(steps=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("user", ["", "a b", "über", "ａ", "x" * 129, "../etc", "a\n", "user:1"])
def test_malformed_ids_are_refused_without_being_shown(user: str) -> None:
    """Two names that look alike must not be two budgets."""
    with pytest.raises(ConfigError, match="ASCII") as caught:
        Guard(user=user, store=MemoryStore())
    assert not user.strip() or user not in str(caught.value)


def test_unknown_modes_and_zones_are_refused() -> None:
    """Each names the setting and what it may be."""
    with pytest.raises(ConfigError, match="mode must be one of enforce, observe"):
        Guard(mode="on", store=MemoryStore())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="zone"):
        Guard(zone="Mars/Olympus", store=MemoryStore())
    with pytest.raises(ConfigError, match="on_store_error"):
        Guard(on_store_error="maybe", store=MemoryStore())  # type: ignore[arg-type]


@pytest.mark.parametrize("prices", [{"m": "1"}, {"m": 0.5}, {"m": None}, {"": "0"}])
def test_malformed_prices_are_refused(prices: dict[str, object]) -> None:
    """Only a Price or the written zero is a price."""
    with pytest.raises((ConfigError, TypeError, ValueError)):
        Guard(prices=prices, store=MemoryStore())  # type: ignore[arg-type]


def test_a_scopes_time_zone_is_fixed_at_first_use() -> None:
    """Months that begin in Tokyo cannot begin in UTC the next day."""
    store = MemoryStore()
    Guard(zone="Asia/Tokyo", user="alice", store=store).run()

    with pytest.raises(ConfigError, match="Asia/Tokyo"):
        Guard(zone="UTC", user="alice", store=store).run()
    Guard(zone="UTC", user="bob", store=store).run()


def test_the_ladder_must_be_in_order() -> None:
    """A block before the hint makes no sense."""
    with pytest.raises(ValueError, match="hint"):
        LoopPolicy(hint_at=6, block_at=5)


def test_the_user_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument wins over `RUNRAILS_USER`, which wins over `local`."""
    monkeypatch.delenv("RUNRAILS_USER", raising=False)
    assert "local" == Guard(store=MemoryStore()).user
    monkeypatch.setenv("RUNRAILS_USER", "carol")
    assert "carol" == Guard(store=MemoryStore()).user
    assert "dave" == Guard(user="dave", store=MemoryStore()).user


def test_a_guards_repr_shows_no_prices_or_paths() -> None:
    """What is printed by accident is who and how much."""
    text = repr(Bench().guard)
    assert "alice" in text
    assert "Price" not in text
