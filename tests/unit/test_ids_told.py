"""Ids of calls and runs: fresh, in order of time, and telling whose they are to a store that wants to know."""

from __future__ import annotations

import itertools
import time

import pytest

from rr_core import PRICES, Bench, model_step
from runrails import Guard, Limits
from runrails.ids import PLACES, call_id, check_id, id_makers, place_of, run_id, tag_of, told_by
from runrails.ledger import SupportsUsage


def test_ids_tell_when_and_whose() -> None:
    """A call's and its run's share the user's tag; all calls of a run have one place."""
    before = time.time_ns()
    run = run_id("alice")
    names = [call_id("alice", run) for _ in range(200)]
    after = time.time_ns()
    for name in (run, *names):
        told = told_by(check_id(name, what="an id"))
        assert told is not None
        assert before <= told.ns <= after
        assert tag_of("alice") == told.tag
        assert ("" if name == run else place_of(run)) == told.place
    assert 200 == len(set(names))
    assert names == sorted(names)


@pytest.mark.parametrize("ns", [0, 1, 2**60 - 1, 2**60, 2**63 - 1])
def test_ids_are_of_one_length_whatever_the_clock_says(ns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 2006 a moment has fewer digits; they are filled up, so that ids still sort by time."""
    monkeypatch.setattr(time, "time_ns", lambda: ns)
    for name in (run_id("alice"), call_id("alice", "r")):
        told = told_by(name)
        assert told is not None
        assert ns == told.ns


def test_runs_are_spread_over_all_places() -> None:
    """So that no part of a busy user's month takes all of it."""
    assert set(PLACES) == {place_of(run_id("alice")) for _ in range(300)}


CALL = "18ea4bff0cdd1b9dm278ebc4744fa19ba3f9e"


@pytest.mark.parametrize("name", ["", "a", "call-1", "0" * 32, "0" * 37, CALL[:-1], CALL.upper(), CALL + "0"])
def test_other_ids_tell_nothing(name: str) -> None:
    """Whatever else somebody calls a call or a run."""
    assert told_by(CALL) is not None
    assert told_by(name) is None


def test_whoever_makes_ids_makes_all_of_them() -> None:
    """`Guard(make_id=…)` is asked for runs and calls as well."""
    numbers = itertools.count(1)
    make_call, make_run = id_makers(lambda: f"id-{next(numbers)}")
    assert ["id-1", "id-2"] == [make_run("alice"), make_call("alice", "r")]
    bench = Bench(Limits(run="1.00"))
    run = bench.guard.run()
    assert run.id.startswith("id-")
    assert model_step(run).id.startswith("id-")


def test_a_guards_ids_are_of_that_form() -> None:
    """Of a run and its calls; the calls of a user whom the run serves have that user's tag."""
    with Guard(Limits(run="1.00"), user="alice", store="memory:", prices=PRICES, sinks=()) as guard:
        run = guard.run()
        own = model_step(run)
        with guard.attribute(user="bob"):
            other = model_step(run)
        assert isinstance(guard.store, SupportsUsage)
        assert [own.id, other.id] == [record.id for record in guard.store.usage(run=run.id)]
        told = [told_by(name) for name in (run.id, own.id, other.id)]
        assert [tag_of("alice")] * 2 + [tag_of("bob")] == [each.tag for each in told if each]
