"""A stop that the program itself catches inside `with guard.run():` stays caught, and nothing is sent after it."""

from __future__ import annotations

import pytest

from rr_clients import HI, MODEL, World
from runrails import BudgetExceeded, GuardrailStopped, Limits


def test_what_a_program_catches_stays_caught_and_can_be_asked_for() -> None:
    """
    Whoever caught it may have meant to, and goes on without the model: the block ends as the program ends it. The run
    tells of the stop, and raises it once more for who asks.
    """
    with World() as world:
        client = world.openai()
        with world.guard.run(limits=Limits(run="0.05", steps=None)) as run:
            answers = 0
            for _ in range(50):
                try:
                    client.chat.completions.create(model=MODEL, messages=HI, max_tokens=900)
                    answers += 1
                except Exception:
                    sent = world.hits
        assert 0 < answers == sent == world.hits
        assert isinstance(run.stopped, BudgetExceeded)
        with pytest.raises(BudgetExceeded) as caught:
            run.check()
        assert run.stopped.as_dict() == caught.value.as_dict()
        assert "run_stopped" in world.names()
        world.settled()


def test_with_a_supervisor_a_caught_stop_is_the_outcome() -> None:
    """What the program gives is its value, and why it could not do more is the outcome's reason."""
    with World() as world:
        client = world.openai()

        def work() -> int:
            answers = 0
            for _ in range(50):
                try:
                    client.chat.completions.create(model=MODEL, messages=HI, max_tokens=900)
                    answers += 1
                except GuardrailStopped:
                    break
            return answers

        outcome = world.guard.supervise(work, limits=Limits(run="0.05", steps=None)).invoke()
        assert (world.hits, "budget_exceeded") == (outcome.value, outcome.stop_reason)
        world.settled()
