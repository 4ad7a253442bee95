"""Canaries through what lets callers in, and through notifications: API keys, tokens, published keys, webhooks."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rr_canaries as birds
from rr_canaries import Lookout
from rr_jwt import AUDIENCE, ED, ISSUER, NOW_MS, drawn, header, token
from rr_keys import START_MS, CountingDocuments
from rr_notify import receiving, warned
from runrails import Guard
from runrails.documents import Address
from runrails.documents.sqlite import SQLiteDocuments
from runrails.egress import Answer, EgressFailed
from runrails.errors import ConfigError
from runrails.events import log_sink
from runrails.identity.apikeys import ApiKeys, Peppers
from runrails.identity.authenticate import Authenticator
from runrails.identity.errors import Unauthenticated
from runrails.identity.jwt import Key, KeySet, RemoteKeys, Tokens
from runrails.identity.principal import Principal
from runrails.notify import Notifier, SendFailed, SlackWebhook, Webhook
from runrails.notify.senders import Notice
from runrails.secretvalue import Secret
from runrails.testing import ManualClock


class Door:
    """API keys and tokens on a disk, and who asks for them."""

    def __init__(self, lookout: Lookout, directory: Path, keys: KeySet) -> None:
        self.out = lookout
        self.clock = ManualClock(NOW_MS)
        self.documents = CountingDocuments(SQLiteDocuments(directory / "door.db", clock=self.clock))
        pepper = {"p2": Secret(birds.PEPPER.text), "p1": Secret(birds.OLD_PEPPER.text)}
        self.peppers = Peppers("p2", pepper)
        self.api = ApiKeys(
            self.documents, self.peppers, clock=self.clock, monotonic=self.clock, cache_ms=0, legacy=True
        )
        self.tokens = Tokens(keys, ISSUER, AUDIENCE, documents=self.documents, clock=self.clock)
        self.door = Authenticator(self.api, self.tokens, clock=self.clock)

    def key(self, **terms: Any) -> tuple[Any, str]:
        """A new key and its text, which is looked out for from now on."""
        info, secret = self.api.create("alice", **{"scopes": {"ai:complete"}, "name": "n", **terms})
        self.out.learn("API key", secret.reveal()[25:])
        self.out.show(info, secret)
        return info, secret.reveal()

    def token(self, **changes: Any) -> str:
        """A token, of which the signature is the secret part."""
        made = self.tokens.issue(Principal(user="alice", scopes=frozenset({"ai:complete"}), method="local"))
        self.out.learn("token's signature", made.reveal().rpartition(".")[2])
        self.out.show(made)
        return made.reveal()

    def refuses(self, *headers: tuple[str, str]) -> str:
        """Nobody comes in by these; why, for the operator."""
        # Callers hand text over, so their frames and the verifiers' have it while it is being looked at.
        error = self.out.fails(lambda: self.door.authenticate(headers), frames=False)
        return error.reason if isinstance(error, Unauthenticated) else type(error).__name__

    def admits(self, text: str) -> Principal:
        """Whom it lets in."""
        principal = self.door.enter([("Authorization", f"Bearer {text}")], "models.list").principal
        self.out.show(principal, self.door, self.api, self.tokens, self.peppers)
        return principal


KEYSETS: dict[str, Callable[[], KeySet]] = {
    "HS256": lambda: KeySet.parse("k1:HS256:env:RR_JWT"), "EdDSA": lambda: KeySet.parse("k1:EdDSA:env:RR_PEM"),
}  # fmt: skip


@pytest.fixture
def door(lookout: Lookout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Door:
    """With shared keys."""
    return make_door(lookout, tmp_path, monkeypatch, "HS256")


def make_door(lookout: Lookout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> Door:
    """With keys of this kind."""
    monkeypatch.setenv("RR_JWT", birds.JWT_SECRET.text)
    monkeypatch.setenv("RR_PEM", birds.JWT_PEM.text)
    keys = KEYSETS[kind]()
    lookout.show(keys, *(keys.find(kid) for kid in ("k1",)), keys.signer)
    return Door(lookout, tmp_path, keys)


def test_the_life_of_an_api_key(door: Door) -> None:
    """Made, used, listed, suspended, resumed, rotated with and without overlap, expired, revoked."""
    info, text = door.key()
    assert "alice" == door.admits(text).user
    door.api.suspend(info.id)
    assert "not_active" == door.refuses(("x-api-key", text))
    door.api.resume(info.id)
    info, second = door.api.rotate(info.id, 1_000)
    door.out.learn("API key", second.reveal()[25:])
    assert [door.admits(each).key_id for each in (text, second.reveal())] == [info.id] * 2
    door.clock.advance(2_000)
    assert "expired" == door.refuses(("x-api-key", text))
    door.out.show(*door.api.list(), door.api.show(info.id), *door.documents.everything())
    door.api.flush()
    door.api.revoke(info.id)
    assert "not_active" == door.refuses(("x-api-key", second.reveal()))
    door.out.fails(lambda: door.api.rotate(info.id))
    _, short = door.key(expires_ms=door.clock() + 1_000)
    door.clock.advance(1_000)
    assert "expired" == door.refuses(("x-api-key", short))


def test_older_keys(door: Door) -> None:
    """Adopted by their bcrypt hash, checked the slow way, hashed anew; and wrong ones."""
    bcrypt = pytest.importorskip("bcrypt", minversion="5", reason="the extra legacy is not installed")
    kept = bcrypt.hashpw(birds.LEGACY.text.encode(), bcrypt.gensalt(4, prefix=b"2b")).decode()
    door.out.show(door.api.adopt(birds.LEGACY.text[:12], kept, user="alice", scopes={"ai:complete"}))
    door.out.fails(lambda: door.api.adopt(birds.LEGACY.text, kept, user="alice", scopes={"ai:complete"}), frames=False)
    wrong = birds.LEGACY.text[:12] + birds.LEGACY.text[:11:-1]
    door.out.learn("wrong older key", wrong[12:])
    assert "wrong_secret" == door.refuses(("x-api-key", wrong))
    assert [door.admits(birds.LEGACY.text).user for _ in range(2)] == ["alice"] * 2
    door.api.close()


def test_keys_that_prove_nobody(door: Door) -> None:
    """Every way to be wrong, in each header."""
    info, text = door.key()
    _, other = door.key(name="another")
    mixed = text[:25] + other[25:]
    ways = (
        mixed, text[:-1], text + "A", text[::-1], text.replace("live", "test"), text.upper(), f"{text} {text}",
        other[:20] + text[20:], f"{text},{other}", f"Bearer {text}", f"{text}\n", text * 300, f"rr_{text}",
        f"sk-{text}",
    )  # fmt: skip
    for way in ways:
        door.refuses(("x-api-key", way))
        door.refuses(("Authorization", f"Bearer {way}"))
        door.refuses(("Authorization", f"Basic {b64encode(way.encode()).decode()}"))
    assert "several_credentials" == door.refuses(("x-api-key", text), ("Authorization", f"Bearer {other}"))
    door.documents.away = True
    assert "StoreUnavailable" == door.refuses(("x-api-key", other))
    door.documents.away = False
    address = Address("api-key", info.id, "key")
    document = door.documents.get(address)
    assert document is not None
    door.documents.put(address, document.data.replace(b"alice", b"mallo"), expected=document.version)
    assert "unreadable" == door.refuses(("x-api-key", text))
    door.out.fails(lambda: door.api.show(info.id))
    door.out.fails(door.api.list)


@pytest.mark.parametrize("kind", KEYSETS)
def test_tokens(lookout: Lookout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Issued, taken, and wrong in every way; revoked; nobody to ask whether they were revoked."""
    door = make_door(lookout, tmp_path, monkeypatch, kind)
    text = door.token()
    principal = door.admits(text)
    signature = text.rpartition(".")[2]
    for way in (
        text[:-4], text + "A", text.replace(".", ".."), f"{text}.{signature}", signature, "a" * 5_000 + text,
        text.rpartition(".")[0] + "." + signature[::-1], f"x{text}",
    ):  # fmt: skip
        door.refuses(("Authorization", f"Bearer {way}"))
    foreign = token(header(kid="k1"))
    lookout.learn("foreign token's signature", foreign.rpartition(".")[2])
    door.refuses(("x-api-key", foreign))
    door.documents.kinds_away = frozenset({"revoked"})
    later = door.token()
    assert "StoreUnavailable" == door.refuses(("Authorization", f"Bearer {later}"))
    door.documents.kinds_away = frozenset()
    door.tokens.revoke(str(principal.session_id))
    door.clock.advance(6_000)
    assert "token-revoked" == door.refuses(("Authorization", f"Bearer {text}"))
    lookout.fails(lambda: door.tokens.revoke(later), ValueError, frames=False)
    door.clock.advance(3_600_000)
    assert "token-expired" == door.refuses(("Authorization", f"Bearer {later}"))


@pytest.mark.parametrize("fails", ["status", "private", "malformed", "network", "secret in the URL"])
def test_published_keys_that_cannot_be_had(lookout: Lookout, tmp_path: Path, fails: str) -> None:
    """A set that shows its private keys, is broken, or is not there."""
    published = {"kty": "oct", "kid": "k1", "k": b64encode(drawn("hs1")).decode(), "d": birds.JWT_SECRET.text}
    lookout.learn("published secret", str(published["k"]))

    def fetch(url: str, /) -> Answer:
        if fails == "network":
            raise EgressFailed("timeout", host="keys.example.com")
        body = json.dumps({"keys": [published]}).encode()
        return Answer(500 if fails == "status" else 200, {}, body[:-3] if fails == "malformed" else body)

    if fails == "secret in the URL":
        password = birds.PASSWORD.text
        for url in (f"https://u:{password}@keys.example.com/", f"http://x.example.com/{password}", password):
            lookout.fails(lambda url=url: RemoteKeys(url), ConfigError, frames=False)
        return
    reasons: list[str] = []
    url = f"https://keys.example.com/{birds.PASSWORD.text}"
    remote = RemoteKeys(url, fetch=fetch, clock=ManualClock(0), on_failure=reasons.append)
    tokens = Tokens(remote, ISSUER, AUDIENCE, documents=SQLiteDocuments(tmp_path / "d.db"), clock=ManualClock(NOW_MS))
    text = token(header(alg="EdDSA", kid="ed1"))
    lookout.learn("token's signature", text.rpartition(".")[2])
    lookout.fails(lambda: tokens.verify(text), frames=False)
    assert reasons
    lookout.hear("reasons", repr(reasons))
    lookout.hear("repr", f"{remote!r} {tokens!r}")


def test_a_private_key_is_never_published(lookout: Lookout) -> None:
    """What others verify with has nothing of it; of shared keys there is nothing to publish."""
    keys = KeySet([Key("ed1", "EdDSA", ED.public_key(), ED)], signing="ed1")
    lookout.hear("published", json.dumps(keys.public_jwks()))
    lookout.fails(lambda: KeySet.shared({"k1": Secret(birds.JWT_SECRET.text)}).public_jwks())


# Notifications.


@pytest.mark.parametrize("status", [200, 302, 400, 401, 429, 500])
def test_notifications(lookout: Lookout, status: int) -> None:
    """Signed webhooks, and Slack's whose address is the secret: sent, refused, redirected."""
    with receiving(*[status] * 4, headers={"x-echo": birds.SLACK.text, "location": f"/{birds.SLACK.text}"}) as receiver:
        senders = (Webhook(receiver.url, secret=birds.WEBHOOK.text), SlackWebhook(f"{receiver.url}/{birds.SLACK.text}"))
        notifier = Notifier(*senders, attempts_max=2, pause=lambda _: None)
        notifier(warned())
        notifier.flush(10)
        lookout.show(*senders, notifier, warned())
        lookout.hear("delivered", repr([vars(notifier), [lane.total for lane in notifier._lanes]]))
        for sender in senders:
            if status != 200:
                receiver.statuses = [status]
                notice = Notice("n1", START_MS, warned())
                lookout.show(notice)
                lookout.fails(lambda sender=sender, notice=notice: sender.send(notice), SendFailed)
        assert f"/{birds.SLACK.text}" in {each.path for each in receiver.received}


def test_notifications_that_reach_nobody(lookout: Lookout) -> None:
    """Nobody listens; and addresses and secrets that are none."""
    nowhere = f"http://127.0.0.1:9/{birds.SLACK.text}"
    for sender in (Webhook(nowhere, secret=birds.WEBHOOK.text), SlackWebhook(nowhere)):
        lookout.fails(lambda sender=sender: sender.send(Notice("n1", START_MS, warned())), SendFailed)
        notifier = Notifier(sender, attempts_max=1)
        notifier(warned())
        assert notifier.flush(10)
    text = birds.WEBHOOK.text
    for act in (
        lambda: Webhook(f"https://u:{text}@hooks.example.com", secret=text), lambda: Webhook(text, secret=text),
        lambda: Webhook(f"http://hooks.example.com/{text}", secret=text), lambda: SlackWebhook(f"https://[{text}"),
        lambda: Webhook("https://hooks.example.com", secret=text[:20]), lambda: SlackWebhook(f"ftp://x/{text}"),
        lambda: Webhook("https://hooks.example.com", secret=text + "!"),
    ):  # fmt: skip
        lookout.fails(act, ConfigError, frames=False)


def test_a_sink_that_fails(lookout: Lookout) -> None:
    """A function of somebody's own, which says the secret in its error: that is counted, and not said on."""

    def fails(event: object) -> None:
        raise ValueError(f"no {birds.WEBHOOK.text}")

    notifier = Notifier(fails, attempts_max=2, pause=lambda _: None)
    notifier(warned())
    assert notifier.flush(10)
    lookout.show(notifier, *notifier._lanes)
    lookout.hear("delivered", repr([lane.total for lane in notifier._lanes]))
    guard = Guard(store="memory:", sinks=[fails])
    guard.emit("budget_warned", "warning", scope="user:alice")
    guard.close()


def test_a_secret_in_an_event(lookout: Lookout) -> None:
    """A user called like a key: the log that we write ourselves masks it."""
    for canary in (birds.OPENAI, birds.ANTHROPIC, birds.WEBHOOK):
        log_sink(warned(f"user:{canary.text}", message=f"user:{canary.text} has used it up."))
