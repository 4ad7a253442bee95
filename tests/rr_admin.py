"""What tests of the admin endpoints share: a small application of real parts, and a client without a network."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from fastapi import FastAPI

from rr_core import CENT, PRICES, START_MS, done
from rr_keys import make_keys
from rr_vault import new_vault
from runrails import Guard, Limits
from runrails.calls import ModelCall, Prompt, ToolCall, ToolOutcome
from runrails.credentials import Vault
from runrails.credentials.records import Credential
from runrails.credentials.validation import Validation
from runrails.documents import DocumentStore
from runrails.errors import GuardrailStopped
from runrails.events import Event
from runrails.identity.authenticate import Authenticator
from runrails.ledger import FullStore, Store
from runrails.rates import Rates
from runrails.run import Run
from runrails.stores.memory import MemoryStore
from runrails.testing import ManualClock
from runrails_gateway.admin import Services, admin_router, own_router, page_router
from runrails_gateway.admin.routing import GuardedRoute

__all__ = ["ALL", "CENT", "Client", "Got", "Validating", "World", "app_of", "call_of", "done", "routes_of"]

ALL = (
    "ai:complete", "ai:embed", "ai:agent", "admin:keys", "admin:credentials", "admin:budgets", "admin:usage",
    "admin:tokens",
)  # fmt: skip


class Got(NamedTuple):
    """An answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """What is wrong, without the id of the request, which is always another."""
        told = self.json["error"]
        assert told.pop("request_id") == self.headers["x-request-id"]
        return dict(told)

    @property
    def code(self) -> str:
        """Which error it is."""
        return str(self.json["error"]["code"])


class Client:
    """Asks an ASGI application as a server would, in an event loop of its own."""

    def __init__(self, app: Any, key: str | None = None) -> None:
        self.app = app
        self.key = key
        self._runner = asyncio.Runner()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()

    def ask(
        self, method: str, path: str, body: object = None, *, key: str | None = None, raw: bytes | None = None,
        headers: Iterable[tuple[str, str]] = (), query: Mapping[str, object] | None = None,
    ) -> Got:  # fmt: skip
        """One request, with the client's key unless another is given; an empty one is no key."""
        key = self.key if key is None else key
        sent = [("content-type", "application/json")] if body is not None or raw is not None else []
        sent += [("authorization", f"Bearer {key}")] if key else []
        names = {name.lower() for name, _ in headers}
        sent = [each for each in sent if each[0] not in names] + list(headers)
        data = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        return self._runner.run(self._ask(method, path, data, sent, query or {}))

    def get(self, path: str, **query: object) -> Got:
        """A GET."""
        return self.ask("GET", path, query=query)

    async def _ask(
        self, method: str, path: str, data: bytes, headers: list[tuple[str, str]], query: Mapping[str, object]
    ) -> Got:
        given = [
            (name, each) for name, value in query.items() for each in (value if isinstance(value, list) else [value])
        ]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": quote(path, errors="surrogatepass").encode(), "root_path": "",
            "query_string": urlencode(given, errors="surrogatepass").encode(), "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "headers": [(n.encode("latin-1"), v.encode("latin-1")) for n, v in headers],
        }  # fmt: skip
        waiting = [{"type": "http.request", "body": data, "more_body": False}]
        told: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return waiting.pop() if waiting else {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            told.append(message)

        await self.app(scope, receive, send)
        start = next(each for each in told if each["type"] == "http.response.start")
        body = b"".join(each.get("body", b"") for each in told if each["type"] == "http.response.body")
        return Got(start["status"], {n.decode(): v.decode() for n, v in start["headers"]}, body)


class Validating:
    """Says what it is told to say of every key."""

    def __init__(self) -> None:
        self.says = Validation("valid", "accepted")

    def validate(self, credential: Credential) -> Validation:
        """As said."""
        return self.says


class Registry:
    """The runs that are open."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def open_runs(self) -> list[Run]:
        """As they were put here."""
        return self.runs


def call_of(model: str) -> ModelCall:
    """A small call of a model."""
    return ModelCall(model=model, prompt=Prompt(texts=("hi",), messages=1), max_tokens=100)


def app_of(services: Services) -> FastAPI:
    """An application that has only the endpoints under test."""
    app = FastAPI()
    for router in (admin_router(services), own_router(services), page_router()):
        app.include_router(router)
    return app


def routes_of(services: Services) -> list[tuple[str, str, str]]:
    """Method, path and operation of every route that answers with data."""
    routes = [*admin_router(services).routes, *own_router(services).routes]
    assert all(isinstance(each, GuardedRoute) for each in routes)
    return [
        (method, each.path, each.operation) for each in routes if isinstance(each, GuardedRoute)
        for method in sorted(each.methods)
    ]  # fmt: skip


class World:
    """A gateway's parts in memory, with stopped clocks, and an application that has only the endpoints under test."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        store: Store | None = None,
        vault: bool = True,
        keys: bool = True,
        documents: DocumentStore | None = None,
    ) -> None:
        self.clock = ManualClock(START_MS)
        self.store = store or MemoryStore(clock=self.clock)
        self.events: list[Event] = []
        self.guard = Guard(
            limits or Limits(run="1.00", month="50.00"), user="nobody", store=self.store, prices=PRICES,
            sinks=[self.events.append], clock=self.clock, monotonic=self.clock,
        )  # fmt: skip
        self.keys = make_keys(documents, clock=self.clock)
        self.vault: Vault | None = new_vault(documents, clock=self.clock, monotonic=self.clock) if vault else None
        self.validating, self.registry = Validating(), Registry()
        self.services = Services(
            guard=self.guard, authenticator=Authenticator(self.keys, clock=self.clock),
            api_keys=self.keys if keys else None, vault=self.vault, validator=self.validating, clock=self.clock,
            monotonic=self.clock, runs=self.registry,
        )  # fmt: skip
        self.operator = self.key("root", *ALL)

    def key(self, user: str, *scopes: str, org: str | None = None, rates: Rates | None = None) -> str:
        """The text of a new key."""
        return self.keys.create(user, scopes=scopes, org=org, rates=rates)[1].reveal()

    @cached_property
    def app(self) -> FastAPI:
        """The application; made when it is first needed, since making its models takes a while."""
        return app_of(self.services)

    def state(self) -> dict[str, object]:
        """All that an endpoint could change, but for when keys were used."""
        limits = list(self.store.limits()) if isinstance(self.store, FullStore) else []
        return {
            "keys": [replace(each, last_used_ms=None) for each in self.keys.list()], "limits": limits,
            "vault": [] if self.vault is None else self.vault.list(),
        }  # fmt: skip

    def client(self, key: str | None = None) -> Client:
        """A client; the operator's unless a key is given."""
        return Client(self.app, self.operator if key is None else key)

    def run(
        self, name: str = "", calls: int = 1, *, user: str = "alice", key: str | None = None, org: str | None = None,
        model: str = "cent", close: bool = True, tags: Mapping[str, str] | None = None,
    ) -> Run:  # fmt: skip
        """A run with so many calls of a model, a second after each other."""
        run = self.guard.run(name, user=user, key=key, org=org, tags=tags)
        with suppress(GuardrailStopped):
            for _ in range(calls):
                permit = run.before_model(call_of(model))
                self.clock.advance(1_000)
                run.after_model(permit, done())
        if close:
            run.close()
        return run

    def stopped_run(
        self, name: str = "stuck", *, tool: str = "search", user: str = "alice", org: str | None = None
    ) -> Run:
        """A run that a failing tool has stopped."""
        run = self.guard.run(name, user=user, org=org, limits=Limits(run="5.00"))
        with suppress(GuardrailStopped):
            for place in range(10):
                permit = run.before_model(call_of("dear" if place == 0 else "cent"))
                self.clock.advance(900)
                run.after_model(permit, done())
                asked = ToolCall(name=tool, args={"q": "same"}, id=f"c{place}", batch=place)
                run.before_tool(asked, can_block=False)
                self.clock.advance(100)
                run.after_tool(asked, ToolOutcome(ok=False, result="no result"), can_block=False)
        run.close()
        return run
