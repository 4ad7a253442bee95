"""Which keys are chosen and checked again, at the edges: nobody's name, nobody's key, nobody any more."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import openai
import pytest

from rr_clients import HI
from rr_routed import HOUSE, Keys
from runrails import ConfigError, Guard, Limits, ResponseCache
from runrails.attribution import Attribution
from runrails.calls import Economy, ModelCall
from runrails.clients import keys
from runrails.clients.edge import Edge
from runrails.clients.keys import akey_refused, in_place, key_refused, place_of, put_key
from runrails.credentials import CredentialId, KeyRing, Vault
from runrails.credentials.revalidation import Revalidator
from runrails.credentials.router import KNOWN_MAX, Router
from runrails.credentials.validation import Validation, _has_models
from runrails.documents.memory import MemoryDocuments
from runrails.errors import CredentialError
from runrails.keyroutes import PLATFORM, KeyPlace, KeyPolicy, Route, address_of, check_routes, is_place
from runrails.secretvalue import Secret
from runrails.stores.memory import MemoryStore
from runrails.testing import ManualClock
from runrails_langchain.keys import key_place, use_keys

START_MS = 1_795_000_000_000
CALL = ModelCall(model="gpt-5-mini", place=KeyPlace("openai", None))
NONE = CredentialId("user:None", "openai")
ALICE = CredentialId("user:alice", "openai")
KEY = Secret("sk-of-alice-0123456789abcdefghij")


@pytest.fixture
def vault() -> Vault:
    """An empty one."""
    return Vault(MemoryDocuments(), KeyRing("k1", {"k1": Secret(os.urandom(32))}))


class Says:
    """Answers every check alike, and counts them."""

    def __init__(self, status: Any = "unverified") -> None:
        self.asked: list[CredentialId] = []
        self.status = status

    def validate(self, credential: Any) -> Validation:
        """As told."""
        self.asked.append(credential.info.id)
        return Validation(self.status, "timeout")


def test_nobody_is_not_somebody_called_none(vault: Vault) -> None:
    """A call that is nobody's takes no key of a user or an organisation of that name."""
    vault.add(NONE, KEY)
    vault.add(CredentialId("org:None", "openai"), KEY)
    assert PLATFORM == Router(vault, fresh_ms=0).route(CALL, Attribution())
    assert KEY == Router(vault, fresh_ms=0).route(CALL, Attribution(user="None")).secret


def test_a_removed_key_that_is_refused_gives_way_to_nobody(vault: Vault) -> None:
    """There is nothing to mark: the provider's answer stands."""
    vault.add(ALICE, KEY)
    router = Router(vault, KeyPolicy(fall_back=True), fresh_ms=0)
    route = router.route(CALL, Attribution(user="alice"))
    assert route.falls_back
    vault.remove(ALICE)
    assert not router.refused(route)


def test_without_leave_a_suspended_key_is_nobody_elses_to_replace(vault: Vault) -> None:
    """With leave the next one pays, and the last one has no next one."""
    vault.add(ALICE, KEY)
    vault.mark(ALICE, "suspended", START_MS)
    by = Attribution(user="alice")
    with pytest.raises(CredentialError, match="user:alice/openai/default"):
        Router(vault, fresh_ms=0).route(CALL, by)
    assert PLATFORM == Router(vault, KeyPolicy(fall_back=True), fresh_ms=0).route(CALL, by)
    with pytest.raises(CredentialError):
        Router(vault, KeyPolicy(byok="require", fall_back=True), fresh_ms=0).route(CALL, by)
    platform = CredentialId("platform", "openai")
    vault.add(platform, KEY)
    vault.mark(platform, "suspended", START_MS)
    with pytest.raises(CredentialError, match="platform/openai/default"):
        Router(vault, KeyPolicy(fall_back=True), fresh_ms=0).route(CALL, by)


@pytest.mark.parametrize(
    ("by", "who"),
    [
        (Attribution(), "nobody named has none"),
        (Attribution(user="alice"), "user:alice has none"),
        (Attribution(org="acme"), "org:acme has none"),
        (Attribution(user="alice", org="acme"), "user:alice and org:acme has none"),
    ],
    ids=["nobody", "user", "org", "both"],
)
def test_who_has_no_key_is_named(vault: Vault, by: Attribution, who: str) -> None:
    """So that they can add one."""
    with pytest.raises(CredentialError) as caught:
        Router(vault, KeyPolicy(byok="require"), fresh_ms=0).route(CALL, by)
    assert who in str(caught.value)


@pytest.mark.parametrize(
    ("body", "listed"), [(b"[]", False), (b'{"data": []}', True), (b"7", False), (b'"data"', False), (b"{}", False)]
)
def test_a_list_of_models_is_an_object_with_one(body: bytes, listed: bool) -> None:
    """Other JSON says nothing of a key."""
    assert listed is _has_models(body)


def test_what_was_never_checked_is_due(vault: Vault) -> None:
    """Also where the clock has hardly begun."""
    vault.add(ALICE, KEY)
    says = Says()
    Revalidator(vault, says, clock=ManualClock(5)).round()
    assert [ALICE] == says.asked


def test_a_key_that_comes_back_is_due_again(vault: Vault) -> None:
    """When its namesake was asked for last counts only until a round has seen that it is gone."""
    clock, says = ManualClock(START_MS), Says()
    checks = Revalidator(vault, says, clock=clock)
    vault.add(ALICE, KEY)
    checks.round()
    vault.remove(ALICE)
    checks.round()
    vault.add(ALICE, KEY)
    checks.round()
    assert [ALICE, ALICE] == says.asked


def test_a_round_ends_when_it_is_closed(vault: Vault) -> None:
    """The keys that are left are not asked for any more."""
    vault.add(ALICE, KEY)
    vault.add(NONE, KEY)
    says = Says()
    checks = Revalidator(vault, says, clock=ManualClock(START_MS), tell=lambda _: checks.close())
    assert 1 == len(checks.round()) == len(says.asked)


def test_the_platforms_route_has_no_key() -> None:
    """It is the client's own."""
    assert (None, None, False) == (Route("platform").secret, PLATFORM.place, PLATFORM.byok)


def test_no_more_answers_are_kept_than_there_is_room_for(vault: Vault) -> None:
    """They hold opened keys: 1,000 of them, and none that is believed no longer."""
    clock = ManualClock(0)
    router = Router(vault, fresh_ms=5_000, monotonic=clock)
    for number in range(KNOWN_MAX + 1):
        router.route(CALL, Attribution(user=f"u{number}"))
    assert KNOWN_MAX == len(router._known)
    clock.advance(5_000)
    router.route(CALL, Attribution(user="alone"))
    assert {"user:alone", "platform"} >= {each.owner for each in router._known}


def test_an_answer_of_five_seconds_ago_is_not_kept(vault: Vault) -> None:
    """It is believed up to then, and not at that moment."""
    clock = ManualClock(0)
    router = Router(vault, fresh_ms=5_000, monotonic=clock)
    router.route(CALL, Attribution(user="alice"))
    clock.advance(5_000)
    router.route(CALL, Attribution(user="bob"))
    assert {"user:bob", "platform"} >= {each.owner for each in router._known}


def test_what_is_never_believed_is_never_kept(vault: Vault) -> None:
    """No opened key stays where every call asks anew."""
    vault.add(ALICE, KEY)
    router = Router(vault, fresh_ms=0)
    router.route(CALL, Attribution(user="alice"))
    assert {} == router._known


@pytest.mark.parametrize(
    ("base_url", "provider", "place", "belongs"),
    [
        (None, "openai", None, True),
        ("https://api.openai.com/v1", "openai", None, True),
        ("https://eu.api.openai.com/v1", "openai", None, True),
        ("https://evilapi.openai.com/v1", "openai", None, False),
        ("https://api.mistral.ai/v1", "mistral", None, False),
        ("https:///v1", "openai", None, False),
        (None, "openai", "https://gw.example/v1", False),
        ("https:///v1", "openai", "ftp://elsewhere", False),
        ("https://gw.example:0443/v1/", "openai", "https://GW.example/v1", True),
        ("https://gw.example/v2", "openai", "https://gw.example/v1", False),
    ],
)
def test_a_key_belongs_to_one_place(base_url: str | None, provider: str, place: str | None, belongs: bool) -> None:
    """What is no address is no place, and two of them are not the same one."""
    assert belongs is is_place(base_url, KeyPlace(provider, place))


def test_an_address_has_a_host() -> None:
    """And a scheme that web requests have."""
    assert [None, None, None] == [address_of(url) for url in ("https:///v1", "ftp://gw.example/", "https://[")]


@pytest.mark.parametrize("missing", ["remote", "route", "refused"])
def test_who_cannot_do_all_of_it_chooses_no_keys(missing: str) -> None:
    """It is said when the guard is made, not at the first call."""
    parts: dict[str, Any] = {"remote": False, "route": lambda *_: PLATFORM, "refused": lambda *_: False}
    check_routes(type("Whole", (), parts)())
    del parts[missing]
    with pytest.raises(ConfigError, match="must choose keys"):
        check_routes(type("Half", (), parts)())


def test_what_is_not_guarded_has_no_place_for_keys() -> None:
    """Neither any object nor a client as its package makes it."""
    assert place_of(object()) is None
    with openai.OpenAI(api_key="sk-of-the-house") as client:
        assert place_of(client) is None


def test_the_platforms_requests_keep_the_clients_key() -> None:
    """No key was put in, so none is taken out of what an error shows."""
    with Keys() as world:
        world.fails_with = 500
        with pytest.raises(openai.InternalServerError) as caught:
            world.house(max_retries=0).chat.completions.create(model="fake-model", messages=HI, max_tokens=9)
        assert f"Bearer {HOUSE}" == caught.value.request.headers["authorization"]


class Sent:
    """A request that is about to leave."""

    def __init__(self, url: str = "https://api.openai.com/v1/chat/completions") -> None:
        self.url = url
        self.headers = {"Authorization": f"Bearer {HOUSE}"}


class Choosing:
    """Chooses nothing, and notes in which thread it was told of a refusal."""

    def __init__(self, *, remote: bool = False, fails: bool = False) -> None:
        self.remote = remote
        self.fails = fails
        self.threads: list[int] = []

    def route(self, *args: Any) -> Route:
        """The platform's."""
        return PLATFORM

    def refused(self, *args: Any) -> bool:
        """Noted."""
        self.threads.append(threading.get_ident())
        if self.fails:
            raise RuntimeError("no")
        return True


class Denied(Exception):
    """A provider's 401."""

    status_code = 401


OWN = Route("user", "user:alice/openai/default", KEY, KeyPlace("openai", None))


def edge_of(guard: Guard) -> Any:
    """What a guarded client's class knows."""
    with openai.OpenAI(api_key=HOUSE) as client:
        return type(guard.wrap(client)).runrails_edge  # type: ignore[attr-defined]


@pytest.fixture
def guard() -> Iterator[Guard]:
    """One that chooses no keys."""
    made = Guard(Limits(run="1"), store=MemoryStore())
    yield made
    made.close()


@pytest.mark.parametrize(
    ("route", "url"),
    [
        (replace(OWN, place=None), "https://api.openai.com/v1/x"),
        (OWN, "nonsense"),
        (OWN, "https://elsewhere.example/v1/x"),
        (replace(OWN, place=KeyPlace("openai", "nonsense")), "https://api.openai.com/v1/x"),
    ],
    ids=["no place", "no address", "another address", "kept for no address"],
)
def test_a_key_goes_nowhere_without_a_place(guard: Guard, route: Route, url: str) -> None:
    """The request keeps the client's own key, and an error of ours says why."""
    request = Sent(url)
    with pytest.raises(CredentialError, match="is not sent to another address"):
        put_key(edge_of(guard), request, route)
    assert f"Bearer {HOUSE}" == request.headers["Authorization"]


def test_where_a_key_goes_the_clients_own_goes_not(guard: Guard) -> None:
    """And the platform's route puts in none."""
    own, platforms = Sent(), Sent()
    put_key(edge_of(guard), own, OWN)
    put_key(edge_of(guard), platforms, PLATFORM)
    assert f"Bearer {KEY.reveal()}" in own.headers.values()
    assert f"Bearer {HOUSE}" not in own.headers.values()
    assert {"Authorization": f"Bearer {HOUSE}"} == platforms.headers


def test_a_dialect_without_keys_has_no_place_for_them(guard: Guard) -> None:
    """Its calls are planned as they were, and no key is put in."""
    edge = Edge(guard, object())  # type: ignore[arg-type]
    plan: Any = object()
    assert plan is in_place(edge, object(), plan)
    assert place_of(type("Client", (), {"runrails_edge": edge})()) is None
    with pytest.raises(CredentialError, match="is not sent to another address"):
        put_key(edge, Sent(), OWN)


def test_outside_of_calls_there_is_no_key() -> None:
    """Neither chosen by a layer above nor for the mask of logs; the platform's is nobody's to pass on."""
    assert (None, None) == (keys.covered_route(), keys._secret_now())
    token = keys._covered.set(PLATFORM)
    assert keys.covered_route() is None
    keys._covered.reset(token)
    token = keys._covered.set(OWN)
    assert [OWN, None] == [keys.covered_route(), keys.covered_route()]
    keys._covered.reset(token)


async def test_only_a_chosen_key_can_be_refused() -> None:
    """Without somebody who chooses, or without a key of the vault, the provider's answer is the caller's to see."""
    told: list[Any] = []
    with contextlib.closing(Guard(Limits(run="1"), store=MemoryStore(), sinks=[told.append])) as guard:
        assert [False, False] == [key_refused(edge_of(guard), route, Denied()) for route in (None, OWN)]
        assert not await akey_refused(edge_of(guard), OWN, Denied())
    assert [] == [event.name for event in told if "not_marked" in event.name]
    choosing = Choosing()
    with contextlib.closing(Guard(Limits(run="1"), store=MemoryStore(), credentials=choosing)) as other:
        assert [False, False] == [key_refused(edge_of(other), route, Denied()) for route in (None, PLATFORM)]
        assert not key_refused(edge_of(other), OWN, ValueError())
        assert [] == choosing.threads
        assert key_refused(edge_of(other), OWN, Denied())
        assert 1 == len(choosing.threads)


@pytest.mark.parametrize("remote", [False, True])
async def test_a_refusal_is_noted_where_it_keeps_nobody_waiting(remote: bool) -> None:
    """Over a network in another thread, else in this one."""
    choosing = Choosing(remote=remote)
    with contextlib.closing(Guard(Limits(run="1"), store=MemoryStore(), credentials=choosing)) as made:
        assert await akey_refused(edge_of(made), OWN, Denied())
    assert [not remote] == [thread == threading.get_ident() for thread in choosing.threads]


def test_a_refusal_that_cannot_be_noted_is_told() -> None:
    """The provider's error comes out, not the vault's."""
    told: list[Any] = []
    choosing = Choosing(fails=True)
    made = Guard(Limits(run="1"), store=MemoryStore(), credentials=choosing, sinks=[told.append])
    assert not key_refused(edge_of(made), OWN, Denied())
    made.close()
    assert ["RuntimeError"] == [event.fields["error"] for event in told if "not_marked" in event.name], told


def test_a_stored_answer_goes_out_on_nobodys_key() -> None:
    """It goes nowhere: it is given also when the key is gone, and nobody's own money is counted for it."""
    with Keys(KeyPolicy(byok="require"), cache=ResponseCache()) as world:
        key = world.own("user:alice", KEY.reveal())
        client = world.house()
        for _ in range(2):
            with world.guard.run():
                client.chat.completions.create(model="fake-model", messages=HI, max_tokens=900, temperature=0)
            if world.vault.list():
                world.vault.remove(key)
        assert [KEY.reveal()] == world.seen
        assert ("", False) == world.paid()[-1]


def test_what_a_policy_lets_be_called_can_be_asked_before(vault: Vault) -> None:
    """Without a key being looked for, and as the call itself will be judged."""
    router = Router(vault, KeyPolicy(byok="require", models=("gpt-*",), providers=("openai",)), fresh_ms=0)
    by = Attribution(user="alice")
    assert router.allows(CALL, by)
    assert not router.allows(replace(CALL, model="o3"), by)
    assert not router.allows(replace(CALL, place=KeyPlace("anthropic", None)), by)


@pytest.mark.parametrize(("stored", "payer"), [(False, "user"), (True, None)])
def test_only_what_is_sent_has_a_key(stored: bool, payer: str | None) -> None:
    """A call that was made cheaper is sent all the same."""
    with Keys() as world:
        world.own("user:alice", KEY.reveal(), base_url=None)
        with world.guard.run() as run:
            call = ModelCall(
                model="fake-model", max_tokens=9, place=KeyPlace("openai", None), economy=Economy(stored=stored)
            )
            route = run.before_model(call).route
        assert payer == (None if route is None else route.payer)


class Chat:
    """As much of LangChain's chat model as its keys need: its SDK's clients, and what it says of itself."""

    metadata: dict[str, Any] | None = None
    _serialized = "chat"

    def __init__(self, first: str, second: str) -> None:
        self.root_client = openai.OpenAI(api_key=HOUSE, base_url=first)
        self.root_async_client = openai.AsyncOpenAI(api_key=HOUSE, base_url=second)


def test_a_model_of_two_places_takes_no_keys() -> None:
    """One key cannot belong to both, and nobody knows through which client a call will leave."""
    with contextlib.closing(Guard(Limits(run="1"), store=MemoryStore(), credentials=Choosing())) as guard:
        same: Any = Chat("https://gw.example/v1", "https://gw.example/v1")
        assert KeyPlace("openai", "https://gw.example/v1/") == key_place(use_keys(guard, same).metadata, "chat")
        two: Any = Chat("https://gw.example/v1", "https://elsewhere.example/v1")
        with pytest.raises(ConfigError, match="has no client of its own"):
            use_keys(guard, two)
        assert two.metadata is None
    assert key_place(None, "chat") is None
