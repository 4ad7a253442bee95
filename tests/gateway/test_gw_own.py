"""What anybody with a key may know: their own usage, budgets and runs, and nobody else's."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from rr_admin import World, call_of
from rr_gateway import BODIES, gateway, serving
from runrails import Limits
from runrails.ledger import SupportsLimits
from runrails.plainfields import usd_text
from runrails.rates import Rates
from runrails.stores.memory import MemoryStore


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


def test_asking_in_many_ways_reads_the_books_once() -> None:
    """Whoever has a key could ask in a hundred ways at once, and each would read all calls of the month."""
    reads: list[object] = []

    class Counting(MemoryStore):
        def usage(self, *, user: str | None = None, period: str | None = None, run: str | None = None) -> Any:
            reads.append((user, period))
            return super().usage(user=user, period=period, run=run)

    world = World(store=Counting(clock=World().clock))
    world.run(calls=2, user="alice")
    with world.client(world.key("alice")) as alice:
        for by in ("day", "model", "user", "key", "org", "agent", "run", ["day", "run"]):
            got = alice.get("/v1/usage", by=by).json
            assert (2, {by} if isinstance(by, str) else set(by)) == (got["calls"], got["groups"].keys())
        assert [("alice", "2026-11")] == reads
        assert 0 == alice.get("/v1/usage", month="2026-01").json["calls"]
        assert [("alice", "2026-11"), ("alice", "2026-01")] == reads


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
            assert (404, nobodys.error) == (got.status, got.error)


def test_a_run_told_by_its_calls_is_ones_own_too(world: World) -> None:
    """Where no record is kept yet, the calls say whose it is."""
    run = world.run(user="alice", close=False)
    with world.client(world.key("bob")) as bob, world.client(world.key("alice")) as alice:
        assert (404, 200) == (bob.get(f"/v1/runs/{run.id}").status, alice.get(f"/v1/runs/{run.id}").status)


def test_what_the_gateway_charges_is_what_it_tells() -> None:
    """Through the whole gateway: usage, budget, run and live spend are the provider's bill, to the picodollar."""
    with gateway() as made, serving(replace(made.config, api_keys=made.keys)) as url:

        def ask(path: str, key: str = made.key, body: object = None) -> Any:
            data = None if body is None else json.dumps(body).encode()
            headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
            with urlopen(Request(url + path, data=data, headers=headers), timeout=20) as answer:  # noqa: S310 -- ours
                return json.load(answer)

        for _ in range(3):
            ask("/v1/chat/completions", body=BODIES["chat"][1])
        made.settled()
        usage, budget = ask("/v1/usage"), ask("/v1/budget")["accounts"][0]
        assert (made.billed, 3) == (usage["cost_pusd"], usage["calls"])
        assert usd_text(made.billed) == usage["cost_usd"] == budget["spent_usd"]
        run = ask("/v1/runs")["data"][0]
        assert (made.billed, True) == (3 * ask(f"/v1/runs/{run['run']}")["cost_pusd"], run["open"])
        root = made.new_key("root", scopes=["admin:usage"])
        live = ask("/admin/api/live", root)
        assert (usd_text(made.billed), 3) == (live["today_usd"], live["hour_calls"])
        with urlopen(f"{url}/admin", timeout=20) as page:  # noqa: S310 -- ours
            assert (200, "/admin/") == (page.status, urlsplit(page.url).path)


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
        assert (401, never.error, never.error) == (expired.status, expired.error, alice.get("/v1/budget").error)
