"""The edges of redaction: how much of an event is looked at, how deep, and what is none of its business."""

from __future__ import annotations

import logging
import sys

import pytest

from runrails import redaction
from runrails.redaction import RedactingFilter, redact, redact_processor, redact_text

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


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("token=1234567", False), ("token=12345678", True), ("password=1234567", True), ("credentials: 12", False),
        ("api_key=1234567", True), ("token=12345a", True), ("password=None here", False), ("Password: hunter22", True),
    ],
)  # fmt: skip
def test_a_count_is_short_and_of_what_is_counted(text: str, hidden: bool) -> None:
    """Seven digits at most, and no password is a number of passwords."""
    assert hidden is (MASK in redact_text(text))
    assert hidden or text == redact_text(text)


@pytest.mark.parametrize(
    ("pair", "hidden"),
    [
        (["password", "12345678"], True), (["password", "1234567"], False), (["password", b"12345678"], True),
        (["password", "12345678", "x"], False), (["password", ["12345678"]], False), (["colour", "12345678"], False),
        ((b"authorization", b"12345678"), True), (["password", 12345678], False), (["password", ["x"] * 8], False),
    ],
    ids=range(9),
)  # fmt: skip
def test_a_pair_is_a_name_and_eight_characters(pair: list[object], hidden: bool) -> None:
    """As HTTP libraries keep headers; what is shorter, longer or no text is a list of its own."""
    told = list(redact(pair))  # type: ignore[call-overload]
    assert hidden is (told[1] == MASK)
    assert hidden or list(pair) == told


def record_of(**fields: object) -> logging.LogRecord:
    """What a program logs."""
    made = logging.LogRecord("app.token=abcdefgh", logging.INFO, "x.py", 1, "hello %s", ("token=abcdefgh",), None)
    vars(made).update(fields)
    return made


def test_a_record_is_masked_and_else_as_it_was() -> None:
    """Message and added fields; what every record has stays, and nothing is made up."""
    record = record_of(order="token=abcdefgh", number=7)
    before = {**vars(record)}
    assert RedactingFilter().filter(record)
    assert f"hello token={MASK}" == record.getMessage()
    changed = {name for name, value in vars(record).items() if before[name] != value}
    assert {"msg", "args", "order"} == changed
    assert f"token={MASK}" == vars(record)["order"]


def test_an_error_in_a_record_is_masked_text() -> None:
    """Whether it is still to be shown or was shown before, and the stack as well."""
    try:
        raise ValueError("password=hunter2hunter2")
    except ValueError:
        fresh = record_of(exc_info=sys.exc_info())
    shown = record_of(exc_text="password=hunter2hunter2", stack_info="Stack: password=hunter2hunter2")
    for record in (fresh, shown):
        RedactingFilter().filter(record)
        assert record.exc_info is None
        assert f"password={MASK}" in str(record.exc_text)
    assert "ValueError" in str(fresh.exc_text)
    assert f"Stack: password={MASK}" == shown.stack_info
