"""A process that serves loads what serving takes, and the rest when somebody asks; what is free it gives back."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from opentelemetry import trace
from starlette.routing import BaseRoute

import rr_serve
from rr_gateway import changed, running, world
from rr_serve import Home
from runrails.autoguard.boot import serving_options
from runrails.testing.provider import FakeProvider
from runrails_gateway.app import ADMIN, DOCS
from runrails_gateway.handover import options_here
from runrails_gateway.trimming import keep_trimmed, trimmer

BEGINS = "imported package"
"""What Python's list of imports begins with, once in each process."""
OF_COMMANDS = {"typer", "rich", "runrails.cli.root", "runrails.cli.output", "runrails_gateway.serve"}
OF_OTHERS = {"boto3", "botocore", "openai", "anthropic", "langchain_core", "cryptography", "genai_prices", "structlog"}
OF_ADMIN = {"fastapi", "pydantic", "pydantic_core", "runrails_gateway.admin"}


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


def test_what_serving_does_not_need_is_not_loaded(
    tmp_path: Path, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither commands nor SDKs nor the admin API, until it is asked. Python's own options are those it began with."""
    monkeypatch.setattr(rr_serve, "PROGRAM", [sys.executable, "-X", "importtime", "-m", "runrails.cli"])
    with Home(tmp_path, provider).serve() as served:

        def loaded() -> set[str]:
            processes = served.err.split(BEGINS)
            assert 3 == len(processes), "the list of the command line's process, and that of the server's"
            return {line.rpartition("|")[2].strip() for line in processes[-1].splitlines() if "|" in line}

        key = served.out.strip()
        assert 200 == served.chat(key)[0]
        assert [200, 404, 404] == [served.ask(path, key)[0] for path in ("/v1/models", "/v1/nothing", "/nothing")]
        assert 200 == served.ask("/metrics", key)[0]
        before = loaded()
        assert {"runrails_gateway.app", "runrails_gateway.hot", "sqlite3", "aiohttp"} <= before
        assert set() == before & (OF_COMMANDS | OF_OTHERS | OF_ADMIN)
        assert 200 == served.ask("/v1/usage", key)[0]
        after = loaded()
        assert OF_ADMIN <= after
        assert set() == after & (OF_COMMANDS | OF_OTHERS)


async def test_whatever_the_admin_application_has_is_found_there() -> None:
    """Each of its addresses begins with one that is handed on to it, and none of calls of models does."""

    def paths(routes: list[BaseRoute]) -> set[str]:
        return {str(vars(route).get("path", "")) for route in routes}

    with world() as made:
        async with running(changed(made.config, docs=True)) as app:
            document = app.admin().openapi()
            asked = {"/admin", "/admin/app.js", *document["paths"]}
            assert "/v1/budget" in asked
            assert [] == [path for path in asked if not path.startswith(ADMIN)]
            beside = paths(app.admin().routes) - {""}
            assert [] == [path for path in beside if not path.startswith((*ADMIN, *DOCS))]
            assert {"/openapi.json", "/docs"} <= beside
            own = paths(app.routes) | {"/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/embeddings"}
            assert [] == [path for path in own if path.startswith((*ADMIN, *DOCS))]


async def test_many_first_requests_make_one_admin_application() -> None:
    """They may come at once."""
    with world() as made:
        async with running(made.config) as app:
            with ThreadPoolExecutor(4) as pool:
                assert 1 == len({id(each.result()) for each in [pool.submit(app.admin) for _ in range(4)]})


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("python /usr/bin/runrails serve", []),
        ("python -I -X dev -W error /usr/bin/runrails serve", ["-I", "-X", "dev", "-W", "error"]),
        ("python -E -m runrails.cli serve", ["-E"]),
        ("python -m debugger -m runrails.cli serve", None),
        ("python -m debugger /usr/bin/runrails serve", None),
    ],
)
def test_the_server_is_a_python_as_the_command_was(command: str, options: list[str] | None) -> None:
    """Options of Python's are handed on; what was started in another way stays the process it is."""
    assert options == serving_options(command.split(" "))


def test_what_was_put_into_the_process_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """`opentelemetry-instrument` prepares the first process and no other one. A command imports from no directory."""
    monkeypatch.setattr(sys, "orig_argv", ["python", "-E", "/usr/bin/runrails", "serve"])
    monkeypatch.setattr(sys, "argv", ["/usr/bin/runrails", "serve"])
    monkeypatch.setattr(trace, "get_tracer_provider", trace.ProxyTracerProvider)
    assert ["-E", "-P"] == options_here()
    monkeypatch.setattr(sys, "argv", ["/lib/runrails/cli/__main__.py", "serve"])
    assert ["-E"] == options_here()
    monkeypatch.setattr(trace, "get_tracer_provider", trace.NoOpTracerProvider)
    assert options_here() is None


def test_what_goes_wrong_later_is_told_as_before(tmp_path: Path) -> None:
    """Started by hand it says how to start; a setting that is wrong by then is one line of JSON, if that was asked."""
    env = {name: text for name, text in os.environ.items() if not name.startswith("RUNRAILS_")}
    env |= {"RUNRAILS_AUTOGUARD": "0", "RUNRAILS_UPSTREAMS": "/nowhere.toml", "XDG_DATA_HOME": str(tmp_path)}

    def run(*arguments: str, bound: tuple[int, ...] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "runrails_gateway", *arguments], env=env, cwd=tmp_path, capture_output=True,
            text=True, timeout=60, check=False, pass_fds=bound,
        )  # fmt: skip

    by_hand = run()
    assert (2, "The gateway is started with `runrails serve`.\n") == (by_hand.returncode, by_hand.stderr)
    with socket.create_server(("127.0.0.1", 0)) as bound:
        number = bound.fileno()
        gone = run(json.dumps([number, 1, None, None, True]), bound=(number,))
    assert (2, "") == (gone.returncode, gone.stdout)
    assert "RUNRAILS_UPSTREAMS" in json.loads(gone.stderr)["message"]


async def test_free_memory_is_given_back_now_and_then() -> None:
    """As often as is said, until the server ends; where the C library cannot, nothing is done."""
    times = 0

    def trim() -> None:
        nonlocal times
        times += 1

    trimming = asyncio.create_task(keep_trimmed(trim, 0))
    for _ in range(5):
        await asyncio.sleep(0)
    trimming.cancel()
    with suppress(asyncio.CancelledError):
        await trimming
    assert times > 1
    await keep_trimmed(None)
    own = trimmer()
    assert own is None or own() is None
