"""
Sealing and opening a provider's key, and one verb of the vault on each local engine. Reported; nothing gates.

`python tests/benchmarks/bench_vault.py`
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from rr_vault import ALICE, CANARY, ring
from runrails.credentials import Vault
from runrails.credentials.envelope import open_, seal
from runrails.documents import DocumentStore
from runrails.documents.memory import MemoryDocuments
from runrails.documents.sqlite import SQLiteDocuments
from runrails.secretvalue import Secret


def p50_us(action: Callable[[], object], rounds: int = 2_000) -> float:
    """The median of a call, in microseconds."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter_ns()
        action()
        taken.append(time.perf_counter_ns() - began)
    return statistics.median(taken) / 1_000


def main() -> None:
    """Print the medians."""
    wrapper, secret, context = ring(), Secret(CANARY), ALICE.context(1, b"{}")
    blob = seal(secret, context, wrapper)
    sealing, opening = p50_us(lambda: seal(secret, context, wrapper)), p50_us(lambda: open_(blob, context, wrapper))
    print(f"envelope: seal {sealing:.1f} µs, open {opening:.1f} µs, {len(blob) - len(CANARY)} bytes more")
    with tempfile.TemporaryDirectory() as directory:
        engines: dict[str, DocumentStore] = {
            "memory": MemoryDocuments(),
            "sqlite": SQLiteDocuments(Path(directory) / "v.db", synchronous="NORMAL"),
        }
        for name, documents in engines.items():
            cold, warm = Vault(documents, wrapper, cache_ms=0), Vault(documents, wrapper)
            cold.add(ALICE, secret)
            warm.get(ALICE)
            first, again = (p50_us(lambda vault=vault: vault.get(ALICE)) for vault in (cold, warm))
            rotating = p50_us(lambda vault=warm: vault.rotate(ALICE, secret), 200)
            print(f"{name}: get cold {first:.1f} µs, cached {again:.1f} µs, rotate {rotating:.1f} µs")
            documents.close()


if __name__ == "__main__":
    main()
