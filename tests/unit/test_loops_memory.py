"""What the detector remembers: bounded, serialisable, and safe to forget."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rr_loop_corpus import Step, corpus, play
from runrails.calls import Finding, Proceed, Stop, ToolCall, ToolOutcome
from runrails.loops import LoopDetector, LoopPolicy, ToolRule
from runrails.loops.batches import BATCHES_MAX, ENTRIES_MAX
from runrails.loops.memory import FAILURES_MAX, PAIRS_MAX, SCOPES_MAX, UNITS_MAX, Units

STATE_BYTES_MAX = 65_536
TOOLS = {"poll": ToolRule(poll=True)}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
steps = st.builds(
    Step,
    tool=st.sampled_from(["read", "write", "poll"]),
    args=st.sampled_from([{"id": 1}, {"id": 2}, '{"id": 1.0}', None]) | json_values,
    result=st.sampled_from(["no result", "", "ok", "Error: boom", {"status": "done"}]) | json_values,
    ok=st.booleans(),
    batch=st.sampled_from([None, None, 1, 2]),
    agent=st.sampled_from(["", "", "a"]),
    id=st.sampled_from([None, "c1", "c2"]),
)


def feed(detector: LoopDetector, step: Step, *, can_block: bool) -> list[object]:
    """Everything the detector says of one step."""
    call = ToolCall(name=step.tool or "", args=step.args, id=step.id, batch=step.batch, agent=step.agent)
    said: list[object] = [detector.before_model(agent=step.agent, can_block=can_block)]
    said.append(detector.before_tool(call, can_block=can_block))
    if isinstance(said[-1], Proceed):
        said.append(detector.after_tool(call, ToolOutcome(ok=step.ok, result=step.result), can_block=can_block))
    return said


@settings(max_examples=60, deadline=None)
@given(trace=st.lists(steps, max_size=30), cut=st.integers(0, 30), can_block=st.booleans())
def test_a_restored_detector_goes_on_as_if_nothing_had_happened(trace: list[Step], cut: int, can_block: bool) -> None:
    """The same calls give the same verdicts, with or without a trip through JSON."""
    one, other = LoopDetector(tools=TOOLS), LoopDetector(tools=TOOLS)
    for number, step in enumerate(trace):
        if number == cut:
            other = LoopDetector.restore(json.loads(json.dumps(other.state())), tools=TOOLS)
        assert feed(one, step, can_block=can_block) == feed(other, step, can_block=can_block)
    assert one.state() == other.state()


@settings(max_examples=60, deadline=None)
@given(
    args=json_values | st.binary(max_size=9),
    result=json_values | st.binary(max_size=9) | st.sets(st.integers(), max_size=3),
)
def test_any_value_is_taken_and_repeats(args: Any, result: Any) -> None:
    """Nothing raises, and five equal steps are a loop whatever they are made of."""
    detector = LoopDetector()
    levels = [
        said.level
        for _ in range(5)
        for said in feed(detector, Step("t", args, result), can_block=False)
        if isinstance(said, Finding)
    ]
    assert levels == ["hint", "stop"]


def flood(detector: LoopDetector, count: int) -> None:
    """Distinct steps in many agents, long-named, in batches, failing and not."""
    for i in range(count):
        call = ToolCall(
            name=f"tool_{i % 97}", args={"id": i}, id=f"c{i}", batch=i // 40, agent=f"root/{'é' * 70}{i % 90}"
        )
        detector.before_tool(call, can_block=False)
        detector.after_tool(call, ToolOutcome(ok=i % 3 != 0, result=f"result {i}\nof {i * 7}"), can_block=False)


def test_the_state_stays_within_64_kib_however_long_the_run() -> None:
    """Every table full, and stops with the longest names noted."""
    detector = LoopDetector()
    flood(detector, 6_000)
    size = len(json.dumps(detector.state()))
    flood(detector, 6_000)
    assert abs(len(json.dumps(detector.state())) - size) < 4_096
    for agent in range(9):
        for _ in range(5):
            call = ToolCall(name="\U0001f600" * 99, args={}, agent="\U0001f680" * 99 + str(agent))
            detector.before_tool(call, can_block=False)
            detector.after_tool(call, ToolOutcome(ok=True, result=""), can_block=False)
    detector._memory.units = Units(range(UNITS_MAX), range(UNITS_MAX))
    for i in range(FAILURES_MAX):
        call = ToolCall(name="t", args={"q": f"word{i}"})
        detector.before_tool(call, can_block=False)
        detector.after_tool(call, ToolOutcome(ok=False, result=f"failure {i}"), can_block=False)
    for batch in range(BATCHES_MAX):
        for i in range(ENTRIES_MAX):
            detector.before_tool(ToolCall(name="t", args={"n": i}, id=f"{batch}.{i}", batch=-batch - 1), can_block=True)
    assert len(json.dumps(detector.state())) <= STATE_BYTES_MAX


def test_forgetting_never_stops_a_run() -> None:
    """Every table overflows while each pair is seen four times, far apart; nobody is stopped, nothing is hinted."""
    detector = LoopDetector(LoopPolicy(hint_at=3))
    for _ in range(4):
        for i in range(2 * PAIRS_MAX):
            call = ToolCall(name="read", args={"id": f"w{i}"}, batch=None, agent=f"a{i % (2 * SCOPES_MAX)}")
            assert isinstance(detector.before_tool(call, can_block=True), Proceed)
            found = detector.after_tool(
                call, ToolOutcome(ok=True, result=f"text {i}\nof many words {i * 3}"), can_block=False
            )
            assert found is None or found.level == "hint"


def test_a_batch_that_was_forgotten_counts_nothing_more() -> None:
    """Siblings that end after more batches than are kept are not taken for new attempts."""
    detector = LoopDetector()
    siblings = [ToolCall(name="t", args={}, id=f"c{i}", batch="big") for i in range(8)]
    for sibling in siblings:
        assert isinstance(detector.before_tool(sibling, can_block=False), Proceed)
    for number, sibling in enumerate(siblings):
        for other in range(BATCHES_MAX + 1):
            call = ToolCall(name="u", args={"n": number * 10 + other}, batch=f"{number}.{other}", agent="else")
            detector.before_tool(call, can_block=False)
            detector.after_tool(call, ToolOutcome(ok=True, result=f"new {number}.{other}"), can_block=False)
        found = detector.after_tool(sibling, ToolOutcome(ok=True, result="no result"), can_block=False)
        assert found is None


def test_units_recur_without_being_forgotten() -> None:
    """What is seen again and again stays known while generations pass."""
    units = Units()
    assert units.learn([b"again"], 7)
    for i in range(5 * UNITS_MAX):
        units.learn([b"%d" % i], 7)
        if i % 500 == 0:
            assert not units.learn([b"again"], 7)
    assert units.learn([b"0"], 7)
    assert units.learn([b"again"], 8)
    assert not Units.unpack(units.pack()).learn([b"again"], 7)


@pytest.mark.parametrize(
    "damage", ["version", "scopes", "pairs", "calls", "failures", "units", "batches", "told", "number"]
)
def test_a_damaged_state_is_refused_whole(damage: str) -> None:
    """A ValueError that says what to do; never half a memory."""
    detector = LoopDetector()
    flood(detector, 50)
    state = detector.state()
    for bad in (None, "AAAA", 7, ["x"], [["x"]]):
        if damage == "number" and bad == 7:
            continue
        with pytest.raises(ValueError, match="Start with a new LoopDetector"):
            LoopDetector.restore({**state, damage: bad})
        with pytest.raises(ValueError, match="Start with a new LoopDetector"):
            LoopDetector.restore({key: value for key, value in state.items() if key != damage})


def test_a_state_of_another_version_is_refused() -> None:
    """Fingerprints of another version would match nothing."""
    with pytest.raises(ValueError, match="version 2"):
        LoopDetector.restore({**LoopDetector().state(), "version": 1})


def test_a_stop_survives_the_trip_to_another_worker() -> None:
    """With the same words."""
    detector = LoopDetector()
    call = ToolCall(name="t", args={}, agent="root/a")
    for _ in range(5):
        detector.before_tool(call, can_block=False)
        detector.after_tool(call, ToolOutcome(ok=False, result="boom"), can_block=False)
    stop = detector.before_model(agent="root/a", can_block=False)
    assert isinstance(stop, Stop)
    restored = LoopDetector.restore(json.loads(json.dumps(detector.state())))
    assert restored.before_model(agent="root/a", can_block=False) == stop


def test_runs_of_the_corpus_end_the_same_when_moved_after_every_step() -> None:
    """A sample of all families, carried through JSON between any two steps."""
    for run in corpus(3)[::9]:
        if len(run.steps) > 150:
            continue
        expected = play(run)
        detector = LoopDetector(tools=run.tools)
        said: list[Finding] = []
        stop_at = None
        for number, step in enumerate(run.steps, 1):
            detector = LoopDetector.restore(json.loads(json.dumps(detector.state())), tools=run.tools)
            if step.tool is None:
                detector.user_message(step.agent)
                continue
            found = [f for f in feed(detector, step, can_block=False) if isinstance(f, Finding | Stop)]
            if any(isinstance(f, Stop) or f.level == "stop" for f in found):
                stop_at = number
                break
            said += [f for f in found if isinstance(f, Finding)]
        assert (stop_at, len(said)) == (expected.stop_at, expected.hints), run.name
