"""What the tests of the guarded clients share: a provider, a guard beside it, and the comparison of their books."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import Awaitable, Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anthropic
import openai
from anthropic.lib.bedrock import AnthropicBedrock, AsyncAnthropicBedrock

from runrails import Guard, Limits
from runrails.events import Event
from runrails.ledger import Account, Store
from runrails.run import Run
from runrails.stores.memory import MemoryStore
from runrails.testing.prices import PRICES
from runrails.testing.provider import Answer, FakeProvider, Text
from runrails.testing.provider.script import Script
from runrails.usage import Usage

MODEL = "fake-model"
HI: Any = [{"role": "user", "content": "hi"}]
USAGE = Usage(
    input_tokens=4321, cache_read_tokens=1000, cache_write_5m_tokens=200, output_tokens=777, reasoning_tokens=70
)
TOLD: Answer = Text("Hello there, my friend.", usage=USAGE, ignores_max_tokens=True)
"""An answer whose cost no bound and no counting of bytes could come to by chance."""


class World:
    """A provider and a guard. `with` serves, and closes both."""

    def __init__(self, script: Script = TOLD, limits: Limits | None = None, **options: Any) -> None:
        self.provider = FakeProvider(script)
        self.events: list[Event] = []
        store: Store = options.pop("store", None) or MemoryStore()
        self.store = store
        self.guard = Guard(
            limits or Limits(run=None, month="100", steps=None), user="alice", store=store,
            prices=options.pop("prices", PRICES), sinks=[self.events.append], **options,
        )  # fmt: skip
        self._closing: list[Callable[[], object]] = []
        self._aclosing: list[Callable[[], Awaitable[object]]] = []

    def __enter__(self) -> World:
        self.provider.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.guard.close()
        for close in self._closing:
            close()
        gc.collect(1)  # what this test made is young; a full collection would cost more than the test
        self.provider.close()
        if error is None and self.provider.books.script_errors:
            raise self.provider.books.script_errors[0]

    async def aclose(self) -> None:
        """Close the asynchronous clients inside their loop."""
        for close in self._aclosing:
            await close()

    # Clients.

    def openai(self, *, wrapped: bool = True, **options: Any) -> openai.OpenAI:
        """A client of the provider."""
        made = openai.OpenAI(**{"base_url": self.provider.openai_url, "api_key": "k", "max_retries": 0, **options})
        self._closing.append(made.close)
        return self.guard.wrap(made) if wrapped else made

    def azure(self, **options: Any) -> openai.AzureOpenAI:
        """As `openai`."""
        made = openai.AzureOpenAI(
            azure_endpoint=self.provider.url, api_version="2025-01-01", api_key="k", **{"max_retries": 0, **options}
        )
        self._closing.append(made.close)
        return self.guard.wrap(made)

    def aopenai(self, **options: Any) -> openai.AsyncOpenAI:
        """As `openai`; closed with `aclose`."""
        made = openai.AsyncOpenAI(base_url=self.provider.openai_url, api_key="k", **{"max_retries": 0, **options})
        self._aclosing.append(made.close)
        return self.guard.wrap(made)

    def aazure(self, **options: Any) -> openai.AsyncAzureOpenAI:
        """As `aopenai`."""
        made = openai.AsyncAzureOpenAI(
            azure_endpoint=self.provider.url, api_version="2025-01-01", api_key="k", **{"max_retries": 0, **options}
        )
        self._aclosing.append(made.close)
        return self.guard.wrap(made)

    def anthropic(self, **options: Any) -> anthropic.Anthropic:
        """As `openai`."""
        made = anthropic.Anthropic(
            **{"base_url": self.provider.anthropic_url, "api_key": "k", "max_retries": 0, **options}
        )
        self._closing.append(made.close)
        return self.guard.wrap(made)

    def aanthropic(self, **options: Any) -> anthropic.AsyncAnthropic:
        """As `aopenai`."""
        made = anthropic.AsyncAnthropic(
            base_url=self.provider.anthropic_url, api_key="k", **{"max_retries": 0, **options}
        )
        self._aclosing.append(made.close)
        return self.guard.wrap(made)

    def bedrock(self, **options: Any) -> AnthropicBedrock:
        """As `openai`."""
        made = AnthropicBedrock(
            base_url=self.provider.bedrock_url, aws_access_key="a", aws_secret_key="s", aws_region="us-east-1",
            **{"max_retries": 0, **options},
        )  # fmt: skip
        self._closing.append(made.close)
        return self.guard.wrap(made)

    def abedrock(self, **options: Any) -> AsyncAnthropicBedrock:
        """As `aopenai`."""
        made = AsyncAnthropicBedrock(
            base_url=self.provider.bedrock_url, aws_access_key="a", aws_secret_key="s", aws_region="us-east-1",
            **{"max_retries": 0, **options},
        )  # fmt: skip
        self._aclosing.append(made.close)
        return self.guard.wrap(made)

    # Books.

    def month(self) -> Account:
        """The account of the user, whom every call of these tests is charged to."""
        from runrails.periods import month_of

        return Account("user:alice", month_of(self.guard.clock()))

    @property
    def spent(self) -> int:
        """What the ledger says was spent, in picodollars."""
        return self.store.balance(self.month()).spent

    @property
    def held(self) -> int:
        """What is held."""
        return self.store.balance(self.month()).held

    @property
    def billed(self) -> int:
        """What the provider bills."""
        return self.provider.bill.total_pusd()

    @property
    def hits(self) -> int:
        """How many requests came in."""
        return sum(self.provider.requests.values())

    def settled(self) -> None:
        """Nothing is held, the provider is idle, and the ledger is the bill."""
        self.provider.wait_idle()
        assert (self.billed, 0) == (self.spent, self.held)

    def untouched(self) -> None:
        """Nothing was sent, spent or held."""
        assert (0, 0, 0) == (self.hits, self.spent, self.held)

    def names(self) -> list[str]:
        """Names of the events so far, without the common prefix."""
        return [event.name.removeprefix("runrails.") for event in self.events]


def run_of(client: Any) -> Run:
    """The run of a client's own."""
    run = client.runrails_edge._shared
    assert isinstance(run, Run)
    return run


def in_loop(world: World, work: Callable[[], Awaitable[Any]]) -> Any:
    """Run asynchronous work and close the clients in the same loop."""

    async def main() -> Any:
        try:
            return await work()
        finally:
            await world.aclose()

    return asyncio.run(main())


class Canned:
    """A server that gives one and the same body, whatever is asked. `url` is where it listens."""

    def __init__(self, body: bytes, *, kind: str = "application/json") -> None:
        self.hits = 0
        canned = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                canned.hits += 1
                self.send_response(200)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Canned:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def sse(*events: object) -> bytes:
    """Server-sent events with these as their data; texts go as they are."""
    shown = [each if isinstance(each, str) else json.dumps(each, separators=(",", ":")) for each in events]
    return b"".join(b"data: " + each.encode() + b"\n\n" for each in shown)
