"""Balances, for people: one of them, and many in a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.errors import format_amount
from runrails.showing.html import Tone, bar, fragment, table
from runrails.showing.terminal import lines_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runrails.ledger import Balance
    from runrails.showing.terminal import Sheet

__all__ = ["balance_html", "balance_rich", "balance_text", "balance_tone", "balances_table"]

_COLUMNS = ("whose", "spent", "held", "limit", "left", "status")
_NUMBERS = (1, 2, 3, 4)


def balance_tone(balance: Balance) -> Tone:
    """The colour of its status."""
    if balance.limit is None:
        return Tone.PLAIN
    return {"active": Tone.OK, "warning": Tone.WARN, "blocked": Tone.STOP}[balance.status]


def balance_text(balance: Balance) -> str:
    """In one line: `user:alice in 2026-11: $1.20 spent, $0.05 held of $50.00 (active)`."""
    unit = balance.account.unit
    held = f", {format_amount(balance.held, unit)} held" if balance.held else ""
    limit = ", no limit" if balance.limit is None else f" of {format_amount(balance.limit, unit)} ({balance.status})"
    return f"{_whose(balance)}: {format_amount(balance.spent, unit)} spent{held}{limit}"


def balance_html(balance: Balance) -> str:
    """For a notebook: a bar, and the amounts in words."""
    unit, limit = balance.account.unit, balance.limit
    used = balance.spent + balance.held
    text = (
        format_amount(used, unit) if limit is None else f"{format_amount(used, unit)} of {format_amount(limit, unit)}"
    )
    head, *amounts = _row(balance)
    facts = [(label, amount) for label, amount in zip(_COLUMNS[1:], amounts, strict=True) if amount]
    return fragment(bar(head, used, limit, text=text, tone=balance_tone(balance)), table(("", ""), facts))


def balance_rich(balance: Balance) -> Sheet:
    """For a terminal."""
    return lines_table("", _COLUMNS, [_row(balance)], right=_NUMBERS)


def balances_table(balances: Iterable[Balance]) -> str:
    """Many of them, as an HTML table."""
    return table(_COLUMNS, [_row(balance) for balance in balances], right=_NUMBERS)


def _row(balance: Balance) -> tuple[str, ...]:
    unit, limit, left = balance.account.unit, balance.limit, balance.available
    return (
        _whose(balance), format_amount(balance.spent, unit), format_amount(balance.held, unit),
        "" if limit is None else format_amount(limit, unit), "" if left is None else format_amount(left, unit),
        "no limit" if limit is None else balance.status,
    )  # fmt: skip


def _whose(balance: Balance) -> str:
    account = balance.account
    return account.scope if account.period == "-" else f"{account.scope} in {account.period}"
