"""A wrapped Anthropic client, also on Bedrock: every surface is billed as the provider bills it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anthropic
import pytest
from anthropic.lib.bedrock import AnthropicBedrock

from rr_clients import HI, MODEL, TOLD, World, run_of
from runrails import BudgetExceeded, ConfigError, Guard, Limits
from runrails.errors import BoundUnknown
from runrails.stores.memory import MemoryStore
from runrails.testing.provider import Error, HangUp, Text, ToolCalls, ToolUse

CACHED: Any = [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}]


def _read(events: Any) -> None:
    for _ in events:
        pass


def _helper(client: Any) -> None:
    with client.messages.stream(model=MODEL, messages=HI, max_tokens=900) as stream:
        stream.get_final_message()


def _streaming(client: Any, how: str, **options: Any) -> None:
    raw = client.messages.with_streaming_response.create(model=MODEL, messages=HI, max_tokens=900, **options)
    with raw as response:
        made = getattr(response, how)()
        if options:
            _read(made)


SURFACES: dict[str, Callable[[Any], object]] = {
    "create": lambda c: c.messages.create(model=MODEL, messages=HI, max_tokens=900),
    "create, cached system": lambda c: c.messages.create(model=MODEL, messages=HI, max_tokens=900, system=CACHED),
    "create, stream": lambda c: _read(c.messages.create(model=MODEL, messages=HI, max_tokens=900, stream=True)),
    "stream": _helper,
    "raw": lambda c: c.messages.with_raw_response.create(model=MODEL, messages=HI, max_tokens=900).parse(),
    "raw, unread": lambda c: c.messages.with_raw_response.create(model=MODEL, messages=HI, max_tokens=900),
    "raw, stream": lambda c: _read(
        c.messages.with_raw_response.create(model=MODEL, messages=HI, max_tokens=900, stream=True).parse()
    ),
    "streaming, json": lambda c: _streaming(c, "json"),
    "streaming, parse": lambda c: _streaming(c, "parse"),
    "streaming, bytes of a stream": lambda c: _streaming(c, "iter_bytes", stream=True),
    "streaming, parsed stream": lambda c: _streaming(c, "parse", stream=True),
    "beta": lambda c: c.beta.messages.create(model=MODEL, messages=HI, max_tokens=900),
    "with_options": lambda c: c.with_options(timeout=9).messages.create(model=MODEL, messages=HI, max_tokens=900),
}
CLIENTS = ("anthropic", "bedrock")


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("kind", CLIENTS)
def test_ledger_is_the_bill(kind: str, surface: str) -> None:
    """Whatever way of the SDK is taken, one call is one step, and the ledger is the provider's bill."""
    with World() as world:
        client = getattr(world, kind)()
        SURFACES[surface](client)
        world.settled()
        report = run_of(client).report()
        counted = (report.model_calls, report.unresolved_pusd, report.refusals)
        assert (1, (1, 0, 0)) == (len(world.provider.bill.calls), counted)
        assert world.spent > 0
        assert "adapter_failed" not in world.names()


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("kind", CLIENTS)
def test_refusal_has_its_own_type_and_sends_nothing(kind: str, surface: str) -> None:
    """Above the budget every surface raises BudgetExceeded itself, once, and no request leaves."""
    with World(limits=Limits(run="0.00000001")) as world:
        client = getattr(world, kind)(max_retries=2)
        with pytest.raises(BudgetExceeded) as caught:
            SURFACES[surface](client)
        assert (BudgetExceeded, None) == (type(caught.value), caught.value.__cause__)
        world.untouched()


def test_older_stream_form_is_billed_with_its_input() -> None:
    """A last event with output tokens only does not lose the input that the first one told."""
    with World(Text("hi there", report="old")) as world:
        _read(world.anthropic().messages.create(model=MODEL, messages=HI, max_tokens=90, stream=True))
        world.settled()
        assert world.spent > 0


def test_counting_tokens_is_free() -> None:
    """It passes without a step, even where nothing may be spent."""
    with World(limits=Limits(run="0.00000001")) as world:
        client = world.anthropic()
        assert client.messages.count_tokens(model=MODEL, messages=HI).input_tokens > 0
        assert None is client.runrails_edge._shared  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "ask",
    [
        lambda c: c.messages.batches.create(requests=[]),
        lambda c: c.post("/v1/complete", cast_to=object, body={}),
        lambda c: c.messages.create(
            model=MODEL, messages=HI, max_tokens=9, tools=[{"type": "web_search_20250305", "name": "web_search"}]
        ),
        lambda c: c.messages.create(
            model=MODEL,
            max_tokens=9,
            messages=[
                {"role": "user", "content": [{"type": "document", "source": {"type": "url", "url": "http://x"}}]}
            ],
        ),
        lambda c: c.beta.messages.create(
            model=MODEL, messages=HI, max_tokens=9, mcp_servers=[{"type": "url", "url": "http://x", "name": "x"}]
        ),
        lambda c: c.messages.create(model=MODEL, messages=HI, max_tokens=0),
    ],
)
def test_what_nobody_can_bound_is_refused_by_name(ask: Callable[[Any], object]) -> None:
    """Batches, unknown paths, server tools, documents elsewhere: refused before anything is sent."""
    with World() as world:
        with pytest.raises(BoundUnknown):
            ask(world.anthropic())
        world.untouched()


def test_tools_pictures_and_thoughts_are_within_the_bound() -> None:
    """A conversation with a tool's result, a picture and a client-side tool is held for in full."""
    tools: Any = [
        {"name": "weather", "input_schema": {"type": "object"}}, {"type": "bash_20250124", "name": "bash"}
    ]  # fmt: skip
    picture: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    with World([ToolCalls([ToolUse("weather", {"city": "Bern"})]), Text("sunny")]) as world:
        client = world.anthropic()
        first = client.messages.create(model=MODEL, messages=HI, max_tokens=90, tools=tools)
        use = next(block for block in first.content if block.type == "tool_use")
        result: Any = {"type": "tool_result", "tool_use_id": use.id, "content": [picture]}
        messages: Any = [*HI, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
        client.messages.create(model=MODEL, messages=messages, max_tokens=90, tools=tools)
        world.settled()
        assert "bound_violated" not in world.names()


@pytest.mark.parametrize("kind", CLIENTS)
def test_retries_are_one_call(kind: str) -> None:
    """Attempts that ended with an HTTP error cost nothing; the call counts once."""
    script = [Error(529, headers={"retry-after": "0.001"}), Error(500, headers={"retry-after": "0.001"}), TOLD]
    with World(script) as world:
        client = getattr(world, kind)(max_retries=2)
        client.messages.create(model=MODEL, messages=HI, max_tokens=900)
        world.settled()
        assert (3, 1) == (world.hits, run_of(client).report().model_calls)


def test_attempt_with_unknown_end_is_charged_its_bound() -> None:
    """A connection lost after sending may have cost its bound; an answer that follows comes on top."""
    with World(HangUp(TOLD)) as world:
        with pytest.raises(anthropic.APIConnectionError):
            world.anthropic().messages.create(model=MODEL, messages=HI, max_tokens=1000)
        bound = world.spent
    with World([HangUp(TOLD), Error(400)]) as world:
        with pytest.raises(anthropic.BadRequestError):
            world.anthropic(max_retries=1).messages.create(model=MODEL, messages=HI, max_tokens=1000)
        assert (bound, 0, True) == (world.spent, world.held, bound > 0)


def test_too_large_a_cap_is_lowered_to_what_is_left() -> None:
    """The caller's `max_tokens` is a wish; the budget decides. One that reckons with thoughts is left alone."""
    with World(Text("x " * 9000), limits=Limits(run="0.03")) as world:
        world.anthropic().messages.create(model=MODEL, messages=HI, max_tokens=4000)
        sent = world.provider.received[-1]
        assert sent.max_tokens is not None
        assert 1024 <= sent.max_tokens < 2000
        world.settled()


def test_wrapping_keeps_the_client_and_its_type() -> None:
    """Twice is once, another guard is an error, copies stay guarded, the type is kept."""
    with World() as world:
        client = world.bedrock()
        assert client is world.guard.wrap(client)
        assert (True, type(client)) == (isinstance(client, AnthropicBedrock), type(client.with_options(timeout=1)))
        other = Guard(store=MemoryStore(), sinks=())
        with pytest.raises(ConfigError, match="another guard"):
            other.wrap(client)
        other.close()


def test_answer_of_a_middleware_that_asks_nobody_is_free() -> None:
    """Anthropic's own client middleware may answer from a cache: nothing was sent, so nothing is charged."""
    if not hasattr(anthropic.Anthropic, "_build_middleware_chain"):
        pytest.skip("this version has no client middleware")
    with World() as world:
        message = world.anthropic().messages.create(model=MODEL, messages=HI, max_tokens=9)
        paid = world.spent

        def cached(request: Any, call_next: Any) -> Any:
            del request, call_next
            return message

        client = world.anthropic(middleware=[cached])
        assert message is client.messages.create(model=MODEL, messages=HI, max_tokens=9)
        assert (paid, 0, 1) == (world.spent, world.held, world.hits)
