"""Facts, refusals and reports as compact JSON text: one form for every engine that keeps text."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from operator import attrgetter
from typing import TYPE_CHECKING, TypedDict, cast

from runrails.ledger import AMOUNT_MAX, Account, CallFacts, Discount, Refused, ResultFacts, RunRecord
from runrails.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    _Written = tuple[str, str | None, int, dict[str, int] | None, *tuple[object, ...]]

__all__ = [
    "facts_from_text",
    "facts_text",
    "month_bounds",
    "plain",
    "refused_from_text",
    "refused_text",
    "report_text",
    "result_from_text",
    "result_text",
    "run_copy",
]


class _Known(TypedDict, total=False):
    answer_id: str
    discount: tuple[int, str]


# Only what differs from its default is written. Text is ASCII (lone surrogates are escaped), so SQLite takes all of it.
_FACTS = tuple((f.name, f.default) for f in fields(CallFacts) if f.name not in {"user", "run", "tags"})
_facts = attrgetter(*[name for name, _ in _FACTS])
_FACTS_KNOWN = frozenset(name for name, _ in _FACTS)
_USAGE = tuple((f.name, f.default) for f in fields(Usage))
_compact = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def facts_text(facts: CallFacts) -> str:
    """A call's facts but for `user` and `run`, which have columns of their own."""
    found = cast("tuple[object, ...]", _facts(facts))
    known = {name: value for (name, default), value in zip(_FACTS, found, strict=True) if value != default}
    if facts.tags:
        known["tags"] = dict(facts.tags)
    return _compact(known)


def facts_from_text(user: str, run: str, text: str) -> CallFacts:
    """The facts that `facts_text` wrote."""
    known = json.loads(text)
    tags = cast("dict[str, str]", known.get("tags", {}))
    # A later version may know more of a call than this one.
    told = {name: value for name, value in known.items() if name in _FACTS_KNOWN}
    return CallFacts(user=user, run=run, tags=tuple(tags.items()), **told)


def result_text(result: ResultFacts) -> str:
    """What is known of a call's end."""
    usage = result.usage
    counts = (
        None
        if usage is None
        else {name: value for name, default in _USAGE if (value := getattr(usage, name)) != default}
    )
    known: dict[str, object] = {}
    if result.answer_id is not None:
        known["answer_id"] = result.answer_id
    if result.discount is not None:
        known["discount"] = result.discount
    more = [result.price_card, known] if known else [result.price_card] if result.price_card else []
    return _compact([result.end, result.model, result.duration_ms, counts, *more])


def result_from_text(text: str) -> ResultFacts:
    """The result that `result_text` wrote."""
    end, model, duration_ms, counts, *more = cast("_Written", tuple(json.loads(text)))
    # Both were added later, and a later version may know more than this one.
    price_card = cast("str", more[0]) if more else ""
    known = cast("_Known", more[1] if len(more) > 1 else {})
    usage = None if counts is None else Usage(**counts)
    discount = known.get("discount")
    return ResultFacts(
        end=end, usage=usage, model=model, duration_ms=duration_ms, price_card=price_card,
        answer_id=known.get("answer_id"), discount=None if discount is None else Discount(discount[0], discount[1]),
    )  # fmt: skip


def refused_text(refused: Refused) -> str:
    """A refusal, kept so that a repeated observing reservation gets its first answer."""
    return _compact([*refused.account, *refused[1:]])


def refused_from_text(text: str) -> Refused:
    """The refusal that `refused_text` wrote."""
    scope, period, unit, limit, spent, held, needed = cast("tuple[str, str, str, int, int, int, int]", json.loads(text))
    return Refused(Account(scope, period, unit), limit, spent, held, needed)


def report_text(report: Mapping[str, object]) -> str:
    """
    A run's report.

    Raises:
        TypeError: It holds something that is not JSON.
        ValueError: It holds NaN or infinity.
    """
    return _compact(dict(report))


def run_copy(record: RunRecord) -> RunRecord:
    """The record with its texts as every engine can keep them, and its report out of its maker's reach."""
    return replace(
        record,
        id=plain(record.id),
        name=plain(record.name),
        user=plain(record.user),
        stop_reason=None if record.stop_reason is None else plain(record.stop_reason),
        report=cast("dict[str, object]", json.loads(report_text(record.report))),
    )


def plain(text: str) -> str:
    """The text with U+FFFD in the place of lone surrogates, which no file can keep."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def month_bounds(period: str | None) -> tuple[int, int]:
    """
    First millisecond of a month (``2026-11``, UTC) and of the next one; the widest range for None.

    Raises:
        ValueError: Not a month.
    """
    if period is None:
        return 0, AMOUNT_MAX
    from runrails.periods import month_start_ms, next_month

    return month_start_ms(period, "UTC"), month_start_ms(next_month(period), "UTC")
