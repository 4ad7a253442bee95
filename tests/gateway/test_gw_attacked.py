"""Bodies made to confuse, through the whole gateway: refused in the dialect, nothing sent, nothing repeated."""

from __future__ import annotations

import json
from typing import Any

import pytest

import rr_json_attacks
from rr_dialects import BAD_NAMES, BODIES, CANARY, FULL, MALFORMED, ODD, UNBOUNDED, places, with_part
from rr_gateway import Caller, World, running, world
from rr_json_attacks import ATTACKS

PATHS = {
    "chat": "/v1/chat/completions", "responses": "/v1/responses", "embeddings": "/v1/embeddings",
    "messages": "/v1/messages", "count_tokens": "/v1/messages/count_tokens",
}  # fmt: skip


@pytest.fixture
def made():
    """A gateway's parts, and a provider that must not be asked."""
    with world() as parts:
        yield parts


async def answered(app: Any, made: World, dialect: str, body: bytes | dict[str, Any]) -> Caller:
    """The answer to a request with a good key."""
    caller = Caller(PATHS[dialect], body, {"authorization": f"Bearer {made.key}"})
    await app(caller.scope, caller.receive, caller.send)
    return caller


def everything(caller: Caller, made: World) -> str:
    """All that came out: the answer, and what the operator is told of it."""
    return caller.body.decode() + repr(caller.headers) + repr(made.events)


def code_of(caller: Caller) -> str:
    """Which error it was."""
    code: str = caller.json()["error"]["code"]
    return code


async def test_every_json_attack_is_a_400_in_every_dialect(made):
    """Duplicate members, half pairs, NaN, depth, digits, other encodings: 400 with its code, in the dialect."""
    async with running(made.config) as app:
        for number, (raw, reason) in enumerate(ATTACKS.values()):
            dialect = list(PATHS)[number % len(PATHS)]
            caller = await answered(app, made, dialect, raw)
            assert (400, reason) == (caller.status, code_of(caller)), (dialect, raw[:80])
            assert "false" == caller.headers["x-should-retry"]
            assert rr_json_attacks.CANARY not in everything(caller, made)
    made.untouched()


async def test_what_the_dialects_refuse_is_refused_by_the_gateway(made):
    """Malformed members and content without a bound: 400, before anything is held or sent."""
    async with running(made.config) as app:
        for dialect, changes in [(each[0], each[1]) for each in (*MALFORMED.values(), *UNBOUNDED.values())]:
            caller = await answered(app, made, dialect, {**BODIES[dialect], **changes})
            assert 400 == caller.status, (dialect, changes, caller.body)
            assert CANARY not in everything(caller, made)
    made.untouched()


async def test_no_models_name_leads_anywhere(made):
    """Traversal, control characters, other scripts, a megabyte: 400 or 404, and no request leaves."""
    async with running(made.config) as app:
        for name in BAD_NAMES.values():
            for dialect in ("chat", "messages", "count_tokens"):
                caller = await answered(app, made, dialect, {**BODIES[dialect], "model": name})
                assert caller.status in (400, 404)
                assert len(caller.body) < 1_000
    made.untouched()


@pytest.mark.parametrize("dialect", FULL)
async def test_no_part_of_a_request_makes_the_gateway_fail(dialect):
    """Each part of a full request in turn is odd JSON: an answer of the provider, or a refusal; never a 500 of ours."""
    with world(limits=None) as made:
        async with running(made.config) as app:
            for number, path in enumerate(places(FULL[dialect])):
                body = with_part(FULL[dialect], path, ODD[number % len(ODD)])
                caller = await answered(app, made, dialect, json.dumps(body).encode())
                assert caller.status < 500, (path, body, caller.body)
        assert "request_failed" not in made.names()
