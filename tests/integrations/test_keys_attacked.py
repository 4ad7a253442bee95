"""Chosen keys under attack: odd secrets, addresses that only look like one, requests that are none of theirs."""

from __future__ import annotations

import logging
import pickle
import traceback
from typing import Any

import anthropic
import openai
import pytest

from rr_clients import HI, MODEL
from rr_routed import ALICE, HOUSE, HTTP, Keys
from rr_vault import everything_of, leaks
from runrails import ConfigError, Guard
from runrails.calls import ModelCall, ModelResult
from runrails.clients.keys import place_of
from runrails.credentials.router import Router
from runrails.errors import CredentialError, GuardFault
from runrails.keyroutes import KeyPlace, KeyPolicy
from runrails.secretvalue import Secret


def ask(client: Any, **options: Any) -> Any:
    """One chat completion."""
    return client.chat.completions.create(model=MODEL, messages=HI, max_tokens=900, **options)


class Noting(HTTP.BaseTransport):  # type: ignore[misc,name-defined]
    """Answers every request alike, and notes where it goes and on which key."""

    def __init__(self, status: int = 500) -> None:
        self.status = status
        self.seen: list[tuple[str, str]] = []

    def handle_request(self, request: Any) -> Any:
        """Note it."""
        key = request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
        self.seen.append((str(request.url), key))
        return HTTP.Response(self.status, json={"error": {}})


@pytest.fixture
def wire() -> Noting:
    """What all clients of a test send through."""
    return Noting()


def client_of(world: Keys, wire: Noting, **options: Any) -> Any:
    """A client with the platform's key, whose requests are noted."""
    made = openai.OpenAI(api_key=HOUSE, http_client=HTTP.Client(transport=wire), max_retries=0, **options)
    world._closing.append(made.close)
    return world.guard.wrap(made)


@pytest.mark.parametrize(
    "secret", [f"{ALICE}\n", f"{ALICE}\r\nX-Evil: 1", f"{ALICE}é", ALICE.encode() + b"\xff", f"{ALICE}\0", f" {ALICE}"],
    ids=["line", "header", "letter", "bytes", "nul", "blank"],
)  # fmt: skip
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_what_no_header_can_hold_is_not_sent_and_not_told(secret: str | bytes, provider: str) -> None:
    """HTTP libraries quote a malformed header in their errors. Nothing is sent, so nothing is charged."""
    with Keys() as world:
        key = world.own("user:alice", "sk-will-be-replaced-by-another", provider=provider)
        world.vault.rotate(key, Secret(secret))
        with pytest.raises(CredentialError, match=r"user:alice/.*/default") as caught:
            if provider == "openai":
                ask(world.house())
            else:
                world.anthropic().messages.create(model=MODEL, messages=HI, max_tokens=900)
        assert [] == leaks(everything_of(caught.value), ALICE)
        assert ([], {}) == (world.seen, world.months())
        assert "unverified" == world.vault.list()[0].status


def test_a_user_in_the_address_signs_the_requests(wire: Noting) -> None:
    """The HTTP library signs with it in place of every key: nobody's is put in, and a 401 marks nobody's."""
    wire.status = 401
    with Keys() as world:
        world.own("user:alice", ALICE, base_url=None)
        client = client_of(world, wire, base_url="https://me:pw@api.openai.com/v1")
        assert place_of(client) is None
        with pytest.raises(openai.AuthenticationError):
            ask(client)
        assert ["unverified"] == [info.status for info in world.vault.list()]
        plain = client_of(world, wire)
        with pytest.raises(CredentialError, match="not sent to another address"):
            plain.post(
                "https://me:pw@api.openai.com/v1/chat/completions", cast_to=object,
                body={"model": MODEL, "messages": HI, "max_tokens": 9},
            )  # fmt: skip
        assert 1 == len(wire.seen)


@pytest.mark.parametrize(
    ("kept", "own"),
    [
        ("https://api.openai.com/v1", None), ("https://API.OpenAI.com:443/v1/", None), ("https://api.openai.com", None),
        ("https://Models.Example.com:443/v1", "https://models.example.com/v1"),
        ("https://models.example.com/v1", "https://MODELS.example.com/v1/"),
        ("https://xn--bcher-kva.example/v1", "https://bücher.example/v1"),
        ("http://models.example.com:80/v1/", "http://models.example.com/v1"),
    ],
)  # fmt: skip
def test_one_address_may_be_written_in_several_ways(kept: str, own: str | None, wire: Noting) -> None:
    """Else the user's key is passed over without a word, and the platform pays."""
    with Keys() as world:
        world.own("user:alice", ALICE, base_url=kept)
        client = client_of(world, wire, **({} if own is None else {"base_url": own}))
        with pytest.raises(openai.InternalServerError):
            ask(client)
        assert [ALICE] == [key for _, key in wire.seen]


@pytest.mark.parametrize(
    ("kept", "own"),
    [
        ("https://models.example.com/alice", "https://models.example.com/bob"),
        ("https://models.example.com:8443/v1", "https://models.example.com/v1"),
        ("http://models.example.com/v1", "https://models.example.com/v1"),
        ("https://api.openai.com.example/v1", None), ("http://api.openai.com/v1", None),
        ("https://api.openai.com:99999/v1", None),
    ],
)  # fmt: skip
def test_other_addresses_stay_others(kept: str, own: str | None, wire: Noting) -> None:
    """Another path, port or scheme is another place."""
    with Keys() as world:
        world.own("user:alice", ALICE, base_url=kept)
        with pytest.raises(openai.InternalServerError):
            ask(client_of(world, wire, **({} if own is None else {"base_url": own})))
        assert [HOUSE] == [key for _, key in wire.seen]


@pytest.mark.parametrize(
    "path",
    [
        "https://models.example.com/bob/chat/completions", "https://models.example.com/alice2/chat/completions",
        "../bob/chat/completions", "https://models.example.com/alice/../bob/chat/completions",
        "https://models.example.com/alice/%2e%2e/bob/chat/completions",
    ],
)  # fmt: skip
def test_another_path_of_the_host_is_another_address(path: str, wire: Noting) -> None:
    """A gateway gives every tenant a path of its own."""
    with Keys() as world:
        world.own("user:alice", ALICE, base_url="https://models.example.com/alice")
        client = client_of(world, wire, base_url="https://models.example.com/alice")
        with pytest.raises(openai.InternalServerError):
            ask(client)
        with pytest.raises(CredentialError, match="not sent to another address"):
            client.post(path, cast_to=object, body={"model": MODEL, "messages": HI, "max_tokens": 9})
        assert [("https://models.example.com/alice/chat/completions", ALICE)] == wire.seen


def test_the_key_of_a_covered_call_is_for_its_one_request(wire: Noting) -> None:
    """Not for a free one that follows while the answer is still read: a list, or a file that would be uploaded."""
    with Keys() as world:
        world.own("user:alice", ALICE, base_url=None)
        client = client_of(world, wire)
        with world.guard.run() as run:
            permit = run.before_model(ModelCall(model=MODEL, max_tokens=900, place=KeyPlace("openai", None)))
            for send in (lambda: ask(client), client.models.list, lambda: client.files.delete("file-of-the-house")):
                with pytest.raises(openai.InternalServerError):
                    send()
            run.after_model(permit, ModelResult(end="failed"))
        assert [ALICE, HOUSE, HOUSE] == [key for _, key in wire.seen]


def test_a_covered_call_that_has_begun_to_answer_gives_its_key_to_nobody(wire: Noting) -> None:
    """Nor to a client of another address, whose free request was refused for it."""
    from runrails.cover import withdraw_cover

    with Keys() as world:
        world.own("user:alice", ALICE, base_url=None)
        with world.guard.run() as run:
            permit = run.before_model(ModelCall(model=MODEL, max_tokens=900, place=KeyPlace("openai", None)))
            withdraw_cover()
            for client in (client_of(world, wire), client_of(world, wire, base_url="https://models.example.com/v1")):
                with pytest.raises(openai.InternalServerError):
                    client.models.list()
            run.after_model(permit, ModelResult(end="failed"))
        assert [HOUSE, HOUSE] == [key for _, key in wire.seen]


def test_a_request_inside_another_one_has_its_own_key(wire: Noting) -> None:
    """What an HTTP client asks while it sends for somebody (for a token, say) goes out on the platform's key."""
    with Keys() as world:
        world.own("user:alice", ALICE, base_url=None)
        inner = client_of(world, wire)

        class Asking(Noting):
            def handle_request(self, request: Any) -> Any:
                with pytest.raises(openai.InternalServerError):
                    inner.models.list()
                return super().handle_request(request)

        outer = Asking()
        with pytest.raises(openai.InternalServerError):
            ask(client_of(world, outer))
        assert ([HOUSE], [ALICE]) == ([key for _, key in wire.seen], [key for _, key in outer.seen])


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize("is_async", [False, True])
async def test_no_key_stays_in_requests_that_were_sent(provider: str, is_async: bool) -> None:
    """Errors of the SDKs and raw answers have the request: pickled for another process, the key would go along."""
    with Keys() as world:
        world.own("user:alice", ALICE, provider=provider)
        made: Any = {
            ("openai", False): world.openai, ("openai", True): world.aopenai,
            ("anthropic", False): world.anthropic, ("anthropic", True): world.aanthropic,
        }[provider, is_async]()  # fmt: skip
        said: dict[str, Any] = {"model": MODEL, "messages": HI, "max_tokens": 900}
        raw = made.chat.completions.with_raw_response if provider == "openai" else made.messages.with_raw_response
        answer = await raw.create(**said) if is_async else raw.create(**said)
        world.bad.add(ALICE)
        with pytest.raises((openai.AuthenticationError, Exception)) as caught:
            await raw.create(**said) if is_async else raw.create(**said)
        assert [ALICE, ALICE] == world.seen
        error: Any = caught.value
        told = [str(sent.headers.raw) for sent in (answer.http_request, error.request, error.response.request)]
        told += [pickle.dumps(error).decode("latin-1"), everything_of(error)]
        assert [] == leaks("".join(told), ALICE)
        await world.aclose()


def test_what_was_cut_off_tells_no_key() -> None:
    """A connection that breaks: neither the error, nor what a logger prints of its frames."""

    class Broken(HTTP.BaseTransport):  # type: ignore[misc,name-defined]
        def handle_request(self, request: Any) -> Any:
            raise HTTP.ReadError("broken", request=request)

    with Keys() as world:
        world.own("user:alice", ALICE, base_url=None)
        made = openai.OpenAI(api_key=HOUSE, http_client=HTTP.Client(transport=Broken()), max_retries=0)
        with pytest.raises(openai.APIConnectionError) as caught:
            ask(world.guard.wrap(made))
        error: Any = caught.value
        told = everything_of(error) + str(error.request.headers.raw) + str(error.__cause__.request.headers.raw)
        assert [] == leaks(told, ALICE)
        made.close()


@pytest.mark.parametrize("mode", ["enforce", "observe"])
@pytest.mark.parametrize("policy", [lambda by: {}[by.user], lambda _: None], ids=["raises", "none"])
def test_a_policy_that_fails_lets_nothing_out(policy: Any, mode: Any) -> None:
    """A bug in it is told as one; on whose key a call went out would be anybody's guess."""
    with Keys(policy, mode=mode) as world:
        world.own("user:alice", ALICE)
        with pytest.raises(GuardFault, match="key policy"):
            ask(world.house())
        assert ([], [], {}) == (world.seen, world.paid(), world.months())


def test_what_cannot_choose_keys_is_refused_at_once() -> None:
    """A vault in the place of a router, most of all: the error says what to write."""
    with Keys() as world:
        wrong: Any
        for wrong in (world.vault, "require", KeyPolicy(), Router, object()):
            with pytest.raises(ConfigError, match=r"credentials=Router\(vault\)"):
                Guard(store="memory:", credentials=wrong)
        for wrong in (world.vault._documents, world.router, None):
            with pytest.raises(ConfigError, match="Vault"):
                Router(wrong)
        for wrong in ("require", 5):
            with pytest.raises(ConfigError, match="KeyPolicy"):
                Router(world.vault, wrong)


def test_errors_quote_no_key_at_any_depth() -> None:
    """The whole chain of a refused call, as Python prints it."""
    with Keys() as world:
        world.own("user:alice", f"{ALICE}\n")
        with pytest.raises(CredentialError) as caught:
            ask(world.house())
        assert [] == leaks("".join(traceback.format_exception(caught.value)), ALICE)


@pytest.mark.parametrize(
    "said",
    [
        {"byok": "Require"}, {"byok": ["require"]}, {"fall_back": "never"}, {"fall_back": 0}, {"models": "gpt-4o"},
        {"models": [5]}, {"providers": [None]},
    ],
    ids=str,
)  # fmt: skip
def test_a_policy_that_says_something_else_than_it_means_is_refused(said: Any) -> None:
    """Not when a call needs it: a text like "never" is true."""
    with pytest.raises(ConfigError, match="KeyPolicy"):
        KeyPolicy(**said)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_no_log_at_debug_has_a_key(provider: str, caplog: pytest.LogCaptureFixture) -> None:
    """Of the SDK, of the HTTP libraries below it, of ours: whole, streamed, refused and copied clients."""
    caplog.set_level(logging.DEBUG)
    with Keys() as world:
        world.own("user:alice", ALICE, provider=provider)
        made = world.house() if provider == "openai" else world.anthropic(api_key=HOUSE)
        said: dict[str, Any] = {"model": MODEL, "messages": HI, "max_tokens": 900}
        own = {"Authorization" if provider == "openai" else "X-Api-Key": "Bearer x"}
        for client in (made, made.with_options(api_key="sk-of-somebody-else", max_retries=1, timeout=5)):
            create = client.chat.completions.create if provider == "openai" else client.messages.create
            create(**said, extra_headers=own)
            list(create(**said, stream=True))
        world.bad.add(ALICE)
        with pytest.raises((openai.AuthenticationError, anthropic.AuthenticationError)) as caught:
            create(**said)
        assert [ALICE] * 5 == world.seen
        told = caplog.text + "".join(str(vars(record)) for record in caplog.records) + everything_of(caught.value)
        assert [] == leaks(told + repr(made) + str(world.events) + str(world.guard.credentials), ALICE)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_another_host_in_the_header_is_another_host(provider: str) -> None:
    """Servers of many share one address: who answers there is said by the header alone."""
    with Keys() as world:
        world.own("user:alice", ALICE, provider=provider)
        client = world.house() if provider == "openai" else world.anthropic()
        create = client.chat.completions.create if provider == "openai" else client.messages.create
        said: dict[str, Any] = {"model": MODEL, "messages": HI, "max_tokens": 900}
        here = client.base_url.netloc.decode()
        for host in ("evil.example", f"{client.base_url.host}:1", "", f"evil.example@{here}", f"{here}?x", f"{here}/x"):
            with pytest.raises(CredentialError, match="not sent to another address"):
                create(**said, extra_headers={"Host": host})
        assert ([], {}) == (world.seen, world.months())
        create(**said, extra_headers={"host": f"{client.base_url.host}:{client.base_url.port}"})
        assert [ALICE] == world.seen


@pytest.mark.parametrize("status", ["invalid", "suspended"])
@pytest.mark.parametrize("fall_back", [False, True])
def test_a_key_for_another_address_stands_in_nobodys_way(status: Any, fall_back: bool) -> None:
    """Good, it is passed over where it does not belong; no longer good, it is so all the same."""
    with Keys(KeyPolicy(fall_back=fall_back)) as world:
        key = world.own("user:alice", ALICE, base_url="https://models.example.com/v1")
        ask(world.house())
        world.vault.mark(key, status)
        ask(world.house())
        assert [HOUSE, HOUSE] == world.seen
