"""Processes that change one key at one moment: one of them does, and the others are told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rr_vault import ALICE, CANARY, new_vault
from runrails.documents.sqlite import SQLiteDocuments

WORKER = """
import sys
from rr_vault import ALICE, new_vault
from runrails.credentials import CredentialChanged, CredentialExists
from runrails.documents.sqlite import SQLiteDocuments
from runrails.secretvalue import Secret

path, verb, number, rounds = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
vault, won = new_vault(SQLiteDocuments(path, synchronous="NORMAL", busy_timeout_ms=60_000), *sys.argv[5].split(",")), 0
print("ready", flush=True)
sys.stdin.readline()
for count in range(rounds):
    try:
        if verb == "rewrap":
            won += vault.rewrap().renewed
        else:
            getattr(vault, verb)(ALICE, Secret(f"key {number}/{count} of this process"))
            won += 1
    except (CredentialChanged, CredentialExists):
        pass
print(won)
"""


def race(path: Path, *work: tuple[str, int, str]) -> list[int]:
    """How often each process was told that it did it; each is (verb, rounds, names of its master keys)."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path), verb, str(number), str(rounds), names],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": ":".join(sys.path)},
        )
        for number, (verb, rounds, names) in enumerate(work)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout
        assert "ready\n" == worker.stdout.readline()
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("go\n")
        worker.stdin.flush()
    return [int(worker.communicate(timeout=100)[0]) for worker in workers]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A vault's file."""
    SQLiteDocuments(tmp_path / "v.db").close()
    return tmp_path / "v.db"


def test_one_of_many_adds(path: Path) -> None:
    """Three processes add the same key: one does, and that one is stored."""
    won = race(path, *[("add", 1, "k1")] * 3)
    got = new_vault(SQLiteDocuments(path)).get(ALICE)

    assert [0, 0, 1] == sorted(won)
    assert (f"key {won.index(1)}/0 of this process", 1) == (got.secret.reveal(), got.info.version)


def test_no_rotation_is_lost(path: Path) -> None:
    """Three processes rotate sixty times each: every one that was told so is a version, and no other is."""
    from runrails.secretvalue import Secret

    new_vault(SQLiteDocuments(path)).add(ALICE, Secret(CANARY))
    won = race(path, *[("rotate", 60, "k1")] * 3)
    got = new_vault(SQLiteDocuments(path)).get(ALICE)

    assert 1 + sum(won) == got.info.version
    assert got.secret.reveal().endswith("of this process")
    assert min(won) > 0


def test_rotating_and_sealing_anew_meet(path: Path) -> None:
    """While one process rotates, others seal anew with another master key: the last rotation is what opens."""
    from runrails.secretvalue import Secret

    new_vault(SQLiteDocuments(path)).add(ALICE, Secret(CANARY))
    won = race(path, ("rotate", 60, "k1,k2"), ("rewrap", 60, "k2,k1"))
    got = new_vault(SQLiteDocuments(path), "k2", "k1").get(ALICE)

    assert got.info.version in {1 + sum(won), 2 + sum(won)}
    assert got.secret.reveal().startswith("key 0/")
