"""
Canaries through everything that keeps or checks secrets: no 12 characters in a row of one appear anywhere.

Each test takes secrets down a path, to its end and into its failures; the fixture `lookout` hears whatever is told on
the way. Calls are in test_canaries_calls.py, AWS in test_canaries_aws.py, the command line in test_canaries_cli.py.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from base64 import b32encode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import rr_canaries as birds
from rr_canaries import SECRETS, Canary, Lookout
from rr_jwt import AUDIENCE, ED, ISSUER, NOW_MS, drawn, header, token
from rr_keycheck import Provider
from rr_keys import START_MS, CountingDocuments
from rr_notify import receiving, warned
from runrails.credentials import Context, CredentialId, KeyRing, Vault
from runrails.credentials.opening import open_vault, open_wrapper
from runrails.credentials.revalidation import Revalidator, check_key
from runrails.credentials.validation import Validator
from runrails.documents import Address
from runrails.documents.sqlite import SQLiteDocuments
from runrails.egress import Answer, EgressFailed
from runrails.errors import ConfigError, StoreUnavailable
from runrails.events import log_sink
from runrails.identity.apikeys import ApiKeys, Peppers
from runrails.identity.authenticate import Authenticator
from runrails.identity.errors import Unauthenticated
from runrails.identity.jwt import KeySet, RemoteKeys, Tokens
from runrails.identity.principal import Principal
from runrails.notify import Notifier, SendFailed, SlackWebhook, Webhook
from runrails.notify.senders import Notice
from runrails.secretrefs import check_distinct, check_environment, check_strength, resolve
from runrails.secretvalue import Secret
from runrails.testing import ManualClock

ALICE = CredentialId("user:alice", "openai")
PROVIDER_KEYS = (birds.OPENAI, birds.ANTHROPIC, *birds.OTHERS, birds.AWS_KEYS, birds.ORG_KEY)


class Known(KeyRing):
    """A ring whose data keys are known, so that they can be looked out for."""

    def __init__(self, lookout: Lookout, *masters: Canary) -> None:
        drawn_so_far: list[bytes] = []

        def random(count: int) -> bytes:
            drawn_so_far.append(os.urandom(count))
            if count == 32:
                lookout.learn("data key", drawn_so_far[-1])
            return drawn_so_far[-1]

        keys = {f"k{number}": Secret(master.text) for number, master in enumerate(masters, start=1)}
        super().__init__(f"k{len(masters)}", keys, random=random)


class Rooms:
    """A vault and its file, and another file's worth of ways to fail."""

    def __init__(self, lookout: Lookout, directory: Path) -> None:
        self.lookout = lookout
        self.clock = ManualClock(START_MS)
        self.documents = CountingDocuments(SQLiteDocuments(directory / "rooms.db", clock=self.clock))
        self.vault = self.with_ring(Known(lookout, birds.MASTER))

    def with_ring(self, ring: KeyRing) -> Vault:
        """A vault on the same file with other master keys."""
        return Vault(self.documents, ring, clock=self.clock, monotonic=self.clock, cache_ms=60_000)


@pytest.fixture
def rooms(lookout: Lookout, tmp_path: Path) -> Rooms:
    """On a disk."""
    return Rooms(lookout, tmp_path)


# That the lookout sees.


@dataclass
class Leaky:
    """A stand-in that shows what it should not."""

    secret: str


def _leaky_error(secret: str, kind: str) -> Exception:
    try:
        try:
            raise KeyError(secret if kind in {"cause", "context"} else "x")
        except KeyError as inner:
            if kind == "cause":
                raise ValueError("no") from inner
            if kind == "context":
                raise ValueError("no") from None
            error = ValueError(secret if kind == "message" else "no")
            if kind == "field":
                error.value = secret  # type: ignore[attr-defined]
            if kind == "note":
                error.add_note(secret)
            raise error from None
    except ValueError as caught:
        return caught


def _log(secret: str, *, name: str = "httpcore.http11", **options: Any) -> None:
    logging.getLogger(name).debug("x %s", secret if not options else "", **options)


def _logged_error(secret: str) -> None:
    logging.getLogger("openai").debug("x", exc_info=_leaky_error(secret, "cause"))


CHANNELS: dict[str, Callable[[Lookout, str, Path], object]] = {
    "a log": lambda out, secret, path: _log(secret),
    "a field of a log": lambda out, secret, path: _log(secret, extra={"key": secret}),
    "a new logger": lambda out, secret, path: _log(secret, name=f"new.{len(secret)}"),
    "an error in a log": lambda out, secret, path: _logged_error(secret),
    "stdout": lambda out, secret, path: print(secret),
    "stderr": lambda out, secret, path: print(secret, file=sys.stderr),
    "an object": lambda out, secret, path: out.show(Leaky(secret)),
    "an event": lambda out, secret, path: out.show(warned(message=secret)),
    "a file": lambda out, secret, path: (path / "a" / "b").write_text(secret),
    "a file's name": lambda out, secret, path: (path / "a" / secret[:40].replace("/", "_")).touch(),
    "a temporary file": lambda out, secret, path: Path(tempfile.mkstemp()[1]).write_text(secret),
    "a child's argument": lambda out, secret, path: subprocess.run(["true", secret], check=True),
    "a child's environment": lambda out, secret, path: subprocess.run(["true"], env={"X": secret}, check=True),
    "the environment": lambda out, secret, path: os.environ.__setitem__("X_LEAKED", secret),
    **{
        f"an error's {kind}": lambda out, secret, path, kind=kind: out.raised(_leaky_error(secret, kind))  # type: ignore[misc]
        for kind in ("message", "cause", "context", "field", "note")
    },
}
FORMS: dict[str, Callable[[str], str]] = {
    "plain": lambda secret: secret,
    "a piece": lambda secret: f"…{secret[7:19]}…",
    "base64": lambda secret: b64encode(f"Basic user:{secret}".encode()).decode(),
    "base64 further on": lambda secret: b64encode(f" Basic user:{secret} ".encode()).decode(),
    "base32": lambda secret: b32encode(secret.encode()).decode(),
    "hexadecimal": lambda secret: secret.encode().hex(),
    "backwards": lambda secret: secret[::-1],
}


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_leak_is_seen_wherever_it_is(channel: str, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    """A stand-in that leaks makes the lookout find just that, and nothing is found without it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("X_LEAKED", raising=False)
    (tmp_path / "a").mkdir()
    for secret in ("", birds.OPENAI.text):
        with Lookout(tmp_path) as lookout:
            if secret:
                CHANNELS[channel](lookout, secret, tmp_path)
            lookout.hear("printed", "".join(capsys.readouterr()))
            assert bool(secret) == bool(lookout.found())
    os.environ.pop("X_LEAKED", None)


@pytest.mark.parametrize("form", FORMS)
def test_a_leak_is_seen_in_every_form(form: str) -> None:
    """Whatever it was turned into on the way; every secret."""
    for canary in SECRETS:
        for part in canary.parts:
            if isinstance(part, str):
                lookout = Lookout(secrets=[canary])
                lookout.hear("somewhere", f"before {FORMS[form](part)} after")
                assert all(leak.startswith(f"somewhere: {canary.name}, ") for leak in lookout.found())
                assert lookout.found(), (canary, form)


def test_local_variables_of_our_frames_are_looked_at() -> None:
    """As error trackers do: here of a function of ours whose argument is a secret."""
    lookout = Lookout()
    door = Authenticator(Leaky(birds.OPENAI.text))  # type: ignore[arg-type]
    lookout.fails(lambda: door.authenticate([("authorization", "Bearer rr_x")]), AttributeError)
    assert any("local variables" in leak for leak in lookout.found())


# The vault.


@pytest.mark.parametrize("canary", PROVIDER_KEYS, ids=lambda canary: canary.name.replace(" ", "-"))
def test_the_life_of_a_key(rooms: Rooms, canary: Canary) -> None:
    """Added, opened, listed, marked, suspended, replaced, sealed anew, removed; and each of it twice or too early."""
    vault, out, secret = rooms.vault, rooms.lookout, Secret(canary.text)
    out.fails(lambda: vault.get(ALICE))
    out.show(vault.add(ALICE, secret), secret)
    out.fails(lambda: vault.add(ALICE, secret))
    assert canary.text == vault.get(ALICE).secret.reveal()
    out.show(vault.get(ALICE), vault, *vault.list(), vault.peek(ALICE), rooms.documents.get(ALICE.address))
    out.show(vault.mark(ALICE, "suspended"))
    out.fails(lambda: vault.get(ALICE))
    vault.resume(ALICE)
    out.show(vault.rotate(ALICE, Secret(birds.ROTATED.text)))
    both = rooms.with_ring(Known(out, birds.MASTER, birds.OTHER_MASTER))
    out.show(both.rewrap(), both, both.get(ALICE))
    assert (1, birds.ROTATED.text) == (both.rewrap().current, both.get(ALICE).secret.reveal())
    assert both.remove(ALICE) and not both.remove(ALICE)
    out.fails(lambda: both.rotate(ALICE, secret))


def _damage(rooms: Rooms, change: Callable[[bytes], bytes]) -> None:
    address = ALICE.address
    document = rooms.documents.get(address)
    assert document is not None
    # The version goes on, which alone makes the record one that was moved.
    rooms.documents.put(address, change(document.data), expected=document.version)


FAULTS: dict[str, Callable[[Rooms], Vault]] = {
    "another ring": lambda rooms: rooms.with_ring(Known(rooms.lookout, birds.OTHER_MASTER)),
    "a ring of other names": lambda rooms: rooms.with_ring(KeyRing("z", {"z": Secret(birds.OTHER_MASTER.text)})),
    "a store that is away": lambda rooms: (setattr(rooms.documents, "away", True), rooms.vault)[1],
    "an emptied record": lambda rooms: (_damage(rooms, lambda data: b""), rooms.vault)[1],
    "half a record": lambda rooms: (_damage(rooms, lambda data: data[: len(data) // 2]), rooms.vault)[1],
    "a flipped bit": lambda rooms: (_damage(rooms, lambda data: data[:-1] + bytes([data[-1] ^ 1])), rooms.vault)[1],
    "a changed base URL": lambda rooms: (_damage(rooms, lambda data: data.replace(b"null", b'"http"')), rooms.vault)[1],
    "an older version": lambda rooms: (_damage(rooms, lambda data: data), rooms.vault)[1],
    "another user's record": lambda rooms: (
        rooms.vault.add(CredentialId("user:bob", "openai"), Secret(birds.ORG_KEY.text)),
        _damage(rooms, lambda _: rooms.documents.get(CredentialId("user:bob", "openai").address).data),  # type: ignore[union-attr]
        rooms.vault,
    )[2],
    "plain text in its place": lambda rooms: (
        _damage(rooms, lambda data: data[:4] + b"\0\2{}" + data[-20:]), rooms.vault
    )[1],
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_open(rooms: Rooms, fault: str) -> None:
    """For the caller, the operator, the one who checks it and the one who seals everything anew."""
    rooms.vault.add(ALICE, Secret(birds.OPENAI.text))
    vault, out = FAULTS[fault](rooms), rooms.lookout
    vault._opened.clear()
    for act in (
        lambda: vault.get(ALICE), lambda: vault.rotate(ALICE, Secret(birds.ROTATED.text)),
        lambda: check_key(vault, ALICE, Validator()),
    ):  # fmt: skip
        out.show(out.fails(act))
    if rooms.documents.away:
        for act in (vault.rewrap, vault.list, lambda: vault.remove(ALICE), lambda: vault.mark(ALICE, "invalid", 1)):
            out.fails(act)
        out.fails(lambda: vault.add(ALICE, Secret(birds.OPENAI.text)), StoreUnavailable)
    else:
        out.show(vault.rewrap(), *vault.list())


@pytest.mark.parametrize(
    "act",
    [
        lambda vault, text: vault.add(ALICE, Secret(text), base_url=text),
        lambda vault, text: vault.add(ALICE, Secret(text), base_url=f"https://user:{text}@models.example.com/v1"),
        lambda vault, text: vault.add(ALICE, Secret(text), base_url=f"https://models.example.com/v1?key={text}"),
        lambda vault, text: vault.add(ALICE, Secret(text), region=text),
        lambda vault, text: vault.add(ALICE, Secret(text * 400)),
        lambda vault, text: vault.add(CredentialId(text, "openai"), Secret("x")),
        lambda vault, text: vault.add(CredentialId(f"user:{text} ", "openai"), Secret("x")),
        lambda vault, text: vault.add(CredentialId("user:alice", text), Secret("x")),
        lambda vault, text: vault.add(CredentialId("user:alice", "openai", f"{text}!"), Secret("x")),
        lambda vault, text: vault.list(text),
        lambda vault, text: Secret(text + "\ud800"),
        lambda vault, text: Secret([text]),  # type: ignore[arg-type]
        lambda vault, text: KeyRing("k1", {"k1": Secret(text)}),
        lambda vault, text: KeyRing(text, {}),
        lambda vault, text: KeyRing("k1", {"k1": Secret(birds.MASTER.text), text: Secret(birds.MASTER.text)}),
        lambda vault, text: KeyRing.parse(text),
        lambda vault, text: KeyRing.parse(f"k1:{text}"),
        lambda vault, text: KeyRing.parse(f"k1:env:{text}"),
        lambda vault, text: KeyRing.parse(f"k1:file:{text}"),
        lambda vault, text: open_wrapper(f"kms:{text}"),
        lambda vault, text: open_vault(f"postgres://user:{text}@db/vault", master_keys="k1:env:RR_MASTER"),
        lambda vault, text: open_vault(f"sqlite://user:{text}@db", master_keys="k1:env:RR_MASTER"),
        lambda vault, text: open_vault(f"dynamodb://{text}@table?x={text}", master_keys="k1:env:RR_MASTER"),
    ],
)
def test_a_secret_in_the_wrong_place_of_the_vault(
    rooms: Rooms, act: Callable[[Vault, str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written where a name, an address or a reference belongs, it is refused without being shown."""
    monkeypatch.setenv("RR_MASTER", birds.MASTER.text)
    rooms.lookout.fails(lambda: act(rooms.vault, birds.OPENAI.text), ValueError, TypeError, frames=False)


def test_data_keys_and_envelopes(rooms: Rooms) -> None:
    """What a wrapper gives and takes."""
    ring = Known(rooms.lookout, birds.MASTER)
    context = Context("user:alice", "openai", "default", 1, "provider key")
    data_key = ring.new_data_key(context)
    rooms.lookout.show(ring, context, data_key, ring.unwrap(data_key.wrapped, data_key.key_id, context))
    rooms.lookout.fails(lambda: ring.unwrap(data_key.wrapped, data_key.key_id, context._replace(version=2)))


# Checking keys.


@pytest.fixture
def provider(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Behind TLS; says what it is told to."""
    served = Provider(tmp_path_factory.mktemp("tls"))
    yield served
    served.close()


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 429, 500, 503])
@pytest.mark.parametrize("canary", [birds.OPENAI, birds.ANTHROPIC], ids=["openai", "anthropic"])
def test_a_check_whose_answer_has_the_key(rooms: Rooms, provider: Provider, canary: Canary, status: int) -> None:
    """In its body, a header and where it redirects to."""
    which = CredentialId("user:alice", canary.name.split()[0].lower())
    rooms.vault.add(which, Secret(canary.text), base_url=f"https://models.example.com:{provider.port}/v1")
    provider.status, provider.body = status, json.dumps({"error": {"message": f"bad key {canary.text}"}}).encode()
    provider.headers = {"location": f"https://x.example.com/?key={canary.text}", "x-echo": canary.text}
    validator = Validator(
        allow_hosts=["models.example.com"], networks=["127.0.0.0/8"], resolver=provider.resolver,
        context=provider.context,
    )  # fmt: skip
    validator._policy = validator._policy._replace(ports=(provider.port,))
    rooms.lookout.show(check_key(rooms.vault, which, validator), validator)
    assert canary.text in str(provider.asked[0].headers)
    told: list[object] = []
    Revalidator(rooms.vault, validator, every_ms=0, clock=rooms.clock, tell=told.append).round()
    rooms.lookout.show(*told, *rooms.vault.list())


def test_checks_that_reach_nobody(rooms: Rooms) -> None:
    """A host that is not allowed, not known or does not answer; a key that no header can hold; no check at all."""

    def nobody(host: str, port: int, /) -> list[str]:
        raise OSError(birds.OPENAI.text)

    for number, (text, provider, url) in enumerate([
        (birds.OPENAI.text, "openai", "https://other.example.com/v1"), (birds.OPENAI.text, "openai", None),
        (birds.OPENAI.text + "\r\nx: y", "openai", None), (birds.OPENAI.text + "ü", "anthropic", None),
        (birds.AWS_KEYS.text, "bedrock", "https://sts.example.com"), (birds.OPENAI.text, "bedrock", None),
        (birds.OPENAI.text, "cohere", None),
    ]):  # fmt: skip
        which = CredentialId("user:alice", provider, f"n{number}")
        rooms.vault.add(which, Secret(text), base_url=url)
        found = check_key(rooms.vault, which, Validator(resolver=nobody))
        assert "valid" != found.validation.status
        rooms.lookout.show(found)


# References to secrets.


@pytest.mark.parametrize("canary", [birds.PEPPER, birds.JWT_PEM, birds.OPENAI], ids=["pepper", "pem", "key"])
def test_references(lookout: Lookout, tmp_path: Path, canary: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolved from everywhere, and everything that can be wrong with one."""
    monkeypatch.setenv("RR_SECRET", canary.text)
    monkeypatch.setenv("RR_SHORT", canary.text[:13])
    file = tmp_path / "secret"
    file.write_text(canary.text + "\n")
    (tmp_path / "large").write_text(canary.text * 3_000)
    lookout.keeps(file, tmp_path / "large")
    for reference in ("env:RR_SECRET", f"file:{file}"):
        found = resolve(reference, what="RUNRAILS_X")
        assert canary.text.strip() == found.reveal().strip()
        lookout.show(found, check_strength(found, what="X"))
    text = canary.text
    for reference in (
        text, f"env:{text}", f"file:{text}", f"file:/{text}", f"file:{tmp_path / 'large'}", f"ssm://{text}",
        f"ssm:{text}", f"vault:{text}", f"{text}:x", f"https://u:{text}@x", f"base64:{text}",
    ):  # fmt: skip
        lookout.fails(lambda reference=reference: resolve(reference, what="RUNRAILS_X"), ConfigError, frames=False)
    same = {"a": Secret(text), "b": Secret(text)}
    lookout.fails(lambda: check_distinct(same))
    lookout.fails(lambda: check_strength(resolve("env:RR_SHORT", what="X"), what="X"))
    settings = {"RUNRAILS_KEY_PEPPERS": "p1:env:RR_SECRET", "RUNRAILS_MASTER_KEYS": "k1:env:RR_SECRET"}
    lookout.fails(lambda: check_environment(settings))
    for setting in (text, f"p1:{text}", f"p1:env:RR_SECRET,p1:{text}", f"{text}:env:RR_SECRET", "p1:env:RR_SHORT"):
        lookout.fails(lambda setting=setting: Peppers.parse(setting), ConfigError, frames=False)
        lookout.fails(lambda setting=setting: KeySet.parse(setting), ConfigError, frames=False)


# API keys, and everybody who comes in.


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
    lookout.keeps()
    keys = KeySet([next(each for each in [_ed_key()])], signing="ed1")
    lookout.hear("published", json.dumps(keys.public_jwks()))
    lookout.fails(lambda: KeySet.shared({"k1": Secret(birds.JWT_SECRET.text)}).public_jwks())


def _ed_key() -> Any:
    from runrails.identity.jwt import Key

    return Key("ed1", "EdDSA", ED.public_key(), ED)


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


def test_a_secret_in_an_event(lookout: Lookout) -> None:
    """A user called like a key: the log that we write ourselves masks it."""
    for canary in (birds.OPENAI, birds.ANTHROPIC, birds.WEBHOOK):
        log_sink(warned(f"user:{canary.text}", message=f"user:{canary.text} has used it up."))
