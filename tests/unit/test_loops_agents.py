"""Many agents of one run at once: each is counted on its own, and none pushes out what is known of another."""

from __future__ import annotations

import json

import pytest

from runrails.calls import Proceed, Stop, ToolCall, ToolOutcome
from runrails.loops import LoopDetector
from runrails.loops.batches import BATCHES_MAX, BATCHES_SPARE, ENTRIES_MAX, ENTRIES_TOTAL_MAX
from runrails.loops.memory import SCOPES_MAX

NOTHING = ToolOutcome(ok=True, result="no result")
FINE = ToolOutcome(ok=True, result="fine")


def call(agent: str, turn: int, text: str = "x", number: int = 0) -> ToolCall:
    return ToolCall(
        name="look", args={"text": text}, id=f"{agent}.{turn}.{number}", batch=f"{agent}.{turn}", agent=agent
    )


def in_step(detector: LoopDetector, agents: int, *, equal: int = 1) -> dict[str, int]:
    """Agents that each make the same failing calls again and again, all at once: at which turn each is stopped."""
    stopped: dict[str, int] = {}
    for turn in range(10):
        begun = []
        for agent in [f"sub#{number}" for number in range(agents)]:
            if agent in stopped:
                continue
            if isinstance(detector.before_model(agent=agent, can_block=False), Stop):
                stopped[agent] = turn
                continue
            calls = [call(agent, turn, agent, number) for number in range(equal)]
            verdicts = [detector.before_tool(one, can_block=False) for one in calls]
            if not all(isinstance(verdict, Proceed) for verdict in verdicts):
                stopped[agent] = turn
                continue
            begun += calls
        for one in begun:
            detector.after_tool(one, NOTHING, can_block=False)
    return stopped


@pytest.mark.parametrize("agents", [1, 2, BATCHES_SPARE, BATCHES_SPARE + 1, 20, SCOPES_MAX])
@pytest.mark.parametrize("equal", [1, 3])
def test_every_one_of_many_agents_at_once_is_stopped_after_five(agents: int, equal: int) -> None:
    """Also where all of their answers are in flight at the same time, and parallel calls are one attempt."""
    assert {f"sub#{number}": 5 for number in range(agents)} == in_step(LoopDetector(), agents, equal=equal)


def test_the_answers_of_all_agents_together_are_bounded() -> None:
    """However many there are and however large: in memory and in what is written down, which can be read again."""
    detector = LoopDetector()
    for turn in range(3):
        for agent in range(3 * SCOPES_MAX):
            for number in range(ENTRIES_MAX):
                detector.before_tool(call(f"a{agent}", turn, str(number), number), can_block=False)
    table = detector._memory.batches.table
    assert len(table) <= BATCHES_MAX
    assert sum(len(batch.entries) for batch in table.values()) <= ENTRIES_TOTAL_MAX
    again = LoopDetector.restore(json.loads(json.dumps(detector.state())))
    assert detector.state() == again.state()
    assert len(json.dumps(detector.state())) <= 65_536


def test_more_entries_than_fit_are_no_state() -> None:
    """A state that was tampered with is refused, as any damage is."""
    one = LoopDetector()
    for number in range(ENTRIES_MAX):
        one.before_tool(call("a", 1, str(number), number), can_block=False)
    state = one.state()
    rows = state["batches"]
    assert isinstance(rows, list)
    more = [[f"{number:x}", False, rows[0][2]] for number in range(ENTRIES_TOTAL_MAX // ENTRIES_MAX + 1)]
    with pytest.raises(ValueError, match="Start with a new LoopDetector"):
        LoopDetector.restore({**state, "batches": more})


def attempts(detector: LoopDetector, first: int, count: int) -> list[bool]:
    """Whether each attempt at the same call went on; it fails as ever."""
    went_on = []
    for turn in range(first, first + count):
        one = call("sub#1", turn)
        went_on.append(isinstance(detector.before_tool(one, can_block=False), Proceed))
        if went_on[-1]:
            detector.after_tool(one, NOTHING, can_block=False)
    return went_on


def test_who_takes_over_from_one_that_learnt_nothing_goes_on_counting() -> None:
    """Three failures and two more are five, whoever made them."""
    detector = LoopDetector()
    attempts(detector, 0, 3)
    detector.user_message("sub#1", taken_over=True)
    assert [True, True, False] == attempts(detector, 3, 3)


def test_who_takes_over_from_one_that_learnt_something_begins_anew() -> None:
    """As a person's word would have it; but no word of a person lets the other agents begin anew."""
    detector = LoopDetector()
    attempts(detector, 0, 3)
    news = call("sub#1", 3, "y")
    detector.before_tool(news, can_block=False)
    detector.after_tool(news, FINE, can_block=False)
    detector.user_message("sub#1", taken_over=True)
    assert [True] * 5 + [False] == attempts(detector, 4, 6)


def test_nobody_is_taken_over_where_nobody_was() -> None:
    """An agent that was never heard of, or one whose stop has come, changes nothing."""
    detector = LoopDetector()
    before = detector.state()
    detector.user_message("sub#9", taken_over=True)
    assert before == detector.state()
    attempts(detector, 0, 5)
    detector.user_message("sub#1", taken_over=True)
    assert isinstance(detector.before_model(agent="sub#1", can_block=False), Stop)
