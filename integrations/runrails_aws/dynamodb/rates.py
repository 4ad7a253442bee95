"""
Rate limiting in the ledger's table: one item a scope with both of its times, and one write a decision.

The decision is `runrails.rates.decide`, made with what was heard of the item last. A bucket that is in use is moved by
ADD, on the condition that it still has the room; one that is full is SET anew. So neither a read nor a lock is needed,
processes that write at once all count, and only the first of many after a pause has to write twice. A refusal is given
from what was heard less than a second ago; nothing is ever granted from that.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple, cast

from runrails.clocks import system_ms
from runrails.errors import StoreUnavailable
from runrails.rates import FULL, Cost, Granted, Limited, Times, credited, decide
from runrails.rates.gcra import MS, terms
from runrails.rates.limiter import BURST_MINUTES_MAX, check_asks, check_unused
from runrails_aws.dynamodb import requests
from runrails_aws.dynamodb.failures import Failed
from runrails_aws.dynamodb.items import key
from runrails_aws.dynamodb.wire import integer, n

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runrails.rates import Ask
    from runrails_aws.dynamodb.calling import Caller, Verb
    from runrails_aws.dynamodb.clockwork import LedgerTime
    from runrails_aws.dynamodb.wire import Item, Operation

__all__ = ["DynamoDBRates"]

FRESH_MS = 1_000
"""How long what was heard of a scope is good enough to refuse by."""
SKEW_MS = 15_000
"""
By how much the moments of two decisions may differ that are written at the same time: a verb's whole patience, and what
two processes may differ about the server's time. A bucket ahead by more was written by a clock that was put right.
"""
KNOWN_MAX = 10_000
TRIES_MAX = 32
KEEP_S = BURST_MINUTES_MAX * 60 + 3_600
"""After that long a bucket of any size is full, and its item may go."""


class _Heard(NamedTuple):
    times: Times
    at_ms: int
    """By the clock that never jumps."""


class DynamoDBRates:
    """
    An engine of rate limiting for any number of hosts. Thread-safe.

    By the server's time, of which processes hear to within a second at first and more closely soon: two of them may
    differ by that much, and grant so much more than the rate.
    """

    remote = True

    def __init__(self, table: str, caller: Caller, time: LedgerTime) -> None:
        self._table = table
        self._caller = caller
        self._time = time
        self._lock = Lock()
        self._known: OrderedDict[str, _Heard] = OrderedDict()

    def take(self, asks: Sequence[Ask], cost: Cost) -> Granted | Limited:
        """Take from every scope or from none. See `runrails.rates.RateLimiter.take`."""
        check_asks(asks, cost)
        verb = self._caller.begin()
        scopes = [ask.scope for ask in asks]
        now_ms = self._now_ms(scopes, verb)
        for _ in range(TRIES_MAX):
            heard = [self._heard(scope) for scope in scopes]
            before = [FULL if each is None else each.times for each in heard]
            decision, after = decide(asks, before, cost, now_ms, skew_ms=SKEW_MS)
            if isinstance(decision, Granted):
                if after is None:  # It costs nothing.
                    return decision
                if self._write(asks, before, after, cost, now_ms, verb):
                    return self._as_written(asks, decision, cost, now_ms)
            elif after is not None:  # The clock was put back.
                self._put_right(scopes, before, after, now_ms, verb)
            elif all(each is not None and self._is_fresh(each) for each in heard):
                return decision
            else:
                self._look(scopes, verb)
            if self._caller.is_over(verb):
                break
        raise StoreUnavailable(
            f"The rates of {scopes[0]} in table {self._table} changed faster than could be decided; nothing was taken.",
            next_step="Try again in a moment.",
            table=self._table,
        )

    def give_back(self, granted: Granted, unused: Cost) -> None:
        """Give back what was not used. See `runrails.rates.RateLimiter.give_back`."""
        check_unused(unused)
        now_ms = self._now_ms([taken.scope for taken in granted.taken], self._caller.begin())
        for taken in granted.taken:
            back = credited(FULL, taken, unused, now_ms)
            if back == FULL:
                continue
            operation: Operation = {
                "Key": _key(taken.scope),
                "UpdateExpression": "ADD tr :r, tt :t",
                "ConditionExpression": "attribute_exists(pk)",
                "ExpressionAttributeValues": {":r": n(back.requests_ns), ":t": n(back.tokens_ns)},
            }
            # Where the answer is lost it may have been given back: never twice.
            answer = self._caller.send(
                requests.update(self._table, operation, answer="UPDATED_NEW"), self._caller.begin(), once=True
            )
            if not isinstance(answer, Failed):  # else it was full, and has been forgotten
                self._hear(taken.scope, cast("Item", answer.get("Attributes") or {}))

    def close(self) -> None:
        """Its connections are the store's, which closes them."""

    def _write(
        self, asks: Sequence[Ask], before: Sequence[Times], after: Sequence[Times], cost: Cost, now_ms: int, verb: Verb
    ) -> bool:
        """Take it, if the items still have the room. Either way what they say is known afterwards."""
        operations = [_taking(*each, cost, now_ms) for each in zip(asks, before, after, strict=True)]
        writes = [(ask.scope, operation) for ask, operation in zip(asks, operations, strict=True) if operation]
        if not writes:
            return True
        if len(writes) == 1:
            ((scope, operation),) = writes
            answer = self._caller.send(requests.update(self._table, operation, answer="UPDATED_NEW"), verb)
            if not isinstance(answer, Failed):
                self._hear(scope, cast("Item", answer.get("Attributes") or {}))
                return True
        else:
            answer = self._caller.send(
                requests.transaction(self._table, [{"Update": each} for _, each in writes]), verb
            )
            if not isinstance(answer, Failed):
                for ask, times in zip(asks, after, strict=True):
                    self._keep(ask.scope, times)
                return True
        for (scope, _), reason in zip(writes, answer.reasons, strict=True):
            if reason.failed:
                self._hear(scope, reason.item or {})
        return False

    def _as_written(self, asks: Sequence[Ask], decision: Granted, cost: Cost, now_ms: int) -> Granted:
        """The decision with what the items say now: others may have taken meanwhile, too."""
        if len(asks) > 1:
            return decision
        heard = self._heard(asks[0].scope)
        (taken,) = decision.taken
        if heard is None or heard.times == (taken.requests_ns, taken.tokens_ns):
            return decision
        times = Times(
            heard.times.requests_ns - cost.requests * taken.request_ns,
            heard.times.tokens_ns - cost.tokens * taken.token_ns,
        )
        seen, _ = decide(asks, [times], cost, now_ms, skew_ms=SKEW_MS)
        return seen if isinstance(seen, Granted) else decision

    def _put_right(
        self, scopes: Sequence[str], before: Sequence[Times], after: Sequence[Times], now_ms: int, verb: Verb
    ) -> None:
        for scope, old, new in zip(scopes, before, after, strict=True):
            if old == new:
                continue
            operation: Operation = {
                "Key": _key(scope),
                "UpdateExpression": "SET tr = :nr, tt = :nt, #ttl = :ttl",
                "ConditionExpression": "tr = :or AND tt = :ot",
                "ExpressionAttributeNames": {"#ttl": "ttl"},
                "ExpressionAttributeValues": {
                    ":nr": n(new.requests_ns), ":nt": n(new.tokens_ns), ":or": n(old.requests_ns),
                    ":ot": n(old.tokens_ns), ":ttl": _ttl(now_ms),
                },
            }  # fmt: skip
            answer = self._caller.send(requests.update(self._table, operation, answer="UPDATED_NEW"), verb)
            if isinstance(answer, Failed):
                self._hear(scope, answer.first or {})
            else:
                self._keep(scope, new)

    def _now_ms(self, scopes: Sequence[str], verb: Verb) -> int:
        """
        The moment that a whole decision is about, however often it has to be written.

        Of the moments it may be by the server's time the earliest: as more is heard that one never goes back.
        """
        now_ms = self._time.earliest_ms()
        if now_ms is None:  # Nobody has told the time yet; the answer to a question does.
            self._look(scopes, verb)
            now_ms = self._time.earliest_ms()
        return system_ms() if now_ms is None else now_ms

    def _look(self, scopes: Sequence[str], verb: Verb) -> None:
        found: dict[str, Item] = {}
        for item in self._caller.batch(requests.get_many(self._table, [_key(scope) for scope in scopes]), verb):
            found[item["pk"]["S"][2:]] = item
        for scope in scopes:
            self._hear(scope, found.get(scope, {}))

    def _heard(self, scope: str) -> _Heard | None:
        with self._lock:
            return self._known.get(scope)

    def _is_fresh(self, heard: _Heard) -> bool:
        return self._caller.patience.monotonic() - heard.at_ms < FRESH_MS

    def _hear(self, scope: str, item: Mapping[str, dict[str, str]]) -> None:
        told = cast("Item", item)
        self._keep(scope, Times(integer(told, "tr"), integer(told, "tt")))

    def _keep(self, scope: str, times: Times) -> None:
        heard = _Heard(times, self._caller.patience.monotonic())
        with self._lock:
            self._known[scope] = heard
            self._known.move_to_end(scope)
            if len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)


def _taking(ask: Ask, before: Times, after: Times, cost: Cost, now_ms: int) -> Operation | None:
    """The write that takes from one scope; None if it takes nothing there."""
    rates, now_ns = ask.rates, now_ms * MS
    sets, adds, conditions, values = ["#ttl = :ttl"], list[str](), list[str](), dict[str, dict[str, str]]()
    for name, per_minute, burst, needed, old_ns, new_ns in (
        ("tr", rates.requests_per_minute, rates.requests_burst, cost.requests, before.requests_ns, after.requests_ns),
        ("tt", rates.tokens_per_minute, rates.tokens_burst, cost.tokens, before.tokens_ns, after.tokens_ns),
    ):
        if per_minute is None or needed == 0:
            # Every item has both, so that they can be compared.
            sets.append(f"{name} = if_not_exists({name}, :zero)")
            values[":zero"] = n(0)
            continue
        limit, unit_ns = terms(per_minute, burst)
        values[":now"] = n(now_ns)
        if old_ns > now_ns:
            adds.append(f"{name} :{name}")
            conditions.append(f"{name} > :now AND {name} <= :m{name}")
            values |= {f":{name}": n(needed * unit_ns), f":m{name}": n(now_ns + (limit - needed) * unit_ns)}
        else:
            sets.append(f"{name} = :{name}")
            conditions.append(f"(attribute_not_exists({name}) OR {name} <= :now)")
            values[f":{name}"] = n(new_ns)
    if not conditions:
        return None
    return {
        "Key": _key(ask.scope),
        "UpdateExpression": f"SET {', '.join(sets)}" + (f" ADD {', '.join(adds)}" if adds else ""),
        "ConditionExpression": " AND ".join(conditions),
        "ExpressionAttributeNames": {"#ttl": "ttl"},
        "ExpressionAttributeValues": {**values, ":ttl": _ttl(now_ms)},
    }


def _key(scope: str) -> Item:
    return key(f"L#{scope}")


def _ttl(now_ms: int) -> dict[str, str]:
    return n(now_ms // 1_000 + KEEP_S)
