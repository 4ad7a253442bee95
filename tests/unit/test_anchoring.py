"""A call that continues a conversation is bounded by what was counted before and what is new."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from runrails.anchoring import (
    ANCHORS_A_CALLER,
    CALLERS_MAX,
    Anchor,
    Anchors,
    Margins,
    anchor_of,
    extends,
    input_bound,
    new_tokens_bound,
)
from runrails.calls import ModelCall, Prompt
from runrails.errors import BoundUnknown
from runrails.pricing import Price, PriceBook

NOW_MS = 1_795_262_400_000  # 2026-11-21 12:00 UTC
CARD = PriceBook(overrides={"m": Price(input="1", output="1", context_tokens_max=100_000)}).card("m", now_ms=NOW_MS)

FIRST = Prompt(texts=("system", "question"), messages=2, tools=('{"name":"f"}',))
NEXT = Prompt(texts=("system", "question", "answer", "result"), messages=4, tools=('{"name":"f"}',))


def known(prompt: Prompt = FIRST, tokens: int = 50, *, output_tokens: int = 0, answer: tuple[str, ...] = ()) -> Anchor:
    """What is remembered of a call."""
    anchor = anchor_of(prompt, tokens, output_tokens=output_tokens, answer=answer)
    assert anchor is not None
    return anchor


def call(prompt: Prompt, *, model: str = "m", agent: str = "") -> ModelCall:
    """A call of the model."""
    return ModelCall(model=model, prompt=prompt, agent=agent)


def test_only_what_is_new_is_bounded() -> None:
    """Reported tokens, two messages and their bytes, and what a provider may add."""
    assert 50 + 16 + 2 * 16 + 6 + 6 == input_bound(call(NEXT), CARD, known())


def test_the_same_prompt_again_costs_what_it_did() -> None:
    """And what a provider may add."""
    assert 50 + 16 == input_bound(call(FIRST), CARD, known())


def test_the_context_caps_an_anchored_bound_too() -> None:
    """More than the model takes is refused there."""
    assert 100_000 == input_bound(call(NEXT), CARD, known(tokens=99_999))


@pytest.mark.parametrize(
    "prompt",
    [
        replace(NEXT, texts=("System", *NEXT.texts[1:])),  # an edited history
        replace(NEXT, texts=("systemquestion", "", *NEXT.texts[2:])),  # as many characters, parted otherwise
        replace(NEXT, texts=NEXT.texts[1:]),  # compacted
        replace(NEXT, texts=("system",)),
        replace(NEXT, texts=()),
        replace(NEXT, tools=()),  # without the tools, or with others
        replace(NEXT, tools=('{"name":"g"}',)),
        replace(NEXT, mode="forced"),
        replace(NEXT, messages=1),
        replace(NEXT, unbounded="audio"),
        replace(NEXT, stored="an earlier item"),
    ],
)
def test_whatever_does_not_go_on_is_bounded_as_a_whole(prompt: Prompt) -> None:
    """A hash of the beginning must be equal, and everything that decides the hidden prompt."""
    assert not extends(prompt, known())


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        (replace(FIRST, unbounded="audio"), 50), (replace(FIRST, stored="x"), 50), (FIRST, 0),
        (replace(FIRST, texts=("x" * 10_000,)), 3),  # cached tokens that a proxy forgot to add
    ],
)  # fmt: skip
def test_nothing_is_built_on_what_cannot_be_the_whole_truth(prompt: Prompt, tokens: int) -> None:
    """Content of unknown size, nothing reported, or far too little for so many characters."""
    assert None is anchor_of(prompt, tokens)


def test_pictures_are_known_again_or_not_trusted() -> None:
    """One that was exchanged for another may be larger; one that nobody can tell is taken as exchanged."""
    seen = replace(FIRST, images=1, pictures=(7,))
    more = replace(NEXT, images=2, pictures=(7, 8))
    assert extends(more, known(seen))
    assert 50 + 16 + 32 + 12 + 48_169 == input_bound(call(more), CARD, known(seen))
    assert not extends(replace(more, pictures=(8, 7)), known(seen))
    assert not extends(replace(more, pictures=(7,)), known(seen))
    assert not extends(replace(more, pictures=()), known(replace(seen, pictures=())))
    assert extends(replace(more, images=1, pictures=(9,)), known())


def test_an_answer_that_comes_back_is_what_was_reported_of_it() -> None:
    """If it is the very answer: its texts are compared by their hash."""
    said = "ល្អ" * 500
    prompt = replace(NEXT, texts=("system", "question", said, "404404"))
    plain = new_tokens_bound(prompt, known())
    assert 4_500 + 6 + 48 == plain
    assert 600 + 16 + 6 + 48 == new_tokens_bound(prompt, known(output_tokens=600, answer=(said,)))
    assert plain == new_tokens_bound(prompt, known(output_tokens=600, answer=("ល្អ",)))
    assert plain == new_tokens_bound(prompt, known(output_tokens=9_000, answer=(said,)))


def test_a_run_remembers_the_newest_calls_of_each_caller() -> None:
    """Two conversations side by side do not disturb each other; old ones are forgotten."""
    anchors = Anchors()
    assert None is anchors.find(call(NEXT), CARD)
    anchors.keep(call(FIRST), CARD, known())
    other = replace(FIRST, texts=("other", "question"))
    anchors.keep(call(other), CARD, known(other, 60))
    longer = replace(FIRST, texts=NEXT.texts[:3], messages=3)
    anchors.keep(call(longer), CARD, known(longer, 70))
    found = [anchors.find(call(prompt), CARD) for prompt in (NEXT, other, FIRST)]
    assert [70, 60, 50] == [None if one is None else one.input_tokens for one in found]
    assert None is anchors.find(call(NEXT, agent="researcher"), CARD)
    assert None is anchors.find(call(NEXT, model="another"), CARD)
    for number in range(ANCHORS_A_CALLER):
        fresh = replace(FIRST, texts=(str(number), "question"))
        anchors.keep(call(fresh), CARD, known(fresh))
    assert None is anchors.find(call(NEXT), CARD)


def test_memory_is_bounded() -> None:
    """A run with ever new agents forgets the oldest."""
    anchors = Anchors()
    for number in range(CALLERS_MAX + 10):
        anchors.keep(call(FIRST, agent=str(number)), CARD, known())
    found = [anchors.find(call(NEXT, agent=str(number)), CARD) is not None for number in range(CALLERS_MAX + 10)]
    assert [False] * 10 + [True] * CALLERS_MAX == found


def test_an_underestimated_model_is_forgotten_whoever_called_it() -> None:
    """Other models' calls stay."""
    anchors = Anchors()
    for agent, model in (("", "m"), ("a", "m"), ("", "n")):
        anchors.keep(call(FIRST, agent=agent, model=model), CARD, known())
    anchors.drop(call(FIRST), CARD)
    assert [False, False, True] == [
        anchors.find(call(NEXT, agent=agent, model=model), CARD) is not None
        for agent, model in (("", "m"), ("a", "m"), ("", "n"))
    ]


def test_a_margin_grows_to_what_was_lacking_and_never_shrinks() -> None:
    """A tenth above what would have been enough; calls that found the same bound lacking do not add up."""
    margins = Margins()
    assert 10_000 == margins.of("p", "m")
    assert 13_200 == margins.widen("p", "m", predicted=100, actual=120)
    assert 13_200 == margins.widen("p", "m", predicted=100, actual=101)
    assert 13_200 == margins.of("p", "m")
    assert 17_424 == margins.widen("p", "m", predicted=100, actual=120, had_bp=13_200)
    assert [10_000, 10_000] == [margins.of("p", "n"), margins.of("q", "m")]


def test_a_margin_has_an_end() -> None:
    """A report of nonsense does not stop a model for ever."""
    assert 1_000_000 == Margins().widen("p", "m", predicted=1, actual=10**12)


def test_margins_of_many_threads() -> None:
    """The widest stays."""
    margins = Margins()
    threads = [
        threading.Thread(target=lambda n=number: margins.widen("p", "m", predicted=1_000, actual=1_000 + n))
        for number in range(1, 33)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 11_352 == margins.of("p", "m")


def test_a_margin_applies_to_the_whole_bound_and_above_the_context() -> None:
    """A model that took more than its card says may do it again."""
    assert 120 == input_bound(call(NEXT), CARD, known(tokens=40), 12_000)
    assert 120_000 == input_bound(call(NEXT), CARD, known(tokens=99_999), 12_000)


def test_what_cannot_be_bounded_still_refuses() -> None:
    """With an anchor or without."""
    with pytest.raises(BoundUnknown):
        input_bound(call(replace(NEXT, unbounded="audio")), CARD, None)
