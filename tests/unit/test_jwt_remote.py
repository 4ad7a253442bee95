"""Keys that another service publishes: when they are fetched, how long they are used, and what fails."""

from __future__ import annotations

import json
from threading import Event, Thread
from typing import Any

import pytest

from rr_jwt import Desk, header, public_keys, token
from runrails.egress import Answer, EgressFailed, Policy
from runrails.errors import ConfigError
from runrails.identity.errors import Unauthenticated
from runrails.identity.jwt import RemoteKeys
from runrails.testing import ManualClock

URL = "https://keys.example.com/jwks.json"
ED_TOKEN, EC_TOKEN = token(header(alg="EdDSA", kid="ed1")), token(header(alg="ES256", kid="ec1"))
UNKNOWN = token(header(alg="EdDSA", kid="ed9"), by="ed1")


class Publisher:
    """Answers fetches with a set that can change, or with a failure, and counts them."""

    def __init__(self, *kids: str) -> None:
        self.kids = kids or ("ed1",)
        self.fails = False
        self.status = 200
        self.fetches = 0
        self.clock = ManualClock(0)
        self.failures: list[str] = []
        self.keys = RemoteKeys(URL, fetch=self, clock=self.clock, on_failure=self.failures.append)
        self.tokens = Desk(self.keys).tokens

    def __call__(self, url: str, /) -> Answer:
        assert URL == url
        self.fetches += 1
        if self.fails:
            raise EgressFailed("timeout", host="keys.example.com")
        found = public_keys().public_jwks()["keys"]
        body = json.dumps({"keys": [each for each in found if each["kid"] in self.kids]}).encode()
        return Answer(self.status, {}, body)

    def takes(self, text: str) -> bool:
        """Whether a token is let in."""
        try:
            self.tokens.verify(text)
        except Unauthenticated:
            return False
        return True


def test_keys_are_fetched_once_and_used() -> None:
    """The first token asks for them; for five minutes no other one does."""
    desk = Publisher()
    assert [True] * 3 == [desk.takes(ED_TOKEN) for _ in range(3)]
    desk.clock.advance(299_999)
    assert desk.takes(ED_TOKEN) and 1 == desk.fetches
    desk.clock.advance(1)
    assert desk.takes(ED_TOKEN) and 2 == desk.fetches


def test_a_new_key_is_found_at_once() -> None:
    """The first token of a new key asks again, so that changing keys drops no request."""
    desk = Publisher("ed1")
    assert desk.takes(ED_TOKEN)
    desk.kids = ("ed1", "ec1")
    desk.clock.advance(60_000)
    assert (True, True, 2) == (desk.takes(EC_TOKEN), desk.takes(ED_TOKEN), desk.fetches)


def test_made_up_keys_do_not_make_us_fetch() -> None:
    """However many tokens name keys that nobody has, there is one fetch a minute."""
    desk = Publisher()
    assert desk.takes(ED_TOKEN)
    for _ in range(500):
        assert not desk.takes(UNKNOWN)
    assert 1 == desk.fetches
    desk.clock.advance(59_999)
    assert (False, 1) == (desk.takes(UNKNOWN), desk.fetches)
    desk.clock.advance(1)
    assert (False, 2) == (desk.takes(UNKNOWN), desk.fetches)
    assert (False, True, 2) == (desk.takes(UNKNOWN), desk.takes(ED_TOKEN), desk.fetches)


@pytest.mark.parametrize("status", [204, 206, 404, 500])
def test_only_a_good_answer_has_keys(status: int) -> None:
    """What stands in an error page is no set of keys, even if it looks like one."""
    desk = Publisher()
    desk.status = status
    assert (False, ["status"]) == (desk.takes(ED_TOKEN), desk.failures)


def test_a_failed_fetch_is_not_repeated_at_once() -> None:
    """While nothing can be had nobody gets in, there is one attempt a minute, and the operator is told why."""
    desk = Publisher()
    desk.fails = True
    assert [False] * 5 == [desk.takes(ED_TOKEN) for _ in range(5)]
    assert (1, ["timeout"]) == (desk.fetches, desk.failures)
    desk.fails = False
    desk.clock.advance(59_999)
    assert not desk.takes(ED_TOKEN)
    desk.clock.advance(1)
    assert desk.takes(ED_TOKEN) and 2 == desk.fetches


def test_keys_that_cannot_be_renewed_end_after_an_hour() -> None:
    """An outage of the publisher is lived through for an hour, and no longer: a removed key must stop working."""
    desk = Publisher()
    assert desk.takes(ED_TOKEN)
    desk.fails = True
    for _ in range(59):
        desk.clock.advance(60_000)
        assert desk.takes(ED_TOKEN)
    desk.clock.advance(59_999)
    assert desk.takes(ED_TOKEN)
    desk.clock.advance(1)
    assert not desk.takes(ED_TOKEN)
    # Neither does an unknown key that makes us try again bring the old ones back.
    desk.clock.advance(59_000)
    assert not desk.takes(UNKNOWN) and not desk.takes(ED_TOKEN)
    desk.clock.advance(60_000)
    assert not desk.takes(UNKNOWN) and not desk.takes(ED_TOKEN)
    desk.fails = False
    desk.clock.advance(60_000)
    assert desk.takes(ED_TOKEN)


def test_a_key_that_is_gone_is_refused() -> None:
    """Five minutes after it was taken away, and whatever else is still published."""
    desk = Publisher("ed1", "ec1")
    assert desk.takes(ED_TOKEN) and desk.takes(EC_TOKEN)
    desk.kids = ("ec1",)
    desk.clock.advance(300_000)
    assert (True, False) == (desk.takes(EC_TOKEN), desk.takes(ED_TOKEN))


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "AA", "kid": "ed1"}]}']
)
def test_a_set_that_is_none_changes_nothing(body: bytes) -> None:
    """What was fetched before is used on, as if nobody had answered."""
    answers = [json.dumps(public_keys().public_jwks()).encode(), body]
    clock = ManualClock(0)
    told: list[str] = []
    keys = RemoteKeys(URL, fetch=lambda url, /: Answer(200, {}, answers.pop(0)), clock=clock, on_failure=told.append)
    tokens = Desk(keys).tokens
    assert "worker-7" == tokens.verify(ED_TOKEN).user
    clock.advance(300_000)
    assert "worker-7" == tokens.verify(ED_TOKEN).user
    assert (["config_error"], []) == (told, answers)


def test_an_observer_that_fails_changes_nothing() -> None:
    """A bug in what is told of failures does not become an answer to a caller."""

    def fails(url: str, /) -> Answer:
        raise EgressFailed("timeout", host="keys.example.com")

    def breaks(reason: str) -> None:
        raise RuntimeError(reason)

    with pytest.raises(Unauthenticated):
        Desk(RemoteKeys(URL, fetch=fails, clock=ManualClock(0), on_failure=breaks)).tokens.verify(ED_TOKEN)


def test_one_caller_fetches_and_the_others_go_on() -> None:
    """While old keys are renewed, other threads use them; at the very first fetch they wait for it."""
    clock = ManualClock(0)
    arrived, go_on = Event(), Event()
    body = json.dumps(public_keys().public_jwks()).encode()
    fetches: list[str] = []

    def slow(url: str, /) -> Answer:
        fetches.append(url)
        if len(fetches) == 2:
            arrived.set()
            go_on.wait(10)
        return Answer(200, {}, body)

    keys = RemoteKeys(URL, fetch=slow, clock=clock)
    users: list[Any] = []
    first = [Thread(target=lambda: users.append(keys.find("ed1"))) for _ in range(4)]
    for thread in first:
        thread.start()
    for thread in first:
        thread.join(10)
    assert (4, 1) == (len([user for user in users if user is not None]), len(fetches))
    clock.advance(300_000)
    renewing = Thread(target=lambda: keys.find("ed1"))
    renewing.start()
    assert arrived.wait(10)
    assert keys.find("ed1") is not None and 2 == len(fetches)
    go_on.set()
    renewing.join(10)
    assert keys.find("ed1") is not None and 2 == len(fetches)


@pytest.mark.parametrize(
    "url",
    [
        "http://keys.example.com/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://u:p@keys.example.com/",
        "keys",
        "",
        "https://keys.example.com:8443/",
        "https://metadata.google.internal/",
        "https://xn--80ak6aa92e.com/",
    ],
)
def test_an_address_that_must_not_be_asked_is_refused_at_once(url: str) -> None:
    """It fails when it is set up, not with the first token, and shows nothing of a password."""
    with pytest.raises(ConfigError) as caught:
        RemoteKeys(url)
    assert "u:p@" not in str(caught.value)


def test_what_an_operator_writes_down_is_allowed() -> None:
    """Another port and a host with encoded letters, if they are listed."""
    assert RemoteKeys("https://keys.example.com:8443/", policy=Policy(ports={8443})) is not None
    assert RemoteKeys("https://xn--80ak6aa92e.com/", policy=Policy(allow_hosts=("xn--80ak6aa92e.com",))) is not None
    assert "RemoteKeys('https://keys.example.com')" == repr(RemoteKeys(URL + "?key=x"))


def test_remote_keys_do_not_sign() -> None:
    """Whoever verifies with what others publish makes no tokens."""
    from runrails.identity.principal import Principal

    with pytest.raises(ConfigError, match="no key to sign"):
        Publisher().tokens.issue(Principal(user="a", scopes=frozenset({"ai:complete"}), method="local"))
