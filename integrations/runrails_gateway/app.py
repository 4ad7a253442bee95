"""The gateway as an ASGI application: FastAPI, in front of which stand the routes that calls of models take."""

from __future__ import annotations

import asyncio
import gc
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from runrails.errors import RunrailsError
from runrails.identity.authenticate import enter
from runrails_gateway.admin import Services, admin_router, own_router, page_router
from runrails_gateway.bedrock.sending import BedrockSender
from runrails_gateway.bedrock.signing import check_installed
from runrails_gateway.callers import caller_of
from runrails_gateway.config import GatewayConfig
from runrails_gateway.dialects import CHAT, COUNT_TOKENS, EMBEDDINGS, MESSAGES, RESPONSES, tell
from runrails_gateway.errors import BadRequest, ModelNotFound, NotServed
from runrails_gateway.hot import Endpoint, Hot
from runrails_gateway.models import Model, models_for, one_model, page_of
from runrails_gateway.upstream.sending import HttpSender

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

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
READY_S_MAX = 5.0
COLLECT_AFTER, COLLECT_MORE_AFTER, COLLECT_ALL_AFTER = 5_000, 5, 3
"""Nearly all that a request makes goes without the collector, its run too; the rest are errors with their traces."""
_SAFE = {"x-content-type-options": "nosniff", "cache-control": "no-store"}


class Gateway(FastAPI):
    """
    The application. Requests for models go past FastAPI's machinery, which would cost as much as all of our own.

    Args:
        config: What it is made of.
    """

    def __init__(self, config: GatewayConfig) -> None:
        docs = config.docs
        super().__init__(
            title="runrails gateway", version="1", lifespan=_lifespan, openapi_url="/openapi.json" if docs else None,
            docs_url="/docs" if docs else None, redoc_url=None, redirect_slashes=False,
        )  # fmt: skip
        self.config = config
        self.hot: Hot | None = None
        """What serves calls of models, while it runs."""
        self.served: list[BaseRoute] = []
        """All routes but those of the hot path, one by one."""
        self._endpoints: dict[str, Endpoint] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] == "http":
            endpoint = self._endpoints.get(scope["path"])
            if endpoint is not None:
                await endpoint(scope, receive, send)
                return
        await super().__call__(scope, receive, send)

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


def create_app(config: GatewayConfig) -> Gateway:
    """
    A gateway, ready for an ASGI server.

    What the configuration owns is closed when the server ends it; whatever is under way is waited for and settled.
    """
    app = Gateway(config)
    for kind in (RunrailsError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _told)
    app.add_api_route("/healthz", _health, methods=["GET"], include_in_schema=False)
    app.add_api_route("/readyz", _ready, methods=["GET"], include_in_schema=False)
    if config.metrics is not None:
        app.add_api_route("/metrics", _metrics, methods=["GET"], include_in_schema=False)
    app.add_api_route("/v1/models", _models, methods=["GET"], include_in_schema=False)
    app.add_api_route("/v1/models/{name:path}", _model, methods=["GET"], include_in_schema=False)
    services = Services(
        guard=config.guard, authenticator=config.authenticator, api_keys=config.api_keys, vault=config.vault,
        tokens=config.tokens, documents=config.documents, clock=config.guard.clock,
        monotonic=config.guard.monotonic, runs=app,
    )  # fmt: skip
    app.served += app.routes
    for router in (own_router(services), admin_router(services), page_router()):
        app.served += router.routes
        app.include_router(router)
    return app


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
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    if not isinstance(app, Gateway):
        raise TypeError("made for a Gateway")
    hot = app.open()
    try:
        yield
    finally:
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


def _methods(request: Request) -> str:
    """What a path that exists can be asked by."""
    path, found = request.url.path, set[str]()
    for route in _gateway(request).served:
        if isinstance(route, Route) and route.methods and route.path_regex.match(path):
            found |= route.methods
    return ", ".join(sorted(found))


async def _told(request: Request, error: Exception) -> Response:
    """Whatever went wrong outside of calls of models, in the caller's dialect."""
    config = _gateway(request).config
    dialect = MESSAGES if _is_anthropics(request) else CHAT
    if isinstance(error, RequestValidationError):
        error = BadRequest("invalid_request", "The request is not as this address wants it.")
    elif isinstance(error, HTTPException):
        error = NotServed(methods=_methods(request)) if error.status_code == 405 else NotServed()
    elif not isinstance(error, RunrailsError):
        config.guard.emit("request_failed", "error", error=type(error).__name__)
    told = tell(error, request_id=f"req_{config.guard.new_id()}", hide_amounts=config.hide_amounts)
    return Response(
        dialect.refusal(told), status_code=told.status, media_type="application/json",
        headers={**_SAFE, "x-request-id": told.request_id, **dict(told.headers)},
    )  # fmt: skip
