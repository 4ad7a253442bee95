"""
A process that spends: threads that drive the guard's door around real HTTP calls to a fake provider.

Usage: rr_worker.py OPENAI_URL STORE_URL THREADS. Prints one JSON line with what it did.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from runrails import BudgetBusy, BudgetExceeded, Guard, Limits
from runrails.calls import ModelCall, ModelResult, Prompt
from runrails.testing import PRICES
from runrails.usage_wire import from_openai_chat

if TYPE_CHECKING:
    from runrails.run import Run

CALLS_EACH_MAX = 60


def call_provider(connection: http.client.HTTPConnection, path: str) -> ModelResult:
    """One chat completion over HTTP, as an SDK would send it."""
    body = {"model": "fake-flat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 16}
    connection.request("POST", f"{path}/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    return ModelResult(end="completed", usage=from_openai_chat(answer["usage"]), model=answer["model"])


def spend(run: Run, url: str, tally: Counter[str]) -> None:
    """Call until the budget is used up."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    call = ModelCall(model="fake-flat", prompt=Prompt(texts=("hi",), messages=1), max_tokens=16)
    for _ in range(CALLS_EACH_MAX):
        try:
            permit = run.before_model(call)
        except BudgetBusy:
            tally["busy"] += 1
            continue
        except BudgetExceeded:
            tally["exceeded"] += 1
            break
        tally["admitted"] += 1
        run.after_model(permit, call_provider(connection, parts.path))
    connection.close()


def main(url: str, store: str, threads_count: int) -> None:
    """Spend from several threads of one run against the user's month."""
    tally: Counter[str] = Counter()
    limits = Limits(run=None, month="1.00", steps=None, hold_wait_ms=20_000)
    with Guard(limits, user="alice", store=store, prices=PRICES) as guard:
        run = guard.run()
        print("ready", flush=True)
        sys.stdin.readline()
        threads = [threading.Thread(target=spend, args=(run, url, tally)) for _ in range(threads_count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        run.close()
    print(json.dumps(tally), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
