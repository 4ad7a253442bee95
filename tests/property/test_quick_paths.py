"""What the path of every call does in a shorter way is what the general way does."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runrails.admission import bound_of, line_of
from runrails.anchoring import Anchors, Margins, anchor_of, input_bound
from runrails.answers.openai import chat_answer
from runrails.calls import ModelCall, ModelResult, Permit, Prompt
from runrails.clients.plan import request_body
from runrails.clients.reading import body_of, plain
from runrails.errors import BoundUnknown, PriceUnknown
from runrails.events import Emitter
from runrails.ids import check_id, new_id
from runrails.inputwatch import InputWatch
from runrails.ledger import CallFacts, ResultFacts
from runrails.pricing.cards import make_card
from runrails.request_wire import openai_chat
from runrails.usage import TOKENS_MAX, Usage
from runrails.usage_wire import UsageMalformed, from_bedrock, from_langchain, from_openai_chat
from runrails.values import quick

SOME = settings(max_examples=60, deadline=None)
rates = st.integers(0, 10**9)
large = st.integers(-1, TOKENS_MAX + 1)
counts = st.one_of(st.integers(-1, 10**9 + 1), st.none(), st.just(True), st.just(1.0), st.just("1"))


class Given(Mapping[str, object]):
    """A mapping that is no dict, so that nothing takes it for an ordinary one."""

    def __init__(self, **given: object) -> None:
        self.given = given

    def __getitem__(self, key: str) -> object:
        """As a dict."""
        return self.given[key]

    def __iter__(self) -> Iterator[str]:
        """As a dict."""
        return iter(self.given)

    def __len__(self) -> int:
        """As a dict."""
        return len(self.given)


def outcome(work: Any, *args: Any, **kwargs: Any) -> object:
    """What it returns, or the type of what it raises."""
    try:
        return work(*args, **kwargs)
    except (ValueError, TypeError, BoundUnknown, PriceUnknown) as exc:
        return type(exc)


@SOME
@given(
    base=st.fixed_dictionaries(
        {"input": rates},
        optional=dict.fromkeys(("output", "cache_read", "cache_write", "reasoning", "input_image"), rates),
    ),
    down=st.sampled_from([1, 1, 1, 3]), cliff=st.none() | st.integers(1, 500), call_pusd=rates,
    limits=st.tuples(st.none() | st.integers(1, 10_000), st.none() | st.integers(1, 10_000)),
    text=st.text(max_size=300), cap=st.none() | st.integers(-1, 5_000), n=st.integers(0, 3), cache=st.booleans(),
    tier=st.sampled_from([None, None, "auto", "priority"]), kind=st.sampled_from(["completion", "embedding"]),
    can_cap=st.booleans(),
)  # fmt: skip
def test_a_bound_on_a_line_is_the_cards_bound(  # noqa: PLR0917 -- what Hypothesis draws
    base: dict[str, int], down: int, cliff: int | None, call_pusd: int, limits: tuple[int | None, int | None],
    text: str, cap: int | None, n: int, cache: bool, tier: str | None, kind: Any, can_cap: bool,
) -> None:  # fmt: skip
    """A card without cliffs and rounding bounds every call as its line does; the others have none."""
    table = {name: (rate, down) for name, rate in base.items()}
    card = make_card(
        provider="p", model="m", source="run", base=table, tiers=None if cliff is None else {cliff: table},
        call_pusd=call_pusd, context_tokens_max=limits[0], output_tokens_max=limits[1],
    )  # fmt: skip
    call = ModelCall(
        model="m", prompt=Prompt(texts=(text,), messages=1), max_tokens=cap, n=n, cache_write=cache, service_tier=tier,
        request_type=kind, can_cap=can_cap,
    )  # fmt: skip
    line = line_of(card)
    assert (line is None) == bool(card.tiers or card.denominator != 1)
    expected, actual = outcome(bound_of, call, card), outcome(bound_of, call, card, line)
    if isinstance(expected, type):
        assert expected == actual
        return
    assert isinstance(expected, tuple)
    assert isinstance(actual, tuple)
    assert expected[:-1] == actual[:-1]
    assert (expected[-1] is None) == (actual[-1] is None)
    if expected[-1] is not None:
        assert [expected[-1](tokens) for tokens in (0, 1, 999)] == [actual[-1](tokens) for tokens in (0, 1, 999)]


@pytest.mark.parametrize("kind", [CallFacts, ModelCall, ModelResult, Permit, Prompt, ResultFacts, Usage])
def test_what_is_made_quickly_is_the_value(kind: Any) -> None:
    """With the least and with all of its fields it is equal, of the class itself, and as frozen."""
    wanted = {each.name: number for number, each in enumerate(fields(kind))}
    if kind is Usage:
        wanted = {"input_tokens": 30, "output_tokens": 20, "cache_read_tokens": 5, "reasoning_tokens": 2}
    made = quick(kind)(**wanted)
    assert (kind, kind(**wanted), repr(kind(**wanted))) == (type(made), made, repr(made))
    assert made == quick(kind, checks=False)(**wanted)
    with pytest.raises(TypeError):
        quick(kind)(unheard_of=1)
    with pytest.raises(AttributeError):
        setattr(made, next(iter(wanted)), 3)


@SOME
@given(
    st.dictionaries(st.sampled_from([each.name for each in fields(Usage)]), st.integers(-1, TOKENS_MAX + 1) | counts)
)
def test_counts_are_refused_alike(told: dict[str, Any]) -> None:
    """What cannot be true is refused whichever way a usage is made."""
    told = {name: count for name, count in told.items() if count is not None}
    assert outcome(Usage, **told) == outcome(quick(Usage), **told)


content = st.one_of(st.text(max_size=20), st.none(), st.just([{"type": "text", "text": "a"}]), st.just(5))
messages = st.lists(
    st.fixed_dictionaries({}, optional={"role": st.just("user"), "content": content, "name": st.just("n")})
)


@SOME
@given(
    asked=messages,
    more=st.fixed_dictionaries(
        {},
        optional={
            "model": st.sampled_from(["m", "o3", "", 5]), "max_tokens": st.none() | st.integers(-1, 9),
            "max_completion_tokens": st.none() | st.integers(1, 9), "n": st.none() | st.integers(0, 2),
            "temperature": st.just(1.0), "reasoning_effort": st.sampled_from(["low", ""]), "tools": st.just([{"a": 1}]),
            "service_tier": st.just("priority"), "prediction": st.just({}),
        },
    ),
)  # fmt: skip
def test_ordinary_messages_are_read_like_any_others(asked: list[dict[str, Any]], more: dict[str, Any]) -> None:
    """A request of plain dicts is what the same request of other mappings is."""
    others = [Given(**message) for message in asked]
    assert openai_chat({"messages": others, **more}) == openai_chat({"messages": asked, **more})


@SOME
@given(prompt=counts, completion=counts, total=counts)
def test_a_report_without_parts_is_one_with_none_in_them(prompt: Any, completion: Any, total: Any) -> None:
    """What is not told of the parts is none of them; nonsense is refused alike."""
    told = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}
    parts: dict[str, Any] = {"prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {}}
    assert outcome(from_openai_chat, {**told, **parts}) == outcome(from_openai_chat, told)
    assert outcome(from_openai_chat, Given(**told)) == outcome(from_openai_chat, told)
    wire = {"inputTokens": prompt, "outputTokens": completion}
    assert outcome(from_bedrock, {**wire, "cacheReadInputTokens": 0}) == outcome(from_bedrock, wire)
    assert outcome(from_bedrock, {**wire, "cacheDetails": None}) == outcome(from_bedrock, wire)
    assert issubclass(UsageMalformed, ValueError)


parts = st.none() | st.dictionaries(
    st.sampled_from(["cached_tokens", "audio_tokens", "reasoning_tokens", "cached_tokens_details", "other"]),
    st.sampled_from([0, 0, 0, None, 7, -1, 10**10, True, False, 0.0, "", {}]), max_size=3,
)  # fmt: skip


@SOME
@given(inside=parts, made=parts)
def test_parts_of_a_report_are_read_alike(inside: Any, made: Any) -> None:
    """A plain report with parts, or with parts that are none, is read as any other mapping is."""
    told = {
        "prompt_tokens": 30, "completion_tokens": 20, "total_tokens": 50, "prompt_tokens_details": inside,
        "completion_tokens_details": made,
    }  # fmt: skip
    assert outcome(from_openai_chat, Given(**told)) == outcome(from_openai_chat, told)


langchain_parts: st.SearchStrategy[Any] = st.none() | st.dictionaries(
    st.sampled_from(["cache_read", "cache_creation", "audio", "image", "reasoning", "ephemeral_1h_input_tokens"]),
    st.sampled_from([0, 0, 0, None, 7, -1, 10**10, True, False, 0.0, "", {}]), max_size=3,
)  # fmt: skip


@SOME
@given(entered=counts, left=counts, total=counts, inside=langchain_parts, made=langchain_parts)
def test_langchains_report_without_parts_is_read_like_any_other(
    entered: Any, left: Any, total: Any, inside: Any, made: Any
) -> None:
    """A report whose parts are none is read as one that also has a part of which nobody has heard."""
    told = {"input_tokens": entered, "output_tokens": left, "total_tokens": total, "output_token_details": made}
    more = {**(inside or {}), "unheard_of": 1}
    expected = outcome(from_langchain, {**told, "input_token_details": more})
    assert expected == outcome(from_langchain, {**told, "input_token_details": inside})


TALK = tuple("abcdefgh" * 5 + str(number) for number in range(12))
turns = st.tuples(
    st.integers(1, len(TALK)), st.sampled_from(["", "other"]), st.booleans(), st.integers(0, 2), st.booleans(),
    st.sampled_from([None, (), ("said",), (TALK[3],)]), st.sampled_from(["completed", "completed", "failed"]),
)  # fmt: skip


@SOME
@given(st.lists(turns, max_size=40), st.none() | st.just(300))
def test_a_prompt_sent_again_is_bounded_like_any_other(asked: list[Any], context_tokens_max: int | None) -> None:
    """What is known of the newest call at a glance is what a search through all of them finds."""
    card = make_card(
        provider="p", model="m", source="run", base={"input": (1, 1), "output": (1, 1)},
        context_tokens_max=context_tokens_max,
    )  # fmt: skip
    watch, plainly = InputWatch(Margins(), Emitter([]), run_id="r"), Anchors()
    for count, agent, tools, images, stored, answer, end in asked:
        prompt = Prompt(
            texts=TALK[:count], messages=count, tools=("{}",) if tools else (), images=images // 2,
            pictures=(7,) * (images // 2), stored="an earlier answer" if stored and context_tokens_max else None,
        )  # fmt: skip
        call = ModelCall(model="m", prompt=prompt, agent=agent)
        predicted = watch.bound(call, card)
        assert input_bound(call, card, plainly.find(call, card)) == predicted.input_tokens
        # Mostly the same of the same prompt, as a provider would say it.
        usage = Usage(input_tokens=min(predicted.input_tokens, 20 * count), output_tokens=len(answer or ()) * 5)
        watch.ended(call, card, predicted, ModelResult(end=end, usage=usage, answer=answer))
        if end == "completed":
            anchor = anchor_of(prompt, usage.input_tokens, output_tokens=usage.output_tokens, answer=answer)
            if anchor is not None:
                plainly.keep(call, card, anchor)
        assert plainly.kept == watch.anchors.kept


def test_what_was_left_out_is_not_sent() -> None:
    """Among ordinary values an SDK's own mark is found."""

    class Omit:
        """Named like the SDKs' own."""

    class Options:
        """A request's."""

        extra_json: object = None
        json_data: object = None

    options: Any = Options()
    options.json_data = {"model": "m", "n": 1, "stop": Omit()}
    assert {"model": "m", "n": 1} == request_body(options)
    options.json_data, options.extra_json = {"model": "m"}, {"seed": Omit(), "top_p": 0.5}
    assert {"model": "m", "top_p": 0.5} == request_body(options)


def test_a_parsed_answer_is_read_as_the_wire_had_it() -> None:
    """Nested parts and fields that the SDK does not know are all there, and the object stays as it was."""
    pytest.importorskip("openai")
    from openai.types.chat import ChatCompletion

    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    for told in (usage, {**usage, "prompt_tokens_details": {"cached_tokens": 1, "new": 2}, "new": 5}):
        answer = ChatCompletion.construct(model="m", usage=told, choices=[], speed="fast", service_tier="flex")
        before = answer.model_dump()
        body = body_of(answer)
        assert body is not None
        assert ("m", "flex", "fast") == (body["model"], body["service_tier"], body["speed"])
        assert from_openai_chat(told) == from_openai_chat(plain(answer.usage))  # type: ignore[arg-type]
        assert before == answer.model_dump()
    assert body_of(object()) is None


reports = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": counts, "completion_tokens": counts, "total_tokens": counts, "prompt_tokens_details": parts,
        "completion_tokens_details": parts, "cached_tokens": counts, "prompt_cache_hit_tokens": counts,
    },
)  # fmt: skip


@SOME
@given(usage=st.none() | reports)
@example(usage={})
@example(usage={"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": False})
@example(usage={"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "cached_tokens": 2})
@example(usage={"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "prompt_tokens_details": {"new": 0}})
@example(usage={"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7,
                "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": False}})  # fmt: skip
@example(usage={"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7,
                "prompt_tokens_details": {"cached_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 0}})  # fmt: skip
def test_usage_is_the_same_of_the_wire_and_parsed(usage: dict[str, object] | None) -> None:
    """What the SDK has made of a report is read where it is: nothing, falsehoods and unknown parts included."""
    pytest.importorskip("openai")
    from openai.types.chat import ChatCompletion

    answer = ChatCompletion.construct(model="m", usage=usage, choices=[], id="1")
    before = answer.model_dump(warnings=False)

    body = body_of(answer)

    assert body is not None
    # The SDK has put in what was not given; so that is told alike to the general way.
    general = plain(answer.usage)
    assert chat_answer({"model": "m", "usage": general, "choices": [], "id": "1"}) == chat_answer(body)
    assert before == answer.model_dump(warnings=False)


def test_ids_never_repeat() -> None:
    """Not in a burst, not after a fork; each is an id of the ledger."""
    drawn = [new_id() for _ in range(500)]
    assert 500 == len({check_id(each, what="id") for each in drawn})
    assert {32} == set(map(len, drawn))
    if not hasattr(os, "fork"):
        return
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, "".join(new_id() for _ in range(100)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    told = os.read(reading, 100_000).decode()
    os.close(reading)
    os.close(writing)
    theirs = {told[start : start + 24] for start in range(0, len(told), 32)}
    assert (100, set()) == (len(theirs), theirs & {new_id()[:24] for _ in range(100)})
