"""
A process that spends a hot budget through leases, until it is refused.

Usage: rr_lease_worker.py STORE_URL LOG SEED LIMIT_PUSD. What every call costs is in LOG before the ledger is told, so
that the log is the truth whenever the process is killed.
"""

from __future__ import annotations

import os
import random
import sys
import time

from rr_ledger import CENT, FOUR, facts
from runrails.ids import new_id
from runrails.ledger import Hold, Refused, Reservation, ResultFacts
from runrails.stores import open_store

CALLS_MAX = 20_000
REFUSED_MAX = 8
"""Others give back what they have, for a while, after the first refusal."""


def main(url: str, log: str, seed: int, limit: int) -> None:
    """Spend one call after the other."""
    chance = random.Random(seed)
    store = open_store(url)
    holds = tuple(Hold(account, CENT, limit) for account in FOUR)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    print("ready", flush=True)
    sys.stdin.readline()
    refused = 0
    for _ in range(CALLS_MAX):
        reservation = Reservation(new_id(), holds, facts=facts(run="r1"))
        if isinstance(store.reserve(reservation), Refused):
            refused += 1
            if refused >= REFUSED_MAX:
                break
            time.sleep(0.4)
            continue
        refused = 0
        cost = chance.randrange(CENT // 4, CENT + 1)
        os.write(out, b"%d\n" % cost)
        store.settle(reservation.id, cost, result=ResultFacts())
    store.close()
    print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
