"""
From a table of endpoints to routes. A route cannot be made without the name of its operation, and before anything else
of a request is read, its credential is proven and may do that operation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple, cast

from fastapi import APIRouter, Depends, Request
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.concurrency import run_in_threadpool

from runrails.errors import ConfigError
from runrails.identity.operations import OPERATIONS
from runrails_gateway.admin.errors import answer, documented
from runrails_gateway.admin.services import Caller, Desk
from runrails_gateway.errors import TooLarge, TooSlow
from runrails_gateway.jsonin import read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from starlette.responses import Response
    from starlette.types import Message

__all__ = ["BODY_BYTES_MAX", "OPERATION", "CallerOf", "Endpoint", "GuardedRoute", "router_of"]

OPERATION = "x-runrails-operation"
"""Where the OpenAPI document says which operation a route is."""
BODY_BYTES_MAX = 131_072
"""A provider key of the largest size, with every byte of it escaped, fits."""
BODY_SECONDS_MAX = 20.0


class Endpoint(NamedTuple):
    """One row of a table of routes."""

    method: str
    path: str
    operation: str
    function: Callable[..., object]
    """Not a coroutine function, so that it runs in a thread: stores may be far away."""
    status: int = 200
    errors: tuple[int, ...] = ()
    """What it may answer beside what all may."""


class GuardedRoute(APIRoute):
    """A route that asks who is there, and whether they may, before it reads a body; and tells errors in one shape."""

    desk: ClassVar[Desk]

    @property
    def operation(self) -> str:
        """What it does, as a name of the table of operations. Raises ConfigError."""
        name = (self.openapi_extra or {}).get(OPERATION)
        if name not in OPERATIONS:
            raise ConfigError("A route needs an operation of the table.", next_step=f"Name it as {OPERATION}.")
        return cast("str", name)

    def get_route_handler(self) -> Callable[[Request], Coroutine[object, object, Response]]:
        """The endpoint, behind the door."""
        handle, operation = super().get_route_handler(), self.operation
        desk, changes = type(self).desk, self.methods != {"GET"}

        async def guarded(request: Request) -> Response:
            request_id = f"req_{desk.services.guard.new_id()}"
            try:
                request.state.runrails_caller = await run_in_threadpool(_admit, desk, operation, request)
                response = await handle(await _bounded(request) if changes else request)
            except Exception as error:
                told = answer(error, changes=changes, request_id=request_id)
                if told is None:
                    raise
                response = told
            response.headers["x-request-id"] = request_id
            response.headers["cache-control"] = "no-store"
            response.headers["x-content-type-options"] = "nosniff"
            return response

        return guarded


def _admit(desk: Desk, operation: str, request: Request) -> Caller:
    principal = desk.services.authenticator.authenticate(request.headers.raw)
    caller = Caller(desk=desk, principal=principal, operation=operation)
    caller.may_within()
    return caller


async def _bounded(request: Request) -> Request:
    """The request with its body read, if it is small, comes in time and has one meaning. Raises BadRequest."""
    import asyncio

    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 18 or int(length) > BODY_BYTES_MAX):
        raise TooLarge(BODY_BYTES_MAX)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_BYTES_MAX:
                    raise TooLarge(BODY_BYTES_MAX)
    except TimeoutError:
        raise TooSlow from None

    if body and "json" in request.headers.get("content-type", "").lower():
        read_json(bytes(body))  # strictly; pydantic then looks at what is in it

    async def replay() -> Message:
        return {"type": "http.request", "body": bytes(body), "more_body": False}

    return Request(request.scope, replay)


async def _caller(request: Request) -> Caller:
    return cast("Caller", request.state.runrails_caller)


CallerOf = Annotated[Caller, Depends(_caller)]
"""Who asks; an endpoint's parameter."""


def router_of(desk: Desk, endpoints: Iterable[Endpoint], *, prefix: str, tag: str) -> APIRouter:
    """The routes of a table. Raises ConfigError for an operation that does not exist."""
    route_class = type("GuardedRouteOfDesk", (GuardedRoute,), {"desk": desk})
    # They decide nothing; the OpenAPI document has them from here.
    schemes = [Depends(HTTPBearer(auto_error=False)), Depends(APIKeyHeader(name="x-api-key", auto_error=False))]
    router = APIRouter(prefix=prefix, tags=[tag], route_class=route_class, dependencies=schemes)
    for each in endpoints:
        router.add_api_route(
            each.path, each.function, methods=[each.method], status_code=each.status,
            summary=_summary(each.function), openapi_extra={OPERATION: each.operation},
            responses=documented(*each.errors, body=each.method in {"POST", "PUT"}),
            name=each.operation, operation_id=f"{tag}_{each.function.__name__}",
        )  # fmt: skip
    return router


def _summary(function: Callable[..., object]) -> str:
    return (function.__doc__ or "").strip().partition("\n")[0].rstrip(".")
