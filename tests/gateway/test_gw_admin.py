"""The admin API: what each route does, who may call it, and that nothing it is sent makes it fail or tell a secret."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rr_admin import ALL, CENT, Client, Got, World, app_of, call_of, done, routes_of
from rr_core import PRICES
from rr_keys import CountingDocuments, holds_part, make_keys
from rr_vault import CANARY, leaks
from runrails import Guard, Limits
from runrails.credentials import CredentialId
from runrails.credentials.validation import Validation
from runrails.documents.memory import MemoryDocuments
from runrails.documents.sqlite import SQLiteDocuments
from runrails.errors import ConfigError
from runrails.identity.authenticate import Authenticator
from runrails.identity.operations import OPERATIONS
from runrails.ledger import Account, UsageRecord
from runrails.stores.memory import MemoryStore
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock
from runrails_gateway.admin import Services
from runrails_gateway.admin.errors import ErrorAnswer
from runrails_gateway.admin.kept import KEPT_MS, Kept
from runrails_gateway.admin.live import Tape
from runrails_gateway.admin.routing import BODY_BYTES_MAX, OPERATION, Endpoint, router_of
from runrails_gateway.admin.services import Desk
from runrails_gateway.admin.usage import RECORDS_MAX

MINUTE_MS = 60_000
SECRET = "sk-proj-" + "Zk7Qw2Lm9Xv4Tn6Rb8Yc1Hd3Jf5Gs0Pa"


@pytest.fixture
def world() -> World:
    """A gateway's parts."""
    return World()


@pytest.fixture
def client(world: World) -> Iterator[Client]:
    """An operator."""
    with world.client() as opened:
        yield opened


# Who may.


def test_every_route_names_an_operation_and_each_is_asked_for(world: World) -> None:
    """Nothing is served under an address of ours that the table of operations does not know; the page has no data."""
    routes = routes_of(world.services)
    assert all(operation in OPERATIONS for _, _, operation in routes)
    asked = {operation for _, _, operation in routes}
    expected = {
        name
        for name, rule in OPERATIONS.items()
        if name.split(".")[0] in {"keys", "budgets", "credentials", "usage", "runs"}
    } - {"keys.adopt", "credentials.rewrap"} | {"tokens.exchange"}  # the machine alone: old hashes, master keys
    assert expected == asked


def test_a_route_without_an_operation_cannot_be_made(world: World) -> None:
    """It fails when the application is built, not when somebody finds it."""
    desk = Desk(services=world.services)
    with pytest.raises(ConfigError):
        router_of(desk, [Endpoint("GET", "/x", "keys.everything", lambda: None)], prefix="/admin", tag="x")


@pytest.fixture(scope="module")
def one_world() -> World:
    """One for tests in which nothing changes."""
    return World()


@pytest.mark.parametrize(
    ("method", "path", "operation"), routes_of(World().services), ids=lambda each: str(each).strip("/")
)
def test_each_route_needs_a_credential_and_its_scope(
    one_world: World, method: str, path: str, operation: str
) -> None:  # fmt: skip
    """Without one 401, with all scopes but its own 403, and the body is not even looked at; nothing changes."""
    world = one_world
    before = world.state()
    scope = OPERATIONS[operation].scope
    address = path.format(key_id="x", scope="user:x", owner="user:x", provider="openai", label="default", run_id="x")
    with world.client("") as nobody:
        for headers in ([], [("authorization", "Basic x")], [("authorization", f"Bearer {world.operator}x")],
                        [("authorization", f"Bearer {world.operator}"), ("x-api-key", world.operator)]):  # fmt: skip
            got = nobody.ask(method, address, raw=b"{not json", headers=headers)
            assert (got.status, got.code) == (401, "invalid_api_key")
            assert got.headers["www-authenticate"] == "Bearer"
        if scope is not None:
            others = world.key("mallory", *(set(ALL) - {scope}))
            before = world.state()
            got = nobody.ask(method, address, raw=b"{not json", key=others)
            assert (got.status, got.code, got.json["error"]["missing"]) == (403, "forbidden", scope)
    assert before == world.state()


def test_an_organisations_administrator_reaches_its_own_only(world: World) -> None:
    """Lists have what belongs to it; others' keys are as if they were not there, others' budgets and users refused."""
    theirs, _ = world.keys.create("carol", scopes=["ai:complete"], org="acme")
    other, _ = world.keys.create("bob", scopes=["ai:complete"], org="umbrella")
    world.run("theirs", user="carol", org="acme")
    foreign = world.run("foreign", user="bob", org="umbrella")
    before = world.state()
    with world.client(world.key("chief", *ALL, org="acme")) as chief:
        assert {"carol", "chief"} == {each["user"] for each in chief.get("/admin/api/keys").json["data"]}
        assert theirs.id == chief.get(f"/admin/api/keys/{theirs.id}").json["id"]
        for verb, path, body in (
            ("GET", f"/admin/api/keys/{other.id}", None), ("POST", f"/admin/api/keys/{other.id}/revoke", None),
            ("POST", f"/admin/api/keys/{other.id}/rotate", {}), ("GET", f"/admin/api/runs/{foreign.id}", None),
            ("GET", "/admin/api/keys/0000000000000000", None),
        ):  # fmt: skip
            assert 404 == chief.ask(verb, path, body).status
        for verb, path, body in (
            ("GET", "/admin/api/budgets", None), ("GET", "/admin/api/budgets/org:umbrella", None),
            ("PUT", "/admin/api/budgets/user:bob", {"limit": "5"}), ("GET", f"/admin/api/budgets/key:{other.id}", None),
            ("GET", "/admin/api/budgets/key:none", None), ("PUT", "/admin/api/budgets/run:x", {"limit": "5"}),
            ("GET", "/admin/api/credentials?owner=user:bob", None),
            ("POST", "/admin/api/credentials", {"owner": "platform", "provider": "openai", "key": SECRET}),
            ("DELETE", "/admin/api/credentials/org:umbrella/openai/default", None),
            ("POST", "/admin/api/keys", {"user": "bob", "scopes": ["ai:complete"]}),
            ("POST", "/admin/api/keys", {"user": "carol", "scopes": ["ai:complete"], "org": "umbrella"}),
        ):  # fmt: skip
            address, _, query = path.partition("?")
            asked = dict([query.split("=")]) if query else {}
            got = chief.ask(verb, address, body, query=asked)
            assert (403, "forbidden") == (got.status, got.code), path
        assert ["theirs"] == [each["name"] for each in chief.get("/admin/api/runs").json["data"]]
        assert 1 == chief.get("/admin/api/usage").json["calls"]
        assert 403 == chief.get("/admin/api/usage", org="umbrella").status
        assert "0.01" == chief.get("/admin/api/live").json["month_usd"]
        assert [] == chief.get("/admin/api/credentials").json["data"]
    assert before["limits"] == world.state()["limits"] and before["vault"] == world.state()["vault"]


def test_an_organisations_administrator_makes_keys_of_it_only(world: World) -> None:
    """A key without an organisation would be the platform's, so none is made; nor one with powers they have not."""
    with world.client(world.key("chief", "admin:keys", "ai:complete", org="acme")) as chief:
        made = chief.ask("POST", "/admin/api/keys", {"user": "chief", "scopes": ["admin:keys"]})
        assert (201, "acme") == (made.status, made.json["org"])
        got = chief.ask("POST", "/admin/api/keys", {"user": "chief", "scopes": ["admin:budgets"]})
        assert (403, "admin:budgets") == (got.status, got.json["error"]["missing"])
        mighty, _ = world.keys.create("chief", scopes=ALL, org="acme")
        got = chief.ask("POST", f"/admin/api/keys/{mighty.id}/rotate", {})
        assert 403 == got.status, "the new secret would have powers that the caller has not"


# API keys.


def test_a_key_is_made_shown_once_and_works(world: World, client: Client) -> None:
    """Its text is in the answer of making it and nowhere else; what it may is what was asked for."""
    got = client.ask(
        "POST", "/admin/api/keys",
        {"user": "bob", "scopes": ["ai:complete"], "name": "laptop", "month_usd": "12.50",
         "rates": {"requests_per_minute": 60}},
    )  # fmt: skip
    key = got.json["key"]
    assert (201, "no-store") == (got.status, got.headers["cache-control"])
    assert ("12.50", 12_500_000_000_000, 60) == (
        got.json["month_usd"], got.json["month_pusd"], got.json["rates"]["requests_per_minute"])  # fmt: skip
    listed, shown = client.get("/admin/api/keys", user="bob"), client.get(f"/admin/api/keys/{got.json['id']}")
    assert got.json | {"key": None} == shown.json | {"key": None}
    assert not any(holds_part(each.body.decode(), key[25:]) for each in (listed, shown))
    assert "bob" == client.ask("GET", "/v1/budget", key=key).json["user"]
    assert not holds_part(repr(world.events), key[25:])
    assert ("keys.create", "root") == tuple(world.events[-1].fields[name] for name in ("operation", "by"))


def test_a_key_is_suspended_resumed_revoked(world: World, client: Client) -> None:
    """Each counts at once in this process; what is revoked stays so, and says that it is a conflict."""
    key = client.ask("POST", "/admin/api/keys", {"user": "bob", "scopes": ["ai:complete"]}).json
    for verb, status, works in (("suspend", "suspended", 401), ("resume", "active", 200), ("revoke", "revoked", 401)):
        assert status == client.ask("POST", f"/admin/api/keys/{key['id']}/{verb}").json["status"]
        assert works == client.ask("GET", "/v1/budget", key=key["key"]).status
    for verb in ("resume", "suspend", "rotate"):
        got = client.ask("POST", f"/admin/api/keys/{key['id']}/{verb}")
        assert (409, "conflict", "false") == (got.status, got.code, got.headers["x-should-retry"])
    assert "revoked" == client.get(f"/admin/api/keys/{key['id']}").json["status"]


@pytest.mark.parametrize(("overlap_ms", "before_works"), [(None, 200), (0, 401)])
def test_a_key_is_rotated_with_an_overlap(
    world: World, client: Client, overlap_ms: int | None, before_works: int
) -> None:
    """By default both secrets work for a day; with none, the one before ends at once."""
    made = client.ask("POST", "/admin/api/keys", {"user": "bob", "scopes": ["ai:complete"]}).json
    asked = None if overlap_ms is None else {"overlap_ms": overlap_ms}
    got = client.ask("POST", f"/admin/api/keys/{made['id']}/rotate", asked)
    assert (200, made["id"]) == (got.status, got.json["id"])
    assert 200 == client.ask("GET", "/v1/budget", key=got.json["key"]).status
    assert before_works == client.ask("GET", "/v1/budget", key=made["key"]).status
    world.clock.advance(86_400_001)
    assert 401 == client.ask("GET", "/v1/budget", key=made["key"]).status


def test_keys_are_listed_in_pages_and_searched(world: World, client: Client) -> None:
    """Newest first; each row is on one page, and the last page says that it is."""
    for place in range(7):
        world.clock.advance(1_000)
        world.keys.create(f"user{place}", scopes=["ai:complete"], name="odd" if place % 2 else "even")
    first = client.get("/admin/api/keys", limit=5).json
    second = client.get("/admin/api/keys", limit=5, offset=first["next_offset"]).json
    assert (True, 5, False, None) == (
        first["has_more"],
        first["next_offset"],
        second["has_more"],
        second["next_offset"],
    )
    users = [each["user"] for each in first["data"] + second["data"]]
    assert [*(f"user{place}" for place in reversed(range(7))), "root"] == users
    assert ["user5", "user3", "user1"] == [each["user"] for each in client.get("/admin/api/keys", q="ODD").json["data"]]
    assert [] == client.get("/admin/api/keys", status="revoked").json["data"]
    for query in ({"limit": 501}, {"limit": 0}, {"offset": -1}, {"limit": "x"}, {"status": "gone"}):
        assert 422 == client.get("/admin/api/keys", **query).status


# Budgets.


def test_a_budget_is_shown_set_and_removed(world: World, client: Client) -> None:
    """An operator's limit wins over the one in code, in money or in other units, and null takes it away."""
    world.run(calls=3)
    shown = client.get("/admin/api/budgets/user:alice").json["data"][0]
    assert ("0.03", "50.00", "code", "49.97") == tuple(
        shown[name] for name in ("spent_usd", "limit_usd", "limit_source", "available_usd"))  # fmt: skip
    got = client.ask("PUT", "/admin/api/budgets/user:alice", {"limit": "0.02"}).json["data"][0]
    assert ("operator", "blocked", -CENT) == (got["limit_source"], got["status"], got["available"])
    assert 2 * CENT == world.store.balance(Account("user:alice", "2026-11")).limit
    got = client.ask("PUT", "/admin/api/budgets/user:alice", {"limit": "100,000", "unit": "tokens"}).json["data"][0]
    assert (100_000, None, "tokens") == (got["limit"], got["limit_usd"], got["unit"])
    assert "code" == client.ask("PUT", "/admin/api/budgets/user:alice", {"limit": None}).json["data"][0]["limit_source"]
    assert [] == client.ask("PUT", "/admin/api/budgets/user:new", {"limit": None}).json["data"]
    assert 404 == client.get("/admin/api/budgets/user:new").status


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1e3", "", "1.0000000000001", "99999999999", "ten", "NaN", 5, 1.5])
def test_a_limit_that_is_none_is_refused(world: World, client: Client, limit: object) -> None:
    """With 422, and nothing is set."""
    assert 422 == client.ask("PUT", "/admin/api/budgets/user:alice", {"limit": limit}).status
    assert [] == list(world.store.limits())  # type: ignore[attr-defined]


def test_budgets_of_a_month_are_listed_without_runs(world: World, client: Client) -> None:
    """Those of a run are asked for by its id; limits that nobody has spent of yet stand at the end."""
    run = world.run()
    world.store.set_limit("org:acme", 5 * CENT)  # type: ignore[attr-defined]
    assert ["user:alice", "org:acme"] == [each["scope"] for each in client.get("/admin/api/budgets").json["data"]]
    assert f"run:{run.id}" == client.get(f"/admin/api/budgets/run:{run.id}").json["data"][0]["scope"]
    assert ["org:acme"] == [each["scope"] for each in client.get("/admin/api/budgets", period="2026-10").json["data"]]
    assert ["org:acme"] == [each["scope"] for each in client.get("/admin/api/budgets", q="ACM").json["data"]]
    assert ["user:alice"] == [each["scope"] for each in client.get("/admin/api/budgets", kind="user").json["data"]]
    assert 422 == client.get("/admin/api/budgets", kind="run").status
    for scope in ("alice", "user:", "USER:x", "user:a b", "x" * 193):
        assert 422 == client.get(f"/admin/api/budgets/{scope}").status


# Provider keys.


def test_a_provider_key_goes_in_and_never_out(world: World, client: Client) -> None:
    """Added, checked, replaced, suspended, resumed, removed: no answer and no event has any of it."""
    address = "/admin/api/credentials/user:alice/openai/default"
    told: list[Got] = [
        client.ask("POST", "/admin/api/credentials", {"owner": "user:alice", "provider": "openai", "key": CANARY}),
        client.ask("POST", "/admin/api/credentials", {"owner": "user:alice", "provider": "openai", "key": CANARY}),
        client.get("/admin/api/credentials"), client.ask("POST", f"{address}/validate"),
    ]  # fmt: skip
    assert [201, 409, 200, 200] == [each.status for each in told]
    assert "credential_exists" == told[1].code
    assert ("valid", "valid") == (told[3].json["answer"], told[3].json["credential"]["status"])
    world.validating.says = Validation("invalid", "refused")
    told.append(client.ask("POST", f"{address}/rotate", {"key": f"  {SECRET}\n"}))
    assert ("unverified", SECRET[-4:]) == (told[-1].json["status"], told[-1].json["hint"])
    assert world.vault is not None
    assert SECRET == world.vault.get(CredentialId("user:alice", "openai")).secret.reveal()
    told.append(client.ask("POST", f"{address}/validate"))
    assert "invalid" == told[-1].json["credential"]["status"]
    told.append(client.ask("POST", f"{address}/suspend"))
    told.append(client.ask("POST", f"{address}/validate"))
    assert (409, "credential_suspended") == (told[-1].status, told[-1].code)
    told.append(client.ask("POST", f"{address}/resume"))
    told.append(client.ask("DELETE", address))
    assert (204, b"") == (told[-1].status, told[-1].body)
    told += [client.ask(*each) for each in (("DELETE", address), ("POST", f"{address}/validate"))]
    told.append(client.ask("POST", f"{address}/rotate", {"key": CANARY}))
    assert [404, 404, 404] == [each.status for each in told[-3:]]
    everything = " ".join(each.body.decode() for each in told) + repr(world.events)
    assert [] == leaks(everything, CANARY, SECRET)


@pytest.mark.parametrize(
    "change",
    [
        {"owner": "alice"}, {"owner": ""}, {"provider": "Open AI"}, {"label": "a b"}, {"key": ""}, {"key": "   "},
        {"key": 5}, {"key": [CANARY]}, {"key": CANARY * 400}, {"base_url": "ftp://x"}, {"base_url": "https://a@b/"},
        {"region": "nowhere"}, {CANARY: "x"}, {"label": CANARY + "\0"}, {"key": "\ud800" + CANARY},
    ],
    ids=range(15),
)  # fmt: skip
def test_a_provider_key_that_cannot_be_stored_is_not_told(
    world: World, client: Client, change: dict[str, object]
) -> None:
    """422, or 400 for half a letter; the answer has nothing of what was sent, wherever it was put."""
    body = {"owner": "user:alice", "provider": "openai", "key": CANARY} | change
    got = client.ask("POST", "/admin/api/credentials", body)
    assert got.status == (400 if str(change.get("key")).startswith("\ud800") else 422)
    assert [] == leaks(got.body.decode() + repr(world.events), CANARY)


def test_what_is_not_set_up_says_so() -> None:
    """A gateway without master keys or peppers answers 409 with what to set; nothing else stops working."""
    bare = World(vault=False, keys=False)
    with bare.client() as client:
        assert (409, "not_set_up") == ((got := client.get("/admin/api/credentials")).status, got.code)
        assert "RUNRAILS_MASTER_KEYS" in got.json["error"]["message"]
        assert (409, "not_set_up") == ((got := client.get("/admin/api/keys")).status, got.code)
        assert 200 == client.get("/admin/api/usage").status


# Usage and live spend.


def test_usage_is_summed_by_several_things_in_one_reading(world: World, client: Client) -> None:
    """Every dimension sums up to the same total, which is what the ledger says."""
    world.run(calls=3, user="alice")
    world.run(calls=2, user="bob", key="k1", model="tokens")
    got = client.get("/admin/api/usage", by=["user", "model", "day", "key"]).json
    assert (5, True) == (got["calls"], got["complete"])
    assert {"user", "model", "day", "key"} == got["groups"].keys()
    for groups in got["groups"].values():
        assert got["cost_pusd"] == sum(each["cost_pusd"] for each in groups)
        assert 5 == sum(each["calls"] for each in groups)
    assert ["alice", "bob"] == [each["name"] for each in got["groups"]["user"]]
    assert {None, "k1"} == {each["name"] for each in got["groups"]["key"]}
    spent = sum(world.store.balance(Account(f"user:{name}", "2026-11")).spent for name in ("alice", "bob"))
    assert spent == got["cost_pusd"]
    assert 2 == client.get("/admin/api/usage", user="bob").json["calls"]
    assert 2 == client.get("/admin/api/usage", model="tokens").json["calls"]
    assert 0 == client.get("/admin/api/usage", month="2025-01").json["calls"]
    for query in ({"by": "tag:x"}, {"by": "secret"}, {"month": "2026-13"}, {"month": "now"}, {"month": "9999-12"}):
        assert 422 == client.get("/admin/api/usage", **query).status


def test_usage_that_is_asked_for_often_is_read_once_a_moment(world: World) -> None:
    """A hundred askers within a second read the books once."""
    reads: list[str] = []

    class Counting(MemoryStore):
        def usage(self, **asked: Any) -> Any:
            reads.append("usage")
            return super().usage(**asked)

    counted = World(store=Counting(clock=world.clock))
    with counted.client() as client:
        for _ in range(20):
            assert 200 == client.get("/admin/api/usage").status
        assert ["usage"] == reads
        counted.clock.advance(KEPT_MS)
        client.get("/admin/api/usage")
        assert 2 == len(reads)


def test_what_took_long_to_make_is_kept_longer() -> None:
    """Ten times as long as it took, and never for more than a minute: polling takes a tenth of the time."""
    clock = ManualClock(0)
    kept, made = Kept(2, monotonic=clock), []

    def slow() -> int:
        made.append(clock.advance(3_000))
        return len(made)

    assert (1, 1) == (kept.get("a", slow), kept.get("a", slow))
    clock.advance(29_999)
    assert 1 == kept.get("a", slow)
    clock.advance(1)
    assert 2 == kept.get("a", slow)
    assert [3, 4] == [kept.get(name, slow) for name in "bc"]
    assert 5 == kept.get("a", slow), "the third answer pushed it out"


def test_who_asks_while_it_is_made_anew_has_the_older_answer() -> None:
    """Nobody's thread waits for a slow store where there is something to tell; what fails is not kept."""
    clock = ManualClock(0)
    kept = Kept(monotonic=clock)
    assert 1 == kept.get("a", lambda: 1)
    clock.advance(KEPT_MS)
    seen: list[int] = []

    def slow() -> int:
        seen.append(kept.get("a", lambda: 3))
        return 2

    assert 2 == kept.get("a", slow)
    assert [1] == seen
    clock.advance(KEPT_MS)

    def failing() -> int:
        raise ConfigError("No.", next_step="No.")

    for _ in range(2):
        with pytest.raises(ConfigError):
            kept.get("a", failing)
    assert 4 == kept.get("a", lambda: 4)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_live_spend_is_that_of_the_books(tmp_path: Any, kind: str) -> None:
    """Minutes, hour, today and month; open calls with what they hold, which become costs when they end."""
    clock = World().clock
    store = MemoryStore(clock=clock) if kind == "memory" else SQLiteStore(tmp_path / "l.db", clock=clock)
    world = World(store=store)
    world.clock.set(clock())
    with world.client() as client:
        world.run(calls=3)
        run = world.guard.run("open", user="bob", limits=Limits(run="10.00"))
        permit = run.before_model(call_of("dear"))
        live = client.get("/admin/api/live").json
        assert ("0.03", "0.03", "0.03", 4) == tuple(
            live[name] for name in ("month_usd", "today_usd", "hour_usd", "today_calls"))  # fmt: skip
        assert (1, "3.20") == (live["in_flight"], live["in_flight_usd"])
        assert (60, 4) == (len(live["minutes"]), live["minutes"][-1]["calls"])
        world.clock.advance(5 * MINUTE_MS)
        run.after_model(permit, done())
        live = client.get("/admin/api/live").json
        assert ("3.23", "3.23", 0) == (live["month_usd"], live["hour_usd"], live["in_flight"])
        assert [3_230_000_000_000] == [each["cost_pusd"] for each in live["minutes"] if each["calls"]]
        world.clock.advance(60 * MINUTE_MS)
        live = client.get("/admin/api/live").json
        assert ("0.00", "3.23", "3.23") == (live["hour_usd"], live["today_usd"], live["month_usd"])
        world.clock.advance(24 * 60 * MINUTE_MS)
        assert ("0.00", "3.23") == ((live := client.get("/admin/api/live").json)["today_usd"], live["month_usd"])
        world.clock.advance(30 * 24 * 60 * MINUTE_MS)
        assert "0.00" == client.get("/admin/api/live").json["month_usd"]
    store.close()


def test_polling_live_spend_reads_only_what_may_have_changed() -> None:
    """After the first reading, calls of before are not read again, but for the whole reading every ten minutes."""
    read: list[int] = []

    class Counting(MemoryStore):
        def usage_since(self, first_ms: int) -> Iterator[UsageRecord]:
            found = [each for each in self.usage() if each.at_ms >= first_ms]
            read.append(len(found))
            return iter(found)

    world = World()
    clock = world.clock
    store = Counting(clock=clock)
    world.guard = Guard(user="alice", store=store, prices=PRICES, sinks=[], clock=clock, monotonic=clock)
    tape = Tape()

    def poll() -> tuple[int, int]:
        return sum(each.calls for each in tape.read(store, clock()).values()), read[-1]

    world.run(calls=80)
    clock.advance(4 * MINUTE_MS)
    assert (80, 80) == poll()
    clock.advance(5 * MINUTE_MS)
    world.run(calls=2)
    assert (82, 2) == poll() == poll()
    clock.advance(3 * MINUTE_MS)
    poll()
    assert (82, 0) == poll()
    clock.advance(10 * MINUTE_MS)
    assert (82, 82) == poll()


# Runs.


def test_a_stopped_run_says_why_step_by_step(world: World, client: Client) -> None:
    """Model and tool calls in order, the repetitions marked, the rule, the count, and what to write if it is meant."""
    run = world.stopped_run("stuck")
    row = client.get("/admin/api/runs").json["data"][0]
    assert ("stuck", "loop_detected", 5, 5, "5.00") == tuple(
        row[name] for name in ("name", "stop_reason", "model_calls", "tool_calls", "limit_usd"))  # fmt: skip
    got = client.get(f"/admin/api/runs/{run.id}").json
    assert row.items() <= got.items()
    assert list(range(1, 11)) == [each["step"] for each in got["timeline"]]
    assert ["model", "tool"] * 5 == [each["kind"] for each in got["timeline"]]
    assert {"tool"} == {each["kind"] for each in got["timeline"] if each["in_loop"]}
    assert 5 == sum(each["in_loop"] for each in got["timeline"])
    assert ["hint", "stop"] == [each["level"] for each in got["findings"]]
    assert "search" in got["stop_message"] and "ToolRule" in got["findings"][-1]["how_to_allow"]
    costs = {each["call"]: each["cost_pusd"] for each in got["timeline"] if each["kind"] == "model"}
    assert 5 == len(costs) and got["cost_pusd"] == sum(costs.values())


def test_runs_are_filtered_searched_and_paged(world: World, client: Client) -> None:
    """By user, key, stop, and by any part of an id, a name, a tag or a reason; open ones stand first."""
    ids = [world.run(f"r{place}", user="bob" if place % 2 else "alice", key="k1").id for place in range(5)]
    world.stopped_run("stuck")
    tagged = world.run("tagged", tags={"team": "search"})
    going = world.run("going", close=False)
    world.registry.runs.append(going)

    def names(**query: object) -> list[str]:
        return [each["name"] for each in client.get("/admin/api/runs", **query).json["data"]]

    assert ["going", "tagged", "stuck", "r4", "r3", "r2", "r1", "r0"] == names()
    assert ["r3", "r1"] == names(user="bob")
    assert ["r4", "r3", "r2", "r1", "r0"] == names(key="k1")
    assert ["stuck"] == names(stopped=True) == names(q="loop")
    assert ["tagged"] == names(q="team=SEARCH") == names(q=tagged.id[:30])
    assert ["r2", "r1"] == names(limit=2, offset=5)
    assert [] == names(q="nothing like it")
    assert ids[0] == client.get(f"/admin/api/runs/{ids[0]}").json["run"]
    assert client.get(f"/admin/api/runs/{going.id}").json["open"]
    for wrong in ("nope", "a b", "x" * 128, "%00", "é"):
        assert 404 == client.get(f"/admin/api/runs/{wrong}").status
    assert 422 == client.get("/admin/api/runs", stopped="perhaps").status


def test_a_run_that_goes_on_elsewhere_is_told_by_its_calls(world: World, client: Client) -> None:
    """Another worker's run has no record yet; the books have its calls."""
    run = world.run("elsewhere", calls=3, close=False)
    got = client.get(f"/admin/api/runs/{run.id}").json
    assert (3, "0.03", "alice", None) == (got["model_calls"], got["cost_usd"], got["user"], got["stop_reason"])
    assert [1, 2, 3] == [each["step"] for each in got["timeline"]]


def test_a_run_of_several_processes_is_told_whole(world: World, client: Client) -> None:
    """Each process keeps a report of its own part, and the last one's stays; the books have the calls of all."""
    first = world.run("long", calls=4, close=True)
    again = world.guard.run("long", user="alice", id=first.id)
    permit = again.before_model(call_of("cent"))
    again.after_model(permit, done())
    again.close()
    got = client.get(f"/admin/api/runs/{first.id}").json
    assert (5, "0.05", 5 * CENT, 75, 5) == (
        got["model_calls"], got["cost_usd"], sum(each["cost_pusd"] for each in got["timeline"]), got["tokens"],
        len(got["timeline"]),
    )  # fmt: skip
    assert "0.05" == client.get("/admin/api/runs").json["data"][0]["cost_usd"]


def test_hostile_names_are_plain_text_in_json(world: World, client: Client) -> None:
    """Whatever a run, a tool or a key is called comes back as it was, as JSON that no browser takes for a page."""
    name = "</script><img src=x onerror=alert(1)>\u2028'\"&"
    run = world.stopped_run(name, tool=name)
    got = client.get(f"/admin/api/runs/{run.id}")
    assert (name, name) == (got.json["name"], got.json["timeline"][1]["name"])
    assert ("application/json", "nosniff") == (got.headers["content-type"], got.headers["x-content-type-options"])


# What is sent.


@pytest.mark.parametrize(
    ("raw", "headers", "status", "code"),
    [
        (b"{", (), 400, None), (b"", (), 422, "missing"), (b"[]", (), 400, None), (b"null", (), 400, None),
        (b'{"limit":"5","limit":"6"}', (), 400, "duplicate_member"), (b'{"limit":NaN}', (), 400, None),
        (b"\xff\xfe", (), 400, None), (b"[" * 60_000, (), 400, None),
        (b'{"a":' * 9_000 + b"1" + b"}" * 9_000, (), 400, None),
        (b'{"limit":"\\ud800"}', (), 400, None), (b'{"limit":' + b"9" * 5_000 + b"}", (), 400, None),
        (b" " * (BODY_BYTES_MAX + 1), (), 413, "request_too_large"),
        (b"{}", (("content-length", "99999999999999999999"),), 413, "request_too_large"),
        (b'{"limit":"5"}', (("content-type", "text/plain"),), 422, None),
        (b'{"limit":"5"}', (("content-type", "application/x-www-form-urlencoded"),), 422, None),
    ],
    ids=range(15),
)  # fmt: skip
def test_bodies_that_are_none(
    world: World, client: Client, raw: bytes, headers: tuple[tuple[str, str], ...], status: int, code: str | None
) -> None:
    """Refused in OpenAI's shape, soon, without a word of them; no limit is set."""
    got = client.ask("PUT", "/admin/api/budgets/user:alice", raw=raw, headers=headers)
    assert status == got.status, got.body
    ErrorAnswer.model_validate(got.json)
    assert code is None or code == got.code
    assert [] == list(world.store.limits())  # type: ignore[attr-defined]


def test_a_store_that_is_away_is_503_and_not_to_be_retried(world: World) -> None:
    """With the same shape; the credential cannot be checked without its store either."""
    documents = CountingDocuments(MemoryDocuments(clock=world.clock))
    keys = make_keys(documents, clock=world.clock, cache_ms=0)
    key = keys.create("root", scopes=ALL)[1].reveal()
    authenticator = Authenticator(keys, clock=world.clock)
    app = app_of(replace(world.services, api_keys=keys, authenticator=authenticator))
    with Client(app, key) as client:
        assert 200 == client.get("/admin/api/keys").status
        documents.away = True
        got = client.get("/admin/api/keys")
        assert (503, "store_unavailable", "false") == (got.status, got.code, got.headers["x-should-retry"])


def test_a_damaged_record_is_not_the_callers_fault(world: World, client: Client) -> None:
    """A key's record that was changed behind our back is 503 where keys are read, and is never taken."""
    info, _ = world.keys.create("bob", scopes=["ai:complete"])
    documents = world.keys._book.documents
    found = world.keys._book.read(info.id)
    assert found is not None
    documents.put(found.address, found.data[:-2] + b"x}", expected=found.version)
    got = client.get(f"/admin/api/keys/{info.id}")
    assert (503, "unreadable") == (got.status, got.code)


# The OpenAPI document.


def test_the_document_names_every_answer(world: World) -> None:
    """Each operation has its name, its security, and error answers in one shape; secrets are marked as such."""
    document = world.app.openapi()
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            assert told[OPERATION] in OPERATIONS and told["summary"] and told["security"], path
            errors = {code for code in told["responses"] if code >= "400"}
            assert {"401", "403", "422", "503"} <= errors
            assert (method in {"post", "put"}) == ("413" in errors)
            shapes = [told["responses"][code]["content"]["application/json"]["schema"] for code in sorted(errors)]
            assert [{"$ref": "#/components/schemas/ErrorAnswer"}] * len(errors) == shapes
    schemas = document["components"]["schemas"]
    assert schemas["CredentialAdd"]["properties"]["key"]["writeOnly"]
    names = {
        name for name, schema in schemas.items() if "key" in schema.get("properties", {}) and name.startswith("Cred")
    }
    assert {"CredentialAdd", "CredentialRotate"} == names


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def fuzzed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world with something in it, in memory or in files."""
    store: MemoryStore | SQLiteStore
    documents: MemoryDocuments | SQLiteDocuments
    clock = World().clock
    if request.param == "memory":
        store, documents = MemoryStore(clock=clock), MemoryDocuments(clock=clock)
    else:
        folder = tmp_path_factory.mktemp("fuzzed")
        store = SQLiteStore(folder / "ledger.db", clock=clock, synchronous="NORMAL")
        documents = SQLiteDocuments(folder / "vault.db", clock=clock, synchronous="NORMAL")
    world = World(store=store, documents=documents)
    world.run(calls=2)
    world.stopped_run()
    yield world
    store.close()
    documents.close()


DOCUMENT = World().app.openapi()
ROUTES = [
    (path, method, told)
    for path, methods in sorted(DOCUMENT["paths"].items())
    for method, told in sorted(methods.items())
]  # fmt: skip
ODDITIES = (
    "user:alice", "platform", "org:acme", "openai", "default", "-", "..", "%2e%2e", "\0", "\ud800", "9" * 40, "é",
    "2026-11", "true", "1", "-1", "0", "a" * 600,
)  # fmt: skip
ODD = st.text(max_size=20) | st.sampled_from(ODDITIES)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=5,
)  # fmt: skip


def schema_values(schema: Mapping[str, Any], depth: int = 0) -> st.SearchStrategy[Any]:
    """What a schema of the document allows, more or less."""
    if "$ref" in schema:
        return schema_values(DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]], depth + 1)
    if "anyOf" in schema:
        return st.one_of([schema_values(each, depth) for each in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind == "object":
        properties = {name: schema_values(each, depth) for name, each in schema.get("properties", {}).items()}
        required = {name: each for name, each in properties.items() if name in schema.get("required", ())}
        return st.fixed_dictionaries(required, optional={n: e for n, e in properties.items() if n not in required})
    if kind == "array":
        return st.lists(schema_values(schema["items"], depth), min_size=schema.get("minItems", 0), max_size=3)
    if kind == "integer":
        low, high = schema.get("minimum", 0), min(schema.get("maximum", 2**40), 2**40)
        return st.integers(low, max(low, high))
    if kind == "boolean":
        return st.booleans()
    if kind == "null":
        return st.none()
    return st.sampled_from(["alice", "user:alice", "org:acme", "5.00", "openai", "default", "2026-11"]) | ODD


@settings(
    max_examples=400, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(data=st.data())
def test_no_input_makes_it_fail(fuzzed: World, data: st.DataObject) -> None:
    """Drawn from the OpenAPI document and from junk: no 5xx, only documented answers, and bodies as documented."""
    world = fuzzed
    path, method, told = data.draw(st.sampled_from(ROUTES))
    if method == "delete" or path.endswith("/revoke"):
        path = path.replace("{key_id}", "nobody")  # the operator's own key is needed for the next example
    key_ids = st.sampled_from(["nobody", "0" * 16]) | ODD
    values = {"key_id": key_ids, "run_id": st.sampled_from([next(iter(world.store.runs())).id]) | ODD}  # type: ignore[attr-defined]
    place = re.sub(r"\{(\w+)\}", lambda found: data.draw(values.get(found[1], ODD)).replace("/", "_") or "_", path)
    query: dict[str, object] = {}
    for each in told.get("parameters", ()):
        if each["in"] == "query" and data.draw(st.booleans()):
            query[each["name"]] = data.draw(schema_values(each["schema"]) | ODD)
    body: object = None
    if "requestBody" in told and data.draw(st.integers(0, 9)):
        content = told["requestBody"]["content"]["application/json"]["schema"]
        body = data.draw(schema_values(content) | JUNK)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with world.client() as client:
            got = client.ask(method.upper(), place, body, query={k: v for k, v in query.items() if v is not None})
    assert str(got.status) in told["responses"], (place, query, body, got.body)
    assert got.status < 500
    if got.status >= 400:
        ErrorAnswer.model_validate(got.json)
    elif got.status != 204:
        assert isinstance(got.json, dict)


def test_limits_of_what_is_read_are_written_down() -> None:
    """So that nobody takes one of them away unseen."""
    assert (131_072, 1_000_000) == (BODY_BYTES_MAX, RECORDS_MAX)


def test_services_can_be_made_of_a_guard_alone(world: World) -> None:
    """What is left out is not set up; nothing of it is a secret in its form."""
    services = Services(guard=world.guard, authenticator=world.services.authenticator)
    assert (None, None, None, None) == (services.api_keys, services.vault, services.validator, services.runs)
    with Client(app_of(services), world.operator) as client:
        assert [200, 409] == [client.get(f"/admin/api/{name}").status for name in ("usage", "keys")]
