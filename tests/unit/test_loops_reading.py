"""Canonical arguments, masked texts and status classes: what of a call and its outcome is compared."""

from __future__ import annotations

import random

import pytest

from rr_loop_corpus import volatile_shapes
from runrails.calls import ToolCall, ToolOutcome
from runrails.loops.canonical import canonical
from runrails.loops.fingerprint import print_call
from runrails.loops.masks import mask
from runrails.loops.outcome import Status, read_outcome
from runrails.loops.policy import ToolRule
from runrails.loops.units import line_units, words


def key_of(args: object, tool: str = "classify") -> int:
    return print_call(ToolCall(name=tool, args=args)).key


def status_of(result: object, *, ok: bool = True) -> Status:
    return read_outcome(ToolOutcome(ok=ok, result=result)).status


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": 1}, '{"a": 1}'),
        ({"a": 1}, b'{"a": 1.0}'),
        ({"a": "late  delivery\n"}, {"a": "Late delivery"}),
        ({"a": "caf\u00e9"}, {"a": "cafe\u0301"}),
        ({"a": "\uff43afe"}, {"a": "cafe"}),
        ({"a": "la\u200bte"}, {"a": "late"}),
        ({"a": 1, "b": None}, {"a": 1}),
        ({"a": [1, {"x": 2.0}]}, {"a": (1, {"x": 2})}),
        ({"a": 1, "attempt": 1}, {"a": 1, "attempt": 2}),
        ({"a": 1, "idempotencyKey": "x"}, {"a": 1, "idempotency-key": "y"}),
        ({"a": 1, "reasoning": "first"}, {"a": 1, "reasoning": "again"}),
        ({"a": {1, 2, 3}}, {"a": {3, 2, 1}}),
    ],
)  # fmt: skip
def test_spelling_does_not_change_the_call(one: object, other: object) -> None:
    """What jitters between two equal calls of a model is folded away."""
    assert key_of(one) == key_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, {"a": 1.5}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": [1, 2]}, {"a": [[1, 2]]}),
        ({"a": "x y"}, {"a": "xy"}),
        ({"a": True}, {"a": 1}),
        ({"page": 1}, {"page": 2}),
        ({"cursor": "a"}, {"cursor": "b"}),
        ({"thought": "one"}, {"thought": "two"}),
        ({"at": "2026-11-21T10:00:00Z"}, {"at": "2026-11-21T11:00:00Z"}),
        ({}, None),
        ("a", "b"),
        ({"a": "x" * 70_000 + "1" + "y" * 70_000}, {"a": "x" * 70_000 + "2" + "y" * 70_000}),
        (list(range(30_000)), list(range(30_001))),
    ],
)  # fmt: skip
def test_another_meaning_is_another_call(one: object, other: object) -> None:
    """Numbers, order, names, times asked for: nothing of that is jitter."""
    assert key_of(one) != key_of(other)


def test_the_tool_is_part_of_the_call() -> None:
    """Equal arguments of two tools are two calls."""
    assert key_of({"a": 1}, "read") != key_of({"a": 1}, "write")


def test_recursive_deep_and_branching_arguments_have_a_spelling() -> None:
    """Arguments that contain themselves, or explode when written out, end at a depth and a size."""
    ring: dict[str, object] = {}
    ring["self"] = ring
    ring["both"] = [ring, ring]
    deep: object = 1
    wide: object = 1
    for _ in range(5_000):
        deep = [deep]
    for _ in range(40):
        wide = [wide, wide]
    for value in (ring, deep, wide, "[" * 100_000, '{"a":' * 5_000):
        assert canonical(value) == canonical(value)
        assert len(canonical(value)) < 300_000


def test_objects_that_raise_when_looked_at_have_a_spelling() -> None:
    """A user's object must not stop a run by its bugs."""

    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError

    class HostileMapping(dict[str, int]):
        def items(self) -> object:  # type: ignore[override]
            raise ValueError

    assert "hostile" in canonical([Hostile()])
    assert canonical(HostileMapping(a=1)) == "<HostileMapping>"
    assert canonical(float("nan")) == "nan"
    assert canonical(10**5_000) == hex(10**5_000)
    assert key_of("\ud800") == key_of(" \ud800")


def test_a_loop_key_says_what_makes_two_calls_the_same() -> None:
    """It gets parsed arguments; where it raises, the plain arguments count."""
    rule = ToolRule(loop_key=lambda args: args["id"])  # type: ignore[index]
    calls = [ToolCall(name="t", args=a) for a in ({"id": 1, "v": 1}, '{"id": 1, "v": 2}', {"v": 1}, {"v": 2})]
    keys = [print_call(call, rule.loop_key).key for call in calls]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


@pytest.mark.parametrize("shape", volatile_shapes())
def test_volatile_shapes_are_masked(shape: str) -> None:
    """The same text made a hundred times is one text."""
    rng = random.Random(shape)
    make = volatile_shapes()[shape]
    assert len({mask(f"no result {make(rng)} for you".casefold()) for _ in range(100)}) == 1


@pytest.mark.parametrize(
    "text",
    [
        "7 failing", "3 failing", "main.c:41", "main.c:42: error", "item 3", "50% done", "v1.2.3", "port 8080",
        "retry in 20 seconds", "retry after 30s", "try again in 5 s", "12 seconds left", "8 min away",
        "meeting of 30 minutes", "page 3/5",
        "balance 1000000000000000000", "phone 0301234567", "2026-11-21", "16:09", "3.14", "10.0.0.1",
        "/tmp/report_a.csv", "commit 3f2a9bc", "line 12, in f", "error 500", "step 7 of 9", "r2d2", "#1234",
    ],
)  # fmt: skip
def test_bare_numbers_and_countdowns_are_not_masked(text: str) -> None:
    """They are what progress looks like."""
    assert mask(text) == text


NAMED = [
    "request",
    "req",
    "trace",
    "span",
    "correlation",
    "invocation",
    "ray",
    "error",
    "incident",
    "operation",
    "session",
]
JOINED = ("req", "request", "trace", "span", "corr", "chatcmpl", "resp", "toolu", "evt", "msg", "txn", "inv")


@pytest.mark.parametrize(
    "label",
    [
        *(f"{name}{joint}" for name in NAMED for joint in ("-id: ", "_id=", " id: ", "id ")),
        *(f"x-{name}-id: " for name in NAMED), *(f"{name}_id: " for name in ("event", "transaction")),
        *(f"{name}{joint}" for name in JOINED for joint in "-_"),
    ],
)  # fmt: skip
def test_ids_are_masked_behind_every_name(label: str) -> None:
    """A word at the front of an id is enough, whatever else the text says."""
    assert mask(f"{label}4f2a9c") == mask(f"{label}77be01") != f"{label}4f2a9c"


@pytest.mark.parametrize("text", ["took 3 minutes", "updated 3 hours ago", "gave up after 5 s", "uptime: 3 min"])
def test_time_that_is_over_is_masked(text: str) -> None:
    """Where the words say so, in any unit."""
    assert mask(text) == text.replace("3 minutes", "<duration>").replace("3 hours", "<duration>").replace(
        "5 s", "<duration>"
    ).replace("3 min", "<duration>")


def test_masking_keeps_the_rest_of_the_text() -> None:
    """Only the volatile part goes."""
    text = "3 of 7 failed at 2026-11-21t10:00:01.5z (pid 77, took 312ms), see /tmp/tmpab12cd/log.txt, 0x7f00deadbeef"
    expected = "3 of 7 failed at <time> (pid <pid>, took <duration>), see /tmp/<tmp>/log.txt, <address>"
    assert mask(text) == expected


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (None, Status.EMPTY), ("", Status.EMPTY), (" \n", Status.EMPTY), ("null", Status.EMPTY), ([], Status.EMPTY),
        ({}, Status.EMPTY), ("[]", Status.EMPTY), ("{}", Status.EMPTY), ('{"results": []}', Status.EMPTY),
        ("no result", Status.EMPTY), ("No results found for x.", Status.EMPTY), ("Nothing found", Status.EMPTY),
        ("Classification failed - no result", Status.SOFT_FAIL), ("Error: boom", Status.SOFT_FAIL),
        ("ValueError: bad", Status.SOFT_FAIL), ("Could not find [X]. Similar: []", Status.SOFT_FAIL),
        ("Traceback (most recent call last):\n  x", Status.SOFT_FAIL),
        ("HTTP 503 Service Unavailable", Status.SOFT_FAIL),
        ('{"success": false}', Status.SOFT_FAIL), ({"error": "x"}, Status.SOFT_FAIL),
        ({"isError": True}, Status.SOFT_FAIL),
        ('{"status": "failed"}', Status.SOFT_FAIL), ({"status_code": 502}, Status.SOFT_FAIL),
        ("Error handling in Python", Status.OK), ("Here is how an error: looks", Status.OK),
        ({"error": None}, Status.OK),
        ("2 failed, 5 passed", Status.OK), ("7 failing", Status.OK), ("no problem here", Status.OK), (0, Status.OK),
        (False, Status.OK), ("404 ways to cook", Status.OK), ("404 Not Found", Status.SOFT_FAIL),
        ("ok", Status.OK), ({"count": 3}, Status.OK),
        ("2024-01-15 14:23:18 - Tool: Classification failed - no result", Status.SOFT_FAIL),
        ("[12:00:01] warning: no results found", Status.EMPTY),
        ("Failed states of the 20th century", Status.OK),
    ],
)  # fmt: skip
def test_failures_without_an_exception_are_classes(result: object, status: Status) -> None:
    """Only leading words and known keys are read, never a word further on."""
    assert status_of(result) == status


def test_a_raised_failure_is_a_failure_whatever_it_says() -> None:
    """An error with an empty text is a failure still."""
    assert status_of("", ok=False) is Status.FAIL
    assert status_of({"success": True}, ok=False) is Status.FAIL


def test_envelope_keys_do_not_change_an_outcome() -> None:
    """Request ids and durations in JSON are dropped wherever they are; other keys count."""

    def key(result: object) -> int:
        return read_outcome(ToolOutcome(ok=True, result=result)).key

    assert key('{"rows": [1], "requestId": "a", "took_ms": 3}') == key({"took_ms": 9, "rows": [1.0], "requestId": "b"})
    assert key({"rows": [1]}) != key({"rows": [2]})
    assert key({"timestamp": 1}) != key({"timestamp": 2})
    assert key("ok") != read_outcome(ToolOutcome(ok=False, result="ok")).key


def test_an_outcome_key_says_what_makes_two_outcomes_the_same() -> None:
    """It gets parsed results; where it raises, the plain result counts."""

    def keyed(result: object) -> int:
        outcome = ToolOutcome(ok=True, result=result)
        return read_outcome(outcome, lambda value: value["state"]).key  # type: ignore[index]

    assert keyed({"state": "x", "seen": 1}) == keyed('{"state": "x", "seen": 2}')
    assert keyed("plain 1") != keyed("plain 2")


def test_a_change_in_the_middle_of_a_huge_result_is_a_change() -> None:
    """What is too long to be masked is still compared."""
    one, other = "a" * 5_000_000 + "1" + "b" * 5_000_000, "a" * 5_000_000 + "2" + "b" * 5_000_000
    assert read_outcome(ToolOutcome(ok=True, result=one)).key != read_outcome(ToolOutcome(ok=True, result=other)).key
    assert read_outcome(ToolOutcome(ok=True, result=one)).key == read_outcome(ToolOutcome(ok=True, result=one)).key


def test_units_are_few_and_show_every_news() -> None:
    """64 a text at most; one changed line among thousands is in one of them."""
    lines = [f"line {i}" for i in range(5_000)]
    before = set(line_units("\n".join(lines)))
    lines[2_345] = "changed"
    after = set(line_units("\n".join(lines)))
    assert len(before) <= 64
    assert len(after - before) == 1
    assert set(line_units("b a c")) == set(line_units("c b a"))
    assert set(line_units("3 of 7")) != set(line_units("7 of 3"))
    assert len(words(canonical({"q": " ".join(str(i) for i in range(900))}))) <= 64


@pytest.mark.parametrize(
    "told",
    [
        "File not found. This call has failed {} times.", "Refused: repeated {} times with the same arguments",
        "error: tried {} times, giving up", "The same call was already blocked again {} times",
        "not found (this was rejected {} times so far)",
    ],
)  # fmt: skip
def test_how_often_it_was_done_is_no_news(told: str) -> None:
    """Harnesses count the very repetition into the answer, which would be another one each time."""
    assert mask(told.lower().format(5)) == mask(told.lower().format(1_371))


@pytest.mark.parametrize(
    "told", ["the word was found {} times", "{} tests failed", "played {} times", "failed {} tests"]
)
def test_what_is_counted_otherwise_is_news(told: str) -> None:
    """A number that tells of the world, and not of the repetition."""
    assert mask(told.format(5)) != mask(told.format(6))
