"""What an organisation's administrator may allow: nobody more than the organisation has, and it no more itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rr_admin import Client, World, call_of, done
from runrails import Limits
from runrails.identity.errors import Forbidden
from runrails.identity.operations import authorise_limit
from runrails.identity.principal import Principal

SET = "budgets.set"


@pytest.fixture
def world() -> World:
    """A gateway whose operator allows acme $50 a month."""
    made = World()
    made.store.set_limit("org:acme", 50 * 10**12)  # type: ignore[attr-defined]
    made.keys.create("carol", scopes=["ai:complete"], org="acme")
    return made


@pytest.fixture
def chief(world: World) -> Iterator[Client]:
    """An administrator of acme."""
    with world.client(world.key("chief", "admin:budgets", org="acme")) as opened:
        yield opened


def put(client: Client, scope: str, limit: str | None, **more: Any) -> Any:
    return client.ask("PUT", f"/admin/api/budgets/{scope}", {"limit": limit, **more})


@pytest.mark.parametrize("limit", ["50.000000000001", "51", "9000000", None], ids=["a_pico", "a_dollar", "all", "none"])
def test_an_organisation_cannot_allow_itself_more(world: World, chief: Client, limit: str | None) -> None:
    """Neither raise its limit nor take it away; nothing is changed, and it is told who could."""
    before = world.state()
    got = put(chief, "org:acme", limit)
    assert (403, "forbidden") == (got.status, got.code)
    assert "operator of the platform" in got.json["error"]["message"]
    assert before == world.state()


@pytest.mark.parametrize("limit", ["50.000000000001", "51"])
@pytest.mark.parametrize("scope", ["user:carol", "user:chief"])
def test_nor_anybody_in_it_more_than_it_has(world: World, chief: Client, scope: str, limit: str) -> None:
    """A user's limit above the organisation's would be a promise that it cannot keep."""
    before = world.state()
    got = put(chief, scope, limit)
    assert (403, "forbidden") == (got.status, got.code)
    assert before == world.state()


def test_a_key_of_it_has_no_more_either(world: World, chief: Client) -> None:
    """The same for keys."""
    info, _ = world.keys.create("carol", scopes=["ai:complete"], org="acme")
    before = world.state()
    assert 403 == put(chief, f"key:{info.id}", "50.01").status
    assert before == world.state()
    assert 200 == put(chief, f"key:{info.id}", "50").status


def test_a_new_key_is_given_no_more_either(world: World) -> None:
    """What is written into a key is a limit like any other."""
    with world.client(world.key("boss", "admin:keys", "ai:complete", org="acme")) as boss:
        ask = {"user": "carol", "scopes": ["ai:complete"]}
        before = world.state()
        assert 403 == boss.ask("POST", "/admin/api/keys", {**ask, "month_usd": "50.01"}).status
        assert before == world.state()
        assert [201, 201] == [
            boss.ask("POST", "/admin/api/keys", {**ask, **more}).status for more in ({"month_usd": "50"}, {})
        ]  # fmt: skip


def test_what_it_has_lowered_itself_stays_so_for_it(world: World, chief: Client) -> None:
    """Only the platform raises it again; users' limits then have the new one above them."""
    assert 200 == put(chief, "org:acme", "20").status
    for scope, limit in (("org:acme", "50"), ("org:acme", "20.01"), ("org:acme", None), ("user:carol", "21")):
        assert 403 == put(chief, scope, limit).status
    assert 200 == put(chief, "user:carol", "20").status
    with world.client() as operator:
        assert 200 == put(operator, "org:acme", "500").status
    assert 200 == put(chief, "user:carol", "400").status


def test_code_says_what_it_has_where_no_operator_does() -> None:
    """The limit that settings give an organisation is one, too: from before its first call on."""
    world = World(limits=Limits(org_month="10"))
    with world.client(world.key("chief", "admin:budgets", org="acme")) as chief:
        assert [403, 403, 403] == [put(chief, "org:acme", limit).status for limit in ("10.01", "900", None)]
        assert 200 == put(chief, "org:acme", "9").status
        assert 403 == put(chief, "org:acme", "10").status


def test_of_two_limits_that_code_gives_it_the_lower_one_is_what_it_has() -> None:
    """Another program on the same ledger may give it less than the gateway's settings do."""
    world = World(limits=Limits(org_month="10"))
    run = world.guard.run(user="carol", org="acme", limits=Limits(org_month="5"))
    run.after_model(run.before_model(call_of("cent")), done())
    run.close()
    with world.client(world.key("chief", "admin:budgets", org="acme")) as chief:
        assert [403, 200] == [put(chief, "org:acme", limit).status for limit in ("6", "5")]


def test_what_has_no_limit_can_be_given_one_once(world: World) -> None:
    """Any limit is less than none; from then on it is one. Other units are limits of their own."""
    with world.client(world.key("boss", "admin:budgets", org="umbrella")) as boss:
        assert 200 == put(boss, "user:boss", "1000000").status
        assert 200 == put(boss, "org:umbrella", "100").status
        assert 403 == put(boss, "org:umbrella", "101").status
        assert 200 == put(boss, "org:umbrella", "5,000", unit="tokens").status
        assert 403 == put(boss, "org:umbrella", "5,001", unit="tokens").status


def test_limits_of_users_can_be_taken_away_and_of_their_own_keys_set(chief: Client) -> None:
    """The organisation's holds them all the same; what users pay on their own keys is not its money."""
    assert [200, 200] == [put(chief, "user:carol", limit).status for limit in ("5", None)]
    assert 200 == put(chief, "byok:carol", "900").status


def test_the_platforms_operator_raises_as_they_like(world: World) -> None:
    """Whoever belongs to no organisation is not bound by any."""
    with world.client() as operator:
        for scope in ("org:acme", "user:carol"):
            assert [200, 200] == [put(operator, scope, limit).status for limit in ("5000", None)]


def test_the_limit_that_was_lowered_holds(world: World, chief: Client) -> None:
    """The next call of anybody in the organisation is refused, though nobody has a limit of their own."""
    assert 200 == put(chief, "org:acme", "0.02").status
    run = world.guard.run(user="carol", org="acme", limits=Limits(run=None))
    for _ in range(2):
        run.after_model(run.before_model(call_of("cent")), done())
    with pytest.raises(Exception, match="org:acme"):
        run.before_model(call_of("cent"))
    run.close()


@pytest.mark.parametrize(
    ("scope", "limit", "org_limit", "fine"),
    [
        ("org:acme", 11, 10, False), ("org:acme", None, 10, False), ("org:acme", None, None, False),
        ("user:x", 11, 10, False), ("key:x", 11, 10, False), ("org:acme", 10, 10, True), ("org:acme", 1, None, True),
        ("user:x", 10, 10, True), ("user:x", None, 10, True), ("user:x", 10**18, None, True),
        ("byok:x", 11, 10, True),
    ],
)  # fmt: skip
def test_the_rule_itself(scope: str, limit: int | None, org_limit: int | None, fine: bool) -> None:
    """Decided from its arguments alone; an operator of the platform is never refused."""
    operator = Principal(user="root", scopes=frozenset({"admin:budgets"}), method="api_key")
    chief = Principal(user="chief", org="acme", scopes=frozenset({"admin:budgets"}), method="api_key")
    authorise_limit(operator, SET, scope=scope, limit=limit, org_limit=org_limit)
    if fine:
        authorise_limit(chief, SET, scope=scope, limit=limit, org_limit=org_limit)
        return
    with pytest.raises(Forbidden):
        authorise_limit(chief, SET, scope=scope, limit=limit, org_limit=org_limit)
