"""What tests of `runrails serve` share: the command as a user starts it, and what it says."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from runrails.testing.provider import FakeProvider

PROGRAM = [sys.executable, "-m", "runrails.cli"]
PATIENCE_S = 60.0
UPSTREAM_KEY = "sk-of-the-house-0123456789abcdefg"
PRICES = '[prices."fake-flat"]\ncall = "0.01"\n[prices."fake-model"]\ninput = "3.00"\noutput = "15.00"\n'
_LISTENS = re.compile(r"https?://[^\s\"]+")


@contextmanager
def command_undone() -> Iterator[None]:
    """Around a command that this very process runs: what it sets and configures is undone."""
    before, root = dict(os.environ), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        root.handlers[:] = handlers
        root.setLevel(level)
        for name in ("runrails.gateway", "uvicorn.error"):
            logging.getLogger(name).setLevel(logging.NOTSET)


class Home:
    """A user's home directory, a provider's address and what settings say."""

    def __init__(self, folder: Path, provider: FakeProvider | None, **settings: str) -> None:
        self.folder = folder
        data = folder / "data"
        self.env = {
            name: text
            for name, text in os.environ.items()
            if not name.startswith(("RUNRAILS_", "OPENAI_", "ANTHROPIC_"))
        }
        self.env |= {"HOME": str(folder), "XDG_DATA_HOME": str(data), "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.env["TMPDIR"] = str(self.temporary)
        prices = folder / "prices.toml"
        prices.write_text(PRICES)
        self.env["RUNRAILS_PRICES"] = str(prices)
        self.data = data / "runrails"
        if provider is not None:
            upstreams = folder / "upstreams.toml"
            upstreams.write_text(
                f'[[upstream]]\nname = "fake"\ndialect = "openai"\nbase_url = "{provider.openai_url}"\n'
                'key = "env:FAKE_KEY"\nmodels = ["fake-*"]\nretries = 0\n'
            )
            self.env |= {"RUNRAILS_UPSTREAMS": str(upstreams), "FAKE_KEY": UPSTREAM_KEY}
        self.env |= settings

    def run(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """A command, to its end."""
        return subprocess.run(
            [*PROGRAM, *arguments], env={**self.env, **settings}, cwd=self.folder, capture_output=True, text=True,
            timeout=PATIENCE_S, check=False,
        )  # fmt: skip

    def key(self, *options: str, user: str = "alice") -> str:
        """A new key for a user."""
        made = self.run("keys", "create", user, "--json", *options)
        assert made.returncode == 0, made.stderr
        return str(json.loads(made.stdout)["key"])

    @contextmanager
    def serve(self, *options: str, **settings: str) -> Iterator[Served]:
        """`runrails serve`, from when it answers on; ended by SIGTERM unless it has ended."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            began = time.monotonic()
            process = subprocess.Popen(
                [*PROGRAM, "serve", "--port", "0", *options], env={**self.env, **settings}, cwd=self.folder,
                stdout=out, stderr=err, start_new_session=True,
            )  # fmt: skip
            served = Served(process, out, err)
            try:
                served.wait_ready()
                served.ready_s = time.monotonic() - began
                yield served
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                try:
                    process.wait(PATIENCE_S)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    raise


class Served:
    """A gateway that runs."""

    def __init__(self, process: subprocess.Popen[bytes], out: IO[str], err: IO[str]) -> None:
        self.process = process
        self._out = out
        self._err = err
        self.url = ""
        self.ready_s = 0.0

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def out(self) -> str:
        """What was printed on stdout so far."""
        return _text(self._out)

    @property
    def err(self) -> str:
        """What was printed on stderr so far."""
        return _text(self._err)

    def lines(self) -> list[dict[str, Any]]:
        """What is JSON on stderr."""
        return [json.loads(line) for line in self.err.splitlines() if line.startswith("{")]

    def wait_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"did not start: {self.err}")
            found = _LISTENS.search(self.err) or _LISTENS.search(self.out)
            if found is not None:
                self.url = found[0]
                try:
                    urllib.request.urlopen(f"{self.url}/readyz", timeout=10).close()  # noqa: S310 -- ours
                except (OSError, urllib.error.URLError):
                    pass
                else:
                    return
            time.sleep(0.01)

    def workers(self) -> list[int]:
        """The processes below it."""
        pid = self.process.pid
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def wait_for(self, count: int) -> list[int]:
        """As `workers`, once there are so many."""
        deadline = time.monotonic() + PATIENCE_S
        while len(found := self.workers()) != count:
            assert time.monotonic() < deadline, self.err
            time.sleep(0.02)
        return found

    def ask(self, path: str, key: str | None = None, body: object = None, **headers: str) -> tuple[int, Any]:
        """One request: its status and what was answered."""
        data = None if body is None else json.dumps(body).encode()
        sent = {"content-type": "application/json", **headers, **({} if key is None else {"x-api-key": key})}
        request = urllib.request.Request(self.url + path, data=data, headers=sent)  # noqa: S310 -- ours
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:  # noqa: S310 -- ours
                return answer.status, _decoded(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _decoded(error.read())

    def chat(self, key: str, model: str = "fake-flat", **more: Any) -> tuple[int, Any]:
        """One call of a model."""
        headers = more.pop("headers", {})
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 16, **more}
        return self.ask("/v1/chat/completions", key, body, **headers)

    def end(self, number: int = signal.SIGTERM, *, group: bool = False) -> int:
        """A signal, and the exit code that comes of it."""
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


def _text(file: IO[str]) -> str:
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode()


def _decoded(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode()
