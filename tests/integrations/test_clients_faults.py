"""A bug of ours in what reads answers along: the caller gets every byte, an event tells, and the hold is charged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from rr_clients import HI, MODEL, World, in_loop, run_of
from runrails.answers import openai as openai_answers
from runrails.answers import parsed
from runrails.clients import edge, sse, tapping
from runrails.errors import GuardFault
from runrails.testing.provider import Text
from runrails_anthropic import eventstream
from runrails_anthropic import requests as anthropic_requests

WORDS = Text("one two three four five six")


class OwnBug(Exception):
    """What nobody expects."""


def broken(*_: object, **__: object) -> Any:
    """Stands in for a part with a bug."""
    raise OwnBug


def _words(client: Any) -> str:
    stream = client.chat.completions.create(model=MODEL, messages=HI, max_tokens=1000, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def _lines(client: Any) -> str:
    with client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=HI, max_tokens=1000, stream=True
    ) as raw:
        return "\n".join(line for line in raw.iter_lines() if '"content"' in line and "one" not in line) and "read"


def _message(client: Any) -> str:
    with client.messages.stream(model=MODEL, messages=HI, max_tokens=1000) as stream:
        return "".join(stream.text_stream)


def _plain(client: Any) -> str:
    return str(client.chat.completions.create(model=MODEL, messages=HI, max_tokens=1000).choices[0].message.content)


def _raw(client: Any) -> str:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=HI, max_tokens=1000)
    return str(raw.parse().choices[0].message.content)


def _streamed_json(client: Any) -> str:
    with client.chat.completions.with_streaming_response.create(model=MODEL, messages=HI, max_tokens=1000) as raw:
        return str(raw.json()["choices"][0]["message"]["content"])


def _parsed(client: Any) -> str:
    answer = client.chat.completions.parse(model=MODEL, messages=HI, max_tokens=1000)
    return str(answer.choices[0].message.content)


PARTS: dict[str, tuple[Any, str, str, Callable[[Any], str]]] = {
    "feed": (sse.SseReader, "feed", "openai", _words),
    "event": (sse.SseReader, "event", "openai", _words),
    "rest": (sse.SseReader, "rest", "openai", _lines),
    "outcome": (sse.SseReader, "outcome", "openai", _words),
    "telling": (openai_answers.ChatEvents, "telling", "openai", _words),
    "decoding": (openai_answers, "event_of", "openai", _words),
    "lines": (sse.SseReader, "feed", "openai", _lines),
    "outcome of a message": (sse.SseReader, "outcome", "anthropic", _message),
    "base64": (eventstream, "base64", "bedrock", _message),
    "frames": (eventstream.BedrockReader, "feed", "bedrock", _message),
    "body_of": (edge, "body_of", "openai", _plain),
    "usage": (openai_answers, "chat_usage", "openai", _plain),
    "response_of": (edge, "response_of", "openai", _words),
    "said": (openai_answers, "_said", "openai", _plain),
    "tier": (openai_answers, "served_tier", "openai", _plain),
    "raw": (parsed, "from_openai_chat", "openai", _raw),
    "tap_response": (edge, "tap_response", "openai", _words),
    "subclass of a response": (tapping, "subclass_of", "openai", _words),
    "list of taps": (edge.Edge, "tapped", "openai", _words),
    "whole answers": (tapping.WholeReader, "feed", "openai", _streamed_json),
    "outcome of a whole answer": (tapping.WholeReader, "outcome", "openai", _streamed_json),
    "parser": (edge, "body_of", "openai", _parsed),
}


@pytest.mark.parametrize("part", PARTS)
def test_bug_of_ours_passes_the_answer_through_and_charges_the_hold(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever part breaks, the caller's answer is whole, the call is charged at its hold, and an event tells."""
    holder, name, kind, ask = PARTS[part]
    with World(WORDS) as world:
        client = getattr(world, kind)()
        expected = ask(client)
        run = run_of(client)
        before = run.report()
        spent = world.spent
        assert "adapter_failed" not in world.names()
        tapping._tapped.clear()  # what was generated before the part broke
        monkeypatch.setattr(holder, name, broken if part != "base64" else SimpleNamespace(b64decode=broken))
        assert expected == ask(client)
        monkeypatch.undo()
        report = run.report()
        charged = world.spent - spent
        assert 0 == world.held
        assert (charged, charged) == (report.unresolved_pusd - before.unresolved_pusd, _bound(world))
        assert "unknown" == report.rows[-1].end
        failed = [event for event in world.events if event.name == "runrails.adapter_failed"]
        assert {("clients", "OwnBug")} == {(each.fields["adapter"], each.fields["error"]) for each in failed}


def _bound(world: World) -> int:
    """What the newest call held."""
    return list(world.store.usage())[-1].estimated_pusd  # type: ignore[attr-defined]  # every engine here has it


@pytest.mark.parametrize("part", ["feed", "outcome", "telling"])
def test_bug_of_ours_is_harmless_in_async_streams(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on an event loop."""
    holder, name, _, _ = PARTS[part]
    with World(WORDS) as world:

        async def work() -> str:
            client = world.aopenai()
            stream = await client.chat.completions.create(model=MODEL, messages=HI, max_tokens=1000, stream=True)
            monkeypatch.setattr(holder, name, broken)
            words = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
            return "".join(words)

        assert WORDS.text == in_loop(world, work)
        assert (_bound(world), 0) == (world.spent, world.held)
        assert "adapter_failed" in world.names()


@pytest.mark.parametrize("size", [1, 3, 50, 10_000])
def test_bytes_that_were_kept_back_are_not_lost(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that hides events keeps half a line back; when it breaks, that half comes out first."""
    body = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\ndata: {"choices":[{"index":0}]}\n\n' * 3
    with World(WORDS) as world:
        client = world.openai()
        client.chat.completions.create(model=MODEL, messages=HI)  # makes its run
        ask: Any = {"model": MODEL, "messages": HI, "stream": True}
        from openai._models import FinalRequestOptions

        plan = client.runrails_edge.plan(client, FinalRequestOptions.construct(
            method="post", url="/chat/completions", json_data=ask))  # fmt: skip
        tap = tapping.Tap(client.runrails_edge.begin(plan))
        pieces = [body[i : i + size] for i in range(0, len(body), size)]
        half = len(pieces) // 2

        def sent() -> Iterator[bytes]:
            yield from pieces[:half]
            monkeypatch.setattr(sse.SseReader, "feed", broken)
            yield from pieces[half:]

        response = httpx2.Response(200, content=sent())
        tapping.tap_response(response, tap)
        shown = b"".join(response.iter_bytes())
        assert body == shown
        assert 0 == world.held


def test_bug_before_sending_refuses_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the request and putting the cap into it decide: their bugs refuse, with a type of their own."""
    with World() as world:
        client, other = world.openai(), world.anthropic()
        monkeypatch.setattr(edge, "capped", broken)
        with pytest.raises(GuardFault, match="OwnBug"):
            client.chat.completions.create(model=MODEL, messages=HI, stream=True)
        monkeypatch.undo()
        monkeypatch.setattr(anthropic_requests, "anthropic_messages", broken)
        with pytest.raises(GuardFault, match="OwnBug"):
            other.messages.create(model=MODEL, messages=HI, max_tokens=9)
        monkeypatch.undo()
        assert (0, 0, 0) == (world.hits, world.spent, world.held)
        assert 0 == run_of(client).report().cost_pusd


def test_bug_while_a_call_fails_does_not_hide_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller gets the provider's error; the call is charged at its hold, as nobody knows what it cost."""
    import openai

    from runrails.testing.provider import HangUp

    with World(HangUp(WORDS)) as world:
        client = world.openai()
        monkeypatch.setattr(edge, "_costs_nothing", broken)
        with pytest.raises(openai.APIConnectionError):
            client.chat.completions.create(model=MODEL, messages=HI, max_tokens=1000)
        assert (_bound(world), 0) == (world.spent, world.held)
        assert "adapter_failed" in world.names()


def test_bug_while_retrying_does_not_end_the_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an attempt came to is our business alone."""
    from runrails.testing.provider import HangUp

    with World([HangUp(WORDS), WORDS]) as world:
        client = world.openai(max_retries=1)
        monkeypatch.setattr(edge, "_costs_nothing", broken)
        assert WORDS.text == client.chat.completions.create(model=MODEL, messages=HI).choices[0].message.content
        assert "adapter_failed" in world.names()
        assert world.spent > 0
