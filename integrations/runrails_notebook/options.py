"""What is written behind `%guardrails` and `%%guarded`."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from runrails.autoguard.plan import NO_LIMIT, read_plan
from runrails.ids import check_id
from runrails.money import usd
from runrails_notebook.settings import CellWish

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runrails_notebook.settings import Settings

__all__ = ["ACTIONS", "Asked", "WrongUse", "guarded_options", "guardrails_options"]

ACTIONS = ("status", "table", "off", "on")
NAME_CHARS_MAX = 60
COUNT_MAX = 10**9
DIGITS_MAX = 30
"""Python itself refuses to read some thousands of them."""


class WrongUse(ValueError):
    """What is written makes no sense; the message says why."""


class Asked:
    """What `%guardrails` is asked for."""

    def __init__(self, action: str | None, settings: Settings, *, changes: bool) -> None:
        self.action = action
        self.settings = settings
        self.changes = changes
        """Whether anything was said of settings."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise WrongUse(f"{message}\n{self.format_usage().strip()}")


def guardrails_options(line: str, settings: Settings) -> Asked:
    """
    The settings that a line asks for, over those that apply.

    Raises:
        WrongUse: It cannot be read.
    """
    given = _parse(_guardrails(), line)
    words: Sequence[str] | None = given.prices
    changed = replace(
        settings,
        budget=_money("--budget", given.budget, settings.budget),
        month=_money("--month", given.month, settings.month),
        cell=_money("--cell", given.cell, settings.cell),
        steps=_count("--steps", given.steps, settings.steps),
        user=_id("--user", given.user) or settings.user,
        org=_id("--org", given.org) or settings.org,
        store=given.store or settings.store,
        prices={**settings.prices, **read_plan({"RUNRAILS_MODEL_PRICES": ",".join(words)}).prices}
        if words
        else settings.prices,
        polls=(*settings.polls, *(given.polls or ())),
        loops=settings.loops if given.loops is None else given.loops == "on",
        meter=settings.meter if given.meter is None else given.meter == "on",
    )
    return Asked(given.action, changed, changes=changed != settings)


def guarded_options(line: str) -> CellWish:
    """
    What a cell asks for. Raises WrongUse.
    """
    given = _parse(_guarded(), line)
    name: str = given.name or ""
    if len(name) > NAME_CHARS_MAX or not name.isprintable():
        raise WrongUse(f"--name must be printable and have {NAME_CHARS_MAX} characters at most.")
    return CellWish(
        run=_money("--run", given.run, None, none=False),
        steps=_count("--steps", given.steps, None, none=False),
        name=name,
    )


def _guardrails() -> _Parser:
    parser = _Parser(prog="%guardrails", add_help=False, allow_abbrev=False)
    say = parser.add_argument
    say("action", nargs="?", choices=ACTIONS, help="status (the default), the table of cells, or off and on again")
    say("--budget", metavar="DOLLARS", help="what the kernel may spend until it is restarted; none for no limit")
    say("--month", metavar="DOLLARS", help="what the user may spend in a calendar month; outlives the kernel")
    say("--cell", metavar="DOLLARS", help="what each cell may spend")
    say("--steps", metavar="N", help="model and tool calls of each cell")
    say("--user", metavar="NAME", help="whose money it is")
    say("--org", metavar="NAME", help="the organisation, if it has a budget")
    say("--store", metavar="URL", help="the ledger; before the first call")
    say("--price", metavar="MODEL=IN/OUT", action="append", dest="prices", help="dollars per million tokens")
    say("--poll", metavar="TOOL", action="append", dest="polls", help="a tool whose answer may stay the same for long")
    say("--loops", choices=("on", "off"), help="the loop detector")
    say("--meter", choices=("on", "off"), help="the meter under a working cell")
    return parser


def _guarded() -> _Parser:
    parser = _Parser(prog="%%guarded", add_help=False, allow_abbrev=False)
    parser.add_argument("--run", metavar="DOLLARS", help="what this cell may spend")
    parser.add_argument("--steps", metavar="N", help="its model and tool calls")
    parser.add_argument("--name", metavar="TEXT", help="what the table calls it")
    return parser


def _parse(parser: _Parser, line: str) -> argparse.Namespace:
    try:
        return parser.parse_args(shlex.split(line))
    except ValueError as error:  # quotes that are not closed, and WrongUse itself
        raise error if isinstance(error, WrongUse) else WrongUse(str(error)) from None


def _money(option: str, value: str | None, before: str | None, *, none: bool = True) -> str | None:
    if value is None:
        return before
    if none and value.lower() == NO_LIMIT:
        return None
    try:
        amount = usd(value.removeprefix("$"), what=option)
    except (ValueError, TypeError) as error:
        raise WrongUse(str(error)) from None
    if amount <= 0:
        raise WrongUse(f"{option} must be more than $0{'; for no limit, write none' if none else ''}.")
    return value.removeprefix("$")


def _count(option: str, value: str | None, before: int | None, *, none: bool = True) -> int | None:
    if value is None:
        return before
    if none and value.lower() == NO_LIMIT:
        return None
    digits = value.replace(",", "").replace("_", "")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= DIGITS_MAX and 1 <= int(digits) <= COUNT_MAX):
        raise WrongUse(f"{option} must be a whole number from 1 to {COUNT_MAX:,}.")
    return int(digits)


def _id(option: str, value: str | None) -> str | None:
    try:
        return None if value is None else check_id(value, what=option)
    except ValueError as error:
        raise WrongUse(str(error)) from None
