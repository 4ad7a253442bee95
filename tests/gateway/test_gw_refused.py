"""What is told of calls that were not made: runs that never began, requests sent again, methods, and observing."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import openai
import pytest

from rr_admin import Client
from rr_dialects import UNBOUNDED
from rr_gateway import MODEL, TOLD, World, asked, changed, gateway, running, world
from runrails import Limits
from runrails.ledger import RunRecord
from runrails.testing import ManualClock
from runrails.testing.provider import Error, repeating
from runrails_gateway.app import create_app
from runrails_gateway.ops.requestlog import LOGGER, RequestLog

POOR = Limits(run=None, month="0.000001", steps=None)


async def ask(app: Any, made: World, kind: str = "chat", **changes: Any) -> Any:
    caller = asked(made, kind, **changes)
    await app(caller.scope, caller.receive, caller.send)
    return caller


def archived(made: World) -> list[RunRecord]:
    return list(made.store.runs())  # type: ignore[attr-defined]


# Runs that never began.


async def test_an_ordinary_single_call_keeps_no_record_of_its_run() -> None:
    """It is in the books; only what nobody would see otherwise is kept."""
    with world() as made:
        async with running(made.config) as app:
            await ask(app, made)
        assert [] == archived(made)


@pytest.mark.parametrize(
    ("limits", "kind", "changes", "reason", "words"),
    [
        (POOR, "chat", {}, "budget_exceeded", "user:alice"),
        (Limits(run="0.02", steps=None), "messages", {"thinking": {"type": "enabled"}}, None, "run:"),
        (Limits(run=None, month="100", steps=None), "chat", {"model": "nobody-knows"}, None, "nobody-knows"),
    ],
    ids=["stopped", "too_large", "unpriced"],
)
async def test_a_run_refused_at_its_first_call_is_kept_with_why(
    limits: Limits, kind: str, changes: dict[str, Any], reason: str | None, words: str
) -> None:
    """Nothing was sent, and an operator sees that somebody tried and what kept them."""
    with world(TOLD, limits) as made:
        async with running(made.config) as app:
            answer = await ask(app, made, kind, **changes)
        record = archived(made)[0]
        assert (400 <= answer.status < 403, 1) == (True, len(archived(made)))
        assert (answer.headers["x-runrails-run"], "alice", reason) == (record.id, record.user, record.stop_reason)
        assert words in str(record.report["stop_message"] or record.report["refused"])
        assert (0, 0) == (record.report["steps"], record.report["cost_pusd"])
        made.untouched()


async def test_a_flood_of_refused_requests_keeps_one_record_a_minute() -> None:
    """Whoever is refused comes again at once; the archive is not theirs to fill."""
    clock = ManualClock()
    with world(TOLD, POOR, guard={"clock": clock, "monotonic": clock}) as made:
        bob = {"authorization": f"Bearer {made.new_key('bob')}"}
        async with running(made.config) as app:
            for _ in range(20):
                await ask(app, made)
            assert 1 == len(archived(made))
            await ask(app, made, headers=bob)
            assert ["alice", "bob"] == sorted(record.user for record in archived(made))
            clock.advance(60_000)
            await ask(app, made)
            await ask(app, made)
        assert 3 == len(archived(made))


async def test_a_record_that_says_more_is_not_replaced_by_one_of_a_refusal() -> None:
    """A run that was named by a header, and used up, is asked for again: what it did stays to be seen."""
    with world(TOLD, Limits(run="0.06", month="100", steps=None)) as made:
        run = {"x-runrails-run": "mine"}
        async with running(made.config) as app:
            answers = [await ask(app, made, max_tokens=100, headers=run) for _ in range(6)]
        assert (200, 402) == (answers[0].status, answers[-1].status)
        kept = archived(made)
        assert 1 == len(kept)
        assert made.hits == kept[0].report["model_calls"]
        made.settled()


def test_the_admin_api_lists_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among the stopped ones, or with what refused the call."""
    del monkeypatch
    with world(TOLD, Limits(run=None, month="100", steps=None)) as made:
        root = made.keys.create("root", scopes=("admin:usage",))[1].reveal()
        with Client(create_app(changed(made.config, api_keys=made.keys)), root) as client:
            client._runner.run(_refused_once(client.app, made))
            rows = client.get("/admin/api/runs").json["data"]
            one = client.get(f"/admin/api/runs/{rows[0]['run']}").json
        assert ["alice"] == [row["user"] for row in rows]
        assert (None, 0) == (rows[0]["stop_reason"], rows[0]["model_calls"])
        assert "nobody-knows" in rows[0]["refused"] == one["refused"]
        assert 1 == one["refusals"]


async def _refused_once(app: Any, made: World) -> None:
    hot = app.open()
    try:
        await ask(app, made, model="nobody-knows")
    finally:
        await hot.close()


# Requests that are sent again.


@pytest.mark.parametrize("value", ["0", "", "-1", "1.5", "many", "100", "１"])
async def test_a_count_of_none_is_no_count(value: str) -> None:
    """What is no small whole number, or nothing new, is in no record."""
    with world() as made:
        async with running(made.config) as app:
            caller = asked(made)
            caller.scope["headers"].append((b"x-stainless-retry-count", value.encode()))
            await app(caller.scope, caller.receive, caller.send)
        assert (200, ()) == (caller.status, made.rows()[0].facts.tags)


def test_an_sdks_own_retries_are_in_the_books_and_in_the_log() -> None:
    """OpenAI's client says how often it has sent a request before: a tag of the call, and a field of the log."""
    script = repeating(Error(500), TOLD)
    with gateway(script, watchers=(log := RequestLog(lambda: 0, lambda: 0),)) as made:
        assert log
        said = io.StringIO()
        handler = logging.StreamHandler(said)
        logger = logging.getLogger(LOGGER)
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            ours = openai.OpenAI(base_url=made.openai_url, api_key=made.key, max_retries=2)
            ours.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}], max_tokens=2000)
            ours.close()
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
        lines = [json.loads(line) for line in said.getvalue().splitlines()]
        assert [None, 1] == [line.get("sdk_retry") for line in lines]
        assert [(), (("sdk_retry", "1"),)] == [row.facts.tags for row in made.rows()]
        made.settled()


# Methods.


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/messages/count_tokens", "POST"),
        ("POST", "/v1/models", "GET"),
        ("PUT", "/v1/models/fake-model", "GET"),
        ("POST", "/healthz", "GET"),
        ("POST", "/v1/usage", "GET"),
        ("DELETE", "/admin/api/keys", "GET, POST"),
        ("POST", "/admin/api/budgets/user:alice", "GET, PUT"),
        ("DELETE", "/admin/api/keys/abc/rotate", "POST"),
        ("PATCH", "/admin/api/credentials/user:alice/openai/default", "DELETE"),
    ],
)
async def test_a_405_names_every_method_of_the_path(method: str, path: str, allowed: str) -> None:
    """As HTTP wants it, whichever of several routes the path belongs to."""
    with world() as made:
        async with running(made.config) as app:
            caller = asked(made)
            caller.scope |= {"method": method, "path": path, "raw_path": path.encode()}
            await app(caller.scope, caller.receive, caller.send)
        assert (405, allowed) == (caller.status, caller.headers["allow"])
        assert "method_not_allowed" == caller.json()["error"]["code"]
        made.untouched()


# Observing.


async def test_observing_lets_through_what_nobody_can_bound() -> None:
    """A gateway that only observes refuses no prompt: it is sent, recorded by what it cost, and told of."""
    with world(guard={"mode": "observe"}) as made:
        async with running(made.config) as app:
            found = {}
            for name, (kind, more) in UNBOUNDED.items():
                del made.events[:]
                answer = await ask(app, made, kind, **more)
                found[name] = (answer.status, "call_would_refuse" in made.names())
        assert dict.fromkeys(UNBOUNDED, (200, True)) == found
        assert len(UNBOUNDED) == made.hits == len(made.rows())
        assert made.billed == sum(row.actual_pusd for row in made.rows()) == made.spent


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_enforcing_refuses_it(stream: bool) -> None:
    """Before anything is sent or held."""
    with world() as made:
        async with running(made.config) as app:
            answer = await ask(app, made, stream=stream, web_search_options={})
        assert (400, "bound_unknown") == (answer.status, answer.json()["error"]["code"])
        made.untouched()
