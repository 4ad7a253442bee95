"""The ladder: hint, block, stop; batches, retry layers, agents, polls, users and news."""

from __future__ import annotations

import pytest

from runrails.calls import Block, Finding, Proceed, Stop, ToolCall, ToolOutcome
from runrails.loops import LoopDetector, LoopPolicy, ToolRule


def call(
    tool: str = "classify",
    args: object = None,
    *,
    batch: int | None = None,
    id: str | None = None,  # noqa: A002 -- the field's name
    agent: str = "",
) -> ToolCall:
    return ToolCall(name=tool, args={"id": 1} if args is None else args, batch=batch, id=id, agent=agent)


def execute(
    detector: LoopDetector, step: ToolCall, result: object = "no result", *, ok: bool = True, can_block: bool = True
) -> Finding | None:
    """Start and end a call that must be let through."""
    assert isinstance(detector.before_tool(step, can_block=can_block), Proceed)
    return detector.after_tool(step, ToolOutcome(ok=ok, result=result), can_block=can_block)


def test_where_calls_can_be_blocked_the_fifth_is_and_the_sixth_stops() -> None:
    """Four executed, a hint after the 3rd, one block, then the stop; and it stays."""
    detector = LoopDetector()
    findings = [execute(detector, call()) for _ in range(4)]
    assert [f.level if f else None for f in findings] == [None, None, "hint", None]
    assert isinstance(detector.before_model(can_block=True), Proceed)
    fifth = detector.before_tool(call(), can_block=True)
    assert isinstance(fifth, Block)
    assert (fifth.finding.rule, fifth.finding.count, fifth.finding.threshold) == ("repeated_failure", 4, 5)
    assert (fifth.finding.first_step, fifth.finding.last_step) == (1, 4)
    assert isinstance(detector.before_model(can_block=True), Proceed)
    sixth = detector.before_tool(call(), can_block=True)
    assert isinstance(sixth, Stop)
    assert detector.before_model(can_block=True) == sixth
    assert detector.before_tool(call("other"), can_block=True) == sixth


def test_where_only_a_callback_is_attached_the_run_stops_after_the_fifth() -> None:
    """The fifth is executed; the next start of any kind is the stop."""
    detector = LoopDetector()
    findings = [execute(detector, call(), can_block=False) for _ in range(5)]
    assert [f.level if f else None for f in findings] == [None, None, "hint", None, "stop"]
    stop = detector.before_model(can_block=False)
    assert stop == detector.before_tool(call("other"), can_block=False)
    assert isinstance(stop, Stop)
    assert (stop.finding.count, stop.finding.threshold) == (5, 5)


def test_four_failures_and_a_success_are_legal() -> None:
    """And start a story of their own."""
    detector = LoopDetector()
    for _ in range(4):
        execute(detector, call(), "Error: boom", ok=False, can_block=False)
    assert execute(detector, call(), {"label": "late"}, can_block=False) is None
    assert isinstance(detector.before_model(can_block=False), Proceed)


def test_a_noted_stop_lets_blocking_come_first() -> None:
    """A callback and a middleware on one run: the one that can block does."""
    detector = LoopDetector()
    for _ in range(5):
        execute(detector, call(), can_block=False)
    assert isinstance(detector.before_model(can_block=True), Proceed)
    assert isinstance(detector.before_tool(call(), can_block=True), Block)
    assert isinstance(detector.before_tool(call(), can_block=True), Stop)


def test_a_partner_in_a_cycle_does_not_escape_the_block() -> None:
    """When one call of a ping-pong is blocked, the other one is the next attempt."""
    detector = LoopDetector()
    left, right = call("left"), call("right")
    for _ in range(4):
        execute(detector, left, "l")
        execute(detector, right, "r")
    execute(detector, left, "l")
    assert isinstance(detector.before_tool(right, can_block=True), Block)
    assert isinstance(detector.before_tool(left, can_block=True), Stop)


def test_our_own_message_is_no_result() -> None:
    """An executor that reports the blocked call's synthetic result changes nothing."""
    detector = LoopDetector()
    for _ in range(4):
        execute(detector, call())
    blocked = call()
    verdict = detector.before_tool(blocked, can_block=True)
    assert isinstance(verdict, Block)
    before = detector.state()
    assert detector.after_tool(blocked, ToolOutcome(ok=True, result=verdict.message)) is None
    assert detector.state() == before
    assert isinstance(detector.before_tool(call(), can_block=True), Stop)


def test_a_hint_at_the_end_of_a_result_does_not_make_it_another() -> None:
    """An adapter that appends the advice to the tool's text keeps the count going."""
    detector = LoopDetector()
    result = "no result"
    for _ in range(4):
        hint = execute(detector, call(), result)
        result = f"no result\n\n{hint.for_model}" if hint else result
    assert isinstance(detector.before_tool(call(), can_block=True), Block)


def test_news_steps_one_rung_down_and_not_to_the_ground() -> None:
    """After a block and one new thing, the call may be tried once more before it is blocked again."""
    detector = LoopDetector()
    for _ in range(4):
        execute(detector, call(), "page one")
    assert isinstance(detector.before_tool(call(), can_block=True), Block)
    execute(detector, call("search"), "something new")
    execute(detector, call(), "page one")
    assert isinstance(detector.before_tool(call(), can_block=True), Block)


def test_the_same_success_with_news_between_is_legal_for_ever() -> None:
    """`git status` after every edit."""
    detector = LoopDetector()
    for i in range(60):
        assert execute(detector, call("edit", {"line": i}), f"ok {i}", can_block=False) is None
        assert execute(detector, call("git_status"), "nothing to commit", can_block=False) is None


@pytest.mark.parametrize(("result", "ok", "executed"), [("boom", False, 8), ("Error: boom", True, 8), ("", True, 16)])
def test_the_same_failure_with_news_between_is_stopped(result: str, ok: bool, executed: int) -> None:
    """At the 8th; twice that for a lookup that just has nothing to say."""
    detector = LoopDetector()
    findings: list[Finding | None] = []
    for i in range(executed):
        execute(detector, call("read", {"page": i}), f"page {i}", can_block=False)
        findings.append(execute(detector, call(), result, ok=ok, can_block=False))
    assert [i for i, f in enumerate(findings, 1) if f and f.level == "hint"] == [executed - 2]
    last = findings[-1]
    assert last is not None
    assert (last.level, last.rule, last.count) == ("stop", "repeated_failure", executed)


def test_a_failure_that_keeps_coming_back_is_blocked_and_then_stopped() -> None:
    """News between does not clear the block of a call that fails whatever happens around it."""
    detector = LoopDetector()
    for i in range(7):
        execute(detector, call(), "boom", ok=False)
        execute(detector, call("read", {"page": i}), f"page {i}")
    assert isinstance(detector.before_tool(call(), can_block=True), Block)
    execute(detector, call("read", {"page": 99}), "page 99")
    assert isinstance(detector.before_tool(call(), can_block=True), Stop)


def test_rare_failures_in_a_long_run_are_no_story() -> None:
    """Once in 14 steps, a hundred times."""
    detector = LoopDetector()
    for i in range(1_400):
        execute(detector, call("read", {"page": i}), f"page {i}", can_block=False)
        if i % 14 == 0:
            assert execute(detector, call(), "boom", ok=False, can_block=False) is None


def test_one_failure_text_over_different_calls_is_stopped_at_the_tenth() -> None:
    """Blocked by tool where that is possible; another tool may go on."""
    detector = LoopDetector()
    for i in range(10):
        execute(detector, call("query", {"q": f"word{i}"}), "Error: permission denied", ok=False)
    blocked = detector.before_tool(call("query", {"q": "another"}), can_block=True)
    assert isinstance(blocked, Block)
    assert (blocked.finding.rule, blocked.finding.count) == ("same_failure", 10)
    assert isinstance(detector.before_tool(call("help", {"topic": "rights"}), can_block=True), Proceed)
    assert isinstance(detector.before_tool(call("query", {"q": "yet another"}), can_block=True), Stop)


def test_a_success_between_ends_the_story_of_a_failure_text() -> None:
    """A hundred pages, a few of them missing."""
    detector = LoopDetector()
    for i in range(100):
        missing = i % 3 != 0
        result = "404 Not Found" if missing else f"page {i}"
        assert execute(detector, call("fetch", {"n": i}), result, ok=not missing, can_block=False) is None


def test_equal_calls_of_one_answer_are_one_attempt() -> None:
    """Three at a time for four answers are four attempts; the fifth answer's are all blocked, the sixth stops."""
    detector = LoopDetector()
    for batch in range(4):
        for i in range(3):
            execute(detector, call(batch=batch, id=f"{batch}.{i}"))
    for i in range(3):
        assert isinstance(detector.before_tool(call(batch=4, id=f"4.{i}"), can_block=True), Block)
    assert isinstance(detector.before_tool(call(batch=5, id="5.0"), can_block=True), Stop)


def test_the_other_calls_of_a_blocked_answer_are_blocked_not_stopped() -> None:
    """They were asked for before the model could read the block."""
    detector = LoopDetector()
    for batch in range(5):
        for tool in ("left", "right"):
            execute(detector, call(tool, batch=batch, id=f"{batch}{tool}"), tool)
        if batch == 0:
            execute(detector, call("search"), "something new")
    for tool in ("left", "right"):
        assert isinstance(detector.before_tool(call(tool, batch=5, id=f"5{tool}"), can_block=True), Block)
    assert isinstance(detector.before_tool(call("left", batch=6, id="6left"), can_block=True), Stop)


@pytest.mark.parametrize("ids", [True, False])
def test_ten_equal_calls_in_an_answer_are_let_through_and_the_eleventh_is_not(ids: bool) -> None:
    """Blocked where that is possible, else the run stops."""
    for can_block, verdict in ((True, Block), (False, Stop)):
        detector = LoopDetector()
        steps = [call(batch=1, id=f"c{i}" if ids else None) for i in range(12)]
        started = [detector.before_tool(step, can_block=can_block) for step in steps]
        assert [type(v) for v in started] == [Proceed] * 10 + [verdict] * 2
        found = started[-1]
        assert not isinstance(found, Proceed)
        assert (found.finding.rule, found.finding.threshold) == ("batch", 10)


def test_a_retry_layer_that_runs_one_call_again_makes_new_attempts() -> None:
    """The same call id after its result is not a sibling."""
    detector = LoopDetector()
    step = call(batch=1, id="c1")
    levels = []
    for _ in range(5):
        finding = execute(detector, step, "503 Service Unavailable", ok=False, can_block=False)
        levels.append(finding.level if finding else None)
    assert levels == [None, None, "hint", None, "stop"]
    assert isinstance(detector.before_tool(step, can_block=False), Stop)


def test_a_retry_of_a_blocked_call_id_stops() -> None:
    """A retry layer must not turn the block into a loop of its own."""
    detector = LoopDetector()
    step = call(batch=1, id="c1")
    for _ in range(4):
        execute(detector, step, ok=False)
    assert isinstance(detector.before_tool(step, can_block=True), Block)
    assert isinstance(detector.before_tool(step, can_block=True), Stop)


def test_starting_twice_what_is_told_twice_is_one_attempt() -> None:
    """A callback and a middleware both announce a call."""
    detector = LoopDetector()
    for batch in range(4):
        step = call(batch=batch, id=f"c{batch}")
        detector.before_tool(step, can_block=True)
        execute(detector, step)
    assert isinstance(detector.before_tool(call(batch=9, id="c9"), can_block=True), Block)


def test_agents_are_apart() -> None:
    """Four agents that make the same call twice have not made it eight times; the stuck one is stopped alone."""
    detector = LoopDetector()
    for agent in ("a", "b", "c", "d"):
        for _ in range(2):
            assert execute(detector, call(agent=agent), can_block=False) is None
    for _ in range(3):
        execute(detector, call(agent="a"), can_block=False)
    assert isinstance(detector.before_model(agent="a", can_block=False), Stop)
    assert isinstance(detector.before_model(agent="b", can_block=False), Proceed)
    assert isinstance(detector.before_model(can_block=False), Proceed)


def test_a_user_message_resets_the_ladder() -> None:
    """Even a stop that was coming; of one agent, or of all by the root's."""
    detector = LoopDetector()
    for agent in ("", "a"):
        for _ in range(5):
            execute(detector, call(agent=agent), can_block=False)
    detector.user_message("a")
    assert isinstance(detector.before_model(agent="a", can_block=False), Proceed)
    assert isinstance(detector.before_model(can_block=False), Stop)
    detector.user_message()
    for agent in ("", "a"):
        levels = [f.level if (f := execute(detector, call(agent=agent), can_block=False)) else None for _ in range(5)]
        assert levels == [None, None, "hint", None, "stop"]


def test_a_declared_poll_has_its_own_allowance_and_few_hints() -> None:
    """24 equal answers; the hint comes two before."""
    detector = LoopDetector(tools={"status": ToolRule(poll=True)})
    found = [execute(detector, call("status"), {"status": "running"}, can_block=False) for _ in range(24)]
    assert [(i, f.level, f.rule) for i, f in enumerate(found, 1) if f] == [(22, "hint", "poll"), (24, "stop", "poll")]


def test_a_change_resets_a_declared_poll() -> None:
    """Two states in turn are change, too."""
    detector = LoopDetector(tools={"status": ToolRule(poll=True)})
    for i in range(10):
        for _ in range(20):
            assert execute(detector, call("status"), {"status": ("queued", "running")[i % 2]}, can_block=False) is None


def test_a_state_that_will_not_change_ends_the_allowance() -> None:
    """Polling what is done is a loop."""
    detector = LoopDetector(tools={"status": ToolRule(poll=True)})
    for _ in range(10):
        execute(detector, call("status"), {"status": "running"}, can_block=False)
    found = [execute(detector, call("status"), {"status": "done"}, can_block=False) for _ in range(5)]
    assert found[-1] is not None
    assert (found[-1].level, found[-1].rule) == ("stop", "repeated_result")


def test_thresholds_are_the_owners() -> None:
    """One below the number nothing happens, at the number it does."""
    policy = LoopPolicy(hint_at=2, block_at=7)
    detector = LoopDetector(policy)
    found = [execute(detector, call(), can_block=False) for _ in range(7)]
    assert [(i, f.level) for i, f in enumerate(found, 1) if f] == [(2, "hint"), (7, "stop")]
    detector = LoopDetector(policy)
    for _ in range(6):
        execute(detector, call())
    assert isinstance(detector.before_tool(call(), can_block=True), Block)


def test_keys_of_a_tool_decide_what_repeats() -> None:
    """A loop key joins calls that differ; an outcome key tells outcomes apart that look the same."""
    joined = LoopDetector(tools={"get": ToolRule(loop_key=lambda _: 0)})
    found = [execute(joined, call("get", {"n": i}), "same", can_block=False) for i in range(5)]
    assert found[-1] is not None
    assert found[-1].level == "stop"
    apart = LoopDetector(tools={"get": ToolRule(outcome_key=lambda result: result["seen_at"])})  # type: ignore[index]
    assert [execute(apart, call("get"), {"seen_at": i, "took": 1}, can_block=False) for i in range(20)] == [None] * 20


def test_observing_executes_what_would_be_blocked_and_goes_on_counting() -> None:
    """A block that is not obeyed is followed by a stop verdict."""
    detector = LoopDetector()
    verdicts = []
    for _ in range(6):
        step = call()
        verdicts.append(type(detector.before_tool(step, can_block=True)))
        detector.after_tool(step, ToolOutcome(ok=True, result="no result"))
    assert verdicts == [Proceed] * 4 + [Block, Stop]
