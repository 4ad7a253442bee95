"""
What proving an API key costs: known for a moment, unknown, wrong and right, over one HMAC-SHA-256 of the same text.

The answers to a right, a wrong and an unknown key must take as long as each other, or time would tell which ids exist.
"""

from __future__ import annotations

import hmac
import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rr_bench import Row, main, percentile, samples

from runrails.documents import DocumentStore
from runrails.documents.memory import MemoryDocuments
from runrails.documents.sqlite import SQLiteDocuments
from runrails.identity.apikeys import ApiKeys, Peppers
from runrails.identity.apikeys.format import checksum, make_key, new_key_id
from runrails.identity.authenticate import Authenticator
from runrails.identity.errors import Unauthenticated
from runrails.secretvalue import Secret

CALLS = 3_000
KEYS = 200
PEPPERS = Peppers("p1", {"p1": Secret(os.urandom(32))})


def asked(keys: ApiKeys, texts: list[str]) -> Callable[[], None]:
    """One question, another text each time."""
    turn = iter(texts * (CALLS // len(texts) + 1))

    def ask() -> None:
        with suppress(Unauthenticated):
            keys.verify(next(turn))

    return ask


def texts_of(keys: ApiKeys) -> dict[str, list[str]]:
    """Keys that are right, that are wrong but for their id, and that nobody has."""
    right = [keys.create("alice", scopes={"ai:complete"})[1].reveal() for _ in range(KEYS)]
    wrong: list[str] = []
    for text in right:
        body = text[:25] + make_key("live", new_key_id(os.urandom), os.urandom).reveal()[25:68]
        wrong.append(body + checksum(body))
    unknown = [make_key("live", new_key_id(os.urandom), os.urandom).reveal() for _ in range(KEYS)]
    return {"right": right, "wrong secret": wrong, "unknown id": unknown}


def in_turns(asks: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Times of each, measured side by side: another program's work falls on all of them."""
    times: dict[str, list[float]] = {name: [] for name in asks}
    for _ in range(CALLS):
        for name, ask in asks.items():
            times[name] += samples(ask, calls=1)
    return {name: sorted(each[CALLS // 10 :]) for name, each in times.items()}


def measure() -> list[Row]:
    """Each engine without a cache, and the cache."""
    pepper = os.urandom(32)
    message = make_key("live", new_key_id(os.urandom), os.urandom).reveal().encode()
    yardstick = percentile(samples(lambda: hmac.digest(pepper, message, "sha256"), calls=CALLS), 50)
    rows = [Row("one HMAC-SHA-256", yardstick * 1e6, "us")]
    with tempfile.TemporaryDirectory() as directory:
        engines: dict[str, DocumentStore] = {
            "memory": MemoryDocuments(), "SQLite": SQLiteDocuments(Path(directory) / "vault.db", synchronous="NORMAL")
        }  # fmt: skip
        for name, documents in engines.items():
            keys = ApiKeys(documents, PEPPERS, cache_ms=0, cache_max=1)
            times = in_turns({which: asked(keys, texts) for which, texts in texts_of(keys).items()})
            right = percentile(times["right"], 50)
            for which, each in times.items():
                median = percentile(each, 50)
                ratio = max(median, right) / min(median, right)
                rows.append(Row(f"{name}, {which}, median", median * 1e6, "us", ratio, "a right key", 1.2))
            keys.close()
            documents.close()
    documents = MemoryDocuments()
    keys = ApiKeys(documents, PEPPERS)
    text = keys.create("alice", scopes={"ai:complete"})[1].reveal()
    keys.verify(text)
    warm = samples(lambda: keys.verify(text), calls=20_000)
    for percent, gate in ((50, None), (99, 25.0)):
        value = percentile(warm, percent)
        rows.append(Row(f"known for a moment, p{percent}", value * 1e6, "us", value / yardstick, "one HMAC", gate))
    door, headers = Authenticator(keys), [("host", "x"), ("authorization", f"Bearer {text}")]
    warm = samples(lambda: door.authenticate(headers), calls=20_000)
    for percent, gate in ((50, None), (99, 25.0)):
        value = percentile(warm, percent)
        rows.append(Row(f"from headers, p{percent}", value * 1e6, "us", value / yardstick, "one HMAC", gate))
    rows += flooded(keys, text)
    keys.close()
    return rows


ROUNDS = 6
"""With and without the flood in turn; the best of each counts, so that a burst of other work does not decide."""


def flooded(keys: ApiKeys, text: str) -> list[Row]:
    """A good key without and with 1,000 keys a second beside it that are written right and are nobody's."""
    bad = [make_key("live", new_key_id(os.urandom), os.urandom).reveal() for _ in range(2_000)]

    def flood(done: threading.Event) -> None:
        began = time.perf_counter()
        for number, each in enumerate(bad * 10):
            if done.wait(max(0.0, began + number / 1_000 - time.perf_counter())):
                return
            with suppress(Unauthenticated):
                keys.verify(each)

    def p99() -> float:
        times: list[float] = []
        for _ in range(2_000):
            times += samples(lambda: keys.verify(text), calls=1)
            time.sleep(0.0001)
        return percentile(sorted(times), 99)

    def beside() -> float:
        done = threading.Event()
        thread = threading.Thread(target=flood, args=(done,))
        thread.start()
        try:
            return p99()
        finally:
            done.set()
            thread.join()

    quiet, busy = (min(found) for found in zip(*[(p99(), beside()) for _ in range(ROUNDS)], strict=True))
    return [
        Row("a good key, p99", quiet * 1e6, "us"),
        Row("a good key beside 1,000 bad ones a second, p99", busy * 1e6, "us", busy / quiet, "without them", 2.0),
    ]


if __name__ == "__main__":
    raise SystemExit(main(measure))
