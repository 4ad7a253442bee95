"""
What keeps a table out of reach: each refuses calls with an error that names what mends it, and leaves the books alone.

Here time is the test's own. A store that is throttled for half a minute of the clock on the wall:
``.ci/dynamodb python tests/rr_outage.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from rr_core import PRICES, cent_call, done
from rr_dynamo import Fate, FaultyClient, needs_server, new_table, open_dynamodb
from rr_ledger import CENT, DOLLAR, FOUR, START_MS, amounts, booking, books
from runrails import CallRefused, Guard, Limits
from runrails.clocks import system_ms
from runrails.errors import ReservationMismatch, StoreUnavailable
from runrails.ledger import Account
from runrails.periods import month_of
from runrails.stores.records import differences
from runrails.testing import ManualClock
from runrails_aws.dynamodb import DynamoDBStore
from runrails_aws.dynamodb.calling import Patience

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = needs_server


class Outage(NamedTuple):
    """What befalls requests, and what an operator must be told."""

    fate: Callable[[str, int], Fate]
    reason: str
    what: str
    fix: str
    waits: bool = False
    """Whether it may be over soon, so that it is tried again until the deadline."""


def read_only(operation: str, number: int) -> Fate:
    """A policy that lets a process look, and not write."""
    del number
    return "denied" if "Write" in operation or operation.startswith(("Put", "Update", "Delete")) else "ok"


def answers_are_lost(operation: str, number: int) -> Fate:
    """What is written is written, and nobody hears of it."""
    del number
    return "response_lost" if operation == "TransactWriteItems" else "ok"


OUTAGES: dict[str, Outage] = {
    "down": Outage(lambda *_: "request_lost", "ConnectTimeoutError", "did not answer", "the network", waits=True),
    "half down": Outage(answers_are_lost, "ReadTimeoutError", "did not answer", "the region", waits=True),
    "throttled": Outage(lambda *_: "throttled", "ThrottlingException", "throttles", "maximum throughput", waits=True),
    "other region": Outage(lambda *_: "no_table", "ResourceNotFoundException", "in this region", "Check the region"),
    "other region's": Outage(lambda *_: "wrong_region", "InvalidSignatureException", "credentials", "and the region"),
    "expired": Outage(lambda *_: "expired", "ExpiredTokenException", "does not accept the credentials", "Renew them"),
    "read only": Outage(read_only, "AccessDeniedException", "may not do transact_write_items", "runrails aws policy"),
    "forbidden": Outage(lambda *_: "denied", "AccessDeniedException", "may not do", "runrails aws policy"),
}


class Away:
    """A table with books in it, a store that is out of reach until `over`, and a clock that its pauses move."""

    def __init__(self, outage: Outage) -> None:
        self.table = new_table()
        self.books = open_dynamodb(ManualClock(START_MS), table=self.table)
        self.books.reserve(booking("before", CENT, *FOUR, limit=DOLLAR))
        self.books.settle("before", 3)
        self.ticks = ManualClock(0)
        self.client = FaultyClient(lambda operation, number: "ok" if self.over else outage.fate(operation, number))
        self.over = False
        patience = Patience(
            sleep=lambda s: (self.ticks.advance(int(s * 1_000) + 1), None)[1], monotonic=self.ticks, chance=lambda: 1.0
        )
        self.store: Any = open_dynamodb(
            ManualClock(START_MS), table=self.table, client=lambda: self.client, patience=patience
        )


VERBS: dict[str, Callable[[Any], object]] = {
    "reserve": lambda store: store.reserve(booking("a", CENT, *FOUR, limit=DOLLAR)),
    "settle": lambda store: store.settle("open", 7),
    "release": lambda store: store.release("open"),
    "raise": lambda store: store.raise_hold("open", 2 * CENT),
    "limit": lambda store: store.set_limit("user:alice", 5 * CENT),
}


@pytest.mark.parametrize("name", OUTAGES)
def test_every_outage_fails_closed_and_names_the_fix(name: str) -> None:
    """Each verb, at once or after the deadline; what it would have written is not there, and works afterwards."""
    outage = OUTAGES[name]
    away = Away(outage)
    away.books.reserve(booking("open", CENT, *FOUR, limit=DOLLAR))
    before = books(away.books)
    for verb in VERBS.values() if name != "half down" else ():
        began_ms, count = away.ticks(), len(away.client.log)
        with pytest.raises(StoreUnavailable) as caught:
            verb(away.store)
        error = caught.value
        assert isinstance(error, CallRefused)
        assert outage.what in error.what
        assert outage.fix in error.next_step
        assert (away.table, outage.reason) == (error.fields["table"], error.fields["reason"])
        assert ("store_unavailable", 503) == (error.code, error.http_status)
        took_ms = away.ticks() - began_ms
        failed = sum(fate != "ok" for _, fate in away.client.log[count:])
        assert 10_000 <= took_ms <= 10_100 if outage.waits else (0, 1) == (took_ms, failed)
        assert before == books(away.books)
    if name == "half down":  # what is done without an answer is done once
        with pytest.raises(StoreUnavailable, match="same id is safe"):
            VERBS["reserve"](away.store)
        assert [(3, 2 * CENT)] * 4 == [amounts(away.books, account) for account in FOUR]
    away.over = True
    assert not isinstance(VERBS["reserve"](away.store), Exception)
    away.store.settle("open", 7)
    away.store.settle("a", 5)
    assert [(15, 0)] * 4 == [amounts(away.books, account) for account in FOUR]
    assert [] == differences(away.books.sums())[1]


@pytest.mark.parametrize("on_store_error", ["refuse", "allow"])
def test_a_refusal_after_a_lost_attempt_is_given_up(on_store_error: Any) -> None:
    """The lost one may still arrive, once there is room again, and would be charged as it expires: its id is taken."""
    losing: list[bool] = []

    def fate(operation: str, number: int) -> Fate:
        del number
        return "request_lost" if operation == "TransactWriteItems" and losing and losing.pop() else "ok"

    away = Away(OUTAGES["down"]._replace(fate=fate))
    with Guard(
        Limits(run=None, month="0.01", steps=None), user="bob", store=away.store, prices=PRICES,
        on_store_error=on_store_error,
    ) as guard:  # fmt: skip
        run = guard.run()
        permit = run.before_model(cent_call())
        losing.append(True)
        with pytest.raises(StoreUnavailable, match="another one was refused"):
            run.before_model(cent_call())
        run.withdraw(permit)
        assert (0, 0) == amounts(away.books, Account("user:bob", month_of(system_ms())))
        rows = [row for row in away.books.usage() if row.facts.user == "bob"]
        assert ["released", "released"] == [row.state for row in rows]
        (other,) = (row.id for row in rows if row.id != permit.id)
        with pytest.raises(ReservationMismatch):
            away.books.reserve(booking(other, CENT, *FOUR, limit=DOLLAR))
        run.close()
    assert [] == differences(away.books.sums())[1]


@pytest.mark.parametrize("name", [name for name in OUTAGES if name != "half down"])
def test_no_call_starts_while_its_ledger_is_out_of_reach(name: str) -> None:
    """A guard refuses each of three calls and is not stopped by it; a call in flight is written when it is over."""
    away = Away(OUTAGES[name])
    told: list[str] = []
    away.over = True
    with Guard(
        Limits(run=None, month="1.00", steps=None), user="bob", store=away.store, prices=PRICES,
        sinks=[lambda event: told.append(event.name)],
    ) as guard:  # fmt: skip
        run = guard.run()
        permit = run.before_model(cent_call())
        guard.flush()
        away.over = False
        before = books(away.books)
        for _ in range(3):
            with pytest.raises(StoreUnavailable) as caught:
                run.before_model(cent_call())
            assert OUTAGES[name].fix in caught.value.next_step
        run.after_model(permit, done())
        assert before == books(away.books)
        assert run.stopped is None
        assert not any("bypassed" in name for name in told)
        away.over = True
        guard.flush()
        run.after_model(run.before_model(cent_call()), done())
        run.close()
    assert (2 * CENT, 0) == amounts(away.books, Account("user:bob", month_of(system_ms())))
    assert [] == differences(away.books.sums())[1]


def test_half_a_minute_of_throttling() -> None:
    """Three verbs give up one after the other, ten seconds each; from then on everything works, once."""
    away = Away(Outage(lambda *_: "throttled" if away.ticks() < 30_000 else "ok", "", "", ""))
    began = books(away.books)
    refused, left_alone = 0, True
    while True:
        try:
            away.store.reserve(booking("a", CENT, *FOUR, limit=DOLLAR))
            break
        except StoreUnavailable as error:
            refused += 1
            throttled = error
            left_alone &= began == books(away.books)
    assert left_alone
    assert "maximum throughput" in throttled.next_step
    assert 2 <= refused <= 3
    assert 30_000 <= away.ticks() <= 31_100
    attempts = sum(fate == "throttled" for _, fate in away.client.log)
    assert 30 <= attempts <= 75  # a second apart once it has lasted
    away.store.settle("a", 5)
    assert [(8, 0)] * 4 == [amounts(away.books, account) for account in FOUR]


def without_aws(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """An environment that says nothing of AWS."""
    import os

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(directory / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(directory / "none"))


@pytest.mark.parametrize(
    ("options", "reason", "fix"),
    [
        ({}, "NoRegionError", "region=eu-west-1"),
        ({"region": "not a region"}, "InvalidRegionError", "region=eu-west-1"),
        ({"region": "eu-west-1"}, "NoCredentialsError", "aws sso login"),
        ({"region": "eu-west-1", "profile": "nobody"}, "ProfileNotFound", "profile=NAME"),
        ({"region": "eu-west-1", "endpoint": "http://127.0.0.1:9"}, "NoCredentialsError", "give this host a role"),
    ],
)
def test_a_host_that_is_not_set_up_is_told_what_it_lacks(
    options: dict[str, str], reason: str, fix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No region, no credentials, no such profile: at the first verb, at once, and nothing leaves this machine."""
    without_aws(monkeypatch, tmp_path)
    store = DynamoDBStore("books", **options)  # type: ignore[arg-type]
    with pytest.raises(StoreUnavailable) as caught:
        store.reserve(booking("a"))
    assert reason == caught.value.fields["reason"]
    assert fix in caught.value.next_step
    assert "nobody" not in str(caught.value)
