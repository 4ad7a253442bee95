"""Runs over HTTP: what `runrails runs` and `runrails report` do, and those that go on."""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated, NamedTuple, cast

from fastapi import Path, Query

from runrails.ids import ID_LENGTH_MAX, check_id
from runrails.ledger import RUN_PERIOD, Account, RunRecord
from runrails.plainfields import run_fields, usd_text
from runrails.report import STEPS_KEPT_MAX, Report
from runrails_gateway.admin.errors import NotThere
from runrails_gateway.admin.models import Listing, RunDetail, RunRow
from runrails_gateway.admin.paging import Limit, Only, page_of
from runrails_gateway.admin.routing import CallerOf, Endpoint
from runrails_gateway.admin.timeline import findings_of, items, number, savings_of, text, timeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from runrails.ledger import UsageRecord
    from runrails.run import Run
    from runrails_gateway.admin.models import Step

__all__ = ["RUNS", "one_run", "page_of_runs"]

SEARCHED_MAX = 2_000
"""Of so many of the newest runs is searched."""
OPEN_MAX = 1_000
_HEAD = (
    "model_calls", "tool_calls", "steps", "cost_pusd", "input_tokens", "output_tokens", "limit_pusd", "key", "org",
    "would_have_stopped", "refused",
)  # fmt: skip
CALLS_MAX = 2_000
STEPS_MAX = 1_000
RunOffset = Annotated[int, Query(ge=0, le=SEARCHED_MAX, description="How many runs to leave out.")]
RunId = Annotated[str, Path(max_length=ID_LENGTH_MAX)]
Search = Annotated[str | None, Query(max_length=128, description="Part of an id, a name, a user, a tag or a reason.")]


class Filter(NamedTuple):
    """Which runs are wanted."""

    user: str | None = None
    org: str | None = None
    key: str | None = None
    q: str | None = None
    stopped: bool | None = None


def list_runs(
    caller: CallerOf, user: Only = None, key: Only = None, q: Search = None,
    stopped: Annotated[bool | None, Query(description="Only those that were stopped, or were not.")] = None,
    limit: Limit = 50, offset: RunOffset = 0,
) -> Listing[RunRow]:  # fmt: skip
    """Runs, those that go on first, then the newest. The newest 2,000 are searched."""
    return page_of_runs(caller, Filter(user, caller.org, key, q, stopped), limit, offset)


def show_run(caller: CallerOf, run_id: RunId) -> RunDetail:
    """One run: what it did, step by step, what it cost, and what stopped it."""
    return one_run(caller, run_id, org=caller.org)


RUNS = (
    Endpoint("GET", "/runs", "runs.list", list_runs, errors=(409,)),
    Endpoint("GET", "/runs/{run_id}", "runs.show", show_run, errors=(404, 409)),
)


def page_of_runs(caller: CallerOf, wanted: Filter, limit: int, offset: int) -> Listing[RunRow]:
    """A page of those that fit. What has to be searched for is searched for once a moment, however many ask."""
    if wanted == Filter():
        return _page_of_runs(caller, wanted, limit, offset)
    key = ("runs", wanted, limit, offset)
    return caller.desk.kept.get(key, lambda: _page_of_runs(caller, wanted, limit, offset))


def _page_of_runs(caller: CallerOf, wanted: Filter, limit: int, offset: int) -> Listing[RunRow]:
    every = wanted.q or wanted.stopped is not None or wanted.org or wanted.key
    count = SEARCHED_MAX if every else min(SEARCHED_MAX, limit + offset + 1)
    open_now = _open(caller)
    going_on = {record.id for record in open_now}
    ended = (each for each in caller.desk.store.runs(user=wanted.user, count_max=count) if each.id not in going_on)
    rows = chain(
        (_row(caller, each, is_open=True) for each in open_now if _fits(each, wanted)),
        (_row(caller, each, is_open=False) for each in ended if _fits(each, wanted)),
    )
    found = page_of(rows, limit, offset)
    if found.next_offset is not None and found.next_offset > SEARCHED_MAX:
        return found.model_copy(update={"has_more": False, "next_offset": None})
    return found


def one_run(caller: CallerOf, run_id: str, *, user: str | None = None, org: str | None = None) -> RunDetail:
    """One run in full. Raises NotThere if there is none, or none of that user or organisation."""
    try:
        check_id(run_id, what="A run's id")
    except ValueError:
        raise NotThere("run") from None
    store = caller.desk.store
    record = _open_run(caller, run_id)
    is_open = record is not None
    calls = list(islice(store.usage(run=run_id), CALLS_MAX))
    record = record or store.run(run_id) or _from_calls(run_id, calls)
    if record is None or not _fits(record, Filter(user=user, org=org)):
        raise NotThere("run")
    return _detail(record, calls, is_open=is_open)


def _open_run(caller: CallerOf, run_id: str) -> RunRecord | None:
    registry = caller.desk.services.runs
    found = () if registry is None else registry.open_runs()
    return next((_record_of(run, Report.as_dict) for run in found if run.id == run_id), None)


def _open(caller: CallerOf) -> list[RunRecord]:
    """The heads of those that go on, the latest first."""
    return caller.desk.kept.get(("open runs",), lambda: _open_now(caller))


def _open_now(caller: CallerOf) -> list[RunRecord]:
    registry = caller.desk.services.runs
    found = () if registry is None else registry.open_runs()
    latest = list(found)[-OPEN_MAX:]  # registries have the latest last
    return [_record_of(run, _head) for run in reversed(latest)]


def _record_of(run: Run, tell: Callable[[Report], dict[str, object]]) -> RunRecord:
    """A run that goes on, as it stands."""
    report = run.report()
    return RunRecord(
        id=run.id, name=run.name, user=report.user, started_ms=report.started_ms,
        ended_ms=report.started_ms + report.duration_ms, mode=report.mode, stop_reason=report.stop_reason,
        report=tell(report),
    )  # fmt: skip


def _head(report: Report) -> dict[str, object]:
    """What a list shows of a report: writing out all steps of all runs would take a while."""
    head: dict[str, object] = {name: getattr(report, name) for name in _HEAD}
    return {**head, "tags": dict(report.tags)}


def _from_calls(run_id: str, calls: list[UsageRecord]) -> RunRecord | None:
    """What the books know of a run that goes on elsewhere, or whose record is gone."""
    if not calls:
        return None
    first = calls[0].facts
    report = {
        "key": first.key, "org": first.org, "tags": dict(first.tags), "steps": max(each.facts.step for each in calls),
        **_booked(calls),
    }  # fmt: skip
    ended_ms = max(each.settled_at_ms or each.at_ms for each in calls)
    return RunRecord(
        id=run_id, name="", user=first.user, started_ms=calls[0].at_ms, ended_ms=ended_ms, mode="", stop_reason=None,
        report=report,
    )  # fmt: skip


def _booked(calls: list[UsageRecord]) -> dict[str, int]:
    sent = [each for each in calls if each.state != "released"]
    used = [each.result.usage for each in sent if each.result is not None and each.result.usage is not None]
    return {
        "model_calls": len(sent), "cost_pusd": sum(each.actual_pusd or 0 for each in sent),
        "input_tokens": sum(each.input_tokens for each in used),
        "output_tokens": sum(each.output_tokens for each in used),
    }  # fmt: skip


def _fits(record: RunRecord, wanted: Filter) -> bool:
    facts = record.report
    if wanted.user not in (None, record.user) or (wanted.org is not None and facts.get("org") != wanted.org):
        return False
    if wanted.key is not None and facts.get("key") != wanted.key:
        return False
    if wanted.stopped is not None and wanted.stopped != (record.stop_reason is not None):
        return False
    return not wanted.q or any(wanted.q.lower() in each.lower() for each in _texts(record))


def _texts(record: RunRecord) -> Iterable[str]:
    facts = record.report
    yield from (record.id, record.name, record.user, record.stop_reason or "", text(facts, "key"), text(facts, "org"))
    yield from (f"{name}={value}" for name, value in _tags(facts).items())


def _tags(facts: Mapping[str, object]) -> dict[str, str]:
    tags = facts.get("tags")
    found = cast("dict[object, object]", tags) if isinstance(tags, dict) else {}
    return {str(name): str(value) for name, value in found.items()}


def _row(caller: CallerOf, record: RunRecord, *, is_open: bool) -> RunRow:
    """What a run has cost in all processes is in its account; a report is of one. Far accounts are not asked for."""
    store = caller.desk.store
    spent = 0 if store.remote else store.balance(Account(f"run:{record.id}", RUN_PERIOD)).spent
    return RunRow.model_validate(_summary(record, is_open=is_open, cost_pusd=spent))


def _summary(record: RunRecord, *, is_open: bool, cost_pusd: int) -> dict[str, object]:
    facts, stops = record.report, reversed(items(record.report, "findings"))
    limit, cost = facts.get("limit_pusd"), max(cost_pusd, number(facts, "cost_pusd"))
    return run_fields(record) | {
        "open": is_open, "ended_ms": None if is_open else record.ended_ms, "tags": _tags(facts),
        "key": text(facts, "key") or None, "org": text(facts, "org") or None,
        "would_have_stopped": text(facts, "would_have_stopped") or None, "refused": text(facts, "refused") or None,
        "model_calls": number(facts, "model_calls"), "tool_calls": number(facts, "tool_calls"),
        "steps": number(facts, "steps"), "tokens": number(facts, "input_tokens") + number(facts, "output_tokens"),
        "cost_pusd": cost, "cost_usd": usd_text(cost),
        "limit_usd": usd_text(limit) if type(limit) is int else None,
        "stop_tool": next((text(each, "tool") for each in stops if text(each, "level") == "stop"), None),
    }  # fmt: skip


def _left_out(facts: Mapping[str, object], steps: Sequence[Step]) -> int:
    """How many older steps are not told, where as many are as there may be. Some numbers of steps were never taken."""
    full = len(steps) > STEPS_MAX or len(items(facts, "rows")) >= STEPS_KEPT_MAX
    return max(number(facts, "steps"), len(steps)) - min(len(steps), STEPS_MAX) if full else 0


def _detail(record: RunRecord, calls: list[UsageRecord], *, is_open: bool) -> RunDetail:
    facts, booked = record.report, _booked(calls)
    steps = timeline(facts, calls)
    # A report is of one process; the books have the calls of all.
    most = {name: max(booked[name], number(facts, name)) for name in ("model_calls", "input_tokens", "output_tokens")}
    return RunDetail.model_validate(
        _summary(record, is_open=is_open, cost_pusd=booked["cost_pusd"])
        | {name: number(facts, name) for name in ("hints", "blocks", "refusals")}
        | most
        | {"tokens": most["input_tokens"] + most["output_tokens"], "steps": max(number(facts, "steps"), len(steps))}
        | {
            "stop_message": text(facts, "stop_message") or None,
            "unresolved_usd": usd_text(number(facts, "unresolved_pusd")),
            "overrun_usd": usd_text(number(facts, "overrun_pusd")),
            "findings": findings_of(facts), "savings": savings_of(facts), "timeline": steps[-STEPS_MAX:],
            "steps_left_out": _left_out(facts, steps),
        }
    )  # fmt: skip
