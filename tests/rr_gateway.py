"""What tests of the gateway share: one in front of a fake provider, over real sockets or called as ASGI has it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import uvicorn

from rr_keys import PEPPERS
from runrails import Guard, Limits
from runrails.documents.memory import MemoryDocuments
from runrails.events import Event
from runrails.identity.apikeys import ApiKeys
from runrails.identity.authenticate import Authenticator
from runrails.ledger import Account, Store
from runrails.periods import month_of
from runrails.secretvalue import Secret
from runrails.stores.memory import MemoryStore
from runrails.testing.prices import PRICES
from runrails.testing.provider import Answer, FakeProvider, Text
from runrails.testing.provider.script import Script
from runrails.usage import Usage
from runrails_gateway.app import Gateway, create_app
from runrails_gateway.config import GatewayConfig, Limited, Upstream
from runrails_gateway.exchange import Exchange
from runrails_gateway.protocol import BoundedProtocol

MODEL = "fake-model"
USAGE = Usage(input_tokens=4321, cache_read_tokens=1000, output_tokens=777)
TOLD: Answer = Text("Hello there, my friend.", usage=USAGE, ignores_max_tokens=True)
"""An answer whose cost no bound and no counting of bytes could come to by chance."""
HOUSE = "sk-of-the-house-0123456789abcdefg"
HI = [{"role": "user", "content": "hi"}]
PATIENCE_S = 50.0
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"model": MODEL, "messages": HI, "max_tokens": 2000}),
    "responses": ("/v1/responses", {"model": MODEL, "input": "hi", "max_output_tokens": 2000}),
    "messages": ("/v1/messages", {"model": MODEL, "messages": HI, "max_tokens": 2000}),
    "embeddings": ("/v1/embeddings", {"model": MODEL, "input": "hi"}),
}
"""A request of each dialect that costs money: where it goes, and what it says."""
STREAMED = ("chat", "responses", "messages")


class Watching:
    """Notes every request that ended."""

    def __init__(self) -> None:
        self.began_count = 0
        self.over: list[Exchange] = []

    def began(self, exchange: Exchange) -> None:
        self.began_count += 1

    def ended(self, exchange: Exchange) -> None:
        self.over.append(exchange)


@dataclass
class World:
    """A provider, a guard beside it, and the gateway's parts. Nothing serves yet."""

    provider: FakeProvider
    guard: Guard
    store: Store
    keys: ApiKeys
    key: str
    config: GatewayConfig
    events: list[Event]
    watching: Watching
    url: str = ""
    """Where the gateway listens, if it does."""
    closing: list[Callable[[], object]] = field(default_factory=list)

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"

    def new_key(self, user: str = "alice", **terms: Any) -> str:
        """Another key."""
        return self.keys.create(user, scopes=terms.pop("scopes", ("ai:complete", "ai:embed")), **terms)[1].reveal()

    def account(self, scope: str = "user:alice") -> Account:
        """What a user is charged in."""
        return Account(scope, month_of(self.guard.clock()))

    @property
    def spent(self) -> int:
        return self.store.balance(self.account()).spent

    @property
    def held(self) -> int:
        return self.store.balance(self.account()).held

    @property
    def billed(self) -> int:
        return self.provider.bill.total_pusd()

    @property
    def hits(self) -> int:
        """How many requests came to the provider."""
        return sum(self.provider.requests.values())

    def rows(self) -> list[Any]:
        """One a call, as the ledger has them."""
        return list(self.store.usage())  # type: ignore[attr-defined]

    def ended(self) -> list[Exchange]:
        """Every request, once all of them are over: over a socket an answer is there a moment before its request is."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self.watching.over) < self.watching.began_count:
            assert time.monotonic() < deadline, "requests are still under way"
            time.sleep(0.002)
        return self.watching.over

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


@contextmanager
def world(script: Script = TOLD, limits: Limits | None = None, **options: Any) -> Iterator[World]:
    """
    A provider and the parts of a gateway. `options` are those of `GatewayConfig` and of `Limited`, `store`, `guard`
    for more of the guard's, `scopes` of the key, and `upstream` for changes of the upstreams.
    """
    watching = Watching()
    events: list[Event] = []
    store: Store = options.pop("store", None) or MemoryStore()
    guard = Guard(
        limits or Limits(run=None, month="100", steps=None), user="nobody", store=store,
        **{"prices": PRICES, "sinks": [events.append], **options.pop("guard", {})},
    )  # fmt: skip
    keys = ApiKeys(MemoryDocuments(), PEPPERS)
    key = keys.create("alice", scopes=options.pop("scopes", ("ai:complete", "ai:embed")))[1].reveal()
    with FakeProvider(script) as provider:
        changes = {"retries": 0, "key": Secret(HOUSE), **options.pop("upstream", {})}
        upstreams = options.pop("upstreams", None) or (
            Upstream(name="fake-openai", dialect="openai", base_url=provider.openai_url, **changes),
            Upstream(name="fake-anthropic", dialect="anthropic", base_url=provider.anthropic_url, **changes),
        )
        limited = Limited(**{name: options.pop(name) for name in list(options) if name in Limited.__slots__})
        config = GatewayConfig(
            guard=guard, authenticator=options.pop("authenticator", None) or Authenticator(keys), upstreams=upstreams,
            limited=limited, watchers=(watching, *options.pop("watchers", ())), **options,
        )  # fmt: skip
        made = World(provider, guard, store, keys, key, config, events, watching)
        try:
            yield made
        finally:
            for close in made.closing:
                close()
            guard.close()


@contextmanager
def serving(config: GatewayConfig) -> Iterator[str]:
    """A gateway that listens on 127.0.0.1; its address."""
    with listening(create_app(config)) as url:
        yield url


class _Server(uvicorn.Server):
    """Ends soon after it is told to: usually a server looks ten times a second, which hundreds of tests wait for."""

    async def main_loop(self) -> None:
        await self.on_tick(0)
        while not self.should_exit:  # noqa: ASYNC110 -- it is set by another thread
            await asyncio.sleep(0.01)


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """An application that listens on 127.0.0.1, in a thread; its address."""
    server = _Server(
        uvicorn.Config(
            app, host="127.0.0.1", port=0, log_level="critical", access_log=False, ws="none",
            server_header=False, lifespan="on", timeout_graceful_shutdown=5, http=BoundedProtocol,
        )
    )  # fmt: skip
    thread = threading.Thread(target=server.run, name="gateway", daemon=True)
    thread.start()
    deadline = time.monotonic() + PATIENCE_S
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise RuntimeError("the gateway did not start")
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@contextmanager
def gateway(script: Script = TOLD, limits: Limits | None = None, **options: Any) -> Iterator[World]:
    """A gateway over real sockets, in front of a fake provider. See `world`."""
    with world(script, limits, **options) as made, serving(made.config) as url:
        made.url = url
        yield made


class Timers:
    """
    Time limits of `asyncio.timeout`, over when a test says so: how long a busy machine takes for what comes before
    them decides nothing.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._begun: list[tuple[float | None, asyncio.Timeout, asyncio.AbstractEventLoop]] = []
        self._timeout = asyncio.timeout
        monkeypatch.setattr(asyncio, "timeout", self._begin)

    def _begin(self, seconds: float | None) -> asyncio.Timeout:
        timer = self._timeout(seconds)
        self._begun.append((seconds, timer, asyncio.get_running_loop()))
        return timer

    def end(self, limit_ms: int) -> None:
        """The time of the one limit of that length is over. From any thread."""
        ((timer, loop),) = [(timer, loop) for seconds, timer, loop in self._begun if seconds == limit_ms / 1_000]
        loop.call_soon_threadsafe(lambda: timer.reschedule(loop.time()))


# As ASGI has it.


class Caller:
    """One request, made without a server; it can hang up at any moment."""

    def __init__(
        self, path: str, body: bytes | dict[str, Any], headers: dict[str, str], *, method: str = "POST"
    ) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.scope: dict[str, Any] = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": method,
            "scheme": "http", "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "state": {},
        }  # fmt: skip
        self._waiting: list[dict[str, Any]] = [{"type": "http.request", "body": raw, "more_body": False}]
        self._gone = asyncio.Event()
        self.status = 0
        self.headers: dict[str, str] = {}
        self.pieces: list[bytes] = []
        self.complete = False
        self.on_piece: Callable[[int], None] | None = None
        """Called with the number of each piece that is handed out, from 1."""

    def hang_up(self) -> None:
        """Be gone."""
        self._gone.set()

    @property
    def gone(self) -> bool:
        return self._gone.is_set()

    async def receive(self) -> dict[str, Any]:
        if self._waiting:
            return self._waiting.pop(0)
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        if message.get("body"):
            self.pieces.append(message["body"])
            if self.on_piece is not None:
                self.on_piece(len(self.pieces))
        self.complete = not message.get("more_body", False)

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def json(self) -> Any:
        return json.loads(self.body)


@asynccontextmanager
async def running(config: GatewayConfig) -> AsyncIterator[Gateway]:
    """A gateway in this event loop, without a server."""
    app = create_app(config)
    hot = app.open()
    try:
        yield app
    finally:
        await hot.close()


def asked(made: World, kind: str = "chat", *, stream: bool = False, **changes: Any) -> Caller:
    """A request of one dialect."""
    path, body = BODIES[kind]
    more = {"stream": True} if stream else {}
    headers = changes.pop("headers", {})
    return Caller(path, {**body, **more, **changes}, {"authorization": f"Bearer {made.key}", **headers})


async def drained(app: Gateway) -> None:
    """Wait until nothing is under way."""
    deadline = time.monotonic() + PATIENCE_S
    while app.hot is not None and app.hot.open_requests:
        assert time.monotonic() < deadline, "requests are still under way"
        await asyncio.sleep(0.002)


def changed(config: GatewayConfig, **changes: Any) -> GatewayConfig:
    """The same with other settings."""
    return replace(config, **changes)
