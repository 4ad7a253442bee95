"""What a stopped run knows, as one short text that fits the room there is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runrails.bounds import text_tokens_bound
from runrails.digest import OVERHEAD_TOKENS, Said, digest

TALK = [
    Said("system", "You are a clerk."),
    Said("user", "Classify the three reviews."),
    Said("assistant", "I begin with the first."),
    Said("tool", "good", "classify"),
    Said("assistant", ""),
    Said("tool", "no result", "classify"),
    Said("tool", "no result", "classify"),
]


def test_it_tells_the_task_the_reason_and_the_results_oldest_first() -> None:
    """What was said several times is said once, with its number, where it was said last."""
    text = digest(TALK, "It has used $2.00 of $2.00.", 4_000)
    assert text is not None
    order = ["It has used $2.00", "You are a clerk.", "Classify the three", "I begin", "answered: good", "no result (2"]
    places = [text.index(part) for part in order]
    assert sorted(places) == places
    assert 1 == text.count("no result")


def test_with_little_room_the_newest_is_kept() -> None:
    """And the task, though each is cut."""
    talk = [*TALK[:2], *(Said("tool", f"result {n} {'x' * 100}", "look") for n in range(50))]
    text = digest(talk, "Why.", 1_500)
    assert text is not None
    assert "result 49" in text
    assert "result 1 " not in text
    assert "Classify" in text


@pytest.mark.parametrize("room", [0, 1, 100, 300])
def test_without_room_there_is_none(room: int) -> None:
    """A prompt without a task or a result would be paid for nothing."""
    assert digest(TALK, "Why.", room) is None


def test_where_nothing_was_seen_only_the_reason_is_told() -> None:
    """Who answers knows the conversation."""
    text = digest([], "It has used $2.00 of $2.00.", 1_000)
    assert text is not None
    assert "It has used $2.00" in text
    assert "Task" not in text


@given(
    st.lists(
        st.builds(
            Said, st.sampled_from(["system", "user", "assistant", "tool"]), st.text(max_size=300), st.text(max_size=9)
        ),
        max_size=20,
    ),
    st.integers(0, 3_000),
)  # fmt: skip
def test_it_never_passes_its_room(said: list[Said], room: int) -> None:
    """In any script, with any characters, as the bound of the call will count it."""
    text = digest(said, "It has used $2.00 of $2.00.", room)
    assert text is None or text_tokens_bound([text]) + OVERHEAD_TOKENS <= room
