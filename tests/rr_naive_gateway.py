"""
A gateway as one writes it on a weekend: each of its shortcuts is one of the failures that hosted gateways are known
for. Tests of ours show first that they would find it out.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from rr_gateway import listening
from runrails.testing.provider import FakeProvider
from runrails.testing.provider.script import Script

__all__ = ["NaiveGateway", "naive"]

PRICES: Mapping[str, tuple[float, float]] = {"fake-model": (3e-6, 15e-6)}
"""Dollars a token. What is not here is free, or a cent a call."""
WORST_TOKENS = 4_096
DAYS_30_MS = 30 * 86_400_000


class NaiveGateway:
    """
    One replica.

    Args:
        provider: Where requests go.
        budget: Dollars.
        reserves: Whether the worst case is counted before a call; otherwise what it cost is, after it.
        ledger: A SQLite file to write calls into.
        clock: Wall clock in milliseconds.
    """

    def __init__(
        self, provider: FakeProvider, *, budget: float = 1.0, reserves: bool = False, ledger: Path | None = None,
        clock: Callable[[], int] = lambda: 0,
    ) -> None:  # fmt: skip
        self.provider = provider
        self.key = "rr_live_naive_0123456789"
        self.url = ""
        self.count = 0
        self.open_streams = 0
        self.alerts: list[str] = []
        self.rows: dict[str, float] = {}
        self.spent = 0.0
        self.seen: list[dict[str, Any]] = []
        self._budget = budget
        self._reserves = reserves
        self._ledger = ledger
        self._clock = clock
        self._since_ms = clock()
        self._http: aiohttp.ClientSession | None = None

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def hits(self) -> int:
        """How many requests came to the provider."""
        return sum(self.provider.requests.values())

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as self._http:
            yield

    def app(self) -> Starlette:
        """Serves everything: what it does not know is passed on."""
        return Starlette(routes=[Route("/{path:path}", self._serve, methods=["POST"])], lifespan=self._lifespan)

    async def _serve(self, request: Request) -> Response:
        self.count += 1
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        if key != self.key:
            return _error(401, f"Unknown key {key}")  # 10: it is in the answer, and in every log of answers
        body = await request.json()
        path = request.url.path
        if path == "/v1/chat/completions":  # 8: the other addresses came later
            if self._is_spent(body):  # 1: looked at here, counted far below
                self.alerts.append(f"{key} is over budget")  # 13
                # 16: SDKs take it for something that passes; the pause only makes the test quick.
                return _error(429, f"Current cost: {self.spent}, max budget: {self._budget}", {"retry-after-ms": "1"})
            body.setdefault("max_tokens", 256)  # 14
        self.seen.append(body)  # 12
        connection = None
        if self._ledger is not None:
            with suppress(sqlite3.Error):  # 3: without a ledger it goes on as well
                connection = sqlite3.connect(self._ledger, check_same_thread=False)  # 11: one for each request
                connection.execute("select 1 from sqlite_master").fetchall()
        return await self._pass(request, path, body, connection)

    def _is_spent(self, body: dict[str, Any]) -> bool:
        if self._clock() - self._since_ms >= DAYS_30_MS:  # 9: that is no month
            self._since_ms, self.spent = self._clock(), 0.0
        if not self._reserves:
            return self.spent >= self._budget  # 2: of this replica; 4: of floats
        worst = WORST_TOKENS * PRICES.get(body["model"], (0.0, 0.0))[1]  # 4: nobody asks what would fit
        if self.spent + worst > self._budget:
            return True
        self.spent += worst
        return False

    async def _pass(
        self, request: Request, path: str, body: dict[str, Any], connection: sqlite3.Connection | None
    ) -> Response:  # fmt: skip
        if self._http is None:
            raise RuntimeError("not open")
        answer = await self._http.post(self.provider.url + path, json=body)
        told = {"x-budget-remaining": f"{self._budget:.2f}"}  # 15: what was set, not what is left
        if answer.status >= 400:  # 5: what was reserved stays so
            return Response(await answer.read(), answer.status, told, "application/json")
        if not body.get("stream"):
            raw = await answer.read()
            self._count(request, body, json.loads(raw).get("usage"), connection)
            return Response(raw, 200, told, "application/json")

        async def passed() -> AsyncIterator[bytes]:
            usage = None
            self.open_streams += 1
            try:
                async for line in answer.content:
                    if b'"usage":{' in line:
                        usage = json.loads(line.removeprefix(b"data: "))["usage"]
                    yield line
                self._count(request, body, usage, connection)  # 6: whoever hangs up has not been here
            finally:
                self.open_streams -= 1
                answer.close()

        return StreamingResponse(passed(), 200, told, "text/event-stream")

    def _count(self, request: Request, body: dict[str, Any], usage: Any, connection: sqlite3.Connection | None) -> None:
        if body["model"] == "fake-flat":
            cost = 0.01
        else:
            each = PRICES.get(body["model"], (0.0, 0.0))  # 3: what has no price is free
            used = usage or {}
            cost = each[0] * used.get("prompt_tokens", 0) + each[1] * used.get("completion_tokens", 0)
        worst = WORST_TOKENS * PRICES.get(body["model"], (0.0, 0.0))[1] if self._reserves else 0.0
        self.spent += cost - worst
        self.rows[request.headers.get("x-request-id", "")] = cost  # 7: one row for all who send none
        if connection is not None:
            connection.close()


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": {"message": message, "type": "error", "code": None, "param": None}}, status, headers)


@contextmanager
def naive(script: Script, **options: Any) -> Iterator[NaiveGateway]:
    """One that listens, in front of a fake provider."""
    with FakeProvider(script) as provider:
        made = NaiveGateway(provider, **options)
        with listening(made.app()) as url:
            made.url = url
            yield made
