"""Canaries through calls of models: guarded clients, whatever the provider answers, and what is kept of it."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import openai
import pytest

import rr_canaries as birds
from rr_audit import rounds, user
from rr_canaries import Canary, Lookout, Shell
from rr_canaries_routed import ASKED, ROUTES, SDK, Call, Routed, check_call, check_not_made, echo
from rr_clients import MODEL, in_loop
from runrails import Guard, Limits, ResponseCache
from runrails.calls import ToolCall, ToolOutcome
from runrails.clients.echoes import MASK, mask_logs, unsay
from runrails.errors import LoopDetected
from runrails.keyroutes import KeyPolicy
from runrails.secretvalue import Secret
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import FlakyStore
from runrails.testing.provider import Error


def _openai(world: Routed, **options: Any) -> object:
    client = world.openai(api_key=birds.HOUSE.text, **options)
    return client.chat.completions.create(model=MODEL, messages=ASKED, max_tokens=50)


def _responses(world: Routed) -> object:
    return world.openai(api_key=birds.HOUSE.text).responses.create(model=MODEL, input=birds.PROMPT.text)


def _anthropic(world: Routed) -> object:
    client = world.anthropic(api_key=birds.HOUSE.text)
    return client.messages.create(model=MODEL, messages=ASKED, max_tokens=50)


def _streamed(world: Routed) -> object:
    client = world.openai(api_key=birds.HOUSE.text)
    stream = client.chat.completions.create(model=MODEL, messages=ASKED, max_tokens=50, stream=True)
    return [each.id for each in stream]


def _asynchronous(world: Routed) -> object:
    async def work() -> object:
        made = openai.AsyncOpenAI(base_url=world.provider.openai_url, api_key=birds.HOUSE.text, max_retries=0)
        world._aclosing.append(made.close)
        return await world.guard.wrap(made).chat.completions.create(model=MODEL, messages=ASKED, max_tokens=50)

    return in_loop(world, work)


CALLS: dict[str, tuple[Call, Canary]] = {
    "openai": (_openai, birds.OPENAI), "responses": (_responses, birds.OPENAI), "stream": (_streamed, birds.OPENAI),
    "async": (_asynchronous, birds.OPENAI), "anthropic": (_anthropic, birds.ANTHROPIC),
}  # fmt: skip


OUTCOMES = [
    *((call, status) for call in CALLS for status in (200, 401, 500)),
    *((call, status) for call in ("openai", "anthropic", "async") for status in (400, 403, 429, 0)),
]


@pytest.mark.parametrize(("call", "status"), OUTCOMES)
def test_calls_on_a_users_key(lookout: Lookout, tmp_path: Path, call: str, status: int) -> None:
    """Answered, refused with the key in the error, or hung up on (0)."""
    act, canary = CALLS[call]
    check_call(lookout, tmp_path, act, canary, status)


@pytest.mark.parametrize("call", ["openai", "async"])
def test_the_next_key_is_taken(lookout: Lookout, tmp_path: Path, call: str) -> None:
    """The user's is refused, the organisation's too, the platform's pays: three keys, and none is told."""
    policy = KeyPolicy(fall_back=True)
    with Routed(lookout, tmp_path, policy, org="acme") as world:
        world.own("user:alice", birds.OPENAI.text)
        world.own("org:acme", birds.ORG_KEY.text)
        world.bad = {birds.OPENAI.text, birds.ORG_KEY.text}
        CALLS[call][0](world)
        assert {birds.OPENAI.text, birds.ORG_KEY.text, birds.HOUSE.text} == set(world.seen)
        world.shown()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("call", ["openai", "async"])
def test_calls_that_are_not_made(lookout: Lookout, tmp_path: Path, route: str, call: str) -> None:
    """Nobody's key may pay, or it cannot be sent: nothing leaves, and nothing is told."""
    check_not_made(lookout, tmp_path, CALLS[call][0], route)


def test_a_provider_that_sends_keys_elsewhere(lookout: Lookout, tmp_path: Path) -> None:
    """A redirect is not followed, and what came of it is told without the key."""
    with Routed(lookout, tmp_path) as world:
        world.own("user:alice", birds.OPENAI.text)
        world.says = Error(307, headers={"location": f"http://127.0.0.1:9/?key={birds.OPENAI.text}"})
        lookout.fails(lambda: _openai(world), *SDK)
        assert [birds.OPENAI.text] == world.seen
        world.shown()


@pytest.mark.parametrize("status", [200, 401])
def test_raw_answers_do_not_keep_the_key(lookout: Lookout, tmp_path: Path, status: int) -> None:
    """`with_raw_response` hands out the request with its headers; so do errors."""
    with Routed(lookout, tmp_path) as world:
        world.own("user:alice", birds.OPENAI.text)
        world.says = echo(401, birds.OPENAI) if status == 401 else None
        raw = world.openai(api_key="k").chat.completions.with_raw_response
        if status == 401:
            error: Any = lookout.fails(lambda: raw.create(model=MODEL, messages=ASKED), openai.AuthenticationError)
            response = error.response
            assert MASK in str(error) and MASK in response.text and MASK in json.dumps(error.body)
        else:
            response = raw.create(model=MODEL, messages=ASKED).http_response
        assert [birds.OPENAI.text] == world.seen
        shown = [*response.request.headers.items(), *response.headers.items(), response.text]
        lookout.hear("answer", repr(shown))
        lookout.show(response, response.request)


def test_an_error_keeps_what_is_no_key() -> None:
    """Only this key is taken out; an error without it keeps its very objects."""
    body = {"error": {"message": "no such model", "list": [("a", 1)]}}
    error = ValueError("no such model", body)
    error.body = body  # type: ignore[attr-defined]
    unsay(error, Secret(birds.OPENAI.text))
    assert error.args[1] is body and error.body is body  # type: ignore[attr-defined]
    told = ValueError(f"a {birds.OPENAI.text[3:20]} b", {birds.OPENAI.text: [birds.OPENAI.text.encode()]})
    unsay(told, Secret(birds.OPENAI.text))
    assert (f"a {MASK} b", {MASK: [MASK.encode()]}) == told.args
    unsay(told, Secret(b"\xff" * 40))


def test_what_http_libraries_log_of_a_call() -> None:
    """Headers as HTTP/2 encodes them, an error that is logged on the way; of this call alone, and while it lasts."""
    now: list[Secret | None] = [Secret(birds.OPENAI.text)]
    logger, lines = logging.getLogger("hpack.canary"), io.StringIO()
    handler = logging.StreamHandler(lines)
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.DEBUG)
    mask_logs(lambda: now[0])
    logger.debug("Adding (%r, %r) to the header table", b"authorization", f"Bearer {birds.OPENAI.text}".encode())
    logger.debug("%d and %s", 7, birds.ORG_KEY.text)
    try:
        raise ValueError(birds.OPENAI.text)
    except ValueError:
        logger.debug("failed", exc_info=True)
    now[0] = None
    logger.debug("later %s", birds.HOUSE.text)
    told = lines.getvalue()
    assert 2 == told.count(MASK) and birds.OPENAI.text[8:20] not in told
    assert f"7 and {birds.ORG_KEY.text}" in told and f"later {birds.HOUSE.text}" in told
    logger.handlers = []


# What is said and done in a run.


def test_tools_and_prompts(lookout: Lookout, tmp_path: Path) -> None:
    """Arguments and outputs of tools that fail again and again: the stop, its report, the state and the books."""
    events: list[Any] = []
    guard = Guard(
        Limits(run="1", month="5"), user="alice", store=SQLiteStore(tmp_path / "books.db"), sinks=[events.append]
    )
    call = ToolCall(name="search", args={"q": birds.TOOL_ARGUMENT.text, birds.TOOL_ARGUMENT.text: 1})
    text = ToolCall(name="search", args=json.dumps({"q": birds.TOOL_ARGUMENT.text}))
    outcome = ToolOutcome(ok=False, result=f"failed: {birds.TOOL_OUTPUT.text}", error_type="ValueError")
    for each in (call, text):
        with guard.run("job") as run:

            def again(run: Any = run, each: ToolCall = each) -> None:
                for _ in range(12):
                    lookout.hear("finding", repr(run.before_tool(each, can_block=False)))
                    lookout.hear("finding", repr(run.after_tool(each, outcome, can_block=False)))

            lookout.fails(again, LoopDetected, frames=False)
            lookout.show(run.stopped, run.report(), run)
            lookout.hear("report", json.dumps(run.report().as_dict(), default=repr))
    lookout.show(guard, *events)
    guard.close()
    assert events


def test_a_store_that_fails_in_the_middle(lookout: Lookout, tmp_path: Path) -> None:
    """The vault is away when a call needs its key."""
    from rr_keys import CountingDocuments
    from runrails.documents.memory import MemoryDocuments

    with Routed(lookout, tmp_path) as world:
        documents = CountingDocuments(MemoryDocuments())
        world.vault._documents = documents
        world.own("user:alice", birds.OPENAI.text)
        documents.away = True
        lookout.fails(lambda: _openai(world))
        assert [] == world.seen
        documents.away = False
        world.shown()


def test_calls_that_the_ledger_does_not_know_of(
    lookout: Lookout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are written down in a journal of their own while it is out of reach."""
    monkeypatch.setenv("RUNRAILS_JOURNAL", str(tmp_path / "journal"))
    away = FlakyStore(SQLiteStore(tmp_path / "books.db"), ["request_lost"] * 20, verbs={"reserve", "settle"})
    away.path = str(tmp_path / "books.db")  # type: ignore[attr-defined] # what the journal is named by
    with Routed(lookout, tmp_path, on_store_error="allow", store=away) as world:
        world.own("user:alice", birds.OPENAI.text)
        _openai(world)
        kept = [path.read_text() for path in (tmp_path / "journal").rglob("*") if path.is_file()]
        lookout.hear("journal", "".join(kept))
        assert [birds.OPENAI.text] == world.seen and kept
        world.shown()


def test_answers_that_are_kept(tmp_path: Path) -> None:
    """The file of a response cache has what users and models say, as is its work; and no key, nor the house's."""
    with Lookout(tmp_path) as lookout:
        lookout._content.clear()
        cache = ResponseCache(tmp_path / "answers.db")
        with Routed(lookout, tmp_path, cache=cache) as world:
            world.own("user:alice", birds.OPENAI.text)
            for _ in range(2):
                _openai(world)
            assert [birds.OPENAI.text] == world.seen
            world.shown()
            lookout.show(cache)
    assert [] == lookout.found()


def test_an_audit_of_a_recording(lookout: Lookout, shell: Shell, tmp_path: Path) -> None:
    """It tells what repeats itself and what it cost: names of tools and numbers, nothing that was said."""
    arguments = json.dumps({"q": birds.TOOL_ARGUMENT.text})
    messages = [user(birds.PROMPT.text), *rounds(8, args=arguments, result=birds.TOOL_OUTPUT.text)]
    recording = tmp_path / "recording.jsonl"
    recording.write_text(json.dumps({"id": "r1", "messages": messages}))
    lookout.keeps(recording)
    for as_json in ([], ["--json"]):
        told = shell("audit", str(recording), *as_json)
        assert "search" in told.out, told
