"""Principals, the table of operations, finding the credential in a request, and entering with a budget."""

from __future__ import annotations

import ast
import json
import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from rr_core import CENT, START_MS, Bench, model_step
from rr_keys import make_keys
from runrails import Guard, Limits
from runrails.errors import BudgetExceeded, CallRefused, ConfigError, GuardrailStopped, RateLimited, RunrailsError
from runrails.identity.apikeys import ApiKeys
from runrails.identity.authenticate import CREDENTIAL_CHARS_MAX, HEADERS_MAX, Authenticator, enter
from runrails.identity.errors import AuthBusy, AuthError, Forbidden, Unauthenticated, UnknownKey
from runrails.identity.operations import OPERATIONS, authorise, authorise_grant
from runrails.identity.principal import SCOPES, Principal, check_scopes
from runrails.rates import Rates

ROOT = Path(__file__).parent.parent.parent
ALL = frozenset(SCOPES)


def person(*scopes: str, user: str = "alice", org: str | None = None, **more: object) -> Principal:
    return Principal(user=user, org=org, scopes=frozenset(scopes), method="local", **more)  # type: ignore[arg-type]


class Echo:
    """A verifier that says what it was given."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.given: list[str] = []

    def verify(self, text: str, /) -> Principal:
        self.given.append(text)
        return person(user=self.name)


@pytest.mark.parametrize(
    "fields",
    [
        {"user": ""}, {"user": "a b"}, {"user": None}, {"user": "ａlice"}, {"org": ""}, {"org": "x/y"}, {"key_id": "*"},
        {"session_id": "a\n"}, {"scopes": {"ai:complete"}}, {"scopes": ["ai:complete"]}, {"scopes": frozenset({"*"})},
        {"scopes": frozenset({"admin:*"})}, {"scopes": frozenset({"admin"})}, {"method": "password"}, {"method": None},
        {"expires_ms": -1}, {"expires_ms": 1.5}, {"expires_ms": True}, {"expires_ms": 2**53}, {"month_pusd": 0},
        {"month_pusd": -5}, {"month_pusd": 0.5}, {"month_pusd": 2**63},
    ],
    ids=str,
)  # fmt: skip
def test_a_malformed_principal_cannot_be_made(fields: dict[str, object]) -> None:
    """Whoever proves somebody must say it right; the message never has the value."""
    given: dict[str, object] = {"user": "alice", "method": "jwt", **fields}
    with pytest.raises((ValueError, TypeError)) as caught:
        Principal(**given)  # type: ignore[arg-type]
    assert not any(
        isinstance(value, str) and len(value) > 4 and value in str(caught.value) for value in fields.values()
    )


def test_one_text_is_no_set_of_scopes() -> None:
    """Not even an empty one, of which every character would be a scope."""
    for text in ("", "ai:complete"):
        with pytest.raises(TypeError):
            check_scopes(text)
    assert check_scopes(["ai:embed", "ai:embed"]) == {"ai:embed"}


def test_operations_are_denied_by_default() -> None:
    """What is not in the table may not be done by anybody, and its name is not repeated."""
    for name in ("", "chat", "chat.complete ", "CHAT.COMPLETE", "keys.*", "admin", "keys.delete", "__class__"):
        with pytest.raises(Forbidden) as caught:
            authorise(person(*ALL), name)
        assert name == "" or name == "admin" or name not in str(caught.value.as_dict())


def test_every_operation_needs_exactly_its_scope() -> None:
    """Without it, and with all others, it is refused; with it alone it is not."""
    for name, rule in OPERATIONS.items():
        if rule.scope is None:
            assert authorise(person(), name) == rule
            assert rule.reach == "own" and not rule.spends
            continue
        assert authorise(person(rule.scope), name) == rule
        with pytest.raises(Forbidden, match=rule.scope) as caught:
            authorise(person(*(ALL - {rule.scope})), name)
        assert caught.value.as_dict()["missing"] == rule.scope
        assert caught.value.http_status == 403


def test_what_administers_is_not_open_to_who_only_calls_models() -> None:
    """No operation that reaches others goes with an `ai:` scope or with none; every scope opens something."""
    for name, rule in OPERATIONS.items():
        assert (rule.reach == "any") == (rule.scope is not None and rule.scope.startswith("admin:")), name
        assert not rule.spends or (rule.scope or "").startswith("ai:")
    assert {rule.scope for rule in OPERATIONS.values()} - {None} == SCOPES
    with pytest.raises(TypeError):
        OPERATIONS["x"] = OPERATIONS["chat.complete"]  # type: ignore[index]


@pytest.mark.parametrize(
    "owner", ["user:bob", "user:alic", "user:alice2", "alice", "USER:alice", "org:acme", "platform", ""]
)
def test_own_things_are_ones_own(owner: str) -> None:
    """Whatever scopes somebody has: another's run, usage or budget is out of reach."""
    me = person(*ALL, org="acme")
    for name in ("chat.complete", "agents.run", "usage.own", "budgets.own", "runs.own"):
        authorise(me, name, owner="user:alice")
        authorise(me, name)
        with pytest.raises(Forbidden):
            authorise(me, name, owner=owner, owner_org="acme")


def test_an_administrator_of_an_organisation_reaches_what_belongs_to_it() -> None:
    """And nothing of others', of the platform or of nobody in particular."""
    admin = person("admin:keys", org="acme")
    authorise(admin, "keys.revoke", owner="org:acme")
    authorise(admin, "keys.revoke", owner="user:bob", owner_org="acme")
    for owner, org in (
        ("user:bob", None), ("user:bob", "other"), ("org:other", None), ("org:other", "acme"), ("platform", "acme"),
        (None, None), (None, "acme"), ("user:alice", None), ("org:acm", "acme"), ("bob", "acme"),
    ):  # fmt: skip
        with pytest.raises(Forbidden):
            authorise(admin, "keys.revoke", owner=owner, owner_org=org)
    platform = person("admin:keys")
    for owner in (None, "platform", "user:bob", "org:other"):
        authorise(platform, "keys.revoke", owner=owner)


def test_nobody_hands_out_what_they_have_not() -> None:
    """A key that may make keys cannot make itself an administrator of budgets."""
    admin = person("admin:keys", "ai:complete")
    authorise_grant(admin, "keys.create", {"ai:complete", "admin:keys"})
    authorise_grant(admin, "keys.create", ())
    with pytest.raises(Forbidden, match="admin:budgets"):
        authorise_grant(admin, "keys.create", {"ai:complete", "admin:budgets"})
    for wrong in ({"*"}, {"admin:*"}, ["ai:complete "]):
        with pytest.raises(ValueError, match="does not exist"):
            authorise_grant(admin, "keys.create", wrong)


def asked_operations(path: Path) -> Iterable[str]:
    """Names of operations that a module asks for: the constant arguments of `enter`, `authorise` and the like."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("authorise", "authorise_grant", "enter"):
                yield from (
                    each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)
                )


def test_every_operation_that_is_asked_for_is_in_the_table() -> None:
    """A new entry point cannot ask for one that nobody has decided on."""
    asked = {
        (path.name, name)
        for root in ("guardrails", "integrations")
        for path in (ROOT / root).rglob("*.py")
        for name in asked_operations(path)
    }
    assert [each for each in asked if each[1] not in OPERATIONS] == []


def test_every_way_to_manage_keys_is_in_the_table() -> None:
    """A new verb of `ApiKeys`, or command of `runrails keys`, has an operation, and none is left over."""
    from runrails.cli.keys import keys

    verbs = {name for name in vars(ApiKeys) if not name.startswith("_") and callable(getattr(ApiKeys, name))}
    verbs -= {"verify", "recall", "flush", "close"}
    listed = {name.partition(".")[2] for name in OPERATIONS if name.startswith("keys.")}
    assert verbs == listed
    assert {command.name for command in keys.registered_commands} <= listed


def test_every_way_to_manage_provider_keys_is_in_the_table() -> None:
    """The same for `runrails byok`; a new master key is made on a machine, not asked for."""
    from runrails.cli.byok import byok

    listed = {name.partition(".")[2] for name in OPERATIONS if name.startswith("credentials.")}
    names = {command.name or getattr(command.callback, "__name__", "") for command in byok.registered_commands}
    assert listed == names - {"init"}


def test_errors_keep_their_secrets() -> None:
    """The reason is for the operator's log alone; errors are copied, pickled and answered like all others."""
    error = Unauthenticated("expired")
    assert error.reason == "expired"
    for copied in (error.again(), pickle.loads(pickle.dumps(error))):
        assert (copied.reason, str(copied), copied.as_dict()) == ("unspecified", str(error), error.as_dict())
    assert "expired" not in json.dumps(error.as_dict()) + str(error) + repr(error)
    assert str(Unauthenticated()) == str(error)
    statuses = {AuthError: 403, Unauthenticated: 401, Forbidden: 403, AuthBusy: 503, UnknownKey: 404}
    for kind, status in statuses.items():
        assert kind.http_status == status
        assert issubclass(kind, RunrailsError)
        assert not issubclass(kind, (CallRefused, GuardrailStopped))


def test_an_authenticator_needs_somebody_to_ask() -> None:
    """One that could let nobody in is a mistake."""
    with pytest.raises(ConfigError):
        Authenticator()
    for each in ("api_keys", "tokens", "aws"):
        Authenticator(**{each: Echo(each)})


@pytest.mark.parametrize(
    ("credential", "name"),
    [
        ("rr_live_x", "keys"),
        ("sk-x", "keys"),
        ("runrails-aws-v1.x", "aws"),
        ("eyJ.eyJ.x", "tokens"),
        ("anything", "tokens"),
    ],
)  # fmt: skip
def test_each_kind_of_credential_goes_to_who_proves_it(credential: str, name: str) -> None:
    """In both headers, as text or bytes, in any spelling of their names; nobody else sees it."""
    for header, value in (
        ("Authorization", f"Bearer {credential}"), ("authorization", f"bearer {credential}"),
        ("AUTHORIZATION", f"BEARER {credential}"), ("x-api-key", credential), ("X-Api-Key", credential),
    ):  # fmt: skip
        verifiers = {each: Echo(each) for each in ("keys", "tokens", "aws")}
        door = Authenticator(verifiers["keys"], verifiers["tokens"], verifiers["aws"])
        pairs: list[list[tuple[str | bytes, str | bytes]]] = [
            [("host", "x"), (header, value), ("accept", "*/*")], [(header.encode(), value.encode())]
        ]  # fmt: skip
        for headers in pairs:
            assert door.authenticate(iter(headers)).user == name
        assert {each: len(echo.given) for each, echo in verifiers.items() if echo.given} == {name: 2}
        assert set(verifiers[name].given) == {credential}


def test_a_kind_that_is_not_accepted_here_is_refused() -> None:
    """A server without tokens takes no token, whatever it says."""
    for credential in ("runrails-aws-v1.x", "eyJ.eyJ.x"):
        with pytest.raises(Unauthenticated):
            Authenticator(Echo("keys")).authenticate([("authorization", f"Bearer {credential}")])
    with pytest.raises(Unauthenticated):
        Authenticator(tokens=Echo("tokens")).authenticate([("x-api-key", "rr_live_x")])


def test_limits_of_headers_are_exact() -> None:
    """The longest credential and the most headers that are taken, and one more."""
    door = Authenticator(tokens=Echo("t"))
    room = CREDENTIAL_CHARS_MAX - len("Bearer ")
    assert door.authenticate([("authorization", "Bearer " + "a" * room)]).user == "t"
    many = [("x-other", "y")] * (HEADERS_MAX - 1)
    assert door.authenticate([*many, ("x-api-key", "a")]).user == "t"
    for headers in ([("authorization", "Bearer " + "a" * (room + 1))], [("x-other", "y"), *many, ("x-api-key", "a")]):
        with pytest.raises(Unauthenticated):
            door.authenticate(headers)


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A guard in memory whose clock stands still; a call of its model costs a cent."""
    made = Bench(Limits(run="5", month="100"), user="platform")
    yield made
    made.guard.close()


@pytest.fixture
def guard(bench: Bench) -> Guard:
    """Its guard."""
    return bench.guard


def test_entering_answers_all_three_questions(guard: Guard) -> None:
    """From headers to a run that is paid by the key's user, key and organisation, within the key's budget."""
    keys = make_keys()
    info, secret = keys.create("alice", scopes={"ai:complete"}, org="acme", month_pusd=7 * 10**12)
    door = Authenticator(keys)
    headers = [("authorization", f"Bearer {secret.reveal()}")]
    entered = door.enter(headers, "chat.complete", guard=guard)
    assert entered.principal.key_id == info.id
    run = entered.run("a chat", tags={"team": "search"})
    by = run.accounts.own
    assert (by.user, by.key, by.org, dict(by.tags)) == ("alice", info.id, "acme", {"team": "search"})
    assert run.limits.key_month_pusd == 7 * 10**12
    assert run.limits.month_pusd == 100 * 10**12
    with pytest.raises(Forbidden, match="ai:embed"):
        door.enter(headers, "embeddings.create", guard=guard)
    with pytest.raises(Forbidden):
        door.enter(headers, "chat.complete", guard=guard, owner="user:bob")
    with pytest.raises(Unauthenticated):
        door.enter([], "chat.complete", guard=guard)


def test_only_what_spends_gets_a_run(guard: Guard) -> None:
    """And only where a guard keeps the budget."""
    me = person(*ALL)
    with pytest.raises(Forbidden):
        enter(me, "usage.own", guard=guard).run()
    with pytest.raises(ConfigError):
        enter(me, "chat.complete").run()
    enter(me, "chat.complete", guard=guard).run().close()


def test_a_credential_that_is_over_by_now_opens_nothing(bench: Bench, guard: Guard) -> None:
    """At its very millisecond, also for somebody who came in while it was good."""
    late = person("ai:complete", expires_ms=START_MS)
    with pytest.raises(Unauthenticated):
        enter(late, "chat.complete", guard=guard)
    entered = enter(person("ai:complete", expires_ms=START_MS + 1), "chat.complete", guard=guard)
    entered.run().close()
    bench.clock.advance(1)
    with pytest.raises(Unauthenticated):
        entered.run()
    with pytest.raises(Unauthenticated):
        enter(person(expires_ms=1), "models.list")


def test_a_key_keeps_its_budget_over_all_runs(bench: Bench) -> None:
    """Two cents a month are two calls, in whatever runs; each is in its user's, key's and organisation's month."""
    poor = person("ai:complete", org="acme", key_id="k1", month_pusd=2 * CENT)
    for _ in range(2):
        model_step(enter(poor, "chat.complete", guard=bench.guard).run())
    with pytest.raises(BudgetExceeded) as caught:
        model_step(enter(poor, "chat.complete", guard=bench.guard).run())
    assert caught.value.as_dict()["scope"] == "key:k1"
    assert [2 * CENT] * 3 == [bench.spent(scope) for scope in ("user:alice", "key:k1", "org:acme")]
    assert bench.spent("user:platform") == 0


def test_a_key_keeps_its_rates_over_all_runs(bench: Bench) -> None:
    """One request a minute: the second is refused, in another run too, and another key is not concerned."""
    base, once = Limits(hold_wait_ms=0), Rates(requests_per_minute=1)
    slow = enter(person("ai:complete", key_id="k1", rates=once), "chat.complete", guard=bench.guard)
    model_step(slow.run(limits=base))
    with pytest.raises(RateLimited) as caught:
        model_step(slow.run(limits=base))
    assert caught.value.as_dict()["scope"] == "key:k1"
    assert bench.spent("key:k1") == CENT
    other = enter(person("ai:complete", key_id="k2", rates=once), "chat.complete", guard=bench.guard)
    model_step(other.run(limits=base))


def test_what_a_key_has_stands_in_the_place_of_the_general_limits(guard: Guard) -> None:
    """Its own budget and rates; without them those that the guard has for all keys."""
    rates = Rates(requests_per_minute=5)
    usual = Limits(key_month="3", key_rates=rates)
    own = enter(person("ai:complete", month_pusd=10**12), "chat.complete", guard=guard).run(limits=usual).limits
    assert (own.key_month_pusd, own.key_rates) == (10**12, rates)
    plain = enter(person("ai:complete"), "chat.complete", guard=guard).run(limits=usual).limits
    assert plain is usual
    both = person("ai:complete", month_pusd=1, rates=Rates(tokens_per_minute=1))
    own = enter(both, "chat.complete", guard=guard).run(limits=usual).limits
    assert (own.key_month_pusd, own.key_rates) == (1, Rates(tokens_per_minute=1))
