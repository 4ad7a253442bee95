"""What a ledger on DynamoDB keeps besides holds, and how whole lists are read from it."""

from __future__ import annotations

import json
import time
from operator import itemgetter
from typing import TYPE_CHECKING, cast

from runrails.errors import StoreUnavailable
from runrails.ids import ID_LENGTH_MAX
from runrails.ledger import Account, Balance, Correction, Reservation, RunRecord, State, UsageRecord
from runrails.stores._codec import month_bounds, plain, report_text, run_copy
from runrails_aws.dynamodb import requests
from runrails_aws.dynamodb.items import (
    KEEP_S,
    Row,
    account_key,
    deadline_of,
    key,
    limit_key,
    order,
    reservation_key,
    row_of,
    shards,
    usage_of,
)
from runrails_aws.dynamodb.lookups import Lookups
from runrails_aws.dynamodb.wire import Item, Operation, Request, Write, integer, maybe_integer, maybe_text, n, s, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runrails.clocks import Clock
    from runrails_aws.dynamodb.calling import Caller, Verb
    from runrails_aws.dynamodb.retention import Retention

__all__ = ["Archive", "run_of"]

_TRIES_MAX = 32
_REMEMBERED_MAX = 10_000


class Archive:
    """Everything of the table that is not on the way of a call. Thread-safe."""

    def __init__(self, table: str, caller: Caller, now_ms: Clock, retention: Retention) -> None:
        self.table = table
        self.caller = caller
        self.now_ms = now_ms
        self.retention = retention
        self._lookups = Lookups(table, caller, now_ms)
        self._zones: dict[str, str] = {}
        self._warned: dict[tuple[Account, str], int] = {}

    def look(self, reservation: Reservation, verb: Verb) -> tuple[Item | None, list[Row]]:
        """The reservation if it has been made, and its accounts as they are at one moment."""
        accounts = [hold.account for hold in reservation.holds]
        # One key is asked for once, though several units of a scope may have limits.
        limits = list(dict.fromkeys((account.scope, account.unit) for account in accounts))
        keys = [reservation_key(reservation.id), *map(account_key, accounts), *(limit_key(*one) for one in limits)]
        answer = self.caller.read(requests.snapshot(self.table, keys), verb)
        found = [cast("Item", each.get("Item") or {}) for each in cast("list[dict[str, object]]", answer["Responses"])]
        operators = {
            one: maybe_integer(item, "lim") for one, item in zip(limits, found[1 + len(accounts) :], strict=True)
        }
        rows = [
            row_of(item)
            if "avail" in item
            else Row(account, None, operators[account.scope, account.unit], 0, 0, exists=False)
            for account, item in zip(accounts, found[1:], strict=False)
        ]
        return found[0] or None, rows

    def overdue(self, judged_ms: int, count_max: int, verb: Verb) -> tuple[list[str], float]:
        """Ids of open holds that are overdue, the longest overdue first; and when the first of the others ends."""
        ends: list[tuple[int, str]] = []
        first_ms = float("inf")
        for shard in shards():
            answer = self.caller.read(requests.open_holds(self.table, shard, count_max=count_max), verb)
            found = [deadline_of(text(item, "hx")) for item in cast("list[Item]", answer["Items"])]
            ends += found
            if found and answer.get("LastEvaluatedKey"):
                first_ms = min(first_ms, found[-1][0])  # The next one may end as early as that.
        ends.sort()
        late = [name for ends_ms, name in ends if ends_ms <= judged_ms][:count_max]
        return late, min([first_ms, *(ends_ms for ends_ms, _ in ends[len(late) :])])

    def open_calls(self, count_max: int) -> list[UsageRecord]:
        """Calls that are in flight, oldest first: by the index of open holds, so the table is not read."""
        keys: list[Item] = []
        for shard in shards():
            left = count_max - len(keys)
            if left > 0:
                asked = requests.open_holds(self.table, shard, count_max=left)
                found = cast("list[Item]", self.caller.read(asked, self.caller.begin())["Items"])
                keys += [{"pk": entry["pk"], "sk": entry["sk"]} for entry in found]
        records: list[UsageRecord] = []
        for first in range(0, len(keys), requests.BATCH_MAX):
            page = requests.get_many(self.table, keys[first : first + requests.BATCH_MAX])
            records += [usage_of(item) for item in self.caller.batch(page, self.caller.begin()) if "fa" in item]
        return sorted((record for record in records if record.state == "held"), key=lambda record: record.at_ms)

    def balance(self, account: Account) -> Balance:
        """The account as it stands."""
        asked = requests.get_many(self.table, [account_key(account), limit_key(account.scope, account.unit)])
        found = {text(item, "pk")[0]: item for item in self.caller.batch(asked, self.caller.begin())}
        if "avail" in found.get("B", {}):
            return row_of(found["B"]).balance()
        return Row(account, None, maybe_integer(found.get("C", {}), "lim"), 0, 0, exists=False).balance()

    def balances(self, scope: str | None, period: str | None) -> Iterator[Balance]:
        """Every account, or those of one scope or period."""
        rows = self.rows() if scope is None else self._rows(scope)
        listed = [row.balance() for row in rows if period is None or row.account.period == period]
        listed.sort(key=lambda balance: (balance.account.scope, balance.account.unit))
        listed.sort(key=lambda balance: balance.account.period, reverse=True)
        return iter(listed)

    def rows(self) -> list[Row]:
        """Every account."""
        return _accounts(self.scan("B#"))

    def _rows(self, scope: str) -> list[Row]:
        return _accounts(self._query(f"B#{plain(scope)}"))

    def set_limit(self, scope: str, limit: int | None, unit: str) -> None:
        """An operator's limit, for accounts that will be and in those that are."""
        where, listed = limit_key(scope, unit), key("C", f"{scope}#{unit}")
        if limit is None:
            writes = [requests.delete(where), requests.delete(listed)]
        else:
            writes = [requests.keep(each | {"lim": n(limit)}) for each in (where, listed)]
        if scope.startswith("run:"):
            # The first call of a run does not ask what an operator has said; that something is there, it sees.
            self.caller.write(requests.mark_run(self.table, scope, unit), self.caller.begin())
        self.write(writes)
        # From here on no account is made without it. Those that are there get it one by one.
        for row in self._rows(scope):
            if row.account.unit == unit:
                self._apply_limit(row, limit)

    def _apply_limit(self, row: Row, limit: int | None) -> None:
        check = requests.check_limit(row.account.scope, row.account.unit, limit)
        for attempt in range(1, _TRIES_MAX):
            verb = self.caller.begin()
            if row.operator == limit:
                return
            write = requests.write_limit(row, limit)
            failed = self.caller.write(requests.transaction(self.table, [write, check]), verb)
            if failed is None or failed.reasons[1].failed:
                return  # Another operator has set another limit since, and writes that one.
            item = self._item(account_key(row.account), verb)
            if item is None:
                return
            row = row_of(item)
            self.caller.patience.sleep(self.caller.patience.pause_s(attempt))
        raise StoreUnavailable(
            f"The limit of {row.account.scope} is set, but one of its accounts is too busy to take it.",
            next_step="Set the same limit again.", scope=row.account.scope, period=row.account.period,
        )  # fmt: skip

    def limits(self) -> Iterator[tuple[str, str, int]]:
        """(scope, unit, limit), in that order."""
        found = [(*text(item, "sk").split("#"), integer(item, "lim")) for item in self._query("C")]
        return iter(sorted(cast("list[tuple[str, str, int]]", found)))

    def claim_warning(self, account: Account, mark: str, window_ms: int) -> bool:
        """Whether this caller is the one who sends."""
        verb = self.caller.begin()
        now_ms = self.now_ms()
        before_ms = self._warned.get((account, mark))
        if before_ms is not None and -window_ms <= now_ms - before_ms < window_ms:
            return False
        values = {
            ":n": n(now_ms), ":l": n(now_ms - window_ms), ":u": n(now_ms + window_ms), ":k": s(verb.writer),
            ":t": n(now_ms // 1_000 + KEEP_S),
        }  # fmt: skip
        operation = Operation(
            Key=key(f"W#{'#'.join(account)}", mark), UpdateExpression="SET ms = :n, tk = :k, #t = :t",
            # A mark from beyond the window was made by a clock that has been put right since.
            ConditionExpression="attribute_not_exists(pk) OR ms <= :l OR ms > :u",
            ExpressionAttributeNames={"#t": "ttl"}, ExpressionAttributeValues=values,
        )  # fmt: skip
        failed = self.caller.write(requests.update(self.table, operation), verb)
        won = failed is None or (failed.first is not None and maybe_text(failed.first, "tk") == verb.writer)
        if len(self._warned) >= _REMEMBERED_MAX:
            self._warned.clear()
        self._warned[account, mark] = (
            now_ms if failed is None or failed.first is None else integer(failed.first, "ms", now_ms)
        )
        return won

    def keep_warning(self, account: Account, mark: str, at_ms: int) -> None:
        """A warning was claimed then, in another ledger."""
        operation = Operation(
            Key=key(f"W#{'#'.join(account)}", mark), UpdateExpression="SET ms = :n, #t = :t",
            ConditionExpression="attribute_not_exists(pk) OR ms < :n", ExpressionAttributeNames={"#t": "ttl"},
            ExpressionAttributeValues={":n": n(at_ms), ":t": n(at_ms // 1_000 + KEEP_S)},
        )  # fmt: skip
        self.caller.write(requests.update(self.table, operation), self.caller.begin())

    def usage(self, user: str | None, period: str | None, run: str | None) -> Iterator[UsageRecord]:
        """Records of calls, oldest first."""
        first_ms, end_ms = month_bounds(period)
        if any(name is not None and not 0 < len(name) <= ID_LENGTH_MAX for name in (user, run)):
            return iter(())  # No call has such a name, and no key may be like that.
        if run is not None:
            return map(usage_of, self._lookups.of_run(plain(run), None if user is None else plain(user), period))
        if user is not None and period is not None:
            return map(usage_of, self._lookups.of_user(plain(user), period))
        filters = [] if user is None else [("us", "=", plain(user))]
        if period is not None:
            filters += [("sq", ">=", order(first_ms, 0)), ("sq", "<", order(end_ms, 0))]
        return self._scanned(filters)

    def usage_since(self, first_ms: int) -> Iterator[UsageRecord]:
        """Records of calls from a moment on, oldest first."""
        return self._scanned([("sq", ">=", order(first_ms, 0))])

    def _scanned(self, filters: Sequence[tuple[str, str, str]]) -> Iterator[UsageRecord]:
        # A record takes a quarter of the memory that its item does.
        found = [(text(item, "sq"), usage_of(item)) for item in self.scan("R#", filters) if "fa" in item]
        found.sort(key=itemgetter(0))
        return map(itemgetter(1), found)

    def correction(self, line: Correction) -> Write:
        """A line of the audit trail, to be written in the transaction that makes the correction."""
        return requests.keep(
            {
                **key("A", f"{time.time_ns():020d}#{line.reservation_id}"), "id": s(line.reservation_id),
                "ms": n(line.at_ms), "by": s(line.source), "st": s(line.state_before), "ac": n(line.before_pusd),
                "to": n(line.after_pusd),
            }
        )  # fmt: skip

    def corrections(self, reservation_id: str | None) -> Iterator[Correction]:
        """The audit trail, oldest first."""
        for item in self._query("A"):
            if reservation_id in (None, text(item, "id")):
                yield Correction(
                    reservation_id=text(item, "id"), at_ms=integer(item, "ms"), source=text(item, "by"),
                    state_before=cast("State", text(item, "st")), before_pusd=integer(item, "ac"),
                    after_pusd=integer(item, "to"),
                )  # fmt: skip

    def fix_zone(self, scope: str, zone: str) -> str:
        """The scope's zone: the one given at its first use."""
        verb = self.caller.begin()
        known = self._zones.get(scope)
        if known is not None:
            return known
        where = key(f"Z#{scope}")
        item = self._item(where, verb)
        if item is None:
            made = requests.put(self.table, where | {"zone": s(zone)}, condition="attribute_not_exists(pk)")
            failed = self.caller.write(made, verb)
            item = {"zone": s(zone)} if failed is None or failed.first is None else failed.first
        if len(self._zones) >= _REMEMBERED_MAX:
            self._zones.clear()
        return self._zones.setdefault(scope, text(item, "zone"))

    def keep_price_card(self, fingerprint: str, card: str) -> None:
        """Keep a price card's text. One that is there already is not written again."""
        where = key(f"P#{fingerprint}")
        verb = self.caller.begin()
        if self._item(where, verb) is None:
            self.caller.write(requests.put(self.table, where | {"card": s(card)}), verb)

    def price_card(self, fingerprint: str) -> str | None:
        """The text of the card with that fingerprint."""
        item = self._item(key(f"P#{plain(fingerprint)}"), self.caller.begin())
        return None if item is None else text(item, "card")

    def save_run(self, record: RunRecord) -> None:
        """Keep a run's record, in the place of an earlier one with its id."""
        kept = run_copy(record)
        where, listed = key(f"N#{kept.id}"), requests.latest_run_key(kept.ended_ms, kept.id)
        keep_s = self.retention.keep_s()
        ends: Item = {} if keep_s is None else {"ttl": n(self.now_ms() // 1_000 + keep_s)}
        item: Item = {
            **where, "ls": s(listed["sk"]["S"]), "name": s(kept.name), "us": s(kept.user), "b": n(kept.started_ms),
            "e": n(kept.ended_ms), "mode": s(kept.mode), "rp": s(report_text(kept.report)), **ends,
        }  # fmt: skip
        if kept.stop_reason is not None:
            item["sr"] = s(kept.stop_reason)
        for attempt in range(1, _TRIES_MAX):
            verb = self.caller.begin()
            before = self._item(where, verb)
            old = None if before is None else text(before, "ls")
            put = requests.make(item) if old is None else requests.replace(item, "ls", old)
            writes = [put, requests.keep(listed | {"us": s(kept.user), "id": s(kept.id)} | ends)]
            if old not in (None, listed["sk"]["S"]):
                writes.append(requests.delete(key("NL", old or "")))
            if self.caller.write(requests.transaction(self.table, writes), verb) is None:
                return
            self.caller.patience.sleep(self.caller.patience.pause_s(attempt))
        raise StoreUnavailable("The record of this run is too busy to be replaced.", next_step="Save it again.")

    def runs(self, user: str | None, count_max: int) -> Iterator[RunRecord]:
        """Runs that ended last come first."""
        wanted = None if user is None else plain(user)
        ids: list[str] = []
        for item in self._query("NL", newest_first=True):
            if wanted in (None, text(item, "us")):
                ids.append(text(item, "id"))
            if len(ids) == count_max:
                break
        for start in range(0, len(ids), requests.BATCH_MAX):
            part = ids[start : start + requests.BATCH_MAX]
            asked = requests.get_many(self.table, [key(f"N#{run_id}") for run_id in part])
            found = {text(item, "pk")[2:]: item for item in self.caller.batch(asked, self.caller.begin())}
            yield from (run_of(found[run_id]) for run_id in part if run_id in found)

    def run(self, run_id: str) -> RunRecord | None:
        """One run, or None."""
        item = self._item(key(f"N#{plain(run_id)}"), self.caller.begin())
        return None if item is None else run_of(item)

    def _item(self, item_key: Item, verb: Verb) -> Item | None:
        return cast("Item | None", self.caller.read(requests.get(self.table, item_key), verb).get("Item"))

    def _query(self, partition: str, *, newest_first: bool = False) -> Iterator[Item]:
        return self.caller.pages(requests.query(self.table, partition, newest_first=newest_first))

    def scan(self, prefix: str, filters: Sequence[tuple[str, str, str]] = ()) -> Iterator[Item]:
        """Every item whose partition begins so. Reads the whole table."""
        asked: Request = requests.scan(self.table, prefix, filters=filters)
        return self.caller.pages(asked)

    def write(self, writes: list[Write]) -> None:
        """Write what has no conditions."""
        self.caller.write(requests.transaction(self.table, writes), self.caller.begin())


def _accounts(found: Iterator[Item]) -> list[Row]:
    return [row for row in map(row_of, found) if row.exists]


def run_of(item: Item) -> RunRecord:
    return RunRecord(
        id=text(item, "pk")[2:], name=text(item, "name"), user=text(item, "us"), started_ms=integer(item, "b"),
        ended_ms=integer(item, "e"), mode=text(item, "mode"), stop_reason=maybe_text(item, "sr"),
        report=cast("dict[str, object]", json.loads(text(item, "rp"))),
    )  # fmt: skip
