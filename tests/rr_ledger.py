"""What the tests of the ledger share: stores of every kind, short ways to reserve, and a look at all the books."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from runrails.ledger import Account, Balance, CallFacts, FullStore, Hold, Reservation, UsageRecord
from runrails.stores.memory import MemoryStore
from runrails.stores.sqlite import SQLiteStore

CENT = 10**10
DOLLAR = 10**12
START_MS = 1_795_000_000_000
"""18 November 2026, 11:06:40 UTC."""
MONTH = "2026-11"
TTL_MS = 120_000

RUN = Account("run:r1", "-")
USER = Account("user:alice", MONTH)
KEY = Account("key:k1", MONTH)
ORG = Account("org:acme", MONTH)
FOUR = (RUN, USER, KEY, ORG)
TOKENS = Account("user:alice", MONTH, "tokens")

KINDS = ("memory", "sqlite-normal", "sqlite-full")
Clock = Callable[[], int]


def open_kind(kind: str, directory: Path, clock: Clock, *, busy_timeout_ms: int = 5_000) -> FullStore:
    """A fresh store of one kind; SQLite ones in `directory`, DynamoDB ones on the server that the environment names."""
    if kind == "memory":
        return MemoryStore(clock=clock)
    if kind == "dynamodb":
        from rr_dynamo import open_dynamodb

        return open_dynamodb(clock)
    synchronous = "FULL" if kind == "sqlite-full" else "NORMAL"
    return SQLiteStore(directory / f"{kind}.db", clock=clock, synchronous=synchronous, busy_timeout_ms=busy_timeout_ms)


def booking(
    reservation_id: str,
    amount: int = CENT,
    *accounts: Account,
    limit: int | None = None,
    limits: Mapping[Account, int] | None = None,
    **options: object,
) -> Reservation:
    """A reservation of the same amount in each account (by default, alice's November)."""
    given = dict(limits or {})
    holds = tuple(
        Hold(account, amount, given.get(account, limit) if given else limit) for account in accounts or (USER,)
    )
    return Reservation(reservation_id, holds, **options)  # type: ignore[arg-type]


def facts(user: str = "alice", run: str = "r1", step: int = 1) -> CallFacts:
    """Facts of a call with every field filled."""
    return CallFacts(
        user=user, run=run, step=step, key="k1", org="acme", provider="openai", model="gpt-4o-mini",
        request_type="agent", endpoint="/v1/chat/completions", user_agent="lab/1.0 \udc80 ünïcode", agent="root/sub",
        byok=True, price_card="card-1", tags=(("env", "prod"), ("team", "search 語")),
    )  # fmt: skip


Books = tuple[tuple[Balance, ...], tuple[UsageRecord, ...], tuple[tuple[str, str, int], ...]]


def books(store: FullStore) -> Books:
    """Everything a store shows: equal before and after means that nothing was changed."""
    return tuple(store.balances()), tuple(store.usage()), tuple(store.limits())


def amounts(store: FullStore, account: Account = USER) -> tuple[int, int]:
    """(spent, held) of an account."""
    balance = store.balance(account)
    return balance.spent, balance.held
