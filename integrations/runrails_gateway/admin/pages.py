"""The operator's page: static files of this package, without any data in them. What they show they ask the API for."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastapi import APIRouter
    from starlette.requests import Request

__all__ = ["FILES", "PAGE_HEADERS", "page_router"]

FILES = {
    "": ("index.html", "text/html; charset=utf-8"),
    "app.css": ("app.css", "text/css; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
    **{
        name: (name, "text/javascript; charset=utf-8")
        for name in (
            "api.js", "app.js", "charts.js", "dom.js", "overview.js", "runs.js", "settings.js", "usage.js", "words.js"
        )
    },
}  # fmt: skip
"""By address below `/admin/`."""
PAGE_HEADERS = {
    # Nothing from elsewhere, nothing inline, no frame around it; and no text ever becomes markup.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-cache",
}


class _File(NamedTuple):
    body: bytes
    media_type: str
    etag: str


def page_router() -> APIRouter:
    """`/admin/`, the page, and its files beside it."""
    from fastapi import APIRouter

    folder = files("runrails_gateway.admin").joinpath("page")
    routes = [Route("/admin", _to_page, methods=["GET"])]
    for address, (name, media_type) in FILES.items():
        body = folder.joinpath(name).read_bytes()
        file = _File(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
        routes.append(Route(f"/admin/{address}", _sender(file), methods=["GET"]))
    return APIRouter(routes=list(routes))


async def _to_page(_: Request) -> Response:
    return RedirectResponse("admin/", status_code=307)


def _sender(file: _File) -> Callable[[Request], Awaitable[Response]]:
    async def send(request: Request) -> Response:
        headers = {**PAGE_HEADERS, "etag": file.etag}
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        return Response(file.body, media_type=file.media_type, headers=headers)

    return send
