"""Stored answers of guarded clients: whole, of the same tenant, free, and steps of the run all the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from rr_clients import HI, MODEL, TOLD, Canned, World, in_loop, run_of
from runrails import BudgetExceeded, ConfigError, Guard, LimitReached, Limits, ResponseCache
from runrails.pricing.cards import cost_pusd
from runrails.report import Saving
from runrails.stores.memory import MemoryStore
from runrails.testing import ManualClock
from runrails.testing.prices import PRICES
from runrails.testing.provider import Error, Text, ToolCalls, ToolUse
from runrails.usage import Usage

LIMITS = Limits(run="1.00", month="100")


def _world(script: Any = TOLD, **options: Any) -> World:
    return World(script, options.pop("limits", LIMITS), cache=options.pop("cache", ResponseCache()), **options)


def _chat(client: Any, **more: Any) -> Any:
    return client.chat.completions.create(**{"model": MODEL, "messages": HI, "max_tokens": 900, **more})


def _message(client: Any, **more: Any) -> Any:
    return client.messages.create(**{"model": MODEL, "messages": HI, "max_tokens": 900, **more})


class Shown(BaseModel):
    """What an answer is parsed into."""

    word: str


Ask = Callable[[World], tuple[Any, Callable[[Any], Any]]]
WAYS: dict[str, Ask] = {
    "chat": lambda w: (w.openai(), _chat),
    "chat raw": lambda w: (w.openai(), lambda c: _chat_raw(c).parse()),
    "azure": lambda w: (w.azure(), _chat),
    "responses": lambda w: (
        w.openai(), lambda c: c.responses.create(model=MODEL, input="hi", max_output_tokens=900)
    ),
    "embeddings": lambda w: (w.openai(), lambda c: c.embeddings.create(model="fake-embedding", input="hi")),
    "messages": lambda w: (w.anthropic(), _message),
    "messages raw": lambda w: (
        w.anthropic(),
        lambda c: c.messages.with_raw_response.create(model=MODEL, messages=HI, max_tokens=900).parse(),
    ),
    "bedrock": lambda w: (w.bedrock(), _message),
}  # fmt: skip
ASYNC: dict[str, Ask] = {
    "chat": lambda w: (w.aopenai(), _chat),
    "responses": lambda w: (w.aopenai(), lambda c: c.responses.create(model=MODEL, input="hi", max_output_tokens=900)),
    "embeddings": lambda w: (w.aopenai(), lambda c: c.embeddings.create(model="fake-embedding", input="hi")),
    "messages": lambda w: (w.aanthropic(), _message),
    "bedrock": lambda w: (w.abedrock(), _message),
}


def _chat_raw(client: Any) -> Any:
    return client.chat.completions.with_raw_response.create(model=MODEL, messages=HI, max_tokens=900)


def _is_free(world: World, client: Any, cost: int) -> None:
    """The second call asked nobody, cost nothing and says what it saved."""
    report = run_of(client).report()
    records = list(world.store.usage())  # type: ignore[attr-defined]
    assert 1 == world.hits
    assert (cost, 0) == (world.spent, world.held)
    assert (2, 2) == (report.steps, report.model_calls)
    assert ["completed", "cached"] == [row.end for row in report.rows]
    assert {("completed", cost), ("cached", 0)} == {(each.result.end, each.actual_pusd) for each in records}
    assert [("cache", 1, cost)] == [(each.what, each.calls, each.saved_pusd) for each in report.savings]
    assert 1 == world.names().count("response_cached")


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_is_given_again_without_asking(way: str) -> None:
    """It is the same object as from the provider, of the same type; the bill does not change."""
    with _world() as world:
        client, ask = WAYS[way](world)
        first = ask(client)
        world.settled()
        again = ask(client)

        assert type(first) is type(again)
        assert first == again
        _is_free(world, client, world.billed)
        world.settled()


@pytest.mark.parametrize("way", ASYNC)
def test_an_answer_is_given_again_on_an_event_loop(way: str) -> None:
    """The same for asynchronous clients."""
    with _world() as world:
        client, ask = ASYNC[way](world)

        async def twice() -> tuple[Any, Any]:
            return await ask(client), await ask(client)

        first, again = in_loop(world, twice)

        assert first == again
        world.settled()
        _is_free(world, client, world.billed)


def test_a_raw_answer_has_what_a_response_has() -> None:
    """Status, body and headers; one of them says where it comes from."""
    with _world() as world:
        client = world.openai()
        first, again = _chat_raw(client), _chat_raw(client)

        assert first.http_response.content == again.http_response.content
        assert (200, "hit") == (again.status_code, again.headers["x-runrails-cache"])
        assert "application/json" == again.headers["content-type"]
        assert 0 == again.elapsed.total_seconds()
        assert 1 == world.hits


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_answer_is_parsed_into_the_callers_own_type(asynchronous: bool) -> None:
    """By the SDK itself, as if it had come just now."""
    with _world(Text('{"word": "yes"}', usage=Usage(input_tokens=50, output_tokens=9))) as world:
        if asynchronous:
            aclient = world.aopenai()

            async def twice() -> list[Any]:
                return [
                    await aclient.chat.completions.parse(model=MODEL, messages=HI, response_format=Shown)
                    for _ in range(2)
                ]

            answers = in_loop(world, twice)
        else:
            client = world.openai()
            answers = [client.chat.completions.parse(model=MODEL, messages=HI, response_format=Shown) for _ in range(2)]

        assert [Shown(word="yes")] * 2 == [each.choices[0].message.parsed for each in answers]
        assert 1 == world.hits


@pytest.mark.parametrize(
    "other",
    [{"messages": [{"role": "user", "content": "Hi"}]}, {"temperature": 0.5}, {"max_tokens": 901}, {"seed": 1},
     {"model": "fake-reasoner"}, {"extra_body": {"top_k": 3}}, {"extra_headers": {"OpenAI-Beta": "x=1"}},
     {"extra_query": {"v": "2"}}, {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}],
)  # fmt: skip
def test_another_question_is_asked(other: dict[str, Any]) -> None:
    """Whatever can change the answer."""
    with _world() as world:
        client = world.openai()
        _chat(client)
        _chat(client, **other)

        assert 2 == world.hits
        world.settled()


@pytest.mark.parametrize(
    "other",
    [
        {"default_headers": {"x-portkey-config": "b"}}, {"default_headers": {"X-Portkey-Config": "a", "X-Tenant": "b"}},
        {"default_headers": {"x-portkey-config": openai.Omit()}}, {"api_key": "another"}, {"organization": "org-b"},
    ],
)  # fmt: skip
def test_clients_that_say_something_else_are_answered_for_themselves(other: dict[str, Any]) -> None:
    """Gateways choose models and tenants by headers; whose key or organisation it is decides what may be seen."""
    with _world() as world:
        common = {"default_headers": {"x-portkey-config": "a"}}
        for options in (common, {**common, **other}):
            _chat(world.openai(**options))

        assert 2 == world.hits


def test_the_same_question_with_another_label_is_not() -> None:
    """Who asks, as the provider is told it, is no part of the question; nor are headers that trace it."""
    with _world() as world:
        client = world.openai()
        _chat(client)
        _chat(client, user="u1", metadata={"a": "b"}, extra_headers={"x-trace": "1"})

        assert 1 == world.hits


@pytest.mark.parametrize("field", ["user", "key", "org"])
def test_no_tenant_is_given_the_answer_of_another(field: str) -> None:
    """Each is asked for once, in whatever way it is said whose the call is; a tag makes no tenant."""
    with _world() as world:
        client = world.openai()
        who: Any = {field: "somebody"}
        for _ in range(2):
            _chat(client)
            with world.guard.attribute(**who):
                _chat(client)
            with world.guard.run(**who), world.guard.attribute(tags={"team": "x"}):
                _chat(client)

        assert 2 == world.hits


def test_guards_of_two_tenants_may_share_a_cache(tmp_path: Path) -> None:
    """Also over a file, by two processes: each has answers of their own."""
    with _world(cache=ResponseCache(tmp_path / "answers.db")) as world:
        for user in ("bob", "bob", "carol"):
            other = Guard(LIMITS, user=user, store=MemoryStore(), prices=PRICES, sinks=[],
                          cache=ResponseCache(tmp_path / "answers.db"))  # fmt: skip
            with other:
                _chat(other.wrap(world.openai(wrapped=False)))

        assert 2 == world.hits


@pytest.mark.parametrize("stream", ["stream", "with_streaming_response"])
def test_streams_are_neither_kept_nor_answered(stream: str) -> None:
    """What is read piece by piece comes from the provider."""
    with _world() as world:
        client = world.openai()
        _chat(client)
        for _ in range(2):
            if stream == "stream":
                for _chunk in _chat(client, stream=True):
                    pass
            else:
                with client.chat.completions.with_streaming_response.create(
                    model=MODEL, messages=HI, max_tokens=900
                ) as answer:
                    answer.parse()

        assert 3 == world.hits
        world.settled()


def test_errors_are_not_kept() -> None:
    """The next attempt may succeed, and that is kept."""
    with _world([Error(400), TOLD]) as world:
        client = world.openai()
        with pytest.raises(Exception, match="400"):
            _chat(client)
        _chat(client)
        _chat(client)

        assert 2 == world.hits
        world.settled()


@pytest.mark.parametrize(
    "body",
    [b'{"id":"1","object":"chat.completion","choices":[],"created":1,"model":"fake-model"}', b"no json",
     b'{"error":{"message":"x"},"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'],
)  # fmt: skip
def test_what_is_no_whole_answer_is_not_kept(body: bytes) -> None:
    """Without usage, without JSON, or an error under a good status."""
    with _world() as world, Canned(body, kind="text/plain" if body[:1] == b"n" else "application/json") as canned:
        client = world.openai(base_url=canned.url)
        _chat(client)
        _chat(client)

        assert 2 == canned.hits


@pytest.mark.parametrize("more", [{"conversation": "conv_1"}, {"prompt": {"id": "p"}}, {"background": True}])
def test_what_the_provider_keeps_may_change(more: dict[str, Any]) -> None:
    """So such requests are always sent."""
    with _world(limits=Limits(run=None, month="100")) as world:
        client = world.openai()
        for _ in range(2):
            client.responses.create(model=MODEL, input="hi", max_output_tokens=900, **more)

        assert 2 == world.hits


def test_a_lowered_cap_is_not_the_question_that_was_asked() -> None:
    """An answer that was cut short for want of money is not given to who has money again."""
    text = Text("word " * 300, usage=Usage(input_tokens=10, output_tokens=1_000))
    cache = ResponseCache()
    with _world(text, limits=Limits(run="0.02"), cache=cache) as world:
        client = world.openai()
        _chat(client, max_tokens=4_000)
        sent = world.provider.received[0].max_tokens
        assert sent is not None
        assert sent < 4_000
        with world.guard.run(limits=Limits(run="1.00")):
            _chat(client, max_tokens=4_000)
            _chat(client, max_tokens=4_000)

        assert 2 == world.hits


def test_a_hit_needs_no_money_but_nothing_starts_after_a_stop() -> None:
    """Where the budget has no room for the call itself, its stored answer is given; a stopped run gives nothing."""
    with _world(limits=Limits(run="0.03", month="100")) as world:
        client = world.openai()
        first = _chat(client)
        world.settled()
        assert world.spent > 0.5 * 10**12 * 0.03
        assert first == _chat(client)
        with pytest.raises(BudgetExceeded):
            _chat(client, messages=[{"role": "user", "content": "x" * 9_000}])
        before = world.spent

        with pytest.raises(BudgetExceeded):
            _chat(client)
        assert (1, before, 0) == (world.hits, world.spent, world.held)
        assert 1 == world.names().count("response_cached")


def test_hits_are_steps() -> None:
    """A loop that asks the same for ever ends at the limit of steps, though it costs nothing."""
    with _world(limits=Limits(run="1.00", steps=5)) as world:
        client = world.openai()
        with pytest.raises(LimitReached):
            for _ in range(10):
                _chat(client)

        assert 5 == run_of(client).report().steps
        assert 1 == world.hits


def test_calls_of_tools_are_given_again() -> None:
    """With the ids they had; the conversation that comes next decides how it goes on."""
    with _world(ToolCalls([ToolUse("f", {"a": 1}, "call_7")])) as world:
        client = world.openai()
        tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
        answers = [_chat(client, tools=tools) for _ in range(2)]

        assert [["call_7"]] * 2 == [[c.id for c in each.choices[0].message.tool_calls] for each in answers]
        assert 1 == world.hits


def test_answers_expire() -> None:
    """After the time given."""
    clock = ManualClock()
    with _world(cache=ResponseCache(ttl_s=60, clock=clock)) as world:
        client = world.openai()
        for _ in range(2):
            _chat(client)
        clock.advance(60_000)
        _chat(client)

        assert 2 == world.hits


class _Broken:
    """A storage that fails."""

    def __init__(self, kept: object = None) -> None:
        self.kept = kept

    def get(self, key: str, *, now_ms: int) -> Any:
        if self.kept is None:
            raise OSError("disk full")
        return self.kept

    def put(self, key: str, body: bytes, *, now_ms: int, ttl_ms: int) -> None:
        raise OSError("disk full")

    def delete(self, key: str) -> None:
        """Nothing is there."""

    def clear(self) -> None:
        """Nothing is there."""


@pytest.mark.parametrize("kept", [None, b"damaged", 7])
def test_a_cache_that_fails_is_a_miss_and_an_event(kept: object) -> None:
    """The user gets their answer, and the books are right."""
    with _world(cache=ResponseCache(storage=_Broken(kept))) as world:
        assert "Hello there, my friend." == _chat(world.openai()).choices[0].message.content
        world.settled()

        assert 2 == world.names().count("cache_failed")


def test_a_stored_answer_that_is_none_is_a_miss_and_an_event() -> None:
    """What is whole by its mark may still be no answer; it is forgotten, and the provider is asked."""
    cache = ResponseCache()
    with _world(cache=cache) as world:
        client = world.openai()
        _chat(client)
        key = next(iter(cache._storage._kept))  # type: ignore[attr-defined]
        cache.put(key, b"[1, 2", lambda reason: None)
        _chat(client)
        _chat(client)

        assert 2 == world.hits
        assert 1 == world.names().count("cache_failed")
        world.settled()


def test_what_a_stored_answer_saves_is_what_it_would_cost() -> None:
    """By the reported usage, at the call's own prices."""
    with _world() as world:
        client = world.openai()
        for _ in range(3):
            _chat(client)
        usage = world.provider.bill.calls[0].usage
        cost = cost_pusd(world.guard.prices.card(MODEL, now_ms=0), usage)
        report = run_of(client).report()

        assert (Saving("cache", 2, 2 * (usage.input_tokens + usage.output_tokens), 2 * cost),) == report.savings
        assert {
            "what": "cache",
            "calls": 2,
            "tokens": 2 * usage.total_tokens,
            "saved_pusd": 2 * cost,
        } in report.as_dict()["savings"]  # type: ignore[operator]
        assert "saved: cache" in str(report)


def test_what_is_saved_is_what_would_be_charged() -> None:
    """With the mark-up, but for a key of the user's own."""
    with _world(markup_bp=200) as world:
        client = world.openai()
        _chat(client)
        spent = world.spent
        assert spent > world.billed
        _chat(client)
        (saving,) = run_of(client).report().savings
        assert spent == saving.saved_pusd

        with world.guard.attribute(byok=True):
            _chat(client)
        (saving,) = run_of(client).report().savings
        assert spent + world.billed == saving.saved_pusd


def test_nothing_is_kept_without_a_cache() -> None:
    """It is opt-in, and what is no cache is refused by name."""
    with World(TOLD, LIMITS) as world:
        client = world.openai()
        _chat(client)
        _chat(client)
        assert 2 == world.hits

    wrong: Any = {}
    with pytest.raises(ConfigError, match="ResponseCache"):
        Guard(store=MemoryStore(), cache=wrong)


def test_observing_uses_the_cache_as_well() -> None:
    """It changes no answer."""
    with _world(mode="observe") as world:
        client = world.openai()
        assert _chat(client) == _chat(client)
        assert 1 == world.hits
