"""Stored answers, cheaper models and shorter conversations through the gateway: off by itself, told in headers."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from rr_gateway import HI, MODEL, TOLD, USAGE, World, asked, gateway, running, world
from runrails import Downgrade, Limits, Pruning, ResponseCache
from runrails.errors import ConfigError
from runrails.limits import Limits as PlainLimits
from runrails.pricing.cards import cost_pusd
from runrails.savers.pruning import marker
from runrails.testing.provider import Error, Text, ToolCalls, ToolUse
from runrails.usage import Usage
from runrails_gateway.config import GatewayConfig, Upstream
from runrails_gateway.options import CACHE, DOWNGRADE, PRUNING, cache_of, thrifty

SMALL = "fake-reasoner"
"""Cheaper than `fake-model` for every call."""
SHORT = Pruning(after_messages=10, keep_last=5)
KINDS = ("chat", "responses", "messages", "embeddings")


def cached(script: Any = TOLD, cache: Any = None, **options: Any) -> Any:
    """The parts of a gateway that keeps answers."""
    guard = {"cache": ResponseCache() if cache is None else cache, **options.pop("guard", {})}
    return world(script, guard=guard, **options)


def limited(**more: Any) -> Limits:
    return Limits(**{"run": "1.00", "month": "100", "steps": None, **more})


async def ask(app: Any, made: World, kind: str = "chat", **changes: Any) -> Any:
    caller = asked(made, kind, **changes)
    await app(caller.scope, caller.receive, caller.send)
    return caller


def told(caller: Any) -> dict[str, str]:
    """What an answer's headers say of savings."""
    names = ("cache", "model", "downgraded-from", "pruned-messages", "max-tokens", "cost-usd")
    found = {name: caller.headers.get(f"x-runrails-{name}") for name in names}
    return {name: value for name, value in found.items() if value is not None and name != "cost-usd"}


# Nothing is done unless it is asked for.


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_is_kept_and_nothing_said_unless_it_is_asked_for(kind: str) -> None:
    """Two equal requests are two calls, and no header speaks of savings."""
    with world() as made:
        async with running(made.config) as app:
            answers = [await ask(app, made, kind) for _ in range(2)]
        assert [{}, {}] == [told(each) for each in answers]
        assert 2 == made.hits
        made.settled()


# Stored answers.


@pytest.mark.parametrize(
    ("script", "status", "limits"),
    [
        (Error(500), 500, None),
        (Error(400), 400, None),
        (Text("Well.", usage=USAGE, report="none"), 200, None),
        (TOLD, 402, Limits(run=None, month="0.000001", steps=None)),
    ],
    ids=["failed", "malformed", "no_usage", "refused"],
)
async def test_an_answer_that_is_none_is_never_kept(script: Any, status: int, limits: Any) -> None:
    """Errors, refusals and answers without usage are asked for again."""
    with cached(script, limits=limits) as made:
        async with running(made.config) as app:
            answers = [await ask(app, made) for _ in range(2)]
        assert [status] * 2 == [each.status for each in answers]
        assert (0 if status == 402 else 2) == made.hits
        assert all(each.headers.get("x-runrails-cache") != "hit" for each in answers)


async def test_an_answer_cut_short_for_the_budget_is_never_kept() -> None:
    """What came of a smaller cap than was asked for answers another request."""
    with cached(Text("Well.", usage=Usage(input_tokens=5, output_tokens=5)), limits=limited(run="0.05")) as made:
        async with running(made.config) as app:
            answers = [
                await ask(app, made, max_tokens=100_000, headers={"x-runrails-run": "same"}) for _ in range(2)
            ]  # fmt: skip
        assert ["miss", "miss"] == [each.headers["x-runrails-cache"] for each in answers]
        assert all(int(each.headers["x-runrails-max-tokens"]) < 100_000 for each in answers)
        assert 2 == made.hits


async def test_nobody_is_given_an_answer_of_somebody_elses() -> None:
    """Another user, another key of the same user and another organisation each ask the provider themselves."""
    with cached() as made:
        others = [made.new_key("bob"), made.new_key("alice"), made.new_key("alice", org="acme")]
        async with running(made.config) as app:
            first = await ask(app, made)
            answers = [await ask(app, made, headers={"authorization": f"Bearer {key}"}) for key in others]
        assert ["miss"] * 4 == [each.headers["x-runrails-cache"] for each in (first, *answers)]
        assert 4 == made.hits


@pytest.mark.parametrize(
    "changes",
    [{"max_tokens": 1999}, {"messages": [{"role": "user", "content": "ho"}]}, {"temperature": 0.5}, {"model": SMALL}],
    ids=["cap", "message", "temperature", "model"],
)  # fmt: skip
async def test_another_question_is_asked(changes: dict[str, Any]) -> None:
    """Whatever of a request can change its answer makes it another one."""
    with cached() as made:
        async with running(made.config) as app:
            await ask(app, made)
            answer = await ask(app, made, **changes)
        assert ("miss", 2) == (answer.headers["x-runrails-cache"], made.hits)


@pytest.mark.parametrize(("kind", "second"), [("responses", "miss"), ("chat", "hit")])
async def test_what_an_answer_repeats_of_its_request_comes_back_to_nobody_else(kind: str, second: str) -> None:
    """The Responses API has its caller's labels in every answer; a chat's answer has none, and is the same for all."""
    for name in ("metadata", "prompt_cache_key", "safety_identifier", "user"):
        labels = [{"of": who} if name == "metadata" else who for who in ("ann", "bob", "ann")]
        with cached() as made:
            async with running(made.config) as app:
                answers = [await ask(app, made, kind, **{name: label}) for label in labels]
            assert ["miss", second, "hit"] == [each.headers["x-runrails-cache"] for each in answers], name


@pytest.mark.parametrize("header", ["anthropic-beta", "anthropic-version"])
async def test_a_header_that_the_provider_hears_makes_another_question(header: str) -> None:
    """What is passed on can change an answer; what is not, cannot."""
    with cached() as made:
        async with running(made.config) as app:
            answers = [
                await ask(app, made, "messages", headers=headers)
                for headers in ({}, {header: "2024-01-01"}, {"x-trace-id": "1"}, {"user-agent": "me"})
            ]
        assert ["miss", "miss", "hit", "hit"] == [each.headers["x-runrails-cache"] for each in answers]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_same_request_is_answered_again_for_nothing(kind: str) -> None:
    """Byte for byte, without asking the provider; the ledger has it as what it is, at 0."""
    with cached() as made:
        async with running(made.config) as app:
            answers = [await ask(app, made, kind) for _ in range(3)]
            spent = made.spent
        assert ["miss", "hit", "hit"] == [each.headers["x-runrails-cache"] for each in answers]
        assert ["0", "0"] == [each.headers["x-runrails-cost-usd"] for each in answers[1:]]
        assert [answers[0].body] * 3 == [each.body for each in answers]
        assert [200] * 3 == [each.status for each in answers]
        rows = made.rows()
        assert ["completed", "cached", "cached"] == [row.result.end for row in rows]
        assert [spent, 0, 0] == [row.actual_pusd for row in rows]
        assert [0, 0] == [row.estimated_pusd for row in rows[1:]]
        assert 1 == made.hits
        made.settled()
        assert 2 == made.names().count("response_cached")


@pytest.mark.parametrize("kind", ["chat", "responses", "messages"])
async def test_a_stream_passes_the_cache_by_and_says_so(kind: str) -> None:
    """Streams are neither kept nor answered from what is."""
    with cached() as made:
        async with running(made.config) as app:
            await ask(app, made, kind)
            streams = [await ask(app, made, kind, stream=True) for _ in range(2)]
        assert ["bypass", "bypass"] == [each.headers["x-runrails-cache"] for each in streams]
        assert 3 == made.hits
        made.settled()


async def test_an_answer_with_tool_calls_is_kept_and_its_conversation_goes_on() -> None:
    """As in wrapped clients; whoever goes on from a stored answer is in that run."""
    use = ToolCalls((ToolUse("look", "{}", "call_1"),), usage=USAGE)
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    with cached(use) as made:
        async with running(made.config) as app:
            answers = [await ask(app, made, tools=tools) for _ in range(2)]
            said = answers[1].json()["choices"][0]["message"]
            after = [*HI, said, {"role": "tool", "tool_call_id": "call_1", "content": "x"}]
            third = await ask(app, made, tools=tools, messages=after)
        assert "hit" == answers[1].headers["x-runrails-cache"]
        runs = [each.headers["x-runrails-run"] for each in (*answers, third)]
        assert runs[2] in runs[:2]
        made.settled()


async def test_a_run_without_money_is_given_what_is_there() -> None:
    """A stored answer needs none; a step it is all the same."""
    with cached(limits=Limits(run=None, month="100", steps=2)) as made:
        async with running(made.config) as app:
            await ask(app, made)
            cost = made.spent
            made.store.set_limit("user:alice", cost)
            run = {"x-runrails-run": "mine"}
            answers = [await ask(app, made, headers=run) for _ in range(3)]
            other = await ask(app, made, temperature=0.1)
        assert [200, 200, 403] == [each.status for each in answers]
        assert 402 == other.status
        assert (1, cost, 0) == (made.hits, made.spent, made.held)


async def test_what_is_there_is_given_while_the_provider_rests() -> None:
    """Nothing has to be sent for it."""
    script = [TOLD, *[Error(503)] * 20]
    with cached(script) as made:
        async with running(made.config) as app:
            await ask(app, made)
            for number in range(12):
                await ask(app, made, temperature=0.01 * (number + 1))
            assert app.hot is not None
            assert ("fake-openai",) == app.hot.resting
            assert "hit" == (await ask(app, made)).headers["x-runrails-cache"]
            assert 503 == (await ask(app, made, temperature=1)).status


async def test_a_cache_that_fails_is_a_miss() -> None:
    """Calls go out, and an event says why."""

    class Broken:
        def get(self, key: str, *, now_ms: int) -> bytes | None:
            raise OSError("full")

        put = delete = clear = get

    with cached(cache=ResponseCache(storage=Broken())) as made:
        async with running(made.config) as app:
            answer = await ask(app, made)
        assert (200, "miss") == (answer.status, answer.headers["x-runrails-cache"])
        assert "cache_failed" in made.names()
        made.settled()


@pytest.mark.parametrize("words", ["no-cache", "max-age=0, No-Store"])
async def test_a_caller_who_wants_an_answer_of_its_own_gets_one(words: str) -> None:
    """As HTTP says that: nothing stored is given, and the answer is not kept."""
    with cached() as made:
        async with running(made.config) as app:
            headers: list[dict[str, str]] = [{"cache-control": words}, {}, {"cache-control": words}, {}]
            answers = [await ask(app, made, headers=each) for each in headers]
        assert ["bypass", "miss", "bypass", "hit"] == [each.headers["x-runrails-cache"] for each in answers]
        assert 3 == made.hits
        made.settled()


async def test_a_file_is_shared_by_all_workers_and_asked_in_threads(tmp_path: Path) -> None:
    """What one has kept another one gives; the event loop waits for no disk."""
    path = tmp_path / "answers.db"
    threads: list[int] = []
    keep = ResponseCache.put

    def noted(cache: ResponseCache, *about: Any) -> None:
        threads.append(threading.get_ident())
        keep(cache, *about)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ResponseCache, "put", noted)
        with cached(cache=ResponseCache(path)) as made:
            async with running(made.config) as app:
                first = await ask(app, made)
            made.guard.cache = ResponseCache(path)
            async with running(made.config) as app:
                second = await ask(app, made)
            assert [("miss", "hit"), 1] == [
                (first.headers["x-runrails-cache"], second.headers["x-runrails-cache"]), made.hits
            ]  # fmt: skip
            assert first.body == second.body
            made.settled()
    assert threading.get_ident() not in threads and threads
    assert 0o600 == path.stat().st_mode & 0o777


# Cheaper models.


@pytest.mark.parametrize("kind", ["chat", "responses", "messages"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_from_a_share_of_the_budget_on_the_cheaper_model_is_asked(kind: str, stream: bool) -> None:
    """The header, the ledger and the provider name the model that was used; the header the one that was asked for."""
    rule = Downgrade(to={MODEL: SMALL}, above="0.01")
    with world(TOLD, limited(downgrade=rule)) as made:
        async with running(made.config) as app:
            run = {"x-runrails-run": "mine"}
            answers = [await ask(app, made, kind, stream=stream, headers=run) for _ in range(2)]
        assert [{}, {"model": SMALL, "downgraded-from": MODEL}] == [told(each) for each in answers]
        assert [MODEL, SMALL] == [each.model for each in made.provider.received]
        assert [MODEL, SMALL] == [row.facts.model for row in made.rows()]
        assert {"asked_model": MODEL} == dict(made.rows()[1].facts.tags)
        assert [MODEL, SMALL] == [each.model for each in made.watching.over]
        made.settled()
        usage = made.provider.bill.calls[1].usage
        saved = [cost_pusd(made.guard.prices.card(name, now_ms=0), usage) for name in (MODEL, SMALL)]
        event = next(each for each in made.events if each.name == "runrails.model_downgraded")
        assert saved[0] - saved[1] == event.fields["saved_pusd"]


async def test_a_share_is_of_what_all_workers_have_spent() -> None:
    """Another process of the gateway knows by the run's account."""
    rule = Downgrade(to={MODEL: SMALL}, above="0.01")
    with world(TOLD, limited(downgrade=rule)) as made:
        run = {"x-runrails-run": "mine"}
        for expected in (MODEL, SMALL):
            async with running(made.config) as app:
                await ask(app, made, headers=run)
            assert expected == made.provider.received[-1].model
        made.settled()


@pytest.mark.parametrize(
    ("header", "model"),
    [({}, MODEL), ({"x-runrails-kind": "write"}, MODEL), ({"x-runrails-kind": "\x00" * 300}, MODEL),
     ({"x-runrails-kind": "classify"}, SMALL)],
    ids=["none", "other", "malformed", "named"],
)  # fmt: skip
async def test_a_step_says_of_which_kind_it_is(header: dict[str, str], model: str) -> None:
    """`X-Runrails-Kind` is the tag of the call, and decides where the limits name kinds."""
    with world(TOLD, limited(downgrade=Downgrade(to=SMALL, kinds=("classify",)))) as made:
        async with running(made.config) as app:
            answer = await ask(app, made, headers=header)
        assert (200, model) == (answer.status, made.provider.received[0].model)
        made.settled()


@pytest.mark.parametrize(
    ("to", "upstream", "reason"),
    [("fake-unpriced", {}, "unpriced"), ("fake-founding", {}, "not_cheaper"), (SMALL, {"models": (MODEL,)}, "adapter")],
    ids=["unpriced", "dearer", "not_served"],
)
async def test_a_call_stays_where_the_other_model_would_not_do(to: str, upstream: Any, reason: str) -> None:
    """And an event says why."""
    with world(TOLD, limited(downgrade=Downgrade(to=to, kinds=("x",))), upstream=upstream) as made:
        async with running(made.config) as app:
            answer = await ask(app, made, headers={"x-runrails-kind": "x"})
        assert (200, {}) == (answer.status, told(answer))
        assert MODEL == made.provider.received[0].model
        event = next(each for each in made.events if each.name == "runrails.downgrade_refused")
        assert reason == event.fields["reason"]
        made.settled()


async def test_the_cheaper_model_is_asked_where_it_is_served() -> None:
    """Of two upstreams at the same prices, each has its own models."""
    from runrails.testing.provider import FakeProvider

    with FakeProvider(TOLD) as other:
        with world(TOLD, limited(downgrade=Downgrade(to=SMALL, kinds=("x",)))) as made:
            places = ((made.provider, MODEL), (other, SMALL))
            upstreams = tuple(
                Upstream(name=f"up-{name}", dialect="openai", base_url=each.openai_url, models=(name,), retries=0)
                for each, name in places
            )
            from rr_gateway import changed

            async with running(changed(made.config, upstreams=upstreams)) as app:
                answer = await ask(app, made, headers={"x-runrails-kind": "x"})
            assert (200, 0, 1) == (answer.status, made.hits, sum(other.requests.values()))
            assert other.bill.total_pusd() == made.spent


async def test_observing_changes_no_request() -> None:
    """Neither its model nor its conversation."""
    limits = limited(downgrade=Downgrade(to=SMALL, kinds=("x",)), pruning=SHORT)
    with world(TOLD, limits, guard={"mode": "observe"}) as made:
        async with running(made.config) as app:
            answer = await ask(app, made, messages=HI * 15, headers={"x-runrails-kind": "x"})
        assert (200, {}) == (answer.status, told(answer))
        assert (MODEL, 15) == (made.provider.received[0].model, len(made.provider.received[0].body["messages"]))


# Shorter conversations.


@pytest.mark.parametrize(("kind", "name"), [("chat", "messages"), ("messages", "messages"), ("responses", "input")])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_long_conversation_is_sent_without_its_oldest_messages(kind: str, name: str, stream: bool) -> None:
    """The task and the newest stay, a note says how many are left out, and so does a header."""
    turns = [{"role": ("user", "assistant")[at % 2], "content": f"turn {at}"} for at in range(15)]
    with world(TOLD, limited(pruning=SHORT)) as made:
        async with running(made.config) as app:
            answer = await ask(app, made, kind, stream=stream, **{name: turns})
            short = await ask(app, made, kind, stream=stream, **{name: turns[:9]})
        left_out = int(answer.headers["x-runrails-pruned-messages"])
        sent: Any = made.provider.received[0].body
        assert 15 - left_out + 1 == len(sent[name])
        assert marker(left_out) in json.dumps(sent[name])
        assert [turns[0], turns[-1]] == [sent[name][0], sent[name][-1]]
        assert {} == told(short)
        assert answer.headers["x-runrails-run"] != ""
        made.settled()
        assert "conversation_pruned" in made.names()


async def test_all_three_go_together_with_what_is_hidden_from_streams() -> None:
    """A stream to the cheaper model, shortened: usage is asked for, settled by, and not shown."""
    limits = limited(downgrade=Downgrade(to=SMALL, kinds=("x",)), pruning=SHORT)
    turns = [{"role": ("user", "assistant")[at % 2], "content": f"turn {at}"} for at in range(15)]
    with cached(limits=limits) as made:
        async with running(made.config) as app:
            stream = await ask(app, made, stream=True, messages=turns, headers={"x-runrails-kind": "x"})
            whole = [await ask(app, made, messages=turns, headers={"x-runrails-kind": "x"}) for _ in range(2)]
        assert b'"usage":{' not in stream.body.replace(b" ", b"")
        assert {"cache", "model", "downgraded-from", "pruned-messages"} == set(told(stream))
        assert ["bypass", "miss", "hit"] == [each.headers["x-runrails-cache"] for each in (stream, *whole)]
        made.settled()


# Real clients.


def test_real_clients_read_stored_answers() -> None:
    """OpenAI's and Anthropic's SDKs parse what comes out of the cache, and see the header."""
    with gateway(TOLD, guard={"cache": ResponseCache()}) as made:
        ours = openai.OpenAI(base_url=made.openai_url, api_key=made.key, max_retries=0)
        theirs = anthropic.Anthropic(base_url=made.url, api_key=made.key, max_retries=0)
        for _ in range(2):
            raw = ours.chat.completions.with_raw_response.create(model=MODEL, messages=HI, max_tokens=2000)
            chat = raw.parse()
            response = ours.responses.create(model=MODEL, input="hi", max_output_tokens=2000)
            message = theirs.messages.create(model=MODEL, messages=HI, max_tokens=2000)
        assert "hit" == raw.headers["x-runrails-cache"]
        assert "Hello there, my friend." == chat.choices[0].message.content == response.output_text
        assert "Hello there, my friend." == message.content[0].text
        assert 3 == made.hits
        made.settled()
        ours.close()
        theirs.close()


# Settings.


@pytest.mark.parametrize(
    "environment",
    [
        {f"{CACHE}_SECONDS": "60"},
        {CACHE: "/no/such/folder/answers.db"},
        {CACHE: "off"},
        {CACHE: "Memory"},
        {CACHE: "memory", f"{CACHE}_SECONDS": "0"},
        {CACHE: "memory", f"{CACHE}_SECONDS": "a day"},
        {DOWNGRADE: "gpt-4o"},
        {DOWNGRADE: "gpt-4o=gpt-4o-mini"},
        {DOWNGRADE: "gpt-4o=", f"{DOWNGRADE}_ABOVE": "0.8"},
        {DOWNGRADE: "gpt-4o=gpt-4o-mini", f"{DOWNGRADE}_ABOVE": "80"},
        {f"{DOWNGRADE}_ABOVE": "0.8"},
        {f"{DOWNGRADE}_KINDS": "classify"},
        {PRUNING: "40"},
        {PRUNING: "20/40"},
        {PRUNING: "many/few"},
    ],
    ids=lambda environment: ",".join(f"{name[17:]}={value}" for name, value in environment.items()),
)
def test_a_malformed_setting_is_named(environment: dict[str, str]) -> None:
    """A gateway that would save otherwise than its operator believes does not start."""
    with pytest.raises(ConfigError) as refused:
        cache_of(environment)
        thrifty(PlainLimits(), environment)
    assert any(name in str(refused.value) for name in environment)


def test_settings_say_what_is_saved(tmp_path: Any) -> None:
    """By default nothing is."""
    assert cache_of({}) is None
    limits = PlainLimits(run="5.00")
    assert thrifty(limits, {}) is limits
    assert isinstance(cache_of({CACHE: "memory"}), ResponseCache)
    assert isinstance(cache_of({CACHE: str(tmp_path / "answers.db"), f"{CACHE}_SECONDS": "60"}), ResponseCache)
    found = thrifty(
        limits,
        {DOWNGRADE: "a=b, c=d", f"{DOWNGRADE}_ABOVE": "0.80", f"{DOWNGRADE}_KINDS": "x,y", PRUNING: "30/10"},
    )
    assert Downgrade(to={"a": "b", "c": "d"}, above="0.80", kinds=("x", "y")) == found.downgrade
    assert Pruning(after_messages=30, keep_last=10) == found.pruning
    assert "5.00" == found.run


def test_the_environment_makes_a_thrifty_gateway(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What `runrails serve` starts with."""
    monkeypatch.setenv("PEPPER", "vM3kq0hT9sJx2bYcW7nLdRf5ZgUaEoPi")
    for name, value in {
        "RUNRAILS_KEY_PEPPERS": "p1:env:PEPPER", "RUNRAILS_STORE": f"sqlite:///{tmp_path}/ledger.db",
        "OPENAI_API_KEY": "sk-a-0123456789abcdef", CACHE: "memory", PRUNING: "40/20",
        DOWNGRADE: "gpt-4o=gpt-4o-mini", f"{DOWNGRADE}_KINDS": "classify",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    config = GatewayConfig.from_env()
    try:
        guard = config.guard
        assert guard.saves
        assert (Pruning(after_messages=40, keep_last=20), False) == (guard.limits.pruning, guard.cache is None)
        assert Downgrade(to={"gpt-4o": "gpt-4o-mini"}, kinds=("classify",)) == guard.limits.downgrade
    finally:
        config.close()
