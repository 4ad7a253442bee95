"""A journal of bypassed calls that is damaged, but still JSON: what is whole reaches the ledger all the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rr_ledger import MONTH, START_MS
from runrails.bypass import Bypass, _stem, directory
from runrails.ledger import Account, ResultFacts
from runrails.stores import books_of
from runrails.stores._codec import result_text
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock

RESULT = ResultFacts(end="completed", usage=None, model=None, duration_ms=1)
GOOD = {"id": "b" * 32, "ttl": 60_000, "holds": [["user:alice", MONTH, "pusd", 5]]}
ENDED = {"id": "b" * 32, "actual": 4, "unresolved": False, "result": result_text(RESULT)}
BAD = {**GOOD, "id": "a" * 32}


@pytest.mark.parametrize(
    "line",
    [
        json.dumps({**BAD, "holds": [["user:alice", MONTH, "pusd", "5"]]}),
        json.dumps({**BAD, "holds": [["user:alice", MONTH, "pusd", -5]]}),
        json.dumps({**BAD, "holds": [["user:alice", MONTH, "pusd", 2**70]]}),
        json.dumps({**BAD, "holds": [["usez alice", MONTH, "pusd", 5]]}),
        json.dumps({**BAD, "holds": [["user:alice", "2026-1q", "pusd", 5]]}),
        json.dumps({**BAD, "holds": [["user:alice", MONTH, "PUSD", 5]]}),
        json.dumps({**BAD, "holds": [["user:alice", MONTH, "pusd", 5.5]]}),
        json.dumps({**BAD, "ttl": "x"}), json.dumps({**BAD, "id": 5}), json.dumps([BAD]), "[" * 100_000,
        json.dumps({**ENDED, "actual": "4"}), json.dumps({**ENDED, "actual": True}),
        json.dumps({**ENDED, "actual": -4}),
    ],
    ids=range(14),
)  # fmt: skip
def test_a_damaged_line_keeps_nothing_else_back(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole calls of the file are in the books, the file is kept aside."""
    monkeypatch.setenv("RUNRAILS_JOURNAL", str(tmp_path / "j"))
    (tmp_path / "j").mkdir()
    store = SQLiteStore(tmp_path / "ledger.db", clock=ManualClock(START_MS))
    books = books_of(store)
    assert books is not None
    lines = [json.dumps({"runrails": 1, "books": books}), json.dumps(GOOD), line, json.dumps(ENDED)]
    file = Path(directory()) / f"{_stem(books)}-x.calls"
    file.write_text("\n".join(lines) + "\n")
    told: list[dict[str, object]] = []
    Bypass(store, lambda *_, **fields: told.append(fields)).catch_up()  # type: ignore[arg-type]
    assert 4 == store.balance(Account("user:alice", MONTH)).spent
    assert [1] == [fields["damaged"] for fields in told if "damaged" in fields]
    assert [f"{file.name}.damaged"] == [path.name for path in file.parent.iterdir()]
    store.close()
