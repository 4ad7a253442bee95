"""Who asks Bedrock: signatures as botocore makes them, and credentials that nobody on the event loop waits for."""

from __future__ import annotations

import asyncio
import calendar
import logging
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials, RefreshableCredentials

from rr_gateway import Caller, World, asked, drained, running
from rr_gateway_bedrock import KEY_ID, SECRET, TOKEN, bare, bedrock_world, credentials
from runrails.errors import ConfigError
from runrails.secretvalue import Secret
from runrails.testing import ManualClock
from runrails.testing.provider import Error
from runrails_gateway.bedrock.asking import converse_path
from runrails_gateway.bedrock.parts import compact
from runrails_gateway.bedrock.signing import ASK_AGAIN_MS, Credentials, NoCredentials, signed

DIALECTS = ("chat", "messages")


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    credentials(monkeypatch)


async def told(made: World, caller: Caller) -> Caller:
    """Ask a gateway that runs for this request alone."""
    async with running(made.config) as app:
        await app(caller.scope, caller.receive, caller.send)
        await drained(app)
    return caller


# Who asks.


@pytest.mark.parametrize(
    ("url", "token"),
    [("https://bedrock-runtime.eu-west-1.amazonaws.com", None), ("https://vpce-1.example.com:443/base", "t0ken/+="),
     ("http://127.0.0.1:8080", "t")],
)  # fmt: skip
@pytest.mark.parametrize("model", ["us.anthropic.claude-v1:0", "arn:aws:bedrock:eu-west-1:1:inference-profile/a~b"])
def test_signatures_are_botocores(url: str, token: str | None, model: str) -> None:
    """Header for header, over escaped paths, ports and tokens."""
    frozen = ReadOnlyCredentials(KEY_ID, SECRET, token)
    where, body, headers = (
        url + converse_path(model, stream=True),
        b'{"a":"\xc3\xa9"}',
        {"Content-Type": "application/json"},
    )
    request = AWSRequest(method="POST", url=where, data=body, headers=headers)
    SigV4Auth(frozen, "bedrock", "eu-west-1").add_auth(request)
    at = datetime.strptime(request.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    now_ms = int(at.timestamp() * 1_000)
    made = signed(frozen, region="eu-west-1", url=where, headers=headers, body=body, now_ms=now_ms)
    assert dict(request.headers.items()) == made


async def test_what_is_signed_is_what_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    """The path in its very escapes and the body byte for byte; nothing secret is in the logs at their loudest."""
    caplog.set_level(logging.DEBUG)
    with bedrock_world(guard={"prices": None}) as made:
        model = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
        caller = await told(made, asked(made, model=model, headers={"user-agent": "mine/1"}))
        assert 200 == caller.status
        request = made.provider.received[-1]
        sent = request.headers
        assert "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse" == request.path
        assert (TOKEN, "mine/1") == (sent["x-amz-security-token"], sent["user-agent"])
        stated = {"Content-Type": sent["content-type"]}
        again = signed(
            ReadOnlyCredentials(KEY_ID, SECRET, TOKEN), region="us-east-1", headers=stated,
            url=made.provider.bedrock_url + request.path, body=compact(request.body), now_ms=_ms(sent["x-amz-date"]),
        )  # fmt: skip
        assert again["Authorization"] == sent["authorization"]
        assert (made.key in repr(sent), SECRET in repr(sent)) == (False, False)
        heard = caplog.text + repr(made.events) + caller.body.decode() + repr(caller.headers)
        assert not [word for word in (TOKEN, SECRET, sent["authorization"], made.key) if word in heard]


def _ms(stamp: str) -> int:
    return calendar.timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ")) * 1_000


async def test_an_api_key_of_bedrock_needs_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes out as it is, and nothing is signed."""
    bare(monkeypatch)
    with bedrock_world(upstream={"key": Secret("bedrock-api-key-0123456789")}) as made:
        assert 200 == (await told(made, asked(made))).status
        headers = made.provider.received[-1].headers
        assert ("Bearer bedrock-api-key-0123456789", None) == (headers["authorization"], headers.get("x-amz-date"))
        made.settled()


async def test_without_credentials_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """502, an event for the operator; and once they are there, they are found."""
    bare(monkeypatch)
    with bedrock_world() as made:
        async with running(made.config) as app:
            for kind in DIALECTS:
                caller = asked(made, kind)
                await app(caller.scope, caller.receive, caller.send)
                assert (502, "upstream_key_refused") == (caller.status, caller.json()["error"]["code"])
            made.untouched()
            assert 2 == made.names().count("aws_credentials_missing")
            credentials(monkeypatch)
            caller = asked(made)
            await app(caller.scope, caller.receive, caller.send)
            assert 200 == caller.status
        made.settled()


async def test_credentials_that_are_refused_are_looked_for_again() -> None:
    """What AWS says has expired is not sent for ever; but nobody looks at every request."""
    with bedrock_world(Error(403, code="ExpiredTokenException")) as made:
        found = Found(lambda: ReadOnly("a"))
        async with running(made.config) as app:
            assert app.hot is not None
            sender: Any = app.hot._lines.senders["bedrock"]
            clock = ManualClock()
            sender._credentials = Credentials(lambda: found, clock)
            for pause, looks in ((0, 1), (0, 1), (ASK_AGAIN_MS, 1), (0, 2), (0, 2)):
                clock.advance(pause)
                caller = asked(made)
                await app(caller.scope, caller.receive, caller.send)
                assert (502, looks) == (caller.status, found.looks)
        assert 5 == made.names().count("aws_credentials_refused")
        assert (0, 0) == (made.spent, made.held)


# Finding them.


class ReadOnly:
    """Credentials that never expire."""

    def __init__(self, name: str) -> None:
        self._name = name

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        return ReadOnlyCredentials(self._name, "s", None)


class Found:
    """A session that finds what a function makes, and notes in which threads it was asked."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self.looks = 0
        self.threads: list[int] = []

    def get_credentials(self) -> Any:
        self.looks += 1
        self.threads.append(threading.get_ident())
        return self._make()


class Rolling:
    """A role whose credentials expire, as botocore has them; its time stands still."""

    def __init__(self, *, lasts_s: int) -> None:
        self.now = datetime(2026, 11, 22, tzinfo=UTC)
        self.made = 0
        self.lasts_s = lasts_s
        self.error: Exception | None = None
        self.go = threading.Event()
        self.go.set()
        self.on_loop = False
        self._loop_thread = threading.get_ident()

    def fetch(self) -> dict[str, str]:
        self.on_loop = self.on_loop or threading.get_ident() == self._loop_thread
        self.go.wait(20)
        if self.error is not None:
            raise self.error
        self.made += 1
        until = self.now + timedelta(seconds=self.lasts_s)
        return {
            "access_key": f"key-{self.made}", "secret_key": "s", "token": "t", "expiry_time": until.isoformat(),
        }  # fmt: skip

    def credentials(self) -> RefreshableCredentials:
        first = self.fetch()
        return RefreshableCredentials(
            first["access_key"], first["secret_key"], first["token"],
            datetime.fromisoformat(first["expiry_time"]), self.fetch, "role", time_fetcher=lambda: self.now,
        )  # fmt: skip


def name(frozen: Any) -> str:
    return str(frozen.access_key)


async def test_they_are_looked_for_once_in_a_thread() -> None:
    """However many wait for them."""
    found = Found(lambda: ReadOnly("a"))
    held = Credentials(lambda: found, ManualClock())
    names = await asyncio.gather(*(held.frozen() for _ in range(20)))
    assert ({"a"}, 1) == ({name(each) for each in names}, found.looks)
    assert threading.get_ident() not in found.threads
    await held.frozen()
    assert 1 == found.looks


async def test_whoever_leaves_does_not_end_the_looking() -> None:
    """A cancelled request takes nothing from the others."""
    role = Rolling(lasts_s=3_600)
    role.go.clear()
    held = Credentials(lambda: Found(role.credentials), ManualClock())
    first, second = asyncio.create_task(held.frozen()), asyncio.create_task(held.frozen())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    role.go.set()
    assert "key-1" == name(await second)
    assert (True, 1) == (first.cancelled(), role.made)


async def test_they_are_renewed_beside_the_requests_before_they_expire() -> None:
    """Those that are there are used meanwhile; in the last minute one waits."""
    role, clock = Rolling(lasts_s=3_600), ManualClock()
    found = Found(role.credentials)
    held = Credentials(lambda: found, clock)
    assert "key-1" == name(await held.frozen())
    role.now += timedelta(seconds=3_600 - 800)  # botocore would look for others from a quarter of an hour before
    clock.advance(ASK_AGAIN_MS)
    role.go.clear()
    assert "key-1" == name(await held.frozen()), "nobody waits"
    role.go.set()
    await until(lambda: role.made == 2 and held._loading is None)
    assert "key-2" == name(await held.frozen())
    role.now += timedelta(seconds=3_600 - 30)
    assert "key-3" == name(await held.frozen()), "it is too late to use the old ones"
    assert (False, 1) == (role.on_loop, found.looks)


async def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


async def test_a_role_that_has_no_others_yet_is_not_asked_at_every_request() -> None:
    """As a machine's role, which gives out the same ones until shortly before they expire."""
    role, clock = Rolling(lasts_s=600), ManualClock()
    held = Credentials(lambda: Found(role.credentials), clock)
    await held.frozen()
    for _ in range(10):
        await held.frozen()
    assert 2 >= role.made, "once by botocore itself, when it was first asked"
    clock.advance(ASK_AGAIN_MS)
    made = role.made
    await held.frozen()
    await until(lambda: role.made == made + 1 and held._loading is None)


async def test_what_goes_wrong_is_told_by_its_kind_alone() -> None:
    """Errors of libraries name hosts and roles; and whoever comes next looks again."""
    role = Rolling(lasts_s=3_600)
    role.error = OSError("http://169.254.169.254/latest/meta-data/iam/security-credentials/my-role")
    held = Credentials(lambda: Found(role.credentials), ManualClock())
    for _ in range(2):
        with pytest.raises(NoCredentials) as caught:
            await held.frozen()
        assert ("OSError", None) == (caught.value.kind, caught.value.__cause__)
        assert "my-role" not in str(caught.value)
    role.error = None
    assert "key-1" == name(await held.frozen())


async def test_none_are_none() -> None:
    """Where botocore finds nothing."""
    held = Credentials(lambda: Found(lambda: None), ManualClock())
    with pytest.raises(NoCredentials, match="NoCredentials"):
        await held.frozen()


async def test_what_is_not_installed_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not at the first request; an API key of Bedrock needs nothing."""
    monkeypatch.setitem(sys.modules, "botocore", None)
    with bedrock_world() as made:
        with pytest.raises(ConfigError, match="aws"):
            async with running(made.config):
                pass
    with bedrock_world(upstream={"key": Secret("bedrock-api-key-0123456789")}) as made:
        assert 200 == (await told(made, asked(made))).status
