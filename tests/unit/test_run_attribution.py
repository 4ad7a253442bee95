"""Whose money a call is, through guard, run, context and call: accounts, limits, records, reports and refusals."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

import pytest

from rr_core import CENT, MONTH, OK, Bench, cent_call, done, model_step, tool_step
from runrails import (
    Attribution,
    BudgetExceeded,
    ConfigError,
    Guard,
    Limits,
    ScopeExhausted,
    StoreUnavailable,
    aio,
    current_run,
)
from runrails.calls import ModelCall, ModelResult, Permit
from runrails.grouping import GROUPS_MAX, OTHER, GroupRow, group_usage
from runrails.ledger import Account, FullStore, RunArchive, SupportsUsage
from runrails.run import Run
from runrails.stores.memory import MemoryStore
from runrails.testing import FlakyStore


def cent_for(user: str | None = None, **said: object) -> ModelCall:
    """A call of one cent that says itself whose it is."""
    return replace(cent_call(), by=Attribution(user=user, **said))  # type: ignore[arg-type]


def spent(bench: Bench, *users: str) -> list[int]:
    """What each user has spent this month, in cents."""
    return [bench.spent(f"user:{user}") // CENT for user in users]


def facts_of(bench: Bench) -> list[tuple[str, str | None, str | None, dict[str, str]]]:
    """Whose the calls in the books are, oldest first."""
    assert isinstance(bench.store, SupportsUsage)
    return [(r.facts.user, r.facts.key, r.facts.org, dict(r.facts.tags)) for r in bench.store.usage()]


def names(rows: tuple[GroupRow, ...]) -> dict[str | None, int]:
    """Calls by group."""
    return {row.name: row.calls for row in rows}


# What is refused.


@pytest.mark.parametrize(
    "wrong", [{"user": "no body"}, {"key": ""}, {"org": 5}, {"tags": {"team": "a\nb"}}, {"tags": "team=x"}]
)
def test_malformed_arguments_open_nothing(wrong: dict[str, object]) -> None:
    """Guard, run and block refuse what is no id or tag, and nothing is written."""
    bench = Bench()
    for make in (bench.guard.run, bench.guard.attribute):
        with pytest.raises(ConfigError):
            make(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        Guard(store=MemoryStore(), **wrong)  # type: ignore[arg-type]
    assert isinstance(bench.store, FullStore)
    assert [] == list(bench.store.balances())


def test_too_many_tags_refuse_the_call_alone() -> None:
    """Tags of run and call that do not fit together: nothing is sent or counted, and the run goes on."""
    bench = Bench()
    run = bench.guard.run(tags={f"t{n}": "x" for n in range(16)})
    with pytest.raises(ConfigError, match="16"):
        run.before_model(cent_for("bob", tags={"one": "more"}))
    assert (0, 0, None) == (run.report().steps, bench.held("user:bob"), run.stopped)
    model_step(run)


def test_too_many_tags_do_not_let_a_run_be_entered() -> None:
    """Tags of run and block that do not fit together: the run is not entered, and nothing stays attached."""
    bench = Bench()
    run = bench.guard.run(tags={f"t{n}": "x" for n in range(16)})
    with bench.guard.attribute(tags={"one": "more"}), pytest.raises(ConfigError, match="16"), run:
        pass
    assert (None, False) == (current_run(), run.owned)
    with run:
        model_step(run)
    assert 1 == run.report().model_calls


def test_a_month_of_one_user_is_used_up_and_others_go_on() -> None:
    """A call for bob is refused without a stop; alice's calls in the same run go on, and bob's next month too."""
    bench = Bench(Limits(month="0.02"))
    run = bench.guard.run()
    for _ in range(2):
        model_step(run, cent_for("bob"))
    with pytest.raises(ScopeExhausted) as caught:
        run.before_model(cent_for("bob"))
    assert ("user:bob", MONTH, 2 * CENT) == tuple(caught.value.fields[name] for name in ("scope", "period", "spent"))
    assert (None, 2, 1) == (run.stopped, run.report().steps, run.report().refusals)
    assert (0, 0) == (bench.held("user:bob"), bench.held(f"run:{run.id}", "-"))
    for user in ("alice", "carol"):
        model_step(run, cent_for(user))
    assert [1, 2, 1] == spent(bench, "alice", "bob", "carol")
    assert "call_refused" in bench.names()
    assert "run_stopped" not in bench.names()
    bench.guard.flush()
    assert [("user:bob", "budget_limit_reached")] == [
        (event.fields["scope"], event.name.removeprefix("runrails."))
        for event in bench.events
        if "budget_limit" in event.name
    ]
    bench.clock.advance(20 * 86_400_000)
    model_step(run, cent_for("bob"))


@pytest.mark.parametrize("limit", [{"key_month": "0.01"}, {"org_month": "0.01"}])
def test_keys_and_organisations_of_single_calls_have_their_months(limit: dict[str, str]) -> None:
    """`key_month` and `org_month` limit the key and the organisation that a call is for."""
    kind = next(iter(limit)).removesuffix("_month")
    bench = Bench(Limits(**limit))  # type: ignore[arg-type]
    run = bench.guard.run()
    one = replace(cent_call(), by=Attribution(**{kind: "x"}))
    model_step(run, one)
    with pytest.raises(ScopeExhausted, match=f"{kind}:x"):
        run.before_model(one)
    model_step(run, replace(cent_call(), by=Attribution(**{kind: "y"})))
    model_step(run)
    assert [CENT, CENT] == [bench.spent(f"{kind}:{name}") for name in "xy"]


def test_the_runs_own_month_stops_the_run() -> None:
    """A run opened for bob ends for good when bob's month does; the guard's other runs do not."""
    bench = Bench(Limits(month="0.01"))
    run, other = bench.guard.run(user="bob"), bench.guard.run()
    model_step(run)
    with pytest.raises(BudgetExceeded, match="user:bob"):
        run.before_model(cent_call())
    with pytest.raises(BudgetExceeded):
        run.before_model(cent_for("alice"))
    model_step(other)
    with pytest.raises(BudgetExceeded, match="user:alice"):
        other.before_model(cent_call())


def test_a_childs_month_does_not_stop_its_parent() -> None:
    """A child run for bob ends with bob's month; the run around it, alice's, goes on."""
    bench = Bench(Limits(month="0.01"))
    with bench.guard.run() as outer:
        with pytest.raises(BudgetExceeded, match="user:bob"), bench.guard.run(user="bob") as inner:
            model_step(inner)
            model_step(inner)
        assert outer.stopped is None
        model_step(outer)


def test_observing_tells_of_a_scopes_end_and_stops_nothing() -> None:
    """In observe mode a call for somebody whose month is over is counted, and told of as a refusal, not as a stop."""
    bench = Bench(Limits(month="0.01"), mode="observe")
    run = bench.guard.run()
    for _ in range(2):
        model_step(run, cent_for("bob"))
    assert ([2], None) == (spent(bench, "bob"), run.report().would_have_stopped)
    (told,) = [event for event in bench.events if event.name == "runrails.call_would_refuse"]
    assert ("scope_exhausted", "user:bob") == (told.fields["error"], told.fields["scope"])


def test_a_scope_of_another_time_zone_refuses_the_call() -> None:
    """A call for a user whose months begin elsewhere is not started; others' are."""
    bench = Bench()
    assert isinstance(bench.store, FullStore)
    bench.store.fix_zone("user:bob", "Asia/Tokyo")
    run = bench.guard.run()
    with pytest.raises(ConfigError, match="Asia/Tokyo"):
        run.before_model(cent_for("bob"))
    assert (0, None) == (run.report().steps, run.stopped)
    model_step(run, cent_for("carol"))
    with pytest.raises(ConfigError, match="Asia/Tokyo"):
        bench.guard.run(user="bob")
    with bench.guard.attribute(user="bob"), pytest.raises(ConfigError, match="Asia/Tokyo"):
        run.before_model(cent_call())
    assert [0, 0, 1] == spent(bench, "alice", "bob", "carol")


@pytest.mark.parametrize("mode", ["refuse", "allow"])
def test_a_new_scope_needs_the_store(mode: Literal["refuse", "allow"]) -> None:
    """With the ledger out of reach a call for a new user is refused; with `allow` it starts all the same."""
    store = FlakyStore(MemoryStore(), plan=["ok", "request_lost"], verbs={"fix_zone"})
    bench = Bench(store=store, on_store_error=mode)
    run = bench.guard.run()
    if mode == "refuse":
        with pytest.raises(StoreUnavailable):
            run.before_model(cent_for("bob"))
        assert (0, 0, None) == (run.report().steps, bench.held("user:bob"), run.stopped)
    model_step(run, cent_for("bob"))
    assert [1] == spent(bench, "bob")
    assert (mode == "allow") == ("store_bypassed" in bench.names())


# Who wins.


def test_each_place_goes_over_the_ones_before_it() -> None:
    """Guard, then the run's arguments (a child's over its parent's), then the block, then the call; field by field."""
    bench = Bench(key="gk", org="gorg")
    with bench.guard.run(user="ruser", tags={"a": "run", "b": "run"}) as outer:
        model_step(outer)
        with bench.guard.run(org="child", tags={"b": "child"}) as inner:
            model_step(inner)
            with bench.guard.attribute(user="block", tags={"c": "block"}):
                model_step(inner)
                model_step(inner, cent_for("call", tags={"c": "call"}))
                model_step(outer, cent_for(key="ck"))
        model_step(outer)
    assert [
        ("ruser", "gk", "gorg", {"a": "run", "b": "run"}),
        ("ruser", "gk", "child", {"a": "run", "b": "child"}),
        ("block", "gk", "child", {"a": "run", "b": "child", "c": "block"}),
        ("call", "gk", "child", {"a": "run", "b": "child", "c": "call"}),
        ("block", "ck", "gorg", {"a": "run", "b": "run", "c": "block"}),
        ("ruser", "gk", "gorg", {"a": "run", "b": "run"}),
    ] == facts_of(bench)


def test_the_block_goes_over_a_runs_arguments_wherever_it_begins() -> None:
    """Who asks is known outside; a run opened further in, for somebody else, does not change it."""
    bench = Bench()
    with bench.guard.attribute(user="bob"), bench.guard.run(user="service") as run:
        model_step(run)
    assert ["bob", "bob"] == [facts_of(bench)[0][0], run.report().user]


def test_a_run_belongs_to_the_block_it_is_entered_in() -> None:
    """A `with` run in a block reports as that user's and ends with that user's month; driven by hand it does not."""
    bench = Bench(Limits(month="0.01"))
    with bench.guard.attribute(user="bob"):
        by_hand = bench.guard.run()
        with pytest.raises(BudgetExceeded, match="user:bob"), bench.guard.run() as run:
            model_step(run)
            model_step(run)
        with pytest.raises(ScopeExhausted, match="user:bob"):
            by_hand.before_model(cent_call())
    assert ("bob", "alice") == (run.report().user, by_hand.report().user)
    assert isinstance(bench.store, RunArchive)
    assert ["bob"] == [record.user for record in bench.store.runs()]
    model_step(by_hand)  # Alice's own money, which bob's calls in it have not touched.
    assert [1, 1] == spent(bench, "alice", "bob")


def test_a_block_says_nothing_for_another_guard() -> None:
    """Two guards in one process: the block of one changes nothing for the other's calls."""
    bench, other = Bench(), Bench(user="internal")
    with bench.guard.attribute(user="bob"):
        model_step(other.guard.run())
    assert ("internal", None, None, {}) == facts_of(other)[0]


def test_a_settlement_goes_to_whom_the_call_was_for() -> None:
    """What was admitted for bob is settled for bob, wherever its end comes."""
    bench = Bench()
    run = bench.guard.run()
    with bench.guard.attribute(user="bob"):
        permit = run.before_model(cent_call())
    with bench.guard.attribute(user="carol"):
        run.after_model(permit, done())
    assert [0, 1, 0] == spent(bench, "alice", "bob", "carol")


def test_a_permit_for_one_does_not_cover_a_call_for_another() -> None:
    """What a layer below turns into another's call is asked for anew; nothing of the first is left held."""
    bench = Bench()
    run = bench.guard.run()
    permit = run.before_model(cent_for("bob"), tentative=True)
    revised = run.revise(permit, cent_for("carol"))
    assert (0, CENT) == (bench.held("user:bob"), bench.held("user:carol"))
    assert revised.id == run.revise(revised, cent_for("carol")).id
    run.after_model(revised, done())
    assert ([0, 1], 1) == (spent(bench, "bob", "carol"), run.report().steps)


def test_raised_limits_apply_to_every_scope() -> None:
    """After a resume with a higher limit, a user who was refused goes on."""
    bench = Bench(Limits(month="0.01"))
    run = bench.guard.run()
    model_step(run, cent_for("bob"))
    with pytest.raises(ScopeExhausted):
        run.before_model(cent_for("bob"))
    run.resume(limits=Limits(month="0.02"))
    model_step(run, cent_for("bob"))
    with pytest.raises(ScopeExhausted):
        run.before_model(cent_for("bob"))


# Threads and tasks.


async def test_tasks_with_different_users_do_not_mix() -> None:
    """Twenty tasks in one run, each for its own user, call after call: everybody pays their own."""
    bench = Bench()
    run = bench.guard.run()

    async def work(user: str) -> None:
        with bench.guard.attribute(user=user, tags={"team": f"team-{user}"}):
            for _ in range(3):
                permit = await aio.before_model(run, cent_call())
                await asyncio.sleep(0)
                await aio.after_model(run, permit, done())

    users = [f"u{n}" for n in range(20)]
    await asyncio.gather(*map(work, users))
    assert [3] * 20 == spent(bench, *users)
    assert {f"team-{user}": 3 for user in users} == names(run.report().by("tag:team"))
    assert [0] == spent(bench, "alice")


async def test_a_call_that_waits_off_the_loop_stays_its_users() -> None:
    """A call that waits for money in a thread of ours is paid by whom it was asked for."""
    bench = Bench(Limits(run="0.01"))
    run = bench.guard.run()
    first = run.before_model(cent_call())
    with bench.guard.attribute(user="bob"):
        waiting = asyncio.create_task(aio.before_model(run, cent_call()))
    await asyncio.sleep(0)  # It has been refused here, and asks again in a thread.
    run.after_model(first, ModelResult(end="failed"))
    run.after_model(await waiting, done())
    assert [0, 1] == spent(bench, "alice", "bob")


def test_bound_functions_keep_their_user_in_a_pool() -> None:
    """`guard.bind` takes run and user along; an unbound function has neither."""
    bench = Bench()

    def ask(run: Run) -> Permit:
        return model_step(run)

    with bench.guard.run() as run, ThreadPoolExecutor(4) as pool:
        futures = []
        for user in ("bob", "carol", "bob"):
            with bench.guard.attribute(user=user):
                futures.append(pool.submit(bench.guard.bind(ask), run))
        futures.append(pool.submit(ask, run))
        for future in futures:
            future.result()
    assert [1, 2, 1] == spent(bench, "alice", "bob", "carol")


def test_many_users_are_forgotten_and_known_again() -> None:
    """More users than a run remembers: each still pays and is limited exactly."""
    bench = Bench(Limits(month="0.01", run=None, steps=None))
    run = bench.guard.run()
    users = [f"u{n}" for n in range(300)]
    for user in users:
        model_step(run, cent_for(user))
    for user in users[:5]:
        with pytest.raises(ScopeExhausted):
            run.before_model(cent_for(user))
    assert [1] * 300 == spent(bench, *users)


# Reports.


def test_a_report_is_grouped_by_all_it_knows() -> None:
    """Calls, tokens and cost by user, organisation, tag, model, agent and tool; child runs are part of it."""
    bench = Bench(org="acme")
    with bench.guard.run(tags={"team": "ads"}) as run:
        model_step(run, result=done(100, 10))
        model_step(run, cent_for("bob", tags={"team": "search"}), done(10, 1))
        model_step(run, replace(cent_call(), model="free", agent="sub"), done(1, 1))
        tool_step(run, OK, name="look")
        with bench.guard.run(user="carol") as child:
            model_step(child, result=done(1_000, 5))
            tool_step(child, OK, name="look")
            tool_step(child, OK, name="fetch")
    report = run.report()
    assert (
        GroupRow(name="alice", calls=2, input_tokens=101, output_tokens=11, cost_pusd=CENT),
        GroupRow(name="bob", calls=1, input_tokens=10, output_tokens=1, cost_pusd=CENT),
        GroupRow(name="carol", calls=1, input_tokens=1_000, output_tokens=5, cost_pusd=CENT),
    ) == report.by("user")
    assert {"ads": 3, "search": 1} == names(report.by("tag:team"))
    assert {None: 4} == names(report.by("tag:none-has-it")) == names(report.by("key"))
    assert {"acme": 4} == names(report.by("org"))
    assert {"cent": 3, "free": 1} == names(report.by("model"))
    assert {None: 3, "sub": 1} == names(report.by("agent"))
    assert {"look": 2, "fetch": 1} == names(report.by("tool"))
    for dimension in ("user", "key", "org", "tag:team", "model", "agent"):
        rows = report.by(dimension)
        assert (report.cost_pusd, report.tokens) == (sum(r.cost_pusd for r in rows), sum(r.tokens for r in rows))
    assert ("alice", None, "acme", (("team", "ads"),)) == (report.user, report.key, report.org, report.tags)
    assert {"carol": 1} == names(child.report().by("user"))
    for wrong in ("users", "", "tag", "team"):
        with pytest.raises(ConfigError, match="tag:NAME"):
            report.by(wrong)


def test_the_sums_are_of_all_steps_and_bounded() -> None:
    """Beyond 256 users and a thousand steps nothing is lost: what is new is under `(other)`."""
    bench = Bench(Limits(run=None, steps=None))
    run = bench.guard.run()
    for n in range(1_500):
        model_step(run, cent_for(f"u{n % 300}"))
    report = run.report()
    assert (1_000, 1_500) == (len(report.rows), report.model_calls)
    rows = report.by("user")
    assert (GROUPS_MAX + 1, OTHER, 1_500) == (len(rows), rows[-1].name, sum(row.calls for row in rows))
    assert 5 * (300 - GROUPS_MAX) == rows[-1].calls
    assert {"cent": 1_500} == names(report.by("model"))


def test_a_report_is_kept_with_its_groups() -> None:
    """The archived report has whose the run is, its tags and its groups, as JSON."""
    bench = Bench()
    with bench.guard.run(user="bob", key="k1", tags={"team": "ads"}) as run:
        model_step(run)
    assert isinstance(bench.store, RunArchive)
    kept = bench.store.run(run.id)
    assert kept is not None
    assert ("bob", "bob", "k1", {"team": "ads"}) == (
        kept.user, kept.report["user"], kept.report["key"], kept.report["tags"]
    )  # fmt: skip
    groups = kept.report["groups"]
    assert isinstance(groups, dict)
    row = {"name": "ads", "calls": 1, "input_tokens": 10, "output_tokens": 5, "cost_pusd": CENT, "own_key_pusd": 0}
    assert [row] == groups["tag:team"]


# The usage of a store.


def test_usage_is_grouped_by_a_python_call() -> None:
    """`guard.usage(by)` sums the store's calls, in flight ones at no cost, released ones not at all."""
    bench = Bench(Limits(month="1.00"))
    run = bench.guard.run()
    model_step(run, cent_for("bob", tags={"team": "search"}))
    model_step(run, cent_for("bob", tags={"team": "ads"}))
    bench.clock.advance(86_400_000)
    model_step(run, cent_for("carol", tags={"team": "ads", "env": "prod"}))
    run.before_model(cent_for("dora"))
    run.withdraw(run.before_model(cent_for("eve")))
    assert {"bob": 2, "carol": 1, "dora": 1} == names(bench.guard.usage("user"))
    assert {"ads": 2, "search": 1, None: 1} == names(bench.guard.usage("tag:team"))
    assert [("2026-11-18", 2 * CENT), ("2026-11-19", CENT)] == [
        (row.name, row.cost_pusd) for row in bench.guard.usage("day")
    ]
    assert {"carol": 1} == names(bench.guard.usage("user", tags={"team": "ads", "env": "prod"}))
    assert {"ads": 1, "search": 1} == names(bench.guard.usage("tag:team", user="bob", month=MONTH, run=run.id))
    assert () == bench.guard.usage("user", month="2026-10")
    with pytest.raises(ConfigError, match="tag:NAME"):
        bench.guard.usage("weather")
    with pytest.raises(ValueError, match="month"):
        bench.guard.usage("user", month="november")


def test_usage_of_more_groups_than_are_told_apart_is_whole() -> None:
    """What is new when there are enough groups goes under `(other)`, which comes last however dear it is."""
    bench = Bench()
    run = bench.guard.run()
    for user in ("bob", "carol", "dora", "eve", "dora", "bob"):
        model_step(run, cent_for(user))
    assert isinstance(bench.store, SupportsUsage)
    rows = group_usage(bench.store.usage(), "user", count_max=2)
    assert [("bob", 2), ("carol", 1), (OTHER, 3)] == [(row.name, row.calls) for row in rows]
    assert 6 * CENT == sum(row.cost_pusd for row in rows)


def test_a_limit_of_an_operator_holds_for_a_calls_scope() -> None:
    """`runrails budget set user:bob` limits bob's calls in a run of somebody else's."""
    bench = Bench()
    assert isinstance(bench.store, FullStore)
    bench.store.set_limit("user:bob", CENT)
    run = bench.guard.run()
    model_step(run, cent_for("bob"))
    with pytest.raises(ScopeExhausted, match="user:bob"):
        run.before_model(cent_for("bob"))
    assert CENT == bench.store.balance(Account("user:bob", MONTH)).spent
    model_step(run)


def test_nothing_said_is_the_guards() -> None:
    """Without any of it everything is as it was: the guard's user, key and organisation, and no tags."""
    bench = Bench(key="k1", org="acme")
    run = bench.guard.run()
    model_step(run)
    assert [("alice", "k1", "acme", {})] == facts_of(bench)
    assert bench.guard.attribution == run.attribution
