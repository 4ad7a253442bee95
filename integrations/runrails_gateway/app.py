"""
The gateway as an ASGI application: the routes that calls of models take, a few that Starlette has, and FastAPI's.

The last are made when one of them is first asked for, which takes a moment: most processes never are.
"""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from runrails.errors import RunrailsError
from runrails.identity.authenticate import enter
from runrails_gateway.bedrock.sending import BedrockSender
from runrails_gateway.bedrock.signing import check_installed
from runrails_gateway.callers import caller_of
from runrails_gateway.config import GatewayConfig
from runrails_gateway.dialects import CHAT, COUNT_TOKENS, EMBEDDINGS, MESSAGES, RESPONSES, tell
from runrails_gateway.errors import ModelNotFound, NotServed
from runrails_gateway.hot import Endpoint, Hot
from runrails_gateway.models import Model, models_for, one_model, page_of
from runrails_gateway.trimming import keep_trimmed, trimmer
from runrails_gateway.upstream.sending import HttpSender

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.routing import BaseRoute
    from starlette.types import Receive, Scope, Send

    from runrails.run import Run
    from runrails_gateway.dialects import Dialect
    from runrails_gateway.upstream.sending import Sender

__all__ = ["Gateway", "app_of_environment", "create_app"]

_HOT: dict[str, Dialect] = {
    "/v1/chat/completions": CHAT, "/v1/responses": RESPONSES, "/v1/embeddings": EMBEDDINGS,
    "/v1/messages": MESSAGES, "/v1/messages/count_tokens": COUNT_TOKENS,
}  # fmt: skip
ADMIN = ("/admin", "/v1/usage", "/v1/budget", "/v1/runs", "/v1/tokens")
"""What the addresses of the admin API, its page and everybody's own figures begin with."""
DOCS = ("/docs", "/openapi.json")
READY_S_MAX = 5.0
COLLECT_AFTER, COLLECT_MORE_AFTER, COLLECT_ALL_AFTER = 5_000, 5, 3
"""Nearly all that a request makes goes without the collector, its run too; the rest are errors with their traces."""
_SAFE = {"x-content-type-options": "nosniff", "cache-control": "no-store"}


class _Get(Route):
    """As FastAPI has them: HEAD is not answered beside GET."""

    def __init__(self, path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> None:
        super().__init__(path, endpoint)
        self.methods = {"GET"}


class Gateway(Starlette):
    """
    The application. Requests for models go past the machinery of routes, which would cost as much as all of our own.

    Args:
        config: What it is made of.
    """

    def __init__(self, config: GatewayConfig) -> None:
        routes = [
            _Get("/healthz", _health), _Get("/readyz", _ready), _Get("/v1/models", _models),
            _Get("/v1/models/{name:path}", _model), *([] if config.metrics is None else [_Get("/metrics", _metrics)]),
        ]  # fmt: skip
        kinds = (RunrailsError, HTTPException, Exception)
        super().__init__(
            routes=routes, lifespan=_lifespan, exception_handlers=dict.fromkeys(kinds, self._told)
        )  # fmt: skip
        self.router.redirect_slashes = False
        self.config = config
        self.hot: Hot | None = None
        """What serves calls of models, while it runs."""
        self._endpoints: dict[str, Endpoint] = {}
        self._beside = ADMIN + DOCS if config.docs else ADMIN
        self._admin: FastAPI | None = None
        self._making = threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] == "http":
            endpoint = self._endpoints.get(scope["path"])
            if endpoint is not None:
                await endpoint(scope, receive, send)
                return
            if scope["path"].removeprefix(scope.get("root_path", "")).startswith(self._beside):
                # Others are answered meanwhile: loading what it is made of takes as long as hundreds of them.
                admin = await asyncio.to_thread(self.admin) if self._admin is None else self._admin
                await admin(scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    def admin(self) -> FastAPI:
        """The application for all that is no call of a model, made at the first time. Safe in any thread."""
        with self._making:
            if self._admin is None:
                from runrails_gateway.admin import Services
                from runrails_gateway.adminapp import admin_app

                config, guard = self.config, self.config.guard
                services = Services(
                    guard=guard, authenticator=config.authenticator, api_keys=config.api_keys, vault=config.vault,
                    tokens=config.tokens, documents=config.documents, clock=guard.clock, monotonic=guard.monotonic,
                    runs=self,
                )  # fmt: skip
                self._admin = admin_app(services, self._refuse, docs=config.docs)
            return self._admin

    def open_runs(self) -> list[Run]:
        """The runs that are kept in this process. Safe in any thread."""
        return [] if self.hot is None else self.hot.open_runs()

    def ending(self) -> None:
        """The server begins to end. What it waits for requests is a part of how long they are waited for."""
        if self.hot is not None:
            self.hot.ending()

    def open(self) -> Hot:
        """Begin to serve, in the running event loop."""
        self.config.guard.prices.prepare()  # The first request would wait for them, and all others beside it.
        if any(each.dialect == "bedrock" and each.key is None for each in self.config.upstreams):
            check_installed()
        http = HttpSender()
        senders: dict[str, Sender] = {
            "openai": http, "anthropic": http, "bedrock": BedrockSender(http, self.config.guard)
        }  # fmt: skip
        self.hot = hot = Hot(self.config, senders)
        self._endpoints = {path: Endpoint(hot, dialect) for path, dialect in _HOT.items()}
        return hot

    async def _told(self, request: Request, error: Exception) -> Response:
        return await self._refuse(request, error, self.routes)

    async def _refuse(self, request: Request, error: Exception, routes: Sequence[BaseRoute]) -> Response:
        """Whatever went wrong outside of calls of models, in the caller's dialect."""
        dialect = MESSAGES if _is_anthropics(request) else CHAT
        if isinstance(error, HTTPException):
            methods = _methods(request, routes)
            error = NotServed(methods=methods) if error.status_code == 405 else NotServed()
        elif not isinstance(error, RunrailsError):
            self.config.guard.emit("request_failed", "error", error=type(error).__name__)
        told = tell(
            error, request_id=f"req_{self.config.guard.new_id()}", hide_amounts=self.config.hide_amounts
        )  # fmt: skip
        return Response(
            dialect.refusal(told), status_code=told.status, media_type="application/json",
            headers={**_SAFE, "x-request-id": told.request_id, **dict(told.headers)},
        )  # fmt: skip


def create_app(config: GatewayConfig) -> Gateway:
    """
    A gateway, ready for an ASGI server.

    What the configuration owns is closed when the server ends it; whatever is under way is waited for and settled.
    """
    return Gateway(config)


def app_of_environment() -> Gateway:
    """For servers that make the application themselves, once in every worker: what the environment says."""
    app = create_app(GatewayConfig.from_env())
    _tune_collector()
    return app


def _tune_collector() -> None:
    """
    What is loaded by now stays, and most of what a request makes is gone with it: looking through all of it every few
    requests takes a fifth of their time, and is what the slowest of them wait for.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, COLLECT_MORE_AFTER, COLLECT_ALL_AFTER)


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncGenerator[None]:
    if not isinstance(app, Gateway):
        raise TypeError("made for a Gateway")
    hot = app.open()
    trimming = asyncio.create_task(keep_trimmed(trimmer()))
    try:
        yield
    finally:
        trimming.cancel()
        await hot.close()
        app.config.close()


def _gateway(request: Request) -> Gateway:
    app: object = request.app
    if not isinstance(app, Gateway):
        raise TypeError("made for a Gateway")
    return app


async def _health(request: Request) -> Response:
    """Whether the process serves at all. Asks nobody."""
    del request
    return Response(b'{"status":"ok"}', media_type="application/json")


async def _ready(request: Request) -> Response:
    """
    Whether it can let calls through: it is open, and the ledger answers. Upstreams that rest are named, but are no
    reason to be sent no more requests: one of those is how they are found to be back.
    """
    hot = _gateway(request).hot
    ledger = False
    if hot is not None:
        try:
            async with asyncio.timeout(READY_S_MAX):
                await hot.check_ready()
                ledger = True
        except (RunrailsError, TimeoutError):
            pass
    resting = () if hot is None else hot.resting
    told = {
        "status": "ready" if ledger else "unavailable", "ledger": "reachable" if ledger else "out_of_reach",
        "upstreams": {each.name: "resting" if each.name in resting else "in_use" for each in
                      _gateway(request).config.upstreams},
    }  # fmt: skip
    return _answer(json.dumps(told).encode(), 200 if ledger else 503)


async def _metrics(request: Request) -> Response:
    """Figures of everybody, for whoever may see the platform's usage. They are read from files, where others write."""
    config = _gateway(request).config
    principal = await caller_of(config, request.headers.raw)
    enter(principal, "usage.list", guard=config.guard)
    if config.metrics is None:
        raise NotServed
    text = await asyncio.to_thread(config.metrics.text)
    return Response(text, headers={**_SAFE, "content-type": config.metrics.content_type})


async def _models(request: Request) -> Response:
    """What the caller can call."""
    models = await _listed(request)
    return _answer(page_of(models, anthropic=_is_anthropics(request)))


async def _model(request: Request) -> Response:
    """One of them, by its name: a look into the list, whatever the name looks like."""
    name = request.path_params["name"]
    for model in await _listed(request):
        if model.name == name:
            return _answer(one_model(model, anthropic=_is_anthropics(request)))
    raise ModelNotFound


async def _listed(request: Request) -> tuple[Model, ...]:
    config = _gateway(request).config
    principal = await caller_of(config, request.headers.raw)
    enter(principal, "models.list", guard=config.guard)
    return models_for(config, principal)


def _is_anthropics(request: Request) -> bool:
    return "anthropic-version" in request.headers


def _answer(body: bytes, status: int = 200) -> Response:
    return Response(body, status_code=status, media_type="application/json", headers=_SAFE)


def _methods(request: Request, routes: Sequence[BaseRoute]) -> str:
    """What a path that exists can be asked by."""
    path, found = request.url.path, set[str]()
    for route in routes:
        if isinstance(route, Route) and route.methods and route.path_regex.match(path):
            found |= route.methods
    return ", ".join(sorted(found))
