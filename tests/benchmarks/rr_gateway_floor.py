"""
The floor that the gateway is measured over: the same frame and client, and nothing in between.

    uvicorn rr_gateway_floor:app          # with FLOOR_UPSTREAM=http://127.0.0.1:8000/v1
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

UPSTREAM = os.environ.get("FLOOR_UPSTREAM", "")


@asynccontextmanager
async def lifespan(app: Starlette) -> Any:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        app.state.session = session
        yield


async def passed(request: Request) -> Response:
    """A request on its way, and its answer on its way back."""
    body = await request.body()
    url, headers = f"{UPSTREAM}/chat/completions", {"content-type": "application/json"}
    if b'"stream"' not in body:
        async with request.app.state.session.post(url, data=body, headers=headers) as answer:
            return Response(await answer.read(), answer.status, media_type="application/json")
    answer = await request.app.state.session.post(url, data=body, headers=headers)

    async def pieces() -> Any:
        async with answer:
            async for piece in answer.content.iter_any():
                yield piece

    return StreamingResponse(pieces(), answer.status, media_type="text/event-stream")


app = Starlette(routes=[Route("/v1/chat/completions", passed, methods=["POST"])], lifespan=lifespan)
