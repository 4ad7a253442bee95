"""The detector under attack: what must not be masked, what must be, hostile texts, damaged states, silence."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from runrails.calls import Stop, ToolCall, ToolOutcome
from runrails.loops import LoopDetector
from runrails.loops.canonical import VOLATILE_ARGS, VOLATILE_RESULTS, canonical
from runrails.loops.fingerprint import print_call
from runrails.loops.masks import mask
from runrails.loops.verbs import acts

HOSTILE_SECONDS_MAX = 1.0


def stop_at(steps: int, make: Callable[[int], tuple[ToolCall, ToolOutcome]]) -> int | None:
    """Where a run of such steps is stopped by the callback alone."""
    detector = LoopDetector()
    for number in range(1, steps + 1):
        call, outcome = make(number)
        if isinstance(detector.before_tool(call, can_block=False), Stop):
            return number - 1
        detector.after_tool(call, outcome, can_block=False)
    return steps if isinstance(detector.before_model(can_block=False), Stop) else None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("transcribed 10s of 600s", "transcribed 20s of 600s"),
        ("10s/600s", "20s/600s"),
        ("position 00:10:00 of 01:30:00", "position 00:20:00 of 01:30:00"),
        ("00:10:00/01:30:00", "00:20:00/01:30:00"),
        ("1500000000 bytes", "1600000000 bytes"),
        ("bytes: 1500000000", "bytes: 1600000000"),
        ("balance 1500000000", "balance 1600000000"),
        ("$1500000000", "$1600000000"),
        ("event_id: 41", "event_id: 42"),
        ("inv_2024001", "inv_2024002"),
        ("transaction id 100041", "transaction id 100042"),
        ("main.c:41: error", "main.c:42: error"),
        ("version 1.2.3", "version 1.2.4"),
        ("due 2026-11-21", "due 2026-11-22"),
        ("#7 failing", "#3 failing"),
    ],
)
def test_content_is_not_masked(one: str, other: str) -> None:
    """Parts of a whole, amounts, numbered things, lines, versions and dates tell two results apart."""
    assert mask(one) != mask(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('<script nonce="abcdefgh">', '<script nonce="zyxwvuts">'),
        ("denied; nonce=q1w2e3r4t5", "denied; nonce=p0o9i8u7y6"),
        ("com.acme.pool@1f2e3d4c is closed", "com.acme.pool@5a6b7c8d is closed"),
        ("error 01j9zq4m3n5p7r8s9t0v1w2x3y", "error 01j9zq4m3n5p7r8s9t0v1w9999"),
        ("evt_8f3k2a9", "evt_1b7c4d2"),
        ("locked since 1790000001", "locked since 1790000099"),
        ("took 10s", "took 12s"),
    ],
)
def test_noise_is_masked(one: str, other: str) -> None:
    """Nonces, addresses of objects, sortable ids, random event ids, epochs and elapsed times do not."""
    assert mask(one) == mask(other)


@pytest.mark.parametrize(
    "text",
    [
        "req-" * 250_000,
        "a-" * 500_000 + "]:1",
        "1," * 500_000,
        "1s of " * 160_000,
        "request id " * 90_000,
        "nonce=" * 160_000,
        "01 " * 330_000,
        "/tmp/a-" * 140_000,
        "00:10:00/" * 110_000,
        "\ufdfa" * 250_000,
        "[" * 1_000_000,
        "[" * 10_000 + "]" * 10_000,
    ],
    ids=lambda text: repr(text[:10]),
)
def test_hostile_texts_take_a_bounded_time(text: str) -> None:
    """A megabyte of nearly matching text, wherever it stands."""
    for args, result in (({"q": text}, "x"), (text, "x"), ({}, text), ({}, {"a": [text]})):
        began = time.thread_time()  # what this thread worked, not what else the machine did
        call = ToolCall(name="t", args=args)
        detector = LoopDetector()
        detector.before_tool(call, can_block=True)
        detector.after_tool(call, ToolOutcome(ok=False, result=result))
        assert time.thread_time() - began < HOSTILE_SECONDS_MAX


def test_parts_of_arguments_that_are_about_the_call_are_dropped_whole() -> None:
    """A nested request id goes; a nested filter stays, and so does a moment of a film."""
    assert canonical({"id": 1, "meta": {"request_id": "a", "ts": 1_790_000_001}}, volatile=VOLATILE_ARGS) == canonical(
        {"id": 1, "meta": {"request_id": "b", "ts": 1_790_000_002}}, volatile=VOLATILE_ARGS
    )
    assert canonical({"timing": {"took": 1, "time": 2}}, volatile=VOLATILE_RESULTS) == canonical(
        {"timing": {"took": 3, "time": 4}}, volatile=VOLATILE_RESULTS
    )
    for one, other in (
        ({"filter": {"since": 1}}, {"filter": {"since": 2}}),
        ({"v": 1, "ts": 1.5}, {"v": 1, "ts": 2.5}),
    ):
        assert canonical(one, volatile=VOLATILE_ARGS) != canonical(other, volatile=VOLATILE_ARGS)


def test_the_purpose_of_a_command_is_a_thought() -> None:
    """But the description of a ticket is what is written."""
    one, other = ({"command": "make", "description": text} for text in ("build", "build again"))
    assert print_call(ToolCall(name="bash", args=one)) == print_call(ToolCall(name="bash", args=other))
    one, other = ({"ticket": 1, "description": text} for text in ("red", "blue"))
    assert print_call(ToolCall(name="edit", args=one)).key != print_call(ToolCall(name="edit", args=other)).key


@pytest.mark.parametrize("said", ["not found", "No results found.", "Customer does not exist", "Objekt nicht gefunden"])
@pytest.mark.parametrize("ok", [True, False])
def test_a_bulk_job_that_finds_nothing_is_work(said: str, *, ok: bool) -> None:
    """Whatever the ids look like; only the same inputs again are a loop."""
    outcome = ToolOutcome(ok=ok, result=said)
    assert stop_at(100, lambda i: (ToolCall(name="find", args={"ticket": f"T-{i}"}), outcome)) is None
    assert stop_at(100, lambda i: (ToolCall(name="find", args={"url": f"https://x.org/{i}"}), outcome)) is None


@pytest.mark.parametrize("said", ["connection refused", "tool not found", "no such table", "permission denied"])
def test_what_no_input_can_help_stops_after_ten(said: str) -> None:
    """The network, the tool and the rights are the same for the next input."""
    outcome = ToolOutcome(ok=False, result=said)
    assert stop_at(100, lambda i: (ToolCall(name="find", args={"ticket": f"T-{i}"}), outcome)) == 10


def test_silence_of_what_acts_is_success_among_news_and_a_loop_without() -> None:
    """A lookup that stays silent among news is stopped later."""

    def among_news(tool: str, args: object) -> Callable[[int], tuple[ToolCall, ToolOutcome]]:
        def make(i: int) -> tuple[ToolCall, ToolOutcome]:
            if i % 2:
                return ToolCall(name=tool, args=args), ToolOutcome(ok=True, result="")
            return ToolCall(name="read", args={"page": i}), ToolOutcome(ok=True, result=f"page {i}")

        return make

    assert stop_at(200, among_news("press_key", {"key": "PageDown"})) is None
    assert stop_at(200, among_news("tool", {"command": "git add -A"})) is None
    assert stop_at(200, among_news("checkpoint", {})) is None
    assert stop_at(200, among_news("classify", {"id": 1})) == 31
    silent = ToolCall(name="press_key", args={"key": "x"}), ToolOutcome(ok=True, result="")
    assert stop_at(200, lambda _: silent) == 5


def test_what_was_changed_may_be_checked_again() -> None:
    """Clean diagnostics after each edit of a file; without edits they are a loop."""

    def make(i: int) -> tuple[ToolCall, ToolOutcome]:
        if i % 2:
            return ToolCall(name="edit", args={"file": "a.ts", "text": f"v{i}"}), ToolOutcome(ok=True, result="ok")
        return ToolCall(name="diagnostics", args={"file": "a.ts"}), ToolOutcome(ok=True, result=[])

    assert stop_at(200, make) is None
    assert stop_at(200, lambda _: make(2)) == 5


def test_names_tell_what_acts() -> None:
    """In any spelling."""
    assert [name for name in ("run_linter", "pressKey", "git-add", "Bash") if not acts(name)] == []
    assert [name for name in ("classify", "search_web", "lookupOrder", "settings", "") if acts(name)] == []


@pytest.mark.parametrize("state", [None, [], "x", 5, {}, b"", {"version": True}])
def test_what_is_no_state_is_refused(state: object) -> None:
    """A ValueError that says what to do, whatever the kind."""
    with pytest.raises(ValueError, match="Start with a new LoopDetector"):
        LoopDetector.restore(state)  # type: ignore[arg-type] -- what a damaged store may hand over


@pytest.mark.parametrize("number", [float("inf"), 2**70, -1, True, "5", 1.0])
def test_numbers_no_detector_writes_are_refused(number: object) -> None:
    """They would break the next `state` long after."""
    state = LoopDetector().state()
    with pytest.raises(ValueError, match="damaged"):
        LoopDetector.restore({**state, "number": number})


def test_the_state_does_not_depend_on_the_process() -> None:
    """Sets among arguments and the hash seed change nothing."""
    code = (
        "import json; from runrails.calls import *; from runrails.loops import LoopDetector; d = LoopDetector()\n"
        "for i in range(40):\n"
        "    c = ToolCall(name='t', args={'s': {'a', 'b', 'c', i % 5}}, batch=i // 3, id=str(i), agent=str(i % 2))\n"
        "    d.before_tool(c, can_block=True)\n"
        "    d.after_tool(c, ToolOutcome(ok=i % 2 == 0, result={'x', 'y', f'w{i}'}))\n"
        "print(json.dumps(d.state()))"
    )
    path = ":".join(entry for entry in sys.path if entry)
    states = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": path},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(states) == 1
    LoopDetector.restore(json.loads(states.pop()))
