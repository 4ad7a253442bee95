"""Every way out of a wrapped client: guarded with a bound, refused by name, or certainly free. Nothing else passes."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from rr_clients import HI, MODEL, World, in_loop
from runrails.errors import BoundUnknown, CallRefused

GUARDED = {
    "openai": {"/chat/completions", "/responses", "/responses?beta=true", "/embeddings"},
    "anthropic": {"/v1/messages", "/v1/messages?beta=true"},
}
FREE = {
    "openai": {
        "/assistants", "/assistants/x", "/batches/x/cancel", "/chat/completions/x", "/chatkit/sessions/x/cancel",
        "/conversations", "/conversations/x", "/conversations/x/items", "/evals/x/runs/x/cancel", "/files",
        "/fine_tuning/jobs/x/cancel", "/fine_tuning/jobs/x/pause", "/agents/automations/x/pause", "/moderations",
        "/organization/*", "/projects/*", "/responses/input_tokens", "/responses/input_tokens?beta=true",
        "/responses/x/cancel", "/responses/x/cancel?beta=true", "/threads", "/threads/x", "/threads/x/messages",
        "/threads/x/messages/x", "/threads/x/runs/x/cancel", "/uploads", "/uploads/x/cancel", "/uploads/x/complete",
        "/uploads/x/parts", "/vector_stores/x/file_batches/x/cancel", "/webhook_endpoints", "/webhook_endpoints/x",
        "/webhook_endpoints/x/*",
    },
    "anthropic": {
        "/v1/messages/count_tokens", "/v1/messages/count_tokens?beta=true", "/v1/messages/batches/x/cancel",
        "/v1/messages/batches/x/cancel?beta=true", "/v1/files*", "/v1/organizations*", "/v1/skills*",
        "/v1/user_profiles*", "/v1/vaults*", "/v1/environments*", "/v1/memory_stores*", "/v1/tunnels*",
        "/v1/agents/x/archive*", "/v1/deployments/x/archive*", "/v1/deployments/x/pause*", "/v1/dreams/x/archive*",
        "/v1/dreams/x/cancel*", "/v1/sessions/x/archive*", "/v1/sessions/x/threads/x/archive*",
    },
}  # fmt: skip
"""Looked at one by one: records that are kept, counts, moderation, administration, and whatever ends something."""


def _posted(sdk: Any) -> Iterator[str]:
    """Every path that the installed SDK posts to, its ids written as x."""
    call = re.compile(r'self\._(?:post|put|patch)\(\s*(?:path_template\(\s*)?f?"([^"]+)"')
    for file in Path(sdk.__file__).parent.rglob("*.py"):
        for found in call.finditer(file.read_text("utf-8")):
            yield re.sub(r"\{[^}]*\}", "x", found[1])


def _is_among(path: str, known: set[str]) -> bool:
    return any(path.startswith(each[:-1]) if each.endswith("*") else path == each for each in known)


@pytest.mark.parametrize("sdk", [openai, anthropic], ids=["openai", "anthropic"])
def test_every_path_of_the_sdk_is_decided(sdk: Any) -> None:
    """What the SDK posts is guarded, refused, or on the list of what was found to be free."""
    name = sdk.__name__
    with World() as world:
        client = getattr(world, name)()
        edge = client.runrails_edge
        options: Any = sdk._models.FinalRequestOptions
        paths = set(_posted(sdk))
        assert len(paths) > 15
        for path in paths:
            body = {"model": MODEL, "messages": HI, "input": "hi", "max_tokens": 9}
            asked = options.construct(method="post", url=path, json_data=body)
            try:
                how = "guarded" if edge.plan(client, asked) else "free"
            except BoundUnknown:
                how = "refused"
            known = "guarded" if path in GUARDED[name] else "free" if _is_among(path, FREE[name]) else "refused"
            assert (path, known) == (path, how)


@pytest.mark.parametrize(
    "path",
    [
        "/brand/new", "/files/../chat/completions", "/files/%2e%2e/chat/completions", "/files/./../images/generations",
        "/files//../responses", "/files\\..\\responses", "/chat/completions/", "/Chat/Completions",
        "http://127.0.0.1:1/v1/images/generations", "/files/x/../../completions?x=/cancel",
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_unknown_path_does_not_pass(kind: str, path: str) -> None:
    """A path nobody knows, or one that leads elsewhere than it seems, is guarded or refused, never free."""
    with World() as world:
        client = getattr(world, kind)()
        for send in (client.post, client.patch, client.put):
            with pytest.raises(CallRefused):
                send(path, cast_to=object, body={"model": "nobodys-model", "messages": HI, "max_tokens": 9})
        world.untouched()


def _connecting(resource: Any, name: str = "", depth: int = 3) -> Iterator[tuple[str, Any]]:
    """Every `connect` among a client's resources, with the resource it belongs to."""
    for each in dir(type(resource)):
        if each.startswith(("_", "with_")):
            continue
        found = inspect.getattr_static(type(resource), each)
        if each == "connect":
            yield f"{name}.connect", resource
        elif isinstance(found, cached_property | property) and depth:
            child = getattr(resource, each, None) if each != "websocket_base_url" else None
            if hasattr(child, "_client") and type(child).__module__.startswith("openai.resources"):
                yield from _connecting(child, f"{name}.{each}", depth - 1)


def _manager(resource: Any) -> Any:
    """A connection that is not open yet."""
    asked = inspect.signature(resource.connect).parameters.values()
    return resource.connect(**{each.name: "x" for each in asked if each.default is each.empty or each.name == "model"})


@pytest.mark.parametrize("kind", ["openai", "azure"])
def test_websocket_is_refused(kind: str) -> None:
    """Opening a connection whose traffic nobody sees is refused, from a client and from a copy; nothing is sent."""
    with World() as world:
        client = getattr(world, kind)()
        doors = [*_connecting(client), *_connecting(client.with_options(timeout=3).copy())]
        assert {".realtime.connect", ".beta.realtime.connect"} & {name for name, _ in doors}
        for _, resource in doors:
            for how in ("__enter__", "enter"):
                with pytest.raises(BoundUnknown, match="connection of its own"):
                    getattr(_manager(resource), how)()
        world.untouched()


@pytest.mark.parametrize("kind", ["aopenai", "aazure"])
def test_async_websocket_is_refused(kind: str) -> None:
    """The same on an event loop."""
    with World() as world:

        async def work() -> int:
            client = getattr(world, kind)()
            doors = [*_connecting(client), *_connecting(client.with_options(timeout=3))]
            for _, resource in doors:
                with pytest.raises(BoundUnknown, match="connection of its own"):
                    await _manager(resource).__aenter__()
                with pytest.raises(BoundUnknown, match="connection of its own"):
                    await _manager(resource).enter()
            return len(doors)

        assert in_loop(world, work) >= 4
        world.untouched()


def test_connection_that_was_prepared_before_is_refused() -> None:
    """Resources and connections taken from the client before it was wrapped are no way round the guard."""
    with World() as world:
        client = world.openai(wrapped=False)
        early = client.realtime.connect(model="x")
        world.guard.wrap(client)
        with pytest.raises(BoundUnknown):
            early.__enter__()
        world.untouched()


def test_copy_keeps_the_address_of_websockets() -> None:
    """What a client was told about websockets is what its copies are told, though nobody may use it."""
    with World() as world:
        client = world.openai(websocket_base_url="ws://127.0.0.1:9/v1")
        copied = client.with_options(timeout=3)
        assert "ws://127.0.0.1:9/v1" == copied.__dict__["websocket_base_url"]
        other = client.copy(websocket_base_url="ws://127.0.0.1:8/v1")
        assert "ws://127.0.0.1:8/v1" == other.__dict__["websocket_base_url"]
        with pytest.raises(BoundUnknown):
            other.websocket_base_url  # noqa: B018 -- reading is what is refused


def test_observing_refuses_no_door() -> None:
    """In observe mode what cannot be guarded is told of, and sent."""
    with World(mode="observe") as world:
        client = world.openai()
        assert client.websocket_base_url is None
        with pytest.raises(openai.NotFoundError):
            client.post("/brand/new", cast_to=object, body={})
        assert 1 == world.hits
        assert ["call_would_refuse", "call_would_refuse"] == world.names()


def test_version_without_the_seal_is_refused() -> None:
    """A client that lacks what is sealed cannot be guarded whole, so it is not guarded at all."""
    from runrails import ConfigError

    with World() as world:
        client = world.openai(wrapped=False)
        del client.__dict__["websocket_base_url"]
        with pytest.raises(ConfigError, match="websocket_base_url"):
            world.guard.wrap(client)
        assert openai.OpenAI is type(client)


def test_free_requests_reach_the_provider() -> None:
    """What is free is sent as it is: counting, lists, moderation."""
    with World() as world:
        client, counting = world.openai(), world.anthropic()
        for ask in (
            lambda: client.moderations.create(input="hi"),
            lambda: counting.messages.count_tokens(model=MODEL, messages=HI), client.files.list,
            lambda: client.responses.retrieve("x"),
        ):  # fmt: skip
            with suppress(openai.APIStatusError, anthropic.APIStatusError):
                ask()
        assert (4, 0, 0) == (world.hits, world.spent, world.held)


def test_async_paths_are_decided_alike() -> None:
    """An asynchronous client asks the same questions."""
    with World() as world:

        async def work() -> None:
            client = world.aopenai()
            for path in ("/images/generations", "/files/../responses", "/brand/new"):
                with pytest.raises(CallRefused):
                    await client.post(path, cast_to=object, body={})
            await asyncio.sleep(0)

        in_loop(world, work)
        world.untouched()
