"""Every call goes out on the right key: real SDK clients, a real vault, a provider that notes the key it was sent."""

from __future__ import annotations

import logging
from typing import Any

import anthropic
import openai
import pytest

from rr_clients import HI, MODEL
from rr_routed import ACME, ALICE, HOUSE, HTTP, Keys
from runrails import BudgetExceeded, Limits
from runrails.attribution import Attribution
from runrails.credentials import CredentialUnreadable
from runrails.credentials.router import Router
from runrails.errors import CredentialError
from runrails.keyroutes import KeyPolicy
from runrails.secretvalue import Secret
from runrails.testing import ManualClock


def ask(client: Any, **options: Any) -> Any:
    """One chat completion."""
    return client.chat.completions.create(model=MODEL, messages=HI, max_tokens=900, **options)


def say(client: Any) -> Any:
    """One message of the other provider."""
    return client.messages.create(model=MODEL, messages=HI, max_tokens=900)


def test_the_users_own_key_goes_before_all_others() -> None:
    """It is sent, the record names it, and the platform's months are not touched."""
    with Keys() as world:
        world.own("user:alice", ALICE)
        world.own("org:acme", ACME)
        with world.guard.run(org="acme") as run:
            ask(world.house())
        cost = run.report().cost_pusd
        assert [ALICE] == world.seen
        assert [("user:alice/openai/default", True)] == world.paid()
        assert cost > 0
        assert {"byok:alice": cost} == world.months()


def test_then_the_organisations_then_the_platforms() -> None:
    """Bob has none, so his organisation's is used; carol belongs to none, so the client's own key goes out."""
    with Keys() as world:
        world.own("org:acme", ACME)
        client = world.house()
        with world.guard.attribute(user="bob", org="acme"):
            ask(client)
        with world.guard.attribute(user="carol"):
            ask(client)
        assert [ACME, HOUSE] == world.seen
        assert [("org:acme/openai/default", True), ("", False)] == world.paid()
        assert {"byok:bob", "user:carol"} == world.months().keys()


def test_the_platforms_key_may_be_in_the_vault_too() -> None:
    """It is sent in place of the client's, and is the platform's money all the same."""
    with Keys() as world:
        world.own("platform", ACME)
        ask(world.house())
        assert [ACME] == world.seen
        assert [("platform/openai/default", False)] == world.paid()
        assert {"user:alice"} == world.months().keys()


def test_require_refuses_whoever_has_no_key() -> None:
    """Nothing is sent, nothing is held, and the error says how to add one."""
    with Keys(KeyPolicy(byok="require")) as world:
        with pytest.raises(CredentialError, match=r"user:alice has none for openai.*runrails byok add"):
            ask(world.house())
        assert ([], [], {}) == (world.seen, world.paid(), world.months())
        world.own("user:alice", ALICE)
        ask(world.house())
        assert [ALICE] == world.seen


def test_forbid_uses_nobodys_own() -> None:
    """Users' keys stay where they are."""
    with Keys(KeyPolicy(byok="forbid")) as world:
        world.own("user:alice", ALICE)
        ask(world.house())
        assert [HOUSE] == world.seen
        assert {"user:alice"} == world.months().keys()


@pytest.mark.parametrize("policy", [KeyPolicy(providers=("anthropic",)), KeyPolicy(models=("other", "gpt-*"))])
def test_what_the_policy_does_not_name_is_not_called(policy: KeyPolicy) -> None:
    """Neither on the user's key nor on the platform's."""
    with Keys(policy) as world:
        world.own("user:alice", ALICE)
        with pytest.raises(CredentialError, match="does not let"):
            ask(world.house())
        assert ([], {}) == (world.seen, world.months())


def test_what_the_policy_names_is() -> None:
    """By its name, or by how it begins."""
    for models in (("fake-model",), ("fake-*",)):
        with Keys(KeyPolicy(providers=("openai",), models=models)) as world:
            ask(world.house())
            assert [HOUSE] == world.seen


def test_a_policy_may_depend_on_whose_call_it_is() -> None:
    """A function is asked for every call."""

    def policy(by: Attribution) -> KeyPolicy:
        return KeyPolicy(byok="require" if by.user == "bob" else "prefer")

    with Keys(policy) as world:
        client = world.house()
        ask(client)
        with world.guard.attribute(user="bob"), pytest.raises(CredentialError):
            ask(client)
        assert [HOUSE] == world.seen


def test_a_refused_key_is_marked_and_nobody_else_pays() -> None:
    """The caller sees the provider's own error; the next call is refused before it is sent."""
    with Keys() as world:
        key = world.own("user:alice", ALICE)
        world.bad.add(ALICE)
        client = world.house()
        with pytest.raises(openai.AuthenticationError):
            ask(client)
        info = world.vault.peek(key)
        assert info is not None
        assert "invalid" == info.status
        with pytest.raises(CredentialError, match=r"provider has refused it.*runrails byok validate"):
            ask(client)
        assert [ALICE] == world.seen
        assert {} == world.months()


def test_a_refused_key_gives_way_if_the_policy_says_so() -> None:
    """The same call is made on the next one, held and recorded as what it is then."""
    with Keys(KeyPolicy(fall_back=True)) as world:
        world.own("user:alice", ALICE)
        world.own("org:acme", ACME)
        world.bad |= {ALICE, ACME}
        with world.guard.run(org="acme") as run:
            ask(world.house())
        assert [ALICE, ACME, HOUSE] == world.seen
        assert ("", False) == world.paid()[-1]
        assert {"user:alice", "org:acme"} == world.months().keys()
        assert 3 == run.report().model_calls


def test_a_refused_last_key_ends_it() -> None:
    """There is nobody left to pay: the provider's error comes out, and nothing goes round for ever."""
    with Keys(KeyPolicy(fall_back=True)) as world:
        world.own("platform", ACME)
        world.bad |= {ACME, HOUSE}
        with pytest.raises(openai.AuthenticationError):
            ask(world.house())
        assert [ACME] == world.seen


@pytest.mark.parametrize("status", ["invalid", "suspended"])
def test_a_key_that_may_not_be_used_is_not(status: Any) -> None:
    """It is refused before anything is sent; with `fall_back` the next one pays."""
    for fall_back, seen in ((False, []), (True, [HOUSE])):
        with Keys(KeyPolicy(fall_back=fall_back)) as world:
            world.vault.mark(world.own("user:alice", ALICE), status)
            if fall_back:
                ask(world.house())
            else:
                with pytest.raises(CredentialError, match="user:alice/openai/default"):
                    ask(world.house())
            assert seen == world.seen


def test_a_damaged_key_is_never_passed_over() -> None:
    """Even where the policy falls back: nobody knows what became of it."""
    with Keys(KeyPolicy(fall_back=True)) as world:
        key = world.own("user:alice", ALICE)
        documents: Any = world.vault._documents
        document = documents.get(key.address)
        documents.put(key.address, document.data[:-1] + bytes([document.data[-1] ^ 1]), expected=document.version)
        with pytest.raises(CredentialUnreadable):
            ask(world.house())
        assert [] == world.seen


def test_a_key_goes_to_no_other_address() -> None:
    """A key of the provider's own address is not sent to another one: that one is on the platform."""
    with Keys() as world:
        world.own("user:alice", ALICE, base_url=None)
        world.own("org:acme", ACME, base_url="http://127.0.0.1:1/v1")
        with world.guard.attribute(org="acme"):
            ask(world.house())
        assert [HOUSE] == world.seen


def test_a_request_to_an_address_of_its_own_takes_no_key_along() -> None:
    """The SDK lets a request name a whole address; the key is put in only where it belongs."""
    with Keys() as world, Keys() as other:
        world.own("user:alice", ALICE)
        client = world.house()
        with pytest.raises(CredentialError, match="not sent to another address"):
            client.post(
                f"{other.provider.openai_url}/chat/completions", cast_to=object,
                body={"model": MODEL, "messages": HI, "max_tokens": 9},
            )  # fmt: skip
        assert ([], [], {}) == (world.seen, other.seen, world.months())


def test_the_platforms_account_stays_behind() -> None:
    """Its organisation and project are not sent along with somebody else's key; redirects are not followed."""
    with Keys() as world:
        world.own("user:alice", ALICE)
        ask(world.house(organization="org-of-the-house", project="proj-of-the-house"))
        assert not {"openai-organization", "openai-project"} & world.headers[0].keys()
        assert "house" not in str(world.headers[0])


@pytest.mark.parametrize("status", [400, 403, 404, 429, 500])
def test_only_401_speaks_of_the_key(status: int) -> None:
    """Whatever else goes wrong, the key stays what it was, and nobody else pays."""
    with Keys(KeyPolicy(fall_back=True)) as world:
        key = world.own("user:alice", ALICE)
        world.fails_with = status
        with pytest.raises(openai.APIStatusError):
            ask(world.house())
        info = world.vault.peek(key)
        assert info is not None
        assert ("unverified", [ALICE]) == (info.status, world.seen)


def test_a_key_replaced_meanwhile_is_not_the_refused_one() -> None:
    """The provider refused the secret before it."""
    with Keys() as world:
        key = world.own("user:alice", ALICE)
        world.bad.add(ALICE)
        world.meanwhile = lambda: world.vault.rotate(key, Secret(ACME))
        with pytest.raises(openai.AuthenticationError):
            ask(world.house())
        world.meanwhile = None
        ask(world.house())
        assert [ALICE, ACME] == world.seen


class _Noting(HTTP.BaseTransport):  # type: ignore[misc,name-defined]
    """Answers at once, and notes where every request goes and on which key."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def handle_request(self, request: Any) -> Any:
        headers = request.headers
        self.seen.append((request.url.host, headers.get("x-api-key") or headers.get("authorization", "")))
        return HTTP.Response(500)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/v1/chat/completions", "http://api.openai.com/v1/chat/completions",
        "https://api.openai.com:8443/v1/chat/completions", "https://api.openai.com.evil.example/v1/chat/completions",
        "https://evilapi.openai.com.example/v1/chat/completions", "https://notapi-openai.com/v1/chat/completions",
    ],
)  # fmt: skip
def test_the_providers_own_address_is_one(url: str) -> None:
    """HTTPS, its port and its hosts: nothing that looks like it."""
    with Keys() as world:
        world.own("user:alice", ALICE, base_url=None)
        transport = _Noting()
        client = world.guard.wrap(
            openai.OpenAI(api_key=HOUSE, http_client=HTTP.Client(transport=transport), max_retries=0)
        )
        with pytest.raises(openai.InternalServerError):
            ask(client)
        assert [("api.openai.com", f"Bearer {ALICE}")] == transport.seen
        with pytest.raises(CredentialError, match="not sent to another address"):
            client.post(url, cast_to=object, body={"model": MODEL, "messages": HI, "max_tokens": 9})
        assert 1 == len(transport.seen)
        client.close()


def test_what_a_layer_above_has_not_asked_for_keeps_the_platforms_key() -> None:
    """Its permit is for one request: a list of models before it, and after it, is none of the user's."""
    from runrails.calls import ModelCall, ModelResult
    from runrails.keyroutes import KeyPlace

    with Keys() as world:
        world.own("user:alice", ALICE, base_url=None)
        transport = _Noting()
        client = world.guard.wrap(
            openai.OpenAI(api_key=HOUSE, http_client=HTTP.Client(transport=transport), max_retries=0)
        )
        with world.guard.run() as run:
            permit = run.before_model(ModelCall(model=MODEL, max_tokens=900, place=KeyPlace("openai", None)))
            for send in (client.models.list, lambda: ask(client)):
                with pytest.raises(openai.InternalServerError):
                    send()
            run.after_model(permit, ModelResult(end="failed"))
            with pytest.raises(openai.InternalServerError):
                client.models.list()
        assert [HOUSE, ALICE, HOUSE] == [key.removeprefix("Bearer ") for _, key in transport.seen]
        client.close()


def test_a_client_whose_http_client_signs_keeps_its_key() -> None:
    """It would put its own credentials in after ours, and the platform would pay for what counts as the user's."""
    with Keys(KeyPolicy(byok="require")) as world:
        world.own("user:alice", ALICE)
        client = world.house(http_client=HTTP.Client(auth=("house", HOUSE)))
        with pytest.raises(CredentialError, match="nobody can put one into"):
            ask(client)
        client.close()
        assert [] == world.seen


@pytest.mark.parametrize("name", ["workload_identity", "_provider_runtime", "_token_cache", "credentials"])
def test_a_client_that_signs_in_otherwise_keeps_its_way(name: str) -> None:
    """Both SDKs have ways to sign in that come after everything else."""
    from runrails.clients.keys import place_of

    with Keys() as world:
        client = world.house() if name in {"workload_identity", "_provider_runtime"} else world.anthropic()
        assert place_of(client) is not None
        client.__dict__[name] = object()
        assert place_of(client) is None


def test_no_last_turn_on_a_key_that_nobody_chose() -> None:
    """Nothing is kept back for it: only the call itself is held for."""
    from runrails.calls import ModelCall
    from runrails.ledger import Account

    with Keys(limits=Limits(run="5.00", wrap_up=True)) as world:
        run = world.guard.run()
        run.expect_last_turn()
        permit = run.before_model(ModelCall(model=MODEL, max_tokens=100))
        assert permit.bound_pusd == world.store.balance(Account(f"run:{run.id}", "-")).held
        run.close()


def test_own_keys_months_have_the_guards_zone() -> None:
    """As those of every other scope."""
    with Keys(zone="Asia/Tokyo") as world:
        world.own("user:alice", ALICE)
        ask(world.house())
        assert "Asia/Tokyo" == world.store.fix_zone("byok:alice", "UTC")  # type: ignore[attr-defined]


async def test_a_vault_over_a_network_is_asked_off_the_loop() -> None:
    """Choosing may wait: the event loop does not."""
    import threading

    from runrails.credentials.router import Router

    threads: list[threading.Thread] = []

    class Far(Router):
        @property
        def remote(self) -> bool:
            return True

        def route(self, *args: Any) -> Any:
            threads.append(threading.current_thread())
            return super().route(*args)

        def refused(self, *args: Any) -> Any:
            threads.append(threading.current_thread())
            return super().refused(*args)

    with Keys() as world:
        world.guard.credentials = Far(world.vault, fresh_ms=0)
        world.own("user:alice", ALICE)
        client = world.aopenai()
        await client.chat.completions.create(model=MODEL, messages=HI, max_tokens=900)
        world.bad.add(ALICE)
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model=MODEL, messages=HI, max_tokens=900)
        assert 3 == len(threads)
        assert threading.main_thread() not in threads
        await world.aclose()


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_redirect_takes_no_key_along(provider: str) -> None:
    """Both SDKs follow redirects by themselves; with a key of somebody's they do not."""
    with Keys() as world, Keys() as other:
        world.own("user:alice", ALICE, provider=provider)
        world.moved_to = other.provider.url
        with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)):
            ask(world.house()) if provider == "openai" else say(world.anthropic())
        assert ([ALICE], []) == (world.seen, other.seen)


def test_anthropic_sends_one_key() -> None:
    """Whichever way the client itself signs in."""
    with Keys() as world:
        world.own("user:alice", ALICE, provider="anthropic")
        say(world.anthropic(api_key=HOUSE))
        say(world.anthropic(api_key=None, auth_token=HOUSE))
        assert [ALICE, ALICE] == world.seen
        assert not any("authorization" in headers for headers in world.headers)
        assert [("user:alice/anthropic/default", True)] * 2 == world.paid()


def test_a_client_that_signs_otherwise_keeps_its_key() -> None:
    """Bedrock signs with AWS keys: it is the platform's, and with `require` it is refused."""
    with Keys() as world:
        world.own("user:alice", ALICE, provider="anthropic")
        say(world.bedrock())
        assert [("", False)] == world.paid()
    with Keys(KeyPolicy(byok="require")) as world, pytest.raises(CredentialError, match="nobody can put one into"):
        say(world.bedrock())


async def test_async_clients_and_streams() -> None:
    """The same keys, falling back as well."""
    with Keys(KeyPolicy(fall_back=True)) as world:
        world.own("user:alice", ALICE)
        client = world.aopenai()
        async for _ in await client.chat.completions.create(model=MODEL, messages=HI, max_tokens=900, stream=True):
            pass
        world.bad.add(ALICE)
        await client.chat.completions.create(model=MODEL, messages=HI, max_tokens=900)
        assert [ALICE, ALICE, "k"] == world.seen
        list(ask(world.house(), stream=True))
        assert [ALICE, ALICE, "k", HOUSE] == world.seen
        await world.aclose()


def test_the_users_budget_for_own_keys_stops_them() -> None:
    """`byok_month` is theirs; the platform's month has nothing to do with it."""
    with Keys(limits=Limits(run=None, month="100", byok_month="0.001")) as world:
        world.own("user:alice", ALICE)
        with pytest.raises(BudgetExceeded, match="byok:alice"):
            ask(world.house())
        assert [] == world.seen


def test_removed_and_replaced_keys_are_used_no_more() -> None:
    """At the next call with `fresh_ms=0`; an answer of the vault is believed for five seconds at most."""
    from runrails.credentials import CredentialId

    with Keys() as world:
        key = world.own("user:alice", ALICE)
        client = world.house()
        ask(client)
        world.vault.rotate(CredentialId("user:alice", "openai"), Secret(ACME))
        ask(client)
        world.vault.remove(key)
        ask(client)
        assert [ALICE, ACME, HOUSE] == world.seen


def test_no_key_in_logs_errors_or_reprs(caplog: pytest.LogCaptureFixture) -> None:
    """Not a part of one, at DEBUG, of all libraries on the way."""
    caplog.set_level(logging.DEBUG)
    with Keys() as world:
        world.own("user:alice", ALICE)
        ask(world.house())
        world.bad.add(ALICE)
        try:
            ask(world.house())
        except openai.AuthenticationError as error:
            told = [repr(error), str(error), str(error.body), *map(str, caplog.records), caplog.text]
        said = "".join([*told, *(str(event) for event in world.events), *map(str, world.store.usage())])  # type: ignore[attr-defined]
        assert not any(ALICE[n : n + 12] in said for n in range(len(ALICE) - 11))


def test_a_guard_that_chooses_no_keys_leaves_the_clients_own() -> None:
    """Whatever is in a vault."""
    with Keys(credentials=None) as world:
        world.own("user:alice", ALICE)
        ask(world.house())
        assert [HOUSE] == world.seen
        assert [("", False)] == world.paid()


def test_an_answer_of_the_vault_is_believed_for_five_seconds() -> None:
    """A call costs no look into the vault meanwhile; after that, what was replaced or removed counts."""
    clock = ManualClock()
    with Keys() as world:
        world.guard.credentials = Router(world.vault, monotonic=clock)
        key = world.own("user:alice", ALICE)
        client = world.house()
        ask(client)
        world.vault.rotate(key, Secret(ACME))
        clock.advance(4_999)
        ask(client)
        clock.advance(1)
        ask(client)
        world.vault.remove(key)
        ask(client)
        clock.advance(5_000)
        ask(client)
        assert [ALICE, ALICE, ACME, ACME, HOUSE] == world.seen
    with pytest.raises(ValueError, match="0 to 5,000"):
        Router(world.vault, fresh_ms=5_001)
