"""Checking a provider's key: free, once, at the right address, in a context of its own; and never a wrong word."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from rr_keycheck import Provider
from rr_routed import ALICE
from runrails import Guard, Limits
from runrails.credentials import CredentialId, CredentialSuspended, KeyRing, Vault
from runrails.credentials.revalidation import Revalidator, check_key
from runrails.credentials.validation import Validation, Validator
from runrails.current import current_run
from runrails.documents.memory import MemoryDocuments
from runrails.secretvalue import Secret
from runrails.stores.memory import MemoryStore
from runrails.testing import ManualClock

OPENAI = CredentialId("user:alice", "openai")
ANTHROPIC = CredentialId("user:alice", "anthropic")
START_MS = 1_795_000_000_000


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    """A real server behind TLS."""
    served = Provider(tmp_path_factory.mktemp("tls"))
    yield served
    served.close()


@pytest.fixture(autouse=True)
def _as_usual(provider: Provider) -> None:
    provider.status, provider.body, provider.headers = 200, b'{"data": []}', {}
    provider.asked.clear()


@pytest.fixture
def vault() -> Vault:
    """A vault with one key."""
    made = Vault(MemoryDocuments(), KeyRing("k1", {"k1": Secret(os.urandom(32))}))
    made.add(OPENAI, Secret(ALICE), base_url="https://models.example.com/v1")
    return made


def validator(provider: Provider, **options: Any) -> Validator:
    """As in production, but everything resolves to our server, whose port no provider has."""
    made = Validator(
        allow_hosts=options.pop("allow_hosts", ("models.example.com",)), resolver=provider.resolver,
        networks=("127.0.0.0/8",), context=provider.context, **options,
    )  # fmt: skip
    made._policy = made._policy._replace(ports=(provider.port, 443))
    return made


def at(vault: Vault, provider: Provider, key: CredentialId = OPENAI, *, host: str = "models.example.com") -> None:
    """Let the key belong to our server."""
    vault.remove(key)
    path = "/v1" if key.provider == "openai" else ""
    vault.add(key, Secret(ALICE), base_url=f"https://{host}:{provider.port}{path}")


@pytest.mark.parametrize(
    ("status", "body", "verdict", "reason"),
    [
        (200, b'{"data": []}', "valid", "accepted"),
        (200, b"<html>Log in to this network</html>", "unverified", "not_understood"),
        (200, b'{"data": 1}', "unverified", "not_understood"),
        (200, b"[" * 100_000, "unverified", "not_understood"),
        (401, b"", "invalid", "refused"),
        (403, b"", "unverified", "forbidden"),
        (404, b"", "unverified", "not_understood"),
        (429, b"", "unverified", "rate_limited"),
        (500, b"", "unverified", "provider_error"),
        (529, b"", "unverified", "provider_error"),
        (204, b"", "unverified", "not_understood"),
    ],
)
def test_only_a_clear_word_counts(
    vault: Vault, provider: Provider, status: int, body: bytes, verdict: Any, reason: str
) -> None:
    """401 is a no; a list is a yes; everything else says nothing."""
    at(vault, provider)
    provider.status, provider.body = status, body
    assert Validation(verdict, reason) == validator(provider).validate(vault.get(OPENAI))


def test_what_is_asked_is_free(vault: Vault, provider: Provider) -> None:
    """One GET of the list of models, with the key in the provider's own header and nothing else of ours."""
    at(vault, provider)
    at(vault, provider, ANTHROPIC)
    for key in (OPENAI, ANTHROPIC):
        assert "valid" == validator(provider).validate(vault.get(key)).status
    first, second = provider.asked
    assert ("GET", "/v1/models", f"Bearer {ALICE}") == (first.method, first.path, first.headers["authorization"])
    assert ("GET", "/v1/models?limit=1", ALICE) == (second.method, second.path, second.headers["x-api-key"])
    assert "authorization" not in second.headers


def test_a_redirect_is_not_followed(vault: Vault, provider: Provider) -> None:
    """The key goes nowhere else, and nothing is learnt."""
    at(vault, provider)
    provider.status, provider.headers = 307, {"location": f"https://models.example.com:{provider.port}/stolen"}
    assert Validation("unverified", "redirect") == validator(provider).validate(vault.get(OPENAI))
    assert 1 == len(provider.asked)


def test_addresses_of_the_environment_are_not_believed(
    vault: Vault, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither base URLs nor proxies."""
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    at(vault, provider)
    assert "valid" == validator(provider).validate(vault.get(OPENAI)).status


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.example.com/v1",
        "http://models.example.com/v1",
        "https://127.0.0.1/v1",
        "https://localhost/v1",
    ],
)
def test_an_address_that_is_not_allowed_is_not_asked(vault: Vault, provider: Provider, url: str) -> None:
    """A user's base URL is not an errand into our network."""
    vault.remove(OPENAI)
    vault.add(OPENAI, Secret(ALICE), base_url=url)
    assert Validation("unverified", "address_not_allowed") == validator(provider).validate(vault.get(OPENAI))
    assert [] == provider.asked


def test_a_host_that_resolves_inside_is_not_asked(vault: Vault, provider: Provider) -> None:
    """Without the operator's word for the network, the address is looked at."""
    at(vault, provider)
    checks = validator(provider)
    checks._policy = checks._policy._replace(networks=())
    assert Validation("unverified", "address_not_allowed") == checks.validate(vault.get(OPENAI))
    assert [] == provider.asked


def test_a_host_that_nobody_knows_says_nothing(vault: Vault, provider: Provider) -> None:
    """As on a machine without a network."""
    at(vault, provider)
    checks = validator(provider)
    checks._resolver = lambda host, port: []
    assert Validation("unverified", "host_unknown") == checks.validate(vault.get(OPENAI))


def test_a_key_that_no_header_holds_is_none(vault: Vault, provider: Provider) -> None:
    """A line break in it would be a header of its own."""
    vault.remove(OPENAI)
    vault.add(OPENAI, Secret("sk-a\r\nX-Evil: 1"), base_url=f"https://models.example.com:{provider.port}/v1")
    assert Validation("invalid", "malformed") == validator(provider).validate(vault.get(OPENAI))
    assert [] == provider.asked


def test_nobody_there_says_nothing(vault: Vault, provider: Provider) -> None:
    """A closed port, and a certificate of somebody else's."""
    vault.remove(OPENAI)
    vault.add(OPENAI, Secret(ALICE), base_url="https://models.example.com/v1")
    assert Validation("unverified", "connection") == validator(provider).validate(vault.get(OPENAI))
    at(vault, provider)
    checks = validator(provider)
    checks._context = None
    assert Validation("unverified", "certificate") == checks.validate(vault.get(OPENAI))


def test_it_never_enters_a_guard(vault: Vault, provider: Provider) -> None:
    """Checked in the middle of a guarded run, the check is in no run, costs nothing and is counted nowhere."""
    at(vault, provider)
    seen: list[object] = []

    class Looking(ssl.SSLContext):
        def wrap_socket(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(current_run())
            return super().wrap_socket(*args, **kwargs)

    checks = validator(provider)
    checks._context = Looking(ssl.PROTOCOL_TLS_CLIENT)
    checks._context.load_verify_locations(provider.certificate)
    guard = Guard(Limits(run="0.01"), store=MemoryStore())
    with guard.run() as run:
        assert "valid" == checks.validate(vault.get(OPENAI)).status
    assert (0, 0) == (run.report().model_calls, run.report().cost_pusd)
    assert [None] == seen
    guard.close()


def test_a_provider_without_a_check_is_unverified(vault: Vault, provider: Provider) -> None:
    """Nobody guesses."""
    mistral = CredentialId("user:alice", "mistral")
    vault.add(mistral, Secret(ALICE))
    assert Validation("unverified", "no_check") == validator(provider).validate(vault.get(mistral))


class _Says:
    def __init__(self, *answers: Validation) -> None:
        self.answers = list(answers)
        self.count = 0

    def validate(self, credential: Any) -> Validation:
        self.count += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


YES, NO, DUNNO = Validation("valid", "accepted"), Validation("invalid", "refused"), Validation("unverified", "timeout")


def test_what_says_nothing_leaves_what_is_known(vault: Vault) -> None:
    """An outage of the provider makes no good key a doubtful one, and no bad key a better one."""
    clock = ManualClock(START_MS)
    for answer, known in ((YES, "valid"), (DUNNO, "valid"), (NO, "invalid"), (DUNNO, "invalid"), (YES, "valid")):
        check_key(vault, OPENAI, _Says(answer), clock=clock)
        info = vault.peek(OPENAI)
        assert info is not None
        assert known == info.status


def test_a_secret_replaced_during_the_check_is_not_meant(vault: Vault) -> None:
    """What the provider said was of the one before."""

    class Rotating(_Says):
        def validate(self, credential: Any) -> Validation:
            vault.rotate(OPENAI, Secret(ALICE[::-1]))
            return super().validate(credential)

    check_key(vault, OPENAI, Rotating(NO))
    info = vault.peek(OPENAI)
    assert info is not None
    assert "unverified" == info.status


def test_a_suspended_key_is_not_checked(vault: Vault) -> None:
    """It may not be used, not even for that."""
    vault.mark(OPENAI, "suspended")
    says = _Says(YES)
    with pytest.raises(CredentialSuspended):
        check_key(vault, OPENAI, says)
    assert 0 == says.count


def test_keys_are_checked_again_when_it_is_time(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """New ones at once, known ones after `every_ms`, unanswered ones not sooner; suspended and damaged ones never."""
    monkeypatch.setattr("runrails.credentials.revalidation._PAUSE_S", 0)
    clock = ManualClock(START_MS)
    vault.add(ANTHROPIC, Secret(ALICE))
    vault.mark(vault.add(CredentialId("org:acme", "openai"), Secret(ALICE)).id, "suspended")
    told: list[object] = []
    says = _Says(YES, DUNNO, YES)
    checker = Revalidator(vault, says, every_ms=1_000, clock=clock, tell=told.append)
    assert {"valid", "unverified"} == {found.validation.status for found in checker.round()}
    assert [] == checker.round()
    clock.advance(999)
    assert [] == checker.round()
    clock.advance(1)
    assert 2 == len(checker.round())
    assert (4, 4) == (says.count, len(told))


def test_the_thread_checks_and_ends(vault: Vault) -> None:
    """Nobody has to call `round`; closing ends it."""
    import threading

    heard, before = threading.Event(), set(threading.enumerate())
    with Revalidator(vault, _Says(YES), tell=lambda _: heard.set()) as checker:
        assert heard.wait(10)
        checker.start()
    assert "runrails-keychecks" not in {thread.name for thread in set(threading.enumerate()) - before}


def test_no_part_of_a_key_is_told(vault: Vault, provider: Provider, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever comes of a check."""
    import logging

    caplog.set_level(logging.DEBUG)
    at(vault, provider)
    for status in (200, 401, 500):
        provider.status = status
        said = repr(validator(provider).validate(vault.get(OPENAI))) + repr(vault.list()) + caplog.text
        assert not any(ALICE[n : n + 12] in said for n in range(len(ALICE) - 11))


def test_bedrocks_check_comes_with_the_aws_integration() -> None:
    """By an entry point, as anybody's may."""
    from importlib.metadata import entry_points

    names = {entry.name for entry in entry_points(group="runrails.keychecks")}
    assert "bedrock" in names
