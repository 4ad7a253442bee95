"""Of a conversation that grows only what is new is read, and what comes of it is what reading all of it comes to."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rr_json_attacks import ATTACKS
from runrails.errors import BoundUnknown
from runrails_gateway.chain import chain
from runrails_gateway.dialects import CHAT, MESSAGES, RESPONSES
from runrails_gateway.errors import BadRequest
from runrails_gateway.growing import Growing, Grown
from runrails_gateway.history import history_of
from runrails_gateway.jsonin import read_json

ALICE, BOB = ("alice", ""), ("bob", "")
DIALECTS = {each.operation: each for each in (CHAT, RESPONSES, MESSAGES)}
MEMBERS = {"chat.complete": "messages", "messages.create": "messages", "responses.create": "input"}


def call(number: int) -> dict[str, Any]:
    return {"id": f"c{number}", "type": "function", "function": {"name": "look", "arguments": f'{{"n": {number}}}'}}


TEXTS = st.sampled_from(["hi", "", "Grüße, 世界 😀", 'a "quoted" \\ \ud83d\ude00', "x" * 40, "]}, {[", " "])
NUMBERS = st.integers(0, 9)
PLAIN = st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "assistant"]), "content": TEXTS})
PICTURE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}
CHAT_ITEMS = st.one_of(
    PLAIN,
    st.builds(lambda n: {"role": "assistant", "content": None, "tool_calls": [call(n)]}, NUMBERS),
    st.builds(lambda n, text: {"role": "tool", "tool_call_id": f"c{n}", "content": text}, NUMBERS, TEXTS),
    st.builds(lambda text: {"role": "user", "content": [{"type": "text", "text": text}]}, TEXTS),
    st.sampled_from([1, None, "text", [], {"role": 1}, PICTURE]),
)


def told(number: int, text: str, marked: bool) -> dict[str, Any]:
    mark = {"cache_control": {"type": "ephemeral"}} if marked else {}
    result = {"type": "tool_result", "tool_use_id": f"c{number}", "content": text}
    return {"role": "user", "content": [result, {"type": "text", "text": text, **mark}]}


def used(number: int) -> dict[str, Any]:
    use = {"type": "tool_use", "id": f"c{number}", "name": "look", "input": {"n": number}}
    return {"role": "assistant", "content": [use]}


MESSAGE_ITEMS = st.one_of(PLAIN, st.builds(told, NUMBERS, TEXTS, st.booleans()), st.builds(used, NUMBERS))
RESPONSE_ITEMS = st.one_of(
    PLAIN,
    st.builds(lambda n: {"type": "function_call", "call_id": f"c{n}", "name": "look", "arguments": "{}"}, NUMBERS),
    st.builds(lambda n, text: {"type": "function_call_output", "call_id": f"c{n}", "output": text}, NUMBERS, TEXTS),
    st.sampled_from(
        [{"type": "item_reference", "id": "i"}, {"type": "reasoning", "encrypted_content": "x"}, {"type": "odd"}, 1]
    ),
)
ITEMS = {"chat.complete": CHAT_ITEMS, "messages.create": MESSAGE_ITEMS, "responses.create": RESPONSE_ITEMS}


@st.composite
def talks(draw: st.DrawFn) -> tuple[str, list[bytes]]:
    """Requests of a conversation: it goes on, is changed near its end, forks, begins anew, and is spelled otherwise."""
    operation = draw(st.sampled_from(sorted(ITEMS)))
    items, raws = draw(st.lists(ITEMS[operation], min_size=1, max_size=6)), []
    for _ in range(draw(st.integers(2, 6))):
        dropped = draw(st.integers(0, min(3, len(items))))
        items = [*items[: len(items) - dropped], *draw(st.lists(ITEMS[operation], max_size=4))]
        body = {"user": draw(TEXTS), MEMBERS[operation]: items, "max_tokens": 20, "model": "gpt-4o-mini"}
        if draw(st.booleans()):
            body = dict(reversed(body.items()))
        text = json.dumps(body, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, None, None, 1])))
        raws.append(text.encode("utf-8", "surrogatepass"))
    return operation, raws


def outcome(read: Any) -> Any:
    """What came of it, or why not."""
    try:
        return read()
    except (BadRequest, BoundUnknown) as exc:
        return type(exc), getattr(exc, "reason", str(exc)), exc.__context__


def seen(operation: str, body: Any) -> Any:
    """All that is made of a conversation."""
    history = history_of(operation, body)
    turns = (history.roles, history.digests, history.answers, history.results, history.turns)
    ask = outcome(lambda: DIALECTS[operation].read(body).plan.call.prompt)
    return turns, chain("alice", history), chain(b"another", history), ask


@settings(max_examples=150, deadline=None)
@given(talk=talks(), others=st.booleans())
def test_what_grows_is_read_as_if_it_were_read_as_a_whole(talk: tuple[str, list[bytes]], others: bool) -> None:
    """Body, history, chain and prompt are those of a reading from scratch, whatever was read before and by whom."""
    operation, raws = talk
    growing = Growing(bytes_min=0)
    for raw in raws:
        if others:
            outcome(lambda raw=raw: growing.read(raw, operation=operation, owner=BOB, now_ms=0))
        whole = outcome(lambda raw=raw: read_json(raw))
        body = outcome(lambda raw=raw: growing.read(raw, operation=operation, owner=ALICE, now_ms=0))
        assert whole == body
        if isinstance(whole, dict):
            assert list(whole) == list(body)
            assert repr(whole) == repr(body)  # 1 is not 1.0
            assert seen(operation, whole) == seen(operation, body)


def chat(count: int, *, name: str = "x") -> dict[str, Any]:
    said = [{"role": "user", "content": f"{name} {number} " + "word " * 30} for number in range(count)]
    return {"model": "gpt-4o-mini", "messages": said, "max_tokens": 10}


def read(growing: Growing, body: Any, owner: tuple[str, ...] = ALICE, now_ms: int = 0) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return growing.read(raw, operation="chat.complete", owner=owner, now_ms=now_ms)


def test_the_beginning_is_taken_from_the_request_before() -> None:
    """The very same messages are there again, not equal ones; and one conversation is kept, not two."""
    growing = Growing()
    first, second = read(growing, chat(100)), read(growing, chat(101))
    assert all(one is other for one, other in zip(first["messages"], second["messages"], strict=False))
    assert len(growing) == 1


def test_what_changes_near_its_end_is_known_up_to_there() -> None:
    """Marks of a cache move along with a conversation: what is in front of them is taken from before."""
    growing, kept = Growing(), []
    for count in range(100, 106):
        body = chat(count)
        body["messages"][-2]["cache_control"] = {"type": "ephemeral"}
        kept.append(read(growing, body)["messages"])
    for before, after in pairwise(kept[2:]):
        assert all(one is other for one, other in zip(before[:-2], after, strict=False))
    assert len(growing) <= 2


def test_nobody_gets_what_was_read_for_somebody_else() -> None:
    """The same request of another user, or for another operation, is read anew."""
    growing, raw = Growing(), json.dumps(chat(100)).encode()
    mine, yours = read(growing, raw), read(growing, raw, BOB)
    other = growing.read(raw, operation="messages.create", owner=ALICE, now_ms=0)
    for one, another in ((mine, yours), (mine, other), (yours, other)):
        assert one == another
        assert not any(each is same for each, same in zip(one["messages"], another["messages"], strict=True))
        assert one.memo is not another.memo
    assert len(growing) == 3


def test_what_is_kept_is_bounded_in_bytes_and_time() -> None:
    """However many conversations there are, and none for longer than some minutes."""
    growing = Growing(bytes_max=700_000, kept_ms_max=1_000)
    for number in range(50):
        read(growing, chat(100, name=f"n{number}"), now_ms=number)
    assert 0 < growing.size <= 700_000
    assert 2 <= len(growing) < 10
    read(growing, chat(100, name="later"), now_ms=5_000)
    assert len(growing) == 1
    read(growing, chat(10_000), now_ms=5_000)  # larger than its share
    assert len(growing) == 1
    assert isinstance(read(growing, chat(100, name="again"), now_ms=9_000), Grown)
    assert len(growing) == 1


@pytest.mark.parametrize("case", ATTACKS)
def test_attack_behind_a_known_beginning_is_refused_for_the_same_reason(case: str) -> None:
    """In the newest message, or beside the conversation; and what was kept is as good as before."""
    attack, _ = ATTACKS[case]
    known = json.dumps(chat(60)).encode()
    begin, end = known[: known.index(b"]")], known[known.index(b"]") :]
    for raw in (attack, begin + b", " + attack + end, known[:-1] + b', "more": ' + attack + b"}", begin + attack + end):
        growing = Growing(bytes_min=0)
        read(growing, known)
        assert outcome(lambda raw=raw: read_json(raw)) == outcome(lambda raw=raw, g=growing: read(g, raw))
        assert read_json(known) == read(growing, known)


@pytest.mark.parametrize("given", ["word " * 5_000, None, {"a": [1]}, 7])
def test_what_is_no_list_is_read_as_well(given: Any) -> None:
    """A response may be asked for in one text; nothing of it is kept."""
    growing, raw = Growing(), json.dumps({"model": "m", "input": given, "more": "x" * 10_000}).encode()
    body = growing.read(raw, operation="responses.create", owner=ALICE, now_ms=0)
    assert (read_json(raw), dict, 0) == (body, type(body), len(growing))


def test_nothing_of_a_refused_request_hangs_on_its_error() -> None:
    """Neither as cause nor as context: it may be logged."""
    growing = Growing()
    read(growing, chat(100))
    with pytest.raises(BadRequest) as refused:
        read(growing, json.dumps(chat(101)).encode()[:-1] + b', "user": nope}')
    assert (None, None) == (refused.value.__cause__, refused.value.__context__)
