"""What of a long conversation is sent, in every wire form; providers' rules hold for whatever conversation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from rr_history import problems
from runrails.savers.pruning import Item, Pruned, Pruning, marker, prune
from runrails.savers.wire import Shorter, shorter

TALK = [Item("system"), *[Item("user"), Item("other")] * 30]
FIVE = Pruning(after_messages=10, keep_last=5)


def test_a_short_conversation_is_sent_whole() -> None:
    """Exactly as many messages as allowed are not too many."""
    assert prune(TALK[:10], FIVE) is None
    assert prune(TALK[:11], FIVE) is not None


def test_instructions_task_and_newest_messages_are_sent() -> None:
    """The first user message is the task."""
    assert Pruned(head=(0, 1), tail=7, left_out=5) == prune(TALK[:11], FIVE)


def test_the_gap_stays_for_several_messages() -> None:
    """So requests begin alike, and the provider's prompt cache goes on working; never more is sent than allowed."""
    tails = [pruned.tail for n in range(11, 30) if (pruned := prune(TALK[:n], FIVE))]
    sent = [len(pruned.head) + 1 + n - pruned.tail for n in range(11, 61) if (pruned := prune(TALK[:n], FIVE))]

    assert [7] * 4 + [12] * 5 + [17] * 5 + [22] * 5 == tails
    assert (6, 10) == (min(sent), max(sent))


def test_a_call_and_its_results_are_not_parted() -> None:
    """Where the cut would fall between parallel results, it moves before their call."""
    batch = [Item("other", asks=("a", "b", "c")), *[Item("other", gives=(each,)) for each in "abc"]]
    items = [Item("user"), *[Item("other")] * 3, *batch, *[Item("other")] * 3]

    assert Pruned(head=(0,), tail=4, left_out=3) == prune(items, FIVE)


def test_ids_that_begin_anew_are_the_newest_calls() -> None:
    """Some servers call every call `call_0`; a result then belongs to the last one."""
    step = [Item("other", asks=("call_0",)), Item("other", gives=("call_0",))]

    pruned = prune([Item("user"), *step * 8], FIVE)

    assert pruned is not None
    assert pruned.left_out == 10


def test_reasoning_stays_with_what_it_led_to() -> None:
    """It and its call are one; without its call a provider refuses it."""
    step = [Item("other", tied=True), Item("other", asks=("a",)), Item("other", gives=("a",))]
    items = [Item("user"), *step * 6]

    tails = {pruned.tail for n in range(10, len(items)) if (pruned := prune(items[: n + 1], FIVE))}

    assert {0} == {(tail - 1) % 3 for tail in tails}


def test_one_turn_that_is_too_long_is_sent_whole() -> None:
    """Nothing can be left out of a single answer with all of its results."""
    calls = tuple(str(n) for n in range(30))

    assert prune([Item("user"), Item("other", asks=calls), *[Item("other", gives=(n,)) for n in calls]], FIVE) is None


def test_a_conversation_of_instructions_alone_is_sent_whole() -> None:
    """There is nothing else."""
    assert prune([Item("system")] * 20, FIVE) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"after_messages": 5, "keep_last": 5}, {"keep_last": 0}, {"after_messages": 2.5}, {"keep_last": True},
        {"alert_at": 0.8}, {"alert_at": "2"}, {"alert_at": ""},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    """The message names the setting."""
    with pytest.raises((TypeError, ValueError), match=f"Pruning\\(.*{next(iter(reversed(wrong)))}"):
        Pruning(**wrong)


# Whatever the conversation.

_turns = st.lists(
    st.one_of(st.just("user"), st.just("answer"), st.integers(1, 4).map(lambda n: ("tools", n))), max_size=40
)


def _conversation(turns: list[Any], *, system: bool, counted: bool) -> list[BaseMessage]:
    said: list[BaseMessage] = [SystemMessage("be brief")] if system else []
    said.append(HumanMessage("the task"))
    number = 0
    for turn in turns:
        if turn == "user":
            said.append(HumanMessage("and then?"))
        elif turn == "answer":
            said.append(AIMessage("well"))
        else:
            ids = [f"call_{number + n if counted else n}" for n in range(turn[1])]
            number += turn[1]
            said.append(AIMessage("", tool_calls=[{"name": "t", "args": {}, "id": each} for each in ids]))
            said.extend(ToolMessage("result", tool_call_id=each) for each in ids)
    return said


def _items(said: list[BaseMessage]) -> list[Item]:
    from runrails_langchain.shortening import items_of

    return items_of(said)


@settings(max_examples=200, deadline=None)
@given(_turns, st.booleans(), st.booleans(), st.integers(2, 12), st.integers(1, 11))
def test_whatever_is_sent_is_a_conversation_that_providers_accept(
    turns: list[Any], system: bool, counted: bool, after: int, keep: int
) -> None:
    """The rules of OpenAI and Anthropic hold for what is left wherever they held before; the newest message stays."""
    said = _conversation(turns, system=system, counted=counted)
    before = problems(said)
    pruned = prune(_items(said), Pruning(after_messages=after, keep_last=min(keep, after - 1)))
    if pruned is None:
        return
    sent = [*(said[at] for at in pruned.head), HumanMessage(marker(pruned.left_out)), *said[pruned.tail :]]

    assert before == [] == problems(sent)
    assert len(said) == len(sent) - 1 + pruned.left_out
    assert said[-1] is sent[-1]
    assert HumanMessage("the task") in sent
    assert system == (sent[0] == SystemMessage("be brief"))


@settings(max_examples=100, deadline=None)
@given(_turns, st.integers(2, 12), st.integers(1, 11))
def test_a_growing_conversation_is_cut_at_the_same_place_or_later(turns: list[Any], after: int, keep: int) -> None:
    """What was left out once does not come back."""
    said = _conversation(turns, system=True, counted=True)
    pruning = Pruning(after_messages=after, keep_last=min(keep, after - 1))
    items = _items(said)
    tails = [pruned.tail for n in range(len(items) + 1) if (pruned := prune(items[:n], pruning))]

    assert sorted(tails) == tails


# As it goes over the wire.


def _chat(turns: int) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "task"}]
    for n in range(turns):
        said.append({"role": "assistant", "tool_calls": [{"id": f"a{n}", "type": "function"}, {"id": f"b{n}"}]})
        said.extend({"role": "tool", "tool_call_id": f"{side}{n}", "content": "r"} for side in "ab")
    return said


def test_a_chat_is_cut_between_turns() -> None:
    """Calls and results, parallel ones too."""
    said = _chat(4)

    cut = shorter("/chat/completions", {"messages": said}, FIVE)

    note = {"role": "user", "content": marker(3)}
    assert Shorter("messages", [*said[:2], note, *said[5:]], 3) == cut
    assert 14 == len(said)


def test_a_chat_of_the_older_form_is_cut_between_turns() -> None:
    """Where a function's name does for an id."""
    step: list[dict[str, Any]] = [
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "r"},
    ]
    said: list[dict[str, Any]] = [{"role": "user", "content": "task"}, *step * 6]

    cut = shorter("/chat/completions", {"messages": said}, FIVE)

    assert cut is not None
    assert "assistant" == dict[str, Any](cut.messages[2])["role"]  # type: ignore[call-overload]


def test_anthropics_results_stay_in_the_turn_after_their_calls() -> None:
    """A result comes in a message of the user, which is no task."""
    said: list[dict[str, Any]] = [{"role": "user", "content": "task"}]
    for n in range(8):
        said.append({"role": "assistant", "content": [{"type": "thinking"}, {"type": "tool_use", "id": f"t{n}"}]})
        said.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": f"t{n}", "content": "r"}]})

    cut = shorter("/v1/messages", {"messages": said}, FIVE)

    assert cut is not None
    assert [said[0], {"role": "user", "content": marker(10)}, *said[11:]] == cut.messages


def _responses(turns: int) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = [{"role": "system", "content": "x"}, {"type": "message", "role": "user"}]
    for n in range(turns):
        said.extend(
            [
                {"type": "reasoning", "id": f"rs{n}"}, {"type": "function_call", "call_id": f"c{n}"},
                {"type": "function_call", "call_id": f"d{n}"}, {"type": "function_call_output", "call_id": f"c{n}"},
                {"type": "function_call_output", "call_id": f"d{n}"},
            ]
        )  # fmt: skip
    return said


def test_responses_are_cut_before_the_reasoning_of_a_call() -> None:
    """Reasoning, calls and outputs are items of their own there."""
    said = _responses(3)

    cut = shorter("/responses", {"input": said}, Pruning(after_messages=10, keep_last=4))

    assert cut is not None
    assert "input" == cut.key
    assert [*said[:2], {"role": "user", "content": marker(10)}, *said[12:]] == cut.messages


def test_nothing_of_an_answer_stays_without_its_reasoning() -> None:
    """Where a message stands between reasoning and calls too: providers refuse a call whose reasoning is missing."""
    said: list[dict[str, Any]] = [{"role": "user", "content": "task"}]
    for n in range(12):
        said += [
            {"type": "reasoning", "id": f"rs_{n}"}, {"type": "message", "role": "assistant", "id": f"msg_{n}"},
            {"type": "function_call", "id": f"fc_{n}", "call_id": f"c{n}"},
            {"type": "function_call", "id": f"fd_{n}", "call_id": f"d{n}"},
            {"type": "function_call_output", "call_id": f"c{n}"}, {"type": "function_call_output", "call_id": f"d{n}"},
        ]  # fmt: skip
    for total in range(8, len(said)):
        for keep in (1, 3, 6):
            cut = shorter("/responses", {"input": said[:total]}, Pruning(after_messages=7, keep_last=keep))
            if cut is None:
                continue
            left: Any = cut.messages
            whole = {one["id"].partition("_")[2] for one in left if one.get("type") == "reasoning"}
            parts = {one["id"].partition("_")[2] for one in left if "id" in one}
            assert whole == parts


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("/responses", {"input": "x" * 100}),
        ("/responses", {"input": _responses(3), "previous_response_id": "resp_1"}),
        ("/responses", {"input": _responses(3), "conversation": "conv_1"}),
        ("/responses", {"input": [*_responses(3), {"type": "item_reference", "id": "x"}]}),
        ("/responses", {"input": [*_responses(3), {"type": "something_new"}]}),
        ("/chat/completions", {"messages": [*_chat(4), "text"]}),
        ("/chat/completions", {"messages": [*_chat(4), {"role": "narrator"}]}),
        ("/embeddings", {"input": ["x"] * 100}),
        ("/chat/completions", {"messages": tuple(_chat(4))}),
        ("/chat/completions", {}),
    ],
)
def test_what_is_not_understood_is_sent_whole(endpoint: str, body: Mapping[str, object]) -> None:
    """What a provider keeps itself, what is new, and what is no conversation."""
    assert shorter(endpoint, body, FIVE) is None
