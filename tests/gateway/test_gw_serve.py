"""`runrails serve` as a user starts it: what it says, what it refuses, how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway_storm import CENT, LATER_MS, books
from rr_serve import PATIENCE_S, Home, command_undone
from runrails.autoguard.boot import serving_options
from runrails.cli.shell import run
from runrails.machinesecrets import setting_of
from runrails.testing.provider import Delay, FakeProvider, Stall, Text

SLOW = Delay(700, then=Text("All is well."))
KEY = re.compile(r"rr_live_[A-Za-z0-9_-]{40,}")


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    """One that takes its time."""
    with FakeProvider({"fake-flat": Text("All is well."), "fake-model": SLOW}) as one:
        yield one


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """This process may run the command: what it sets is undone."""
    with command_undone():
        for name in list(os.environ):
            if name.startswith(("RUNRAILS_", "OPENAI_", "ANTHROPIC_", "PROMETHEUS_")):
                monkeypatch.delenv(name)
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        yield


class Asking(threading.Thread):
    """One call beside the test."""

    def __init__(self, served: Any, key: str, **more: Any) -> None:
        super().__init__(daemon=True)
        self._ask = lambda: served.chat(key, **more)
        self.status: int | None = None
        self.start()

    def run(self) -> None:
        try:
            self.status = self._ask()[0]
        except OSError:
            self.status = 0


def test_the_first_start_makes_a_key_and_the_second_makes_none(tmp_path: Path, provider: FakeProvider) -> None:
    """It is printed once, alone on stdout, and opens everything; a second start knows it and prints nothing secret."""
    home = Home(tmp_path, provider, RUNRAILS_MONTH_BUDGET="0.02", RUNRAILS_RUN_BUDGET="0.01")
    with home.serve() as served:
        key = served.out.strip()
        assert KEY.fullmatch(key)
        assert key not in served.err
        assert "a power cut may lose the last seconds" in served.err
        assert "?synchronous=normal" in served.err
        assert 200 == served.ask("/v1/usage", key)[0]
        assert (200, {"fake": "in_use"}) == (served.ask("/readyz")[0], served.ask("/readyz")[1]["upstreams"])
        assert 0 == served.end(signal.SIGTERM)
    files = {path.name for path in home.data.iterdir()}
    assert {"ledger.db", "ledger.vault.db", "ledger.runs.db", "ledger.vault.pepper"} <= files
    with home.serve("--json") as served:
        told = json.loads(served.out)
        assert (served.url, None, ["fake"]) == (
            told["url"],
            told["admin_key"],
            [up["name"] for up in told["upstreams"]],
        )
        # Limits in the environment are of callers' runs, and of their months: not of this process.
        assert [200, 402] == [served.chat(key, headers={"x-runrails-run": "one"})[0] for _ in range(2)]
        assert [200, 402] == [served.chat(key)[0] for _ in range(2)]
        assert 0 == served.end(signal.SIGINT)
        # Problems are logged, and nothing else.
        assert ["budget_exhausted"] * 2 == [line["code"] for line in served.lines() if "code" in line]
    assert (2 * CENT, 0, 2) == books(f"sqlite:///{home.data}/ledger.db", 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_what_is_open_is_answered_and_settled(tmp_path: Path, provider: FakeProvider, number: int) -> None:
    """A gateway that is told to end takes no more, waits for what is under way, and its books are the bill."""
    home = Home(tmp_path, provider)
    with home.serve("--workers", "2" if number == signal.SIGINT else "1", "--log", "all") as served:
        key = served.out.strip()
        asking = [Asking(served, key, model="fake-model", stream=stream) for stream in (False, True)]
        provider.wait_received(2)
        assert 0 == served.end(number, group=number == signal.SIGINT)
        for each in asking:
            each.join(PATIENCE_S)
        assert [200, 200] == [each.status for each in asking]
        assert ["answered"] * 2 == [line["ending"] for line in served.lines()]
    assert (provider.bill.total_pusd(), 0, 2) == books(f"sqlite:///{home.data}/ledger.db", 0)


def test_a_killed_worker_is_replaced_and_its_call_charged(tmp_path: Path, provider: FakeProvider) -> None:
    """Its caller loses the connection, and the call costs what was held for it, once that has expired."""
    home = Home(tmp_path, provider)
    with home.serve("--workers", "2") as served:
        key = served.out.strip()
        before = served.wait_for(2)
        provider.use({"fake-flat": Text("All is well."), "fake-model": Stall(threading.Event(), SLOW.then)})
        asking = Asking(served, key, model="fake-model")
        provider.wait_received(1)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        asking.join(PATIENCE_S)
        assert 0 == asking.status
        deadline = time.monotonic() + PATIENCE_S
        while set(served.workers()) & set(before) or len(served.workers()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert 200 == served.chat(key)[0]
        deadline = time.monotonic() + PATIENCE_S
        while True:  # an answer is there a moment before its request is over
            status, figures = served.ask("/metrics", key)
            assert 200 == status
            if "runrails_requests_open 0.0" in figures:
                break
            assert time.monotonic() < deadline, figures
        assert ["runrails-metrics"] == [path.name[:16] for path in home.temporary.iterdir()]
        workers = served.workers()
        assert 0 == served.end(signal.SIGTERM)
        assert ([], []) == ([pid for pid in workers if _lives(pid)], list(home.temporary.iterdir()))
        assert 2 == sum("ended with -9" in line["message"] for line in served.lines() if "message" in line)
    url = f"sqlite:///{home.data}/ledger.db"
    assert books(url, 0)[1] > 0
    spent, held, rows = books(url, LATER_MS)
    assert (0, 2) == (held, rows)
    assert spent > CENT


def test_workers_end_with_their_supervisor(tmp_path: Path, provider: FakeProvider) -> None:
    """Whoever kills the gateway leaves no process behind that nobody can end."""
    with Home(tmp_path, provider).serve("--workers", "2") as served:
        workers = served.wait_for(2)
        assert -9 == served.end(signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE_S
        while any(_lives(pid) for pid in workers):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_check_looks_at_everything_and_serves_nothing(
    own: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It makes the secrets, which cost nothing, and no key, which nobody would see."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-house-0123456789abcdefg")
    assert 0 == run(["serve", "--check", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (None, ["openai"]) == (told["admin_key"], [each["name"] for each in told["upstreams"]])
    assert setting_of("pepper") is not None
    assert "sk-of-the-house" not in json.dumps(told)


REFUSED = {
    "no upstream": (["--check"], {"OPENAI_API_KEY": ""}, "OPENAI_API_KEY"),
    "open to all": (["--host", "0.0.0.0"], {}, "--tls-cert"),  # noqa: S104 -- is refused
    "memory": (["--store", "memory:"], {}, "SQLite"),
    "key without certificate": (["--tls-key", "k.pem"], {}, "--tls-cert"),
    "log": (["--check"], {"RUNRAILS_GATEWAY_LOG": "loud"}, "RUNRAILS_GATEWAY_LOG"),
    "limit": (["--check"], {"RUNRAILS_RUN_BUDGET": "much"}, "RUNRAILS_RUN_BUDGET"),
    "upstreams": (["--check"], {"RUNRAILS_UPSTREAMS": "/nowhere.toml"}, "RUNRAILS_UPSTREAMS"),
    "no such address": (["--host", "::1%none"], {"RUNRAILS_BEHIND_PROXY": "1"}, "--port"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_served_is_refused_with_a_way_out(
    name: str, own: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, one message that names what to do, and no key is made that nobody is told."""
    options, settings, hint = REFUSED[name]
    Path("k.pem").write_text("")
    for setting, text in ({"OPENAI_API_KEY": "sk-of-the-house-0123456789abcdefg"} | settings).items():
        monkeypatch.setenv(setting, text)
    assert 2 == run(["serve", "--json", "--port", "0", *options])
    told = capsys.readouterr()
    error = json.loads(told.err)
    assert hint in error["message"] + error["next_step"]
    assert "" == told.out


def test_a_port_in_use_is_told(own: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is printed that was made for a gateway that never was: the key comes with the next start."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-house-0123456789abcdefg")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert 2 == run(["serve", "--port", str(taken.getsockname()[1])])
    told = capsys.readouterr()
    assert ("", True) == (told.out, "--port" in told.err)


@pytest.mark.parametrize("name", ["fastapi", "aiohttp", "uvicorn", "prometheus_client"])
def test_without_the_extra_it_says_which(
    name: str, own: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command is there without what it needs, so it can say how to get it."""
    monkeypatch.setitem(sys.modules, name, None)
    assert 2 == run(["serve"])
    told = capsys.readouterr().err
    assert (True, True) == (name in told, "runrails[gateway]" in told)


@pytest.mark.parametrize(
    ("command", "serves"),
    [
        ("python /usr/bin/runrails serve", True),
        ("python C:\\Scripts\\runrails.exe serve --port 1", True),
        ("python -m runrails.cli serve", True),
        ("python -X dev -I -m runrails.cli serve", True),
        ("python -m runrails.cli run serve", False),
        ("python /usr/bin/runrails run serve.py", False),
        ("python /usr/bin/runrails usage", False),
        ("python serve", False),
        ("python -m serve runrails", False),
        ("python -c serve", False),
        ("python agent.py runrails serve", False),
        ("python", False),
    ],
)
def test_only_the_gateway_is_no_run_of_its_own(command: str, serves: bool) -> None:
    """Limits in the environment guard every program but the gateway, where they are its callers'."""
    assert serves == (serving_options(command.split(" ")) is not None)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
