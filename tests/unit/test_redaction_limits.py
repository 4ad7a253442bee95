"""The edges of redaction: how much of an event is looked at, how deep, and what is none of its business."""

from __future__ import annotations

import sys

import pytest

from runrails import redaction
from runrails.redaction import redact, redact_processor, redact_text

LEFT_OUT = "[left out]"
MASK = redact_text("password=hunter2hunter2").partition("=")[2]


class Shown:
    """A value that shows itself."""

    def __repr__(self) -> str:
        return "shown"


def test_the_shortest_pair_is_hidden() -> None:
    """Eight characters can be one; fewer are not looked at."""
    assert f"token={MASK}" == redact_text("token=ab")
    assert "token=a" == redact_text("token=a")


def test_a_text_is_looked_at_to_its_limit() -> None:
    """65,536 characters are told; of one more, what is behind the limit is left out."""
    text = "word " * 13_107 + "w"
    assert 65_536 == len(text)
    assert text == redact_text(text)
    assert redact_text(text + "w").endswith(LEFT_OUT)


@pytest.mark.parametrize("kind", [list, dict])
def test_an_event_has_two_thousand_values(kind: type) -> None:
    """Itself is one of them; whatever comes after is left out."""
    fits, over = (kind.fromkeys(range(n)) if kind is dict else [None] * n for n in (1_999, 2_000))
    assert fits == redact(fits)
    told = redact(over)
    assert 2_000 == len(told)  # type: ignore[arg-type]
    assert LEFT_OUT in (told if kind is list else list(told))  # type: ignore[call-overload,operator]


def test_what_shows_itself_counts_twice() -> None:
    """As a member and as a value; the last one that fits is shown, and the next one is not asked."""
    assert ["shown"] * 999 == redact([None, *[Shown()] * 999])[1:]  # type: ignore[index]
    assert ["shown", LEFT_OUT, LEFT_OUT] == redact([Shown()] * 1_001)[998:]  # type: ignore[index]


def test_a_value_is_looked_at_eight_deep() -> None:
    """What lies deeper is left out, however little it is."""
    fits: object = "deep"
    for _ in range(8):
        fits = [fits]
    assert fits == redact(fits)
    told = redact([fits])
    for _ in range(8):
        told = told[0]  # type: ignore[index]
    assert LEFT_OUT == told


def test_bytes_that_change_are_bytes() -> None:
    """A buffer is looked at like the bytes in it, not like what Python shows of it."""
    assert b"harmless bytes" == redact(bytearray(b"harmless bytes"))
    assert MASK.encode() not in redact(bytearray(b"harmless bytes"))  # type: ignore[operator]
    assert b"hunter2" not in redact(bytearray(b"password=hunter2hunter2"))  # type: ignore[operator]


@pytest.mark.parametrize("value", [None, True, False, ""])
def test_that_there_is_no_secret_may_be_told(value: object) -> None:
    """Under a secret's name there is none."""
    assert {"password": value} == redact({"password": value})


def test_names_that_are_no_text_hide_nothing() -> None:
    """And they harm nothing."""
    assert {7: "hello", None: "x", (1, 2): "y"} == {7: "hello", None: "x", (1, 2): "y"}
    assert {7: "hello", None: "x"} == redact({7: "hello", None: "x"})
    assert ["name", "hello to you"] == redact(["name", "hello to you"])
    assert [7, "hello to you"] == redact([7, "hello to you"])


def test_no_more_names_are_remembered_than_there_is_room_for() -> None:
    """Callers choose names; they do not choose how much memory these take."""
    redact({f"limit-{number}": number for number in range(1_500)})
    assert redaction._NAMES_MAX == len(redaction._names)


def test_an_exception_is_told_only_if_somebody_asked() -> None:
    """An event in the middle of an `except` is not about it by itself."""
    try:
        raise ValueError("on the way")
    except ValueError:
        plain = redact_processor(None, "info", {"event": "x"})
        asked = redact_processor(None, "info", {"event": "x", "exc_info": True})
        odd = redact_processor(None, "info", {"event": "x", "exc_info": (1, 2)})
        whole = redact_processor(None, "info", {"event": "x", "exc_info": sys.exc_info()})
        empty = redact_processor(None, "info", {"event": "x", "exc_info": (None, None, None)})
    assert ["exception" in each for each in (plain, asked, odd, whole, empty)] == [False, True, True, True, False]
