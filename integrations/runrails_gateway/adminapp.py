"""
The application for what is asked beside calls of models, an application of its own so that it can wait until somebody
asks: FastAPI, pydantic and what they make of every route are as much memory as all the rest of a gateway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from runrails.errors import RunrailsError
from runrails_gateway.admin import admin_router, own_router, page_router
from runrails_gateway.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from runrails_gateway.admin import Services

    Refusing = Callable[[Request, Exception, Sequence[BaseRoute]], Awaitable[Response]]
    """The answer to a request that went wrong, given the routes it could have meant."""

__all__ = ["admin_app"]


def admin_app(services: Services, refuse: Refusing, *, docs: bool) -> FastAPI:
    """
    The admin API, its page, and everybody's own figures.

    Args:
        services: The parts of the gateway.
        refuse: Answers what went wrong outside of an endpoint.
        docs: Serve `/docs` and `/openapi.json` as well.
    """
    app = FastAPI(
        title="runrails gateway", version="1", openapi_url="/openapi.json" if docs else None,
        docs_url="/docs" if docs else None, redoc_url=None, redirect_slashes=False,
    )  # fmt: skip
    routes: list[BaseRoute] = [*app.routes]
    for router in (own_router(services), admin_router(services), page_router()):
        routes += router.routes
        app.include_router(router)

    async def told(request: Request, error: Exception) -> Response:
        if isinstance(error, RequestValidationError):
            error = BadRequest("invalid_request", "The request is not as this address wants it.")
        return await refuse(request, error, routes)

    for kind in (RunrailsError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, told)
    return app
