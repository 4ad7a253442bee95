"""A wrapped OpenAI client: every surface is billed as the provider bills it, and a refusal sends nothing."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from rr_clients import HI, MODEL, TOLD, World, run_of
from runrails import BudgetExceeded, ConfigError, Guard, Limits, PriceUnknown
from runrails.errors import BoundUnknown, CallTooLarge
from runrails.stores.memory import MemoryStore
from runrails.testing.provider import Error, HangUp, Text, ToolCalls, ToolUse
from runrails.usage import Usage


class City(BaseModel):
    """What `parse` is asked for."""

    name: str


def _read(lines: Any) -> None:
    for _ in lines:
        pass


def _streaming(client: Any, how: str, **options: Any) -> None:
    with client.chat.completions.with_streaming_response.create(model=MODEL, messages=HI, **options) as raw:
        made = getattr(raw, how)()
        if options:
            _read(made)


def _helper(client: Any) -> None:
    with client.chat.completions.stream(model=MODEL, messages=HI) as events:
        _read(events)
        events.get_final_completion()


def _response_helper(client: Any) -> None:
    with client.responses.stream(model=MODEL, input="hi") as events:
        _read(events)


SURFACES: dict[str, Callable[[Any], object]] = {
    "create": lambda c: c.chat.completions.create(model=MODEL, messages=HI),
    "create, capped": lambda c: c.chat.completions.create(model=MODEL, messages=HI, max_tokens=900),
    "create, stream": lambda c: _read(c.chat.completions.create(model=MODEL, messages=HI, stream=True)),
    "create, stream with usage": lambda c: _read(
        c.chat.completions.create(model=MODEL, messages=HI, stream=True, stream_options={"include_usage": True})
    ),
    "stream": _helper,
    "raw": lambda c: c.chat.completions.with_raw_response.create(model=MODEL, messages=HI).parse(),
    "raw, unread": lambda c: c.chat.completions.with_raw_response.create(model=MODEL, messages=HI),
    "raw, stream": lambda c: _read(
        c.chat.completions.with_raw_response.create(model=MODEL, messages=HI, stream=True).parse()
    ),
    "streaming, json": lambda c: _streaming(c, "json"),
    "streaming, text": lambda c: _streaming(c, "text"),
    "streaming, parse": lambda c: _streaming(c, "parse"),
    "streaming, bytes of a stream": lambda c: _streaming(c, "iter_bytes", stream=True),
    "streaming, lines of a stream": lambda c: _streaming(c, "iter_lines", stream=True),
    "streaming, parsed stream": lambda c: _streaming(c, "parse", stream=True),
    "with_options": lambda c: c.with_options(timeout=9).chat.completions.create(model=MODEL, messages=HI),
    "copy of a copy": lambda c: c.copy().with_options(timeout=9).responses.create(model=MODEL, input="hi"),
    "cast to object": lambda c: c.post("/chat/completions", cast_to=object, body={"model": MODEL, "messages": HI}),
    "extra_body": lambda c: c.chat.completions.create(model="x", messages=HI, extra_body={"model": MODEL}),
    "responses": lambda c: c.responses.create(model=MODEL, input="hi"),
    "responses, stream": lambda c: _read(c.responses.create(model=MODEL, input="hi", stream=True)),
    "responses.stream": _response_helper,
    "responses, raw": lambda c: c.responses.with_raw_response.create(model=MODEL, input="hi"),
    "embeddings": lambda c: c.embeddings.create(model="fake-embedding", input=["a", "b"]),
    "embeddings, raw": lambda c: c.embeddings.with_raw_response.create(model="fake-embedding", input="a"),
    "embeddings of tokens": lambda c: c.embeddings.create(model="fake-embedding", input=[[1, 2], [3]]),
}


@pytest.mark.parametrize("surface", SURFACES)
def test_ledger_is_the_bill(surface: str) -> None:
    """Whatever way of the SDK is taken, one call is one step, and the ledger is the provider's bill."""
    with World() as world:
        client = world.openai()
        SURFACES[surface](client)
        world.settled()
        report = run_of(client).report()
        counted = (report.model_calls, report.unresolved_pusd, report.refusals)
        assert (1, (1, 0, 0)) == (len(world.provider.bill.calls), counted)
        assert world.spent > 0
        assert "adapter_failed" not in world.names()


@pytest.mark.parametrize("surface", SURFACES)
def test_refusal_has_its_own_type_and_sends_nothing(surface: str) -> None:
    """Above the budget every surface raises BudgetExceeded itself, once, and no request leaves."""
    with World(limits=Limits(run="0.00000001")) as world:
        client = world.openai(max_retries=2)
        with pytest.raises(BudgetExceeded) as caught:
            SURFACES[surface](client)
        assert (BudgetExceeded, None) == (type(caught.value), caught.value.__cause__)
        world.untouched()


def test_azure_is_guarded() -> None:
    """Deployments are priced by their name, for chat and embeddings."""
    with World() as world:
        client = world.azure()
        client.chat.completions.create(model=MODEL, messages=HI)
        client.embeddings.create(model="fake-embedding", input="a")
        world.settled()
        assert (2, True) == (run_of(client).report().model_calls, isinstance(client, openai.AzureOpenAI))


def test_parse_is_billed() -> None:
    """A parsed answer costs what the provider bills, and is the caller's type."""
    with World(Text('{"name": "Bern"}')) as world:
        client = world.openai()
        chat = client.chat.completions.parse(model=MODEL, messages=HI, response_format=City)
        response = client.responses.parse(model=MODEL, input="hi", text_format=City)
        assert ("Bern", "Bern") == (chat.choices[0].message.parsed.name, response.output_parsed.name)  # type: ignore[union-attr]
        world.settled()


def test_answer_that_cannot_be_parsed_is_billed_as_reported() -> None:
    """The SDK raises for a cut or malformed answer after it was paid: what the answer reported is charged."""
    with World(Text("this is no JSON, and cut")) as world:
        client = world.openai()
        with pytest.raises(openai.LengthFinishReasonError):
            client.chat.completions.parse(model=MODEL, messages=HI, response_format=City, max_tokens=2)
        with pytest.raises(ValueError):
            client.chat.completions.parse(model=MODEL, messages=HI, response_format=City)
        world.settled()
        assert 2 == len(world.provider.bill.calls)


def test_usage_chunk_is_hidden_from_who_did_not_ask() -> None:
    """Chunks are the same as without a guard; the usage the guard asked for stays with it."""
    with World() as world:
        bare, client = world.openai(wrapped=False), world.openai()
        plain = [(c.choices, c.usage) for c in bare.chat.completions.create(model=MODEL, messages=HI, stream=True)]
        guarded = [(c.choices, c.usage) for c in client.chat.completions.create(model=MODEL, messages=HI, stream=True)]
        asked = list(
            client.chat.completions.create(
                model=MODEL, messages=HI, stream=True, stream_options={"include_usage": True}
            )
        )
        assert plain == guarded
        assert (777, []) == (asked[-1].usage.completion_tokens, asked[-1].choices)  # type: ignore[union-attr]


def test_caller_who_declines_usage_is_charged_the_hold() -> None:
    """An explicit `include_usage: False` is left alone; what nobody reports is settled at the hold."""
    with World() as world:
        client = world.openai()
        _read(
            client.chat.completions.create(
                model=MODEL, messages=HI, max_tokens=100, stream=True, stream_options={"include_usage": False}
            )
        )
        report = run_of(client).report()
        assert (True, report.cost_pusd) == (report.unresolved_pusd > 0, report.unresolved_pusd)
        assert {"include_usage": False} == world.provider.received[-1].body["stream_options"]


def test_callers_arguments_are_not_changed() -> None:
    """What the caller passed is as it was, also where the request was given options or a cap."""
    options: Any = {"include_obfuscation": False}
    messages = copy.deepcopy(HI)
    with World(limits=Limits(run="0.02")) as world:
        client = world.openai()
        _read(client.chat.completions.create(model=MODEL, messages=messages, stream=True, stream_options=options))
        assert ({"include_obfuscation": False}, HI) == (options, messages)
        sent = world.provider.received[-1].body
        assert (True, False) == (sent["stream_options"]["include_usage"], sent["stream_options"]["include_obfuscation"])  # type: ignore[call-overload,index]


def test_free_requests_pass_and_are_not_counted() -> None:
    """Lists cost nothing; they pass even when the run is stopped."""
    with World({MODEL: TOLD}, limits=Limits(run="0.00000001")) as world:
        client = world.openai()
        with pytest.raises(BudgetExceeded):
            client.chat.completions.create(model=MODEL, messages=HI)
        assert [MODEL] == [model.id for model in client.models.list()]
        assert 0 == run_of(client).report().steps


@pytest.mark.parametrize(
    "ask",
    [
        lambda c: c.images.generate(prompt="a cat", model="gpt-image-1"),
        lambda c: c.audio.speech.create(input="hi", model="tts-1", voice="alloy"),
        lambda c: c.audio.transcriptions.create(file=b"x", model="whisper-1"),
        lambda c: c.batches.create(completion_window="24h", endpoint="/v1/chat/completions", input_file_id="f"),
        lambda c: c.fine_tuning.jobs.create(model="gpt-4o", training_file="f"),
        lambda c: c.completions.create(model="davinci-002", prompt="hi"),
        lambda c: c.post("/threads/runs", cast_to=object, body={"assistant_id": "a"}),
        lambda c: c.post("/vector_stores/v/files", cast_to=object, body={"file_id": "f"}),
        lambda c: c.post("/fine_tuning/models/x", cast_to=object, body={}),
        lambda c: c.post("/videos", cast_to=object, body={"prompt": "a cat"}),
        lambda c: c.post("/brand/new", cast_to=object, body={}),
        lambda c: c.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]
        ),
        lambda c: c.responses.create(model=MODEL, input="hi", tools=[{"type": "web_search"}]),
        lambda c: c.chat.completions.create(model=MODEL, messages=HI, web_search_options={}),
        lambda c: c.chat.completions.create(model=MODEL, messages=HI, n=1000),
        lambda c: c.chat.completions.create(model=MODEL, messages=HI, max_tokens=-5),
    ],
)
def test_what_nobody_can_bound_is_refused_by_name(ask: Callable[[Any], object]) -> None:
    """Images, audio, batches, unknown paths, files and hosted tools are refused before anything is sent."""
    with World() as world:
        client = world.openai()
        with pytest.raises(BoundUnknown):
            ask(client)
        world.untouched()


def test_unknown_price_is_refused() -> None:
    """A model nobody has priced is refused by name, with nothing sent."""
    with World() as world:
        with pytest.raises(PriceUnknown, match="nobodys-model"):
            world.openai().chat.completions.create(model="nobodys-model", messages=HI)
        world.untouched()


def test_stored_context_is_bounded_by_the_model() -> None:
    """What only the provider knows the size of is held at the model's context, and settled as reported."""
    with World() as world:
        client = world.openai()
        client.responses.create(model=MODEL, input="hi", previous_response_id="resp_1")
        world.settled()


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_retries_are_one_call(status: int) -> None:
    """Attempts that ended with an HTTP error cost nothing; the call counts once."""
    script = [Error(status, headers={"retry-after": "0.001"}), Error(status, headers={"retry-after": "0.001"}), TOLD]
    with World(script) as world:
        client = world.openai(max_retries=2)
        client.chat.completions.create(model=MODEL, messages=HI)
        world.settled()
        assert (3, 1) == (world.hits, run_of(client).report().model_calls)


def test_definite_error_costs_nothing() -> None:
    """A 400 is raised as it is and charged nothing."""
    with World(Error(400)) as world:
        client = world.openai(max_retries=2)
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model=MODEL, messages=HI)
        world.settled()
        assert (1, 0) == (world.hits, world.spent)


def test_request_that_is_never_sent_costs_nothing() -> None:
    """No connection, or a request that cannot be built: nothing left, so nothing is charged."""
    with World() as world:
        client = world.openai()
        with pytest.raises(openai.APIConnectionError):
            client.with_options(base_url="http://127.0.0.1:1").chat.completions.create(model=MODEL, messages=HI)
        with pytest.raises(TypeError):
            client.chat.completions.create(model=MODEL, messages=HI, extra_body={"x": object()})
        world.untouched()


def test_attempts_with_unknown_end_are_charged_their_bound() -> None:
    """A connection lost after sending may have cost its bound; the answer of the next attempt comes on top."""
    with World(HangUp(TOLD)) as world:
        with pytest.raises(openai.APIConnectionError):
            world.openai().chat.completions.create(model=MODEL, messages=HI, max_tokens=1000)
        bound = world.spent
    with World([HangUp(TOLD), TOLD]) as world:
        client = world.openai(max_retries=1)
        client.chat.completions.create(model=MODEL, messages=HI, max_tokens=1000)
        world.provider.wait_idle()
        answered = world.provider.bill.calls[-1].usage
        report = run_of(client).report()
        assert (2, 0, True) == (len(world.provider.bill.calls), world.held, bound > 0)
        # The prompt that was billed is larger than the one that was sent, so only the sum can be told.
        from runrails.pricing.book import PriceBook
        from runrails.pricing.cards import cost_pusd
        from runrails.testing.prices import PRICES

        card = PriceBook.load(PRICES, None).card(MODEL, now_ms=0)
        assert (bound + cost_pusd(card, answered), world.spent) == (world.spent, report.unresolved_pusd)


def test_retries_are_held_for_and_lowered_near_the_limit() -> None:
    """With room for three attempts all are made; with room for one, the SDK is told not to retry."""
    script = Error(500, headers={"retry-after": "0.001"})
    for budget, hits in (("0.03", 3), ("0.02", 2), ("0.01", 1)):
        with World(script, limits=Limits(run=budget)) as world:
            client = world.openai(max_retries=2)
            with pytest.raises(openai.InternalServerError):
                client.chat.completions.create(model="fake-flat", messages=HI, max_tokens=10)
            assert (hits, 0, 0) == (world.hits, world.spent, world.held)


def test_output_is_capped_to_what_is_left() -> None:
    """A request without a cap, or with one that does not fit, is sent with what the budget buys."""
    for given in ({}, {"max_tokens": 4000}, {"max_completion_tokens": 4000}):
        with World(Text("x " * 9000), limits=Limits(run="0.03")) as world:
            client = world.openai()
            client.chat.completions.create(model=MODEL, messages=HI, **given)
            sent = world.provider.received[-1]
            assert next(iter(given), "max_tokens") in sent.body
            assert sent.max_tokens is not None
            assert 1024 <= sent.max_tokens < 2000
            world.settled()
            assert 0 < world.spent <= 3 * 10**10


def test_responses_are_capped_by_their_own_name() -> None:
    """The responses API names the cap differently."""
    with World(Text("x " * 9000), limits=Limits(run="0.03")) as world:
        world.openai().responses.create(model=MODEL, input="hi")
        assert 1024 <= int(str(world.provider.received[-1].body["max_output_tokens"])) < 2000
        world.settled()


def test_prompt_that_leaves_no_room_is_too_large() -> None:
    """Where not even 1,024 tokens of output fit beside others' money, the call is refused, not cut to nothing."""
    with World(limits=Limits(run="0.001")) as world:
        with pytest.raises((CallTooLarge, BudgetExceeded)):
            world.openai().chat.completions.create(model=MODEL, messages=HI)
        world.untouched()


def test_exactly_a_hundred_of_64_threads() -> None:
    """64 threads at a cent a call against a dollar admit exactly 100 calls."""
    with World(Text("ok"), limits=Limits(run="1.00", steps=None, hold_wait_ms=60_000)) as world:
        client = world.openai(max_retries=2)
        admitted = 0
        lock = threading.Lock()

        def work() -> None:
            nonlocal admitted
            while True:
                try:
                    client.chat.completions.create(model="fake-flat", messages=HI, max_tokens=10)
                except BudgetExceeded:
                    return
                with lock:
                    admitted += 1

        with ThreadPoolExecutor(64) as pool:
            for future in [pool.submit(work) for _ in range(64)]:
                future.result()
        world.settled()
        assert (100, 100, 10**12) == (admitted, len(world.provider.bill.calls), world.spent)


def test_calls_belong_to_the_run_they_are_in() -> None:
    """Inside `with guard.run():` the run is that one, and the stop is the public type."""
    with World(limits=Limits(run="1.00", month="100")) as world:
        client = world.openai()
        with world.guard.run() as run:
            client.chat.completions.create(model=MODEL, messages=HI)
        assert (1, None) == (run.report().model_calls, client.runrails_edge._shared)  # type: ignore[attr-defined]
        with pytest.raises(BudgetExceeded):
            with world.guard.run(limits=Limits(run="0.00000001")):
                client.chat.completions.create(model=MODEL, messages=HI)
        world.settled()


def test_run_of_another_guard_is_an_error() -> None:
    """Two guards would pay for the same call twice."""
    with World() as world:
        other = Guard(store=MemoryStore(), sinks=())
        client = world.openai()
        with other.run():
            with pytest.raises(ConfigError, match="one guard"):
                client.chat.completions.create(model=MODEL, messages=HI)
        world.untouched()
        other.close()


def test_wrapping_keeps_the_client_and_its_type() -> None:
    """The same object comes back; resources taken before are guarded; twice is once; another guard is an error."""
    with World() as world:
        client = world.openai(wrapped=False)
        completions = client.chat.completions
        assert client is world.guard.wrap(client)
        guarded_type = type(client)
        assert client is world.guard.wrap(client)
        assert (guarded_type, True) == (type(client), isinstance(client, openai.OpenAI))
        assert guarded_type is type(world.guard.wrap(client.with_options(timeout=3)))
        completions.create(model=MODEL, messages=HI)
        world.settled()
        assert world.spent > 0
        other = Guard(store=MemoryStore(), sinks=())
        with pytest.raises(ConfigError, match="another guard"):
            other.wrap(client)
        other.close()


@pytest.mark.parametrize("thing", [object(), openai.OpenAI, "client", None])
def test_what_is_no_client_is_refused_with_what_is(thing: object) -> None:
    """The error names what can be guarded."""
    with World() as world:
        with pytest.raises(ConfigError, match=r"anthropic, .*openai|OpenAI, AsyncOpenAI"):
            world.guard.wrap(thing)


def test_resource_of_a_client_is_refused() -> None:
    """Only clients can be wrapped, not their parts."""
    with World() as world:
        with pytest.raises(ConfigError, match="not its class or one of its resources"):
            world.guard.wrap(world.openai(wrapped=False).chat)


def test_clients_have_runs_of_their_own_that_end_with_the_guard() -> None:
    """Two clients are two runs; after the guard is closed nothing starts, and the runs are kept."""
    with World() as world:
        one, two = world.openai(), world.openai()
        for client in (one, two):
            client.chat.completions.create(model=MODEL, messages=HI)
        assert run_of(one) is not run_of(two)
        world.guard.close()
        hits = world.hits
        with pytest.raises(ConfigError, match="has ended"):
            one.chat.completions.create(model=MODEL, messages=HI)
        assert hits == world.hits


def test_observing_changes_nothing() -> None:
    """In observe mode neither caps nor retries are touched, and nothing is refused."""
    script = [Error(500, headers={"retry-after": "0.001"}), TOLD]
    with World(script, limits=Limits(run="0.00000001"), mode="observe") as world:
        client = world.openai(max_retries=2)
        client.chat.completions.create(model=MODEL, messages=HI)
        world.settled()
        assert {"model", "messages"} == set(world.provider.received[-1].body)
        assert "run_would_stop" in world.names()


def test_usage_that_cannot_be_true_is_settled_at_the_hold() -> None:
    """Malformed or missing usage is never charged at zero, and the caller gets their answer."""
    for answer in (Text("a", report="none"), Text("a", wire_usage={"prompt_tokens": -1, "completion_tokens": 1})):
        with World(answer) as world:
            client = world.openai()
            client.chat.completions.create(model=MODEL, messages=HI, max_tokens=100)
            report = run_of(client).report()
            assert (True, 0) == (report.unresolved_pusd == world.spent > 0, world.held)


def test_tools_and_their_results_are_within_the_bound() -> None:
    """A conversation with tool calls, as messages and as the SDK's own objects, is held for in full."""
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    with World([ToolCalls([ToolUse("weather", {"city": "Bern"})]), Text("sunny")]) as world:
        client = world.openai()
        first = client.chat.completions.create(model=MODEL, messages=HI, tools=tools)
        message = first.choices[0].message
        assert message.tool_calls is not None
        result: Any = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}
        client.chat.completions.create(model=MODEL, messages=[*HI, message, result], tools=tools)
        world.settled()
        assert "bound_violated" not in world.names()


def test_served_model_with_a_price_of_its_own_is_billed_by_it() -> None:
    """Where the provider answers with another model that has a written price of the table, that one counts."""
    with World(Text("a", usage=Usage(input_tokens=10, output_tokens=10)), prices={}) as world:
        world.provider.served_as = {"gpt-4o": "gpt-4o-2024-08-06"}
        world.openai().chat.completions.create(model="gpt-4o", messages=HI)
        world.settled()
