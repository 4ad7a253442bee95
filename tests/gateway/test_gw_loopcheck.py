"""The loop detector over resent conversations: what it finds is what one finds that hears all of it each time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import runrails_gateway.loopcheck as module
from rr_conversations import Message, answer, failing, history, mark, result, said
from runrails import Guard, Limits
from runrails.audit.messages import steps_of_messages
from runrails.audit.replay import replay
from runrails.calls import Finding
from runrails.errors import LimitReached, LoopDetected
from runrails.events import Event
from runrails.loops import LoopPolicy, ToolRule
from runrails.stores.memory import MemoryStore
from runrails_gateway import listening
from runrails_gateway.chain import chain, extend
from runrails_gateway.history import History, history_of, mark_of
from runrails_gateway.loopcheck import LoopCheck

MESSAGES, RESPONSES = "messages.create", "responses.create"


def ask(check: LoopCheck, messages: list[Message], owner: str = "alice") -> Finding | None:
    """One request of a conversation."""
    heard = history(messages)
    return check.check(chain(owner, heard), heard)


def requests(messages: list[Message]) -> Iterator[list[Message]]:
    """The requests that a conversation came in: each asks for the next answer."""
    for place, (one, following) in enumerate(pairwise([*messages, answer()])):
        if one["role"] != "assistant" and following["role"] == "assistant":
            yield messages[: place + 1]


# What a user sees.


def test_the_fifth_equal_failure_is_the_last() -> None:
    """Four may be a bad day; after the fifth no answer is asked for, however often the client comes again."""
    check = LoopCheck()
    found = [ask(check, messages) for messages in requests(failing(5))]
    assert [each is None for each in found] == [True] * 5 + [False]
    assert found[-1] is not None
    assert (found[-1].rule, found[-1].tool, found[-1].level, found[-1].count) == (
        "repeated_failure",
        "search",
        "stop",
        5,
    )
    assert ask(check, failing(5)) == found[-1]
    assert ask(LoopCheck(), failing(5)) == found[-1]


def test_progress_is_no_loop() -> None:
    """The same tool, with something new each time, may be asked for as long as it likes."""
    check = LoopCheck()
    messages = [said("Read on.")]
    for page in range(40):
        messages += [
            answer(None, (f"c{page}", "read", f'{{"page": {page}}}')),
            result(f"c{page}", f"Chapter {page} " * 9),
        ]
        assert ask(check, messages) is None


def test_a_person_who_speaks_lets_it_go_on_a_few_times() -> None:
    """After a stop, a person may say more; after a final answer, as often as they like."""
    check = LoopCheck()
    messages = failing(5)
    for word in ("Try again.", "And once more.", "Please."):
        assert ask(check, messages) is not None
        messages.append(said(word))
        assert ask(check, messages) is None
        messages += failing(5)[1:]
    assert ask(check, messages) is not None
    messages.append(said("Come on."))
    assert ask(check, messages) is not None
    messages += [answer("I give up."), said("Once more from the beginning.")]
    assert ask(check, messages) is None


@pytest.mark.parametrize("awake", [0, 64])
@pytest.mark.parametrize("varies", [False, True], ids=["the same text", "another text"])
def test_a_program_that_speaks_after_every_result_hides_no_loop(
    varies: bool, awake: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reminders and pictures after each result are no person's, whether or not others were heard in between."""
    monkeypatch.setattr(listening, "AWAKE_MAX", awake)
    check, messages, stops = LoopCheck(), [said("Find x.")], 0
    for number in range(12):
        one = failing(number + 1)[-2:]
        messages += [*one, said(f"Step {number}." if varies else "Remember the format.")]
        stops += ask(check, messages) is not None
    assert stops >= 3
    assert ask(LoopCheck(), messages) == ask(check, messages)


def test_what_a_guard_said_in_the_tools_place_is_no_result() -> None:
    """A client may have a guard of its own, which answered a blocked call."""
    messages = failing(8, text="[runrails] This call was not executed.")
    assert ask(LoopCheck(), messages) is None


def test_parallel_calls_are_one_attempt() -> None:
    """Ten equal calls of one answer are one attempt, in whatever order their results come."""
    check, messages = LoopCheck(), [said("Find x.")]
    for number in range(5):
        ids = [f"c{number}_{place}" for place in range(4)]
        assert ask(check, messages) is None
        messages += [answer(None, *[(each, "search", '{"q": "x"}') for each in ids])]
        messages += [result(each, "Error: down") for each in reversed(ids)]
    assert ask(check, messages) is not None


def test_anthropics_flag_is_a_failure() -> None:
    """Words that look like success do not hide what the client marked as an error."""
    blocks: list[Message] = [{"role": "user", "content": "hi"}]
    check = LoopCheck()
    found = []
    for number in range(5):
        blocks += [
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": f"t{number}", "name": "f", "input": {"q": 1}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": f"t{number}", "is_error": True, "content": "all is well"},
            ]},
        ]  # fmt: skip
        heard = history_of(MESSAGES, {"messages": blocks})
        found.append(check.check(chain("alice", heard), heard))
    assert [each is None for each in found] == [True] * 4 + [False]
    assert found[-1] is not None
    assert found[-1].rule == "repeated_failure"


def test_responses_that_name_the_answer_before_are_heard() -> None:
    """Only the results come; what they answer was remembered from the answers."""
    check, keys, found = LoopCheck(), chain("alice", history([said("hi")])), None
    heard = history_of(RESPONSES, {"input": "hi"})
    for number in range(6):
        found = check.check(keys, heard, named=number > 0)
        if found is not None:
            break
        call = {"type": "function_call", "call_id": f"c{number}", "name": "f", "arguments": "{}"}
        told = mark_of(RESPONSES, {"id": f"resp_{number}", "output": [call]})
        assert told is not None
        check.answered(keys, told)
        body = {"input": [{"type": "function_call_output", "call_id": f"c{number}", "output": "Error: down"}]}
        heard = history_of(RESPONSES, body)
        base = extend(keys[-1], told.digest)
        # A second client goes on from the same answer: neither takes the other's place.
        twice = [check.check(chain(base, heard), heard, named=True) for _ in range(2)]
        assert twice[0] == twice[1]
        keys = chain(base, heard)
    assert found is not None
    assert found.count == 5


@pytest.mark.parametrize("named_at", [(1, 3, 5), (2, 4), (3, 4, 5), (1, 2), (5,), ()])
def test_naming_and_sending_all_may_take_turns(named_at: tuple[int, ...]) -> None:
    """The fifth equal failure is the last one, whichever requests name the answer before and which bring all along."""
    check, items = LoopCheck(), [{"role": "user", "content": "hi"}]
    key, found, number = b"", None, 0
    for number in range(8):
        whole = history_of(RESPONSES, {"input": items})
        keys = chain("alice", whole)
        if number in named_at:
            heard = history_of(RESPONSES, {"input": items[-1:]})
            found = check.check(chain(key, heard), heard, named=True)
            assert chain(key, heard)[-1] == keys[-1]
        else:
            found = check.check(keys, whole, nameable=True)
        if found is not None:
            break
        call = {"type": "function_call", "call_id": f"c{number}", "name": "f", "arguments": '{"a": 1}'}
        told = mark_of(RESPONSES, {"id": f"resp_{number}", "output": [call]})
        assert told is not None
        check.answered(keys, told)
        key = extend(keys[-1], told.digest)
        items = [*items, call, {"type": "function_call_output", "call_id": f"c{number}", "output": "Error: down"}]
    assert found is not None
    assert (number, found.count) == (5, 5)


@pytest.mark.parametrize(("groups", "found_at"), [(("crm", "shop"), None), (("crm",), 5)])
def test_tools_of_one_name_in_two_groups_are_two(groups: tuple[str, ...], found_at: int | None) -> None:
    """As coding agents send them; of one of them the fifth equal failure is the last."""
    check, items = LoopCheck(), [{"role": "user", "content": "hi"}]
    found: Finding | None = None
    made = 0
    for made in range(8):
        heard = history_of(RESPONSES, {"input": items})
        found = check.check(chain("alice", heard), heard)
        if found is not None:
            break
        items += [
            {"type": "function_call", "call_id": f"c{made}", "name": "find", "namespace": groups[made % len(groups)],
             "arguments": "{}"},
            {"type": "function_call_output", "call_id": f"c{made}", "output": "Error: down"},
        ]  # fmt: skip
    assert (found_at, "crm.find") == (made, found.tool) if found is not None else found_at is None


def test_nothing_is_said_where_it_is_switched_off() -> None:
    """Limits(loops=None) is the owner's word."""
    assert ask(LoopCheck(None), failing(9)) is None


def test_the_owners_rules_count() -> None:
    """Numbers and tools as in a run's own detector."""
    assert ask(LoopCheck(LoopPolicy(hint_at=2, block_at=3)), failing(3)) is not None
    assert ask(LoopCheck(tools={"search": ToolRule(poll=True)}), failing(9, text="pending")) is None


def test_a_bug_in_the_detector_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It observes: what it cannot read goes on, and somebody is told."""
    told: list[str] = []

    def broken(value: object) -> object:
        raise ZeroDivisionError

    check = LoopCheck(failed=told.append)
    monkeypatch.setattr(listening, "replace", broken)
    batch = [said("x"), answer(None, ("a", "f", "{}"), ("b", "f", "{}")), result("a", "1")]
    assert ask(check, batch) is None
    assert told == ["TypeError"]


def test_nobody_hears_of_somebody_elses_conversation() -> None:
    """The names of two owners never meet, so neither do their detectors."""
    check = LoopCheck()
    assert ask(check, failing(4)) is None
    assert ask(check, failing(1), owner="bob") is None
    assert ask(check, failing(5)[:-2] + failing(6)[-2:], owner="alice") is not None


# The cache.


def test_only_new_turns_are_read() -> None:
    """However long the conversation, a request costs what is new in it."""
    read: list[int] = []

    class Counting(History):
        def turn(self, place: int) -> Any:
            read.append(place)
            return super().turn(place)

        def turns_from(self, place: int) -> Any:
            for at in range(place, len(self)):
                yield self.turn(at)

    check, messages = LoopCheck(), [said("Read on.")]
    for page in range(30):
        messages += [answer(None, (f"c{page}", "read", f'{{"page": {page}}}')), result(f"c{page}", f"Chapter {page}")]
        heard = history(messages)
        counted = Counting(heard.looked, heard._read)
        read.clear()
        assert check.check(chain("alice", counted), counted) is None
        assert len(read) == (3 if page == 0 else 2)


def test_the_memory_is_bounded() -> None:
    """However many conversations there are, only so many are kept, and only so many bytes of them."""
    check = LoopCheck(kept_max=50)
    for number in range(200):
        messages = failing(3)
        messages[0] = said(f"Find {number}.")
        assert ask(check, messages) is None
    kept = check._kept
    assert len(kept._awake) + len(kept._packed) <= 50
    assert kept._bytes == sum(packed.size for packed in kept._packed.values()) <= listening.BYTES_MAX


def test_forks_of_a_long_conversation_are_read_once() -> None:
    """Several answers to one request: the second is read from the beginning, the others from the fork."""
    check, base = LoopCheck(), [*failing(3), said("And now?")]
    base += [message for page in range(9) for message in (
        answer(None, (f"p{page}", "read", f'{{"page": {page}}}')), result(f"p{page}", f"Chapter {page}")
    )]  # fmt: skip
    assert not any(ask(check, request) for request in requests(base))
    sizes = []
    for number in range(4):
        fork = [*base, answer(f"Way {number}", (f"f{number}", "search", '{"q": "x"}')), result(f"f{number}", "Error")]
        heard = history(fork)
        keys = chain("alice", heard)
        sizes.append(max(place for place in range(len(keys)) if place == 0 or keys[place] in check._kept))
        assert check.check(keys, heard) == ask(LoopCheck(), fork)
    assert sizes == [len(base), 0, len(base), len(base)]


def test_of_a_history_that_nobody_knows_the_newest_part_is_read() -> None:
    """However long it is, a request is judged in bounded time; the loop at its end is found."""
    messages = [said("Go.")]
    for number in range(3_000):
        messages += [answer(None, (f"n{number}", "read", f'{{"n": {number}}}')), result(f"n{number}", f"Page {number}")]
    read: list[int] = []

    class Counting(History):
        def turns_from(self, place: int) -> Any:
            read.append(len(self) - place)
            return super().turns_from(place)

    for ending, stops in ((failing(4)[1:], False), (failing(5)[1:], True)):
        heard = history([*messages, *ending])
        counted = Counting(heard.looked, heard._read)
        assert (LoopCheck().check(chain("alice", counted), counted) is not None) == stops
    assert max(read) <= module.READ_TURNS_MAX
    huge = [said("Go.")]
    for number in range(200):
        huge += [
            answer(None, (f"n{number}", "read", f'{{"n": {number}}}')),
            result(f"n{number}", f"{number} " * 20_000),
        ]
    heard = history(huge)
    assert module._where_to_begin(heard, 0) > len(heard) - 60


def test_arguments_that_wait_for_results_take_no_room() -> None:
    """Calls that nobody answers keep their arguments in memory only while they are small."""
    check = LoopCheck()
    assert ask(check, [said("x"), answer(None, ("a", "f", "{}"))]) is None
    assert len(check._kept._awake) == 1
    assert ask(check, [said("x"), answer(None, ("a", "write", "y" * 100_000))]) is None
    assert len(check._kept._awake) == 1


CALL = st.tuples(st.sampled_from(["search", "read"]), st.sampled_from(['{"q": 1}', '{"q": 2}']))
OUTCOME = st.sampled_from(["Error: down", "no results", "ok 1", "ok 2", "", "[runrails] blocked"])
FAILS = st.tuples(st.just(("search", '{"q": 1}')), st.just("Error: down"))
STEP = st.one_of(
    st.tuples(st.just("calls"), st.lists(st.tuples(CALL, OUTCOME), min_size=1, max_size=3), st.booleans()),
    st.tuples(st.just("calls"), st.lists(FAILS, min_size=1, max_size=2), st.booleans()),
    st.tuples(st.just("fails"), st.integers(1, 4), st.booleans()),
    st.tuples(st.just("fails and reminds"), st.integers(1, 4), st.booleans()),
    st.tuples(st.just("final"), st.sampled_from(["done", "well"]), st.booleans()),
    st.tuples(st.just("said"), st.sampled_from(["go on", "again"]), st.booleans()),
)  # fmt: skip


def grow(messages: list[Message], steps: list[Any], *, interjected: bool = True) -> list[Message]:
    """A conversation, gone on with."""
    messages = list(messages)
    for kind, what, turned in steps:
        number = len(messages)
        if kind == "calls":
            asked = [(f"c{number}_{place}", *call) for place, (call, _) in enumerate(what)]
            told = [result(f"c{number}_{place}", text) for place, (_, text) in enumerate(what)]
            messages += [answer(None, *asked), *(reversed(told) if turned else told)]
        elif kind.startswith("fails"):
            for again in range(what):
                ids = [f"c{number}_{again}_{place}" for place in range(1 + turned)]
                messages.append(answer(None, *[(call_id, "search", '{"q": 1}') for call_id in ids]))
                messages += [result(call_id, "Error: down") for call_id in ids]
                if kind == "fails and reminds" and interjected:
                    messages.append(said(f"Step {again}."))
        elif kind == "final":
            messages += [answer(what), said("next")]
        elif interjected:
            messages.append(said(what))
    return messages


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.lists(STEP, min_size=1, max_size=5)), min_size=1, max_size=9),
    st.integers(1, 8),
)
def test_with_and_without_a_cache_it_finds_the_same(turns: list[Any], kept_max: int) -> None:
    """Conversations grow, fork and are forgotten; each request is judged as if heard from the start."""
    check = LoopCheck(kept_max=kept_max)
    conversations: list[list[Message]] = [[said("hi")]]
    before = listening.AWAKE_MAX, module.FORK_TURNS_MIN
    listening.AWAKE_MAX, module.FORK_TURNS_MIN = 2, 3
    try:
        for which, steps in turns:
            messages = grow(conversations[which % len(conversations)], steps)
            for _ in range(2):
                assert ask(check, messages) == ask(LoopCheck(kept_max=1), messages)
            conversations.append(messages)
    finally:
        listening.AWAKE_MAX, module.FORK_TURNS_MIN = before


@settings(max_examples=80, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=12))
def test_it_stops_where_an_audit_of_the_recording_says(steps: list[Any]) -> None:
    """`runrails audit` of the same messages names a result; the request that brings that one is refused."""
    messages = grow([said("hi")], steps, interjected=False)
    heard = [
        message for message in messages
        if not (message["role"] == "tool" and message["content"].startswith("[runrails]"))
    ]  # fmt: skip
    audited = replay(list(steps_of_messages({"messages": heard})), policy=LoopPolicy(), tools={})
    check, stopped = LoopCheck(), None
    for request in requests(messages):
        if ask(check, request) is not None:
            stopped = sum(message in heard for message in request if message["role"] == "tool")
            break
    if audited.stop_at is None:
        assert stopped is None
    else:
        assert stopped is not None
        assert audited.stop_at <= stopped <= audited.stop_at + 2  # the rest of the same answer's results


# In a run.


def world(**options: Any) -> tuple[Guard, list[Event]]:
    events: list[Event] = []
    return Guard(user="alice", store=MemoryStore(), sinks=[events.append], **options), events


def test_a_finding_ends_the_run() -> None:
    """What was found outside of the run is its stop, for every further request."""
    guard, events = world()
    found = ask(LoopCheck(), failing(5))
    assert found is not None
    run = guard.run("nightly")
    with pytest.raises(LoopDetected) as caught:
        run.found(found)
    assert (caught.value.fields["count"], caught.value.fields["tool"]) == (5, "search")
    assert run.stop_reason == "loop_detected"
    with pytest.raises(LoopDetected):
        run.check()
    with pytest.raises(LoopDetected):
        run.found(found)
    assert [event.name for event in events].count("runrails.run_stopped") == 1
    assert run.report().findings == (found,)
    guard.close()


def test_a_finding_is_only_told_where_the_guard_observes() -> None:
    """Nothing is stopped, and the report says what would have been."""
    guard, events = world(mode="observe")
    found = ask(LoopCheck(), failing(5))
    assert found is not None
    run = guard.run()
    run.found(found)
    run.found(found)
    assert run.stopped is None
    assert run.report().would_have_stopped is not None
    assert [event.name for event in events].count("runrails.loop_stopped") == 1
    guard.close()


def test_steps_of_another_process_count() -> None:
    """A run that goes on here has the steps behind it that it took elsewhere, and never fewer than here."""
    guard, _ = world(limits=Limits(steps=10))
    run = guard.run()
    run.took_over(steps=9)
    run.step()
    run.took_over(steps=3)
    assert run.report().steps == 10
    with pytest.raises(LimitReached):
        run.step()
    guard.close()


def test_marks_hold_what_a_result_answers() -> None:
    """The mark of an answer has its calls as the history has them."""
    one = answer("x", ("a", "f", json.dumps({"q": 1})))
    assert mark(one).calls == history([one]).turn(0).calls
