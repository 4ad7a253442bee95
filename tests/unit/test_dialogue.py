"""What adapters of agent frameworks share: one agent's exchange with its model, from leave to result."""

from __future__ import annotations

import pytest

from rr_core import Bench, cent_call, done
from runrails import Limits
from runrails.calls import ModelCall, ModelResult, ToolOutcome
from runrails.cover import take_cover
from runrails.dialogue import ASKED_KEPT_MAX, Dialogue, dialogue_here, open_dialogue
from runrails.errors import BoundUnknown, ConfigError, LimitReached, LoopDetected
from runrails.stores.memory import MemoryStore

ARGS = {"text": "x"}
FAILED = ToolOutcome(ok=True, result="no result")


class RemoteStore(MemoryStore):
    """A store that may keep an event loop waiting."""

    remote = True


class Refused(Exception):
    """As the SDKs raise it."""

    status_code = 429


async def call(dialogue: Dialogue, result: ModelResult | None = None) -> None:
    """One model call."""
    async with dialogue.model_call(cent_call) as turn:
        turn.tell(lambda: result or done())


def tool(dialogue: Dialogue, call_id: str, *, told: bool = True) -> str | None:
    """One tool call that fails softly, up to its result or what was said in its place."""
    dialogue.asked(lambda: [("look", ARGS, call_id)])
    instead = dialogue.before_tool("look", ARGS, call_id)
    if instead is None and told:
        return dialogue.after_tool(call_id, lambda: FAILED)
    return instead


async def test_a_call_holds_and_settles() -> None:
    """A cent is held while it lasts and spent afterwards; the run that was opened for it ends with it."""
    bench = Bench()
    dialogue = open_dialogue(bench.guard, "q")
    async with dialogue.model_call(cent_call) as turn:
        held = bench.held("user:alice")
        turn.tell(done)
    dialogue.close()
    dialogue.close()

    assert (10**10, 10**10, 0) == (held, bench.spent("user:alice"), bench.held("user:alice"))
    assert ["run_ended"] == bench.names()


@pytest.mark.parametrize(("error", "spent"), [(Refused(), 0), (TimeoutError(), 10**10), (KeyboardInterrupt(), 10**10)])
async def test_an_error_costs_nothing_only_if_it_proves_so(error: BaseException, spent: int) -> None:
    """A definite error answer, also as a cause, is free; of anything else the money may be gone."""
    bench = Bench()
    dialogue = open_dialogue(bench.guard, "q")
    with pytest.raises(type(error)):
        async with dialogue.model_call(cent_call):
            raise error
    with pytest.raises(ValueError, match="wrapped"):
        async with dialogue.model_call(cent_call):
            raise ValueError("wrapped") from error

    assert (2 * spent, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


async def test_an_error_after_the_answer_has_begun_proves_nothing() -> None:
    """Whoever reads it may raise an error with a status of its own; what was streamed by then is billed."""
    bench = Bench()
    dialogue = open_dialogue(bench.guard, "q")
    with pytest.raises(Refused):
        async with dialogue.model_call(cent_call) as turn:
            turn.began()
            raise Refused

    assert (10**10, 0) == (bench.spent("user:alice"), bench.held("user:alice"))


async def test_what_was_told_before_an_error_counts() -> None:
    """A stream that told its usage and then broke is paid for by that."""
    bench = Bench()
    dialogue = open_dialogue(bench.guard, "q")
    with pytest.raises(Refused):
        async with dialogue.model_call(cent_call) as turn:
            turn.tell(done)
            raise Refused

    assert 10**10 == bench.spent("user:alice")


async def test_a_remote_store_is_asked_off_the_loop() -> None:
    """And the layers below are covered in the context that sends all the same."""
    bench = Bench(store=RemoteStore())
    dialogue = open_dialogue(bench.guard, "q")
    async with dialogue.model_call(cent_call) as turn:
        covered = take_cover(bench.guard, cent_call()), take_cover(bench.guard, cent_call())
        turn.tell(done)
    await dialogue.aclose()

    assert ((True, False), 10**10) == (covered, bench.spent("user:alice"))


async def test_an_answer_that_has_begun_covers_nothing_more() -> None:
    """What its reader requests meanwhile is a call of its own."""
    bench = Bench()
    dialogue = open_dialogue(bench.guard, "q")
    async with dialogue.model_call(cent_call) as turn:
        turn.began()
        turn.began()

        assert not take_cover(bench.guard, cent_call())


async def test_the_ladder() -> None:
    """A hint with the third result, a block in the place of the fifth call, then the stop at the model."""
    bench = Bench()
    dialogue = open_dialogue(bench.guard, "q")
    said = [tool(dialogue, f"c{number}") for number in range(6)]

    assert [False, False, True, False, True, True] == [text is not None for text in said]
    assert "not executed: the run had ended" in str(said[5])
    with pytest.raises(LoopDetected):
        await call(dialogue)


async def test_results_that_no_hook_has_told_are_counted_once() -> None:
    """From the next request; those of before the dialogue, of blocked calls and of told ones are not."""
    bench = Bench()
    dialogue = open_dialogue(bench.guard, "q")
    history = [(f"old{number}", FAILED) for number in range(9)]
    dialogue.heard(lambda: history)
    for number in range(5):
        dialogue.asked(lambda number=number: [("unknown", ARGS, f"c{number}")])
        await call(dialogue)
        for _ in range(2):
            dialogue.heard(lambda number=number: [*history, (f"c{number}", FAILED)])

    with pytest.raises(LoopDetected):
        await call(dialogue)
    assert 5 == dialogue.run.report().model_calls


async def test_a_tool_that_started_and_told_nothing_is_heard_of() -> None:
    """Its framework made a message of its error; the call is blocked in its turn."""
    bench = Bench()
    dialogue = open_dialogue(bench.guard, "q")
    said: list[str | None] = []
    for number in range(5):
        said.append(tool(dialogue, f"c{number}", told=False))
        dialogue.heard(lambda number=number: [(f"c{number}", FAILED)])

    assert [False, False, False, False, True] == [text is not None for text in said]
    await call(dialogue)


async def test_asking_twice_for_one_call_is_asking_once() -> None:
    """As before and after an approval; ids that a model uses again in its next answer are other calls."""
    bench = Bench()
    dialogue = open_dialogue(bench.guard, "q")
    for _ in range(2):
        dialogue.asked(lambda: [("look", ARGS, "call_0")])
        assert [None, None] == [dialogue.before_tool("look", ARGS, "call_0") for _ in range(2)]
        dialogue.after_tool("call_0", lambda: FAILED)

    assert 2 == dialogue.run.report().tool_calls
    assert dialogue.after_tool("call_0", lambda: FAILED) is None


async def test_a_limit_on_tools_is_answered_and_stops_at_the_model() -> None:
    """The conversation stays whole."""
    bench = Bench(Limits(tool_calls=1))
    dialogue = open_dialogue(bench.guard, "q")
    assert tool(dialogue, "c0") is None

    assert "limit_reached" in str(tool(dialogue, "c1"))
    with pytest.raises(LimitReached):
        await call(dialogue)


async def test_the_same_question_is_the_same_dialogue_unless_it_is_being_answered() -> None:
    """A retry counts on; a sample beside it counts apart, and so does whatever is asked inside a tool."""
    bench = Bench()
    with bench.guard.run():
        first = open_dialogue(bench.guard, "q")
        beside = open_dialogue(bench.guard, "q")
        first.close()
        beside.close()
        again = open_dialogue(bench.guard, "q")
        with again.inside(), again.nested().inside():
            inner = [open_dialogue(bench.guard, "q") for _ in range(2)]

    assert beside is not first
    assert again is beside
    assert 5 == len({first.agent, beside.agent, *(one.agent for one in inner), again.nested().agent})
    assert "" == first.agent


async def test_where_nobody_told_that_an_agent_began() -> None:
    """The run has one dialogue for it; outside of any run there is none."""
    bench, other = Bench(), Bench()
    with bench.guard.run() as run:
        assert dialogue_here(bench.guard) is dialogue_here(bench.guard)
        assert dialogue_here(bench.guard).run is run
        with pytest.raises(ConfigError):
            dialogue_here(other.guard)
        with pytest.raises(ConfigError):
            open_dialogue(other.guard, "q")

    with pytest.raises(ConfigError):
        dialogue_here(bench.guard)


async def test_observing_lets_through_what_cannot_be_read() -> None:
    """It tells what would have been refused."""
    bench = Bench(mode="observe")
    dialogue = open_dialogue(bench.guard, "q")

    def read() -> ModelCall:
        raise BoundUnknown("No.", next_step="No.")

    async with dialogue.model_call(read) as turn:
        turn.began()
        turn.tell(done)

    assert (None, None, ["call_would_refuse"]) == (turn.cap, turn.permit, bench.names())


async def test_what_is_remembered_is_bounded() -> None:
    """The oldest tool calls without a result are forgotten."""
    bench = Bench(Limits(steps=None))
    dialogue = open_dialogue(bench.guard, "q")
    for number in range(ASKED_KEPT_MAX + 5):
        dialogue.asked(lambda number=number: [(f"t{number}", number, f"c{number}")])
        dialogue.before_tool(f"t{number}", number, f"c{number}")

    assert (ASKED_KEPT_MAX, ASKED_KEPT_MAX) == (len(dialogue._asked), len(dialogue._started))
