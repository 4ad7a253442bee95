"""What the environment says, checked as a whole before anything starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from runrails.autoguard.variables import BUDGETS, KNOWN, OFF, ON, option_of
from runrails.errors import ConfigError
from runrails.figures import MARKUP_BP_MAX
from runrails.ids import check_id
from runrails.limits import Limits
from runrails.money import usd
from runrails.periods import check_zone

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runrails.pricing import PriceSpec
    from runrails.rates.limiter import Rates

__all__ = ["STOP_CODE", "Plan", "read_plan"]

STOP_CODE = 3
"""Exit code after a stop: neither 0, nor 1 and 2, with which programs fail of themselves."""
GRACE_S = 30
GRACE_S_MAX = 86_400
NO_LIMIT = "none"
_EMPTY: Mapping[str, str] = MappingProxyType({})
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to guard a program."""

    limits: Limits
    user: str = "local"
    key: str | None = None
    org: str | None = None
    name: str = ""
    run_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    store: str | None = None
    observe: bool = False
    zone: str = "UTC"
    prices: Mapping[str, PriceSpec] = field(default_factory=lambda: _EMPTY)
    price_file: str | None = None
    markup_bp: int = 0
    polls: tuple[str, ...] = ()
    stop_code: int | None = STOP_CODE
    """None: the program's own."""
    grace_s: int = GRACE_S
    summary: bool = True
    summary_file: str | None = None


def read_plan(environment: Mapping[str, str]) -> Plan:
    """
    What to do.

    Raises:
        ConfigError: A value is malformed; the message names the variable and the option.
    """
    _check_names(environment)
    read = _Reader(environment)
    store = read.text("RUNRAILS_STORE")
    if store is not None and store.partition(":")[0] == "memory":
        raise ConfigError(
            f"{option_of('RUNRAILS_STORE')} is a store in memory, which the processes of a run cannot share.",
            next_step="Name a file, as in sqlite:////path/to/ledger.db, or leave it out for the one in your home.",
        )
    return Plan(
        limits=_limits(read),
        user=read.id("RUNRAILS_USER") or "local",
        key=read.id("RUNRAILS_KEY"),
        org=read.id("RUNRAILS_ORG"),
        name=read.text("RUNRAILS_RUN_NAME") or "",
        run_id=read.id("RUNRAILS_RUN_ID"),
        tags=_tags(read),
        store=store,
        observe=read.one_of("RUNRAILS_MODE", {"enforce": False, "observe": True}, default=False),
        zone=_zone(read),
        prices=_prices(read),
        price_file=read.text("RUNRAILS_PRICES"),
        markup_bp=read.number("RUNRAILS_MARKUP_BP", least=0, most=MARKUP_BP_MAX, default=0) or 0,
        polls=tuple(read.items("RUNRAILS_POLL_TOOLS")),
        stop_code=_stop_code(read),
        grace_s=read.number("RUNRAILS_STOP_GRACE", least=0, most=GRACE_S_MAX, default=GRACE_S) or 0,
        summary=read.switch("RUNRAILS_SUMMARY"),
        summary_file=read.text("RUNRAILS_SUMMARY_FILE"),
    )


def _check_names(environment: Mapping[str, str]) -> None:
    """Refuse a budget under a name that nobody reads: whoever wrote it down believes that it holds."""
    for name in environment:
        if not name.startswith("RUNRAILS_") or name in KNOWN or not environment[name].strip():
            continue
        from difflib import get_close_matches

        close = get_close_matches(name, BUDGETS, n=1, cutoff=0.85)
        if close or "BUDGET" in name:
            raise ConfigError(
                f"{name} is no variable of runrails, and what it says would not be held.",
                next_step=f"Write {close[0] if close else ' or '.join(BUDGETS)}, or leave it out.",
            )


class _Reader:
    """Single values; what is empty was not said."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, name: str) -> str | None:
        value = self._environment.get(name, "").strip()
        return value or None

    def items(self, name: str) -> list[str]:
        return [item.strip() for item in (self.text(name) or "").split(",") if item.strip()]

    def id(self, name: str) -> str | None:
        value = self.text(name)
        return None if value is None else _checked(name, lambda: check_id(value, what=option_of(name)))

    def one_of(self, name: str, known: Mapping[str, bool], *, default: bool) -> bool:
        value = self.text(name)
        if value is None:
            return default
        if value.lower() not in known:
            raise _malformed(name, f"must be one of: {', '.join(sorted(known))}.")
        return known[value.lower()]

    def switch(self, name: str) -> bool:
        return self.one_of(name, {**dict.fromkeys(ON, True), **dict.fromkeys(OFF, False)}, default=True)

    def number(self, name: str, *, least: int, most: int, default: int | None) -> int | None:
        value = self.text(name)
        if value is None:
            return default
        digits = value.replace(",", "").replace("_", "")
        if not (digits.isascii() and digits.isdigit() and least <= int(digits) <= most):
            raise _malformed(name, f"must be a whole number from {least:,} to {most:,}.")
        return int(digits)

    def count(self, name: str, default: int | None) -> int | None:
        if (self.text(name) or "").lower() == NO_LIMIT:
            return None
        return self.number(name, least=1, most=10**15, default=default)

    def money(self, name: str, default: str | None) -> str | None:
        value = self.text(name)
        if value is None:
            return default
        if value.lower() == NO_LIMIT:
            return None
        amount = _checked(name, lambda: usd(value, what=option_of(name)))
        if amount <= 0:
            raise _malformed(name, "must be more than $0; for no limit, write none.")
        return value


def _limits(read: _Reader) -> Limits:
    usual = Limits()
    return Limits(
        run=read.money("RUNRAILS_RUN_BUDGET", str(usual.run)),
        month=read.money("RUNRAILS_MONTH_BUDGET", None),
        key_month=read.money("RUNRAILS_KEY_BUDGET", None),
        org_month=read.money("RUNRAILS_ORG_BUDGET", None),
        steps=read.count("RUNRAILS_STEPS", usual.steps),
        seconds=read.count("RUNRAILS_SECONDS", None),
        tokens=read.count("RUNRAILS_TOKENS", None),
        model_calls=read.count("RUNRAILS_MODEL_CALLS", None),
        tool_calls=read.count("RUNRAILS_TOOL_CALLS", None),
        loops=usual.loops if read.switch("RUNRAILS_LOOPS") else None,
        rates=_rates(read),
    )


def _rates(read: _Reader) -> Rates | None:
    names = ("RUNRAILS_REQUESTS_PER_MINUTE", "RUNRAILS_TOKENS_PER_MINUTE")
    if not any(map(read.text, names)):
        return None  # nothing is loaded for what is not asked for
    from runrails.rates.limiter import PER_MINUTE_MAX, Rates

    asked = [
        None if (read.text(name) or NO_LIMIT).lower() == NO_LIMIT
        else read.number(name, least=1, most=PER_MINUTE_MAX, default=None)
        for name in names
    ]  # fmt: skip
    return None if asked == [None, None] else Rates(requests_per_minute=asked[0], tokens_per_minute=asked[1])


def _stop_code(read: _Reader) -> int | None:
    if (read.text("RUNRAILS_STOP_CODE") or "").lower() == "own":
        return None
    return read.number("RUNRAILS_STOP_CODE", least=1, most=125, default=STOP_CODE)


def _zone(read: _Reader) -> str:
    value = read.text("RUNRAILS_ZONE")
    return "UTC" if value is None else _checked("RUNRAILS_ZONE", lambda: check_zone(value))


def _tags(read: _Reader) -> Mapping[str, str]:
    tags: dict[str, str] = {}
    for item in read.items("RUNRAILS_TAGS"):
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise _malformed("RUNRAILS_TAGS", "must have the form name=value,name=value.")
        tags[name] = value
    return tags


def _prices(read: _Reader) -> Mapping[str, PriceSpec]:
    items = read.items("RUNRAILS_MODEL_PRICES")
    if not items:
        return _EMPTY
    prices: dict[str, PriceSpec] = {}
    for item in items:
        model, _, price = item.rpartition("=")
        rate_in, slash, rate_out = price.partition("/")
        if not model or not price or (not slash and price != "0"):
            raise _malformed("RUNRAILS_MODEL_PRICES", "must have the form model=IN/OUT, or model=0 for a free one.")
        prices[model] = _price(rate_in, rate_out) if slash else "0"
    return prices


def _price(rate_in: str, rate_out: str) -> PriceSpec:
    from runrails.pricing import Price

    return _checked("RUNRAILS_MODEL_PRICES", lambda: Price(input=rate_in, output=rate_out))


def _checked(name: str, check: Callable[[], _T]) -> _T:
    try:
        return check()
    except (ValueError, TypeError) as exc:
        what = str(exc)
        text = what if what.startswith(name) else f"{option_of(name)}: {what}"
        raise ConfigError(text, next_step=f"Write {option_of(name)} in that form, or leave it out.") from None


def _malformed(name: str, what: str) -> ConfigError:
    return ConfigError(f"{option_of(name)} {what}", next_step=f"Write {option_of(name)} in that form, or leave it out.")
