"""What anybody with a key may know: their own usage, budgets and runs, and nobody else's."""

from __future__ import annotations

import pytest

from rr_admin import World, call_of
from runrails import Limits
from runrails.ledger import SupportsLimits
from runrails.rates import Rates


@pytest.fixture
def world() -> World:
    """A gateway's parts."""
    return World(Limits(run="1.00", month="50.00", key_month="20.00", org_month="500.00"))


def test_usage_is_ones_own(world: World) -> None:
    """By model and day, of this month or another; what others did is not in it, whatever is asked for."""
    world.run(calls=3, user="alice")
    world.run(calls=5, user="bob")
    with world.client(world.key("alice", "ai:complete")) as alice:
        got = alice.get("/v1/usage").json
        assert (3, "0.03", {"day", "model"}) == (got["calls"], got["cost_usd"], got["groups"].keys())
        for query in ({"user": "bob"}, {"org": "acme"}, {"key": "k"}, {"run": "x"}):
            assert 3 == alice.get("/v1/usage", **query).json["calls"], "what is not ours to choose is not looked at"
        assert ["alice"] == [each["name"] for each in alice.get("/v1/usage", by="user").json["groups"]["user"]]
        assert 0 == alice.get("/v1/usage", month="2026-10").json["calls"]
        assert 422 == alice.get("/v1/usage", month="2026-10-01").status


def test_budget_says_what_is_left_in_every_account(world: World) -> None:
    """The user's, the key's and the organisation's, before the first call and after; when a new month begins."""
    key = world.key("alice", "ai:complete", org="acme", rates=Rates(requests_per_minute=60))
    key_id = key[8:24]
    with world.client(key) as alice:
        got = alice.get("/v1/budget").json
        assert ("alice", "acme", key_id, ["ai:complete"], "1.00") == tuple(
            got[name] for name in ("user", "org", "key", "scopes", "run_limit_usd")
        )
        assert 60 == got["rates"]["requests_per_minute"]
        assert ["user:alice", f"key:{key_id}", "org:acme"] == [each["scope"] for each in got["accounts"]]
        assert ["50.00", "20.00", None] == [each["limit_usd"] for each in got["accounts"]]
        assert {1_796_083_200_000} == {each["resets_ms"] for each in got["accounts"]}, "1 December 2026, UTC"
        world.run(calls=4, user="alice", key=key_id, org="acme")
        run = world.guard.run(user="alice", key=key_id, org="acme")
        run.before_model(call_of("cent"))
        mine, keys, orgs = alice.get("/v1/budget").json["accounts"]
        for each, left in ((mine, "49.95"), (keys, "19.95")):
            assert ("0.04", "0.01", left, "active") == tuple(
                each[name] for name in ("spent_usd", "held_usd", "available_usd", "status")
            )
        assert [None] * 4 == [orgs[f"{name}_usd"] for name in ("limit", "spent", "held", "available")]


def test_an_operators_limit_counts_before_the_first_call(world: World) -> None:
    """And one that is used up says so; the organisation's too, whose amounts are not told."""
    assert isinstance(world.store, SupportsLimits)
    world.store.set_limit("user:alice", 7 * 10**12)
    with world.client(world.key("alice", "ai:complete", org="acme")) as alice:
        assert "7.00" == alice.get("/v1/budget").json["accounts"][0]["limit_usd"]
        world.run(calls=4, user="alice", org="acme")
        world.store.set_limit("user:alice", 10**10)
        world.store.set_limit("org:acme", 10**10)
        got = alice.get("/v1/budget").json["accounts"]
        assert ("blocked", "-0.03") == (got[0]["status"], got[0]["available_usd"])
        assert ("blocked", None) == (got[2]["status"], got[2]["available_usd"])


def test_runs_are_ones_own(world: World) -> None:
    """Listed and shown step by step; another's is as if it were not there."""
    mine, theirs = world.stopped_run("mine", user="alice"), world.run("theirs", user="bob")
    going = world.run("going", user="bob", close=False)
    world.registry.runs.append(going)
    with world.client(world.key("alice")) as alice:
        assert ["mine"] == [each["name"] for each in alice.get("/v1/runs").json["data"]]
        assert [] == alice.get("/v1/runs", q="theirs").json["data"]
        assert [] == alice.get("/v1/runs", stopped=False).json["data"]
        assert "loop_detected" == alice.get(f"/v1/runs/{mine.id}").json["stop_reason"]
        nobodys = alice.get("/v1/runs/18ea5595f4582bd8r278ebc47b0b99451c20c")
        for run in (theirs, going):
            got = alice.get(f"/v1/runs/{run.id}")
            assert (404, nobodys.body) == (got.status, got.body)


def test_a_run_told_by_its_calls_is_ones_own_too(world: World) -> None:
    """Where no record is kept yet, the calls say whose it is."""
    run = world.run(user="alice", close=False)
    with world.client(world.key("bob")) as bob, world.client(world.key("alice")) as alice:
        assert (404, 200) == (bob.get(f"/v1/runs/{run.id}").status, alice.get(f"/v1/runs/{run.id}").status)


def test_a_key_without_any_scope_may_know_its_own_and_no_more(world: World) -> None:
    """What is one's own needs a credential and no power."""
    with world.client(world.key("alice")) as alice:
        assert [200] * 3 == [alice.get(f"/v1/{name}").status for name in ("usage", "budget", "runs")]
        names = ("usage", "live", "runs", "keys", "budgets", "credentials")
        assert [403] * 6 == [alice.get(f"/admin/api/{name}").status for name in names]


def test_a_suspended_or_expired_key_learns_nothing(world: World) -> None:
    """Not even that it is known: the answer is that to a key which never was."""
    info, secret = world.keys.create("alice", scopes=(), expires_ms=world.clock() + 60_000)
    with world.client(secret.reveal()) as alice:
        assert 200 == alice.get("/v1/budget").status
        world.clock.advance(60_000)
        expired = alice.get("/v1/budget")
        world.keys.suspend(info.id)
        never = alice.ask("GET", "/v1/budget", key="rr_live_" + "x" * 66)
        assert (401, never.body, never.body) == (expired.status, expired.body, alice.get("/v1/budget").body)
