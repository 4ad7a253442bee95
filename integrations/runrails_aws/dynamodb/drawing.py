"""Drawing calls from a slice: one transaction over the slice, a record for each call, and every account once."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from runrails.errors import LedgerError, ReservationMismatch, StoreUnavailable, UnknownReservation
from runrails.stores._codec import result_text
from runrails.stores.draws import Drawing, change_of, check_draw, rest_of
from runrails_aws.dynamodb import items, requests
from runrails_aws.dynamodb.wire import Operation, Write, n, s

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runrails.ledger import Account, ResultFacts, Settled
    from runrails.stores.draws import Drawn
    from runrails.stores.rules import Change, Entry
    from runrails_aws.dynamodb.calling import Caller, Verb
    from runrails_aws.dynamodb.clockwork import LedgerTime
    from runrails_aws.dynamodb.failures import Failed
    from runrails_aws.dynamodb.items import Found
    from runrails_aws.dynamodb.known import Known
    from runrails_aws.dynamodb.wire import Item

__all__ = ["BYTES_MAX", "Drawer", "call_item", "drawing", "parts_of"]

_TRIES_MAX = 64
BYTES_MAX = 3_000_000
"""Of the items in one transaction, which DynamoDB takes up to 4 MB of."""


class _Resolve(Protocol):
    def __call__(
        self, reservation_id: str, decide: Callable[[Entry], Change | None], *, result: ResultFacts | None = None
    ) -> Settled: ...  # fmt: skip


def drawing(
    found: Found | None,
    calls: Sequence[Drawn],
    *,
    close: bool,
    kept: int,
    now_ms: int,
    stamp: int,
    writer: str,
    keep_s: int | None = None,
) -> tuple[Found | None, list[Write]]:
    """
    What is written, the slice first if it changes, then the calls in their order; and the slice as it is then. Pure.

    Args:
        found: The slice, if it is known.
        calls: What it has paid for.
        close: Whether its rest goes back.
        kept: What stays charged to it when it closes.
        now_ms: When it is charged otherwise.
        stamp: Orders calls of one millisecond.
        writer: Signs all of it.
        keep_s: How long what is resolved is kept; for good by default.
    """
    shifts: dict[Account, tuple[int, int]] = {}
    for call in calls:
        for hold in call.reservation.holds:
            held, spent = shifts.get(hold.account, (0, 0))
            more = (call.amount, 0) if call.state == "held" else (0, call.actual)
            shifts[hold.account] = (held + more[0], spent + more[1])
    writes: list[Write] = []
    if found is not None:
        entry = found.entry
        rest = rest_of(entry, sum(call.cost for call in calls), close=close, kept=kept)
        deltas: list[tuple[int, int]] = []
        if rest.amounts is not None:
            deltas = [(left - amount, 0) for left, amount in zip(rest.amounts, entry.amounts, strict=True)]
            found, write = _lowered(found, rest.amounts, writer)
            writes.append(write)
        elif rest.change is not None:
            deltas = rest.change.deltas(entry)
            writes.append(requests.change(found, rest.change, now_ms=now_ms, writer=writer, keep_s=keep_s)[0])
            found = found._replace(entry=entry.after(rest.change), version=found.version + 1, writer=writer)
        for account, (held, spent) in zip(found.accounts, deltas, strict=bool(deltas)):
            before = shifts.get(account, (0, 0))
            shifts[account] = (before[0] + held, before[1] + spent)
    writes += [requests.make(call_item(call, stamp + place, writer, keep_s)) for place, call in enumerate(calls)]
    writes += [requests.shift(account, held, spent) for account, (held, spent) in shifts.items() if held or spent]
    return found, writes


def _lowered(found: Found, amounts: tuple[int, ...], writer: str) -> tuple[Found, Write]:
    lowered = found._replace(entry=found.entry._replace(amounts=amounts), version=found.version + 1, writer=writer)
    operation = Operation(
        Key=items.reservation_key(found.entry.id), UpdateExpression="SET h = :h, v = :w, tk = :k",
        ConditionExpression="v = :v",
        ExpressionAttributeValues={
            ":h": s(lowered.holds_text()), ":v": n(found.version), ":w": n(lowered.version), ":k": s(writer),
        },
    )  # fmt: skip
    return lowered, {"Update": operation}


def call_item(call: Drawn, stamp: int, writer: str, keep_s: int | None = None) -> Item:
    """A call's reservation, as it is when it gets into the table."""
    found = items.new_found(call.reservation, writer)
    amounts = (call.amount,) * len(found.accounts)
    found = found._replace(entry=found.entry._replace(amounts=amounts))
    held = call.state == "held"
    expires_ms = call.end_ms if held else call.at_ms + call.reservation.ttl_ms
    item = items.reservation_item(
        call.reservation, found, now_ms=call.at_ms, expires_ms=expires_ms, stamp=stamp, would_refuse=None
    )
    if held:
        return item
    del item["hs"]  # which alone is its place in the index
    item |= {"st": s(call.state), "ac": n(call.actual), "rs": n(call.end_ms)}
    if keep_s is not None:
        item["ttl"] = n(call.end_ms // 1_000 + keep_s)
    if call.stand_in:
        item["sf"] = n(items.STAND_IN)
    if call.result is not None:
        item["re"] = s(result_text(call.result))
    return item


def parts_of(calls: Sequence[Drawn]) -> list[list[Drawn]]:
    """The calls in their order, as many at once as surely fit into a transaction; at least one list."""
    parts: list[list[Drawn]] = [[]]
    size = 0
    for call in calls:
        more = _bytes_max(call)
        if size + more > BYTES_MAX and parts[-1]:
            parts.append([])
            size = 0
        parts[-1].append(call)
        size += more
    return parts


def _bytes_max(call: Drawn) -> int:
    """The most bytes its item may have: JSON writes a character in twelve at most."""
    facts, result = call.reservation.facts, call.result
    count = 0 if result is None or result.model is None else len(result.model)
    if facts is not None:
        count += len(facts.endpoint) + len(facts.user_agent) + len(facts.model) + len(facts.agent) + len(facts.provider)
        count += sum([len(name) + len(value) for name, value in facts.tags])
    return 12 * count + 8_192


class Drawer:
    """
    Draws, one request if nobody else has touched the slice. Thread-safe.

    Args:
        table: Where.
        caller: Sends the requests.
        known: What is remembered of the slices.
        look: Reads a reservation. Raises UnknownReservation.
        resolve: Decides on calls that are in the table already.
        ledger_time: What time it is.
        keep_s: How long what is resolved is kept.
    """

    def __init__(
        self, table: str, caller: Caller, known: Known, look: Callable[[str, Verb], Found], resolve: _Resolve,
        ledger_time: LedgerTime, keep_s: Callable[[], int | None],
    ) -> None:  # fmt: skip
        self._table = table
        self._caller = caller
        self._known = known
        self._look = look
        self._resolve = resolve
        self._time = ledger_time
        self._keep_s = keep_s

    def draw(self, slice_id: str, calls: Sequence[Drawn], *, close: bool) -> Drawing:
        """See `runrails.stores.draws.SupportsDraws.draw`. Very long facts make several transactions of it."""
        check_draw(calls)
        *parts, last = parts_of(calls)
        taken: list[Drawn] = []
        lost = False
        for part in parts:
            lost = self._draw(slice_id, part, taken, close=False) or lost
        lost = self._draw(slice_id, last, taken, close=close) or lost
        return Drawing(tuple([call.reservation.id for call in taken]), lost)

    def _draw(self, slice_id: str, calls: Sequence[Drawn], taken: list[Drawn], *, close: bool) -> bool:
        """Draw at once, and add to `taken` what was; whether the slice was lost."""
        verb = self._caller.begin()
        found: Found | None = None
        with suppress(UnknownReservation):
            found = self._look(slice_id, verb)
        # The hosts' clocks differ; what is still held ends by the server's.
        left = [
            call._replace(end_ms=self._time.until_ms(call.at_ms, call.end_ms)) if call.state == "held" else call
            for call in calls
        ]
        for attempt in range(1, _TRIES_MAX):
            lost = found is not None and found.entry.state == "unresolved"
            kept = sum(call.cost for call in taken)
            after, writes = drawing(
                found, left, close=close, kept=kept, now_ms=self._time.written_ms(), stamp=time.time_ns(),
                writer=verb.writer, keep_s=self._keep_s(),
            )  # fmt: skip
            failed = self._caller.write(requests.transaction(self._table, writes), verb) if writes else None
            if failed is None:
                self._remember(slice_id, after)
                return lost
            first = 1 if after is not found else 0
            if first and failed.reasons[0].failed:
                self._known.drop(slice_id)
                found = None if failed.first is None else items.found_of(failed.first)
                if found is not None and found.writer == verb.writer:  # It was written, and the answer lost.
                    return lost
            else:
                left = self._sort_out(left, failed, first, taken)
            if self._caller.is_over(verb):
                break
            self._caller.patience.sleep(self._caller.patience.pause_s(attempt))
        raise StoreUnavailable(
            f"The ledger in table {self._table} changed faster than calls could be written; none was.",
            next_step="They are written with the next ones.", table=self._table,
        )  # fmt: skip

    def _remember(self, slice_id: str, found: Found | None) -> None:
        if found is not None and found.entry.state == "held":
            self._known.keep(found)
        else:
            self._known.drop(slice_id)

    def _sort_out(self, calls: list[Drawn], failed: Failed, first: int, taken: list[Drawn]) -> list[Drawn]:
        """The calls that are still to be written: the others are in the table, or their ids are others'."""
        left: list[Drawn] = []
        for call, reason in zip(calls, failed.reasons[first:], strict=False):
            if not reason.failed or reason.item is None:
                left.append(call)
                continue
            try:
                items.check_same(call.reservation, reason.item)
            except ReservationMismatch:
                taken.append(call)
            else:
                self._bring_up(call)
        if any(reason.failed for reason in failed.reasons[first + len(calls) :]):
            raise LedgerError(
                "An account of a slice is no longer in the table, or cannot count its calls; nothing was written.",
                next_step="Nothing of ours deletes accounts: see who does, and restore this one from a backup.",
            )
        return left

    def _bring_up(self, call: Drawn) -> None:
        """A call that was handed over while it was held may have ended since; what the table knows better stays."""
        self._resolve(call.reservation.id, lambda entry: change_of(entry, call), result=call.result)
