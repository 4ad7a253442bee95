"""
Canaries through everything that keeps or checks secrets: no 12 characters in a row of one appear anywhere.

Each test takes secrets down a path, to its end and into its failures; the fixture `lookout` hears whatever is told on
the way. Who comes in is in test_canaries_doors.py, calls are in test_canaries_calls.py, AWS in test_canaries_aws.py and
commands in test_canaries_cli.py.
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
from random import Random
from typing import Any
from urllib.parse import quote

import pytest

import rr_canaries as birds
from rr_canaries import SECRETS, Canary, Lookout
from rr_keycheck import Provider
from rr_keys import START_MS, CountingDocuments
from rr_notify import warned
from runrails.credentials import Context, CredentialId, KeyRing, Vault
from runrails.credentials.opening import open_vault, open_wrapper
from runrails.credentials.revalidation import Revalidator, check_key
from runrails.credentials.validation import Validator
from runrails.documents.sqlite import SQLiteDocuments
from runrails.errors import ConfigError, StoreUnavailable
from runrails.identity.apikeys import Peppers
from runrails.identity.authenticate import Authenticator
from runrails.identity.jwt import KeySet
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


@pytest.mark.parametrize(
    "form", [repr, lambda part: json.dumps(part.decode("latin-1")), quote], ids=["repr", "json", "url"]
)
def test_bytes_are_seen_escaped_and_other_bytes_are_not(form: Callable[[bytes], str]) -> None:
    """Of keys that are bytes; 200,000 other bytes share three in a row with them, which is no leak."""
    for canary in SECRETS:
        for part in canary.parts:
            if isinstance(part, bytes):
                lookout = Lookout(secrets=[canary])
                lookout.hear("elsewhere", form(part[:3] + Random(1).randbytes(200_000)))
                assert [] == lookout.found()
                lookout.hear("somewhere", f"before {form(part)} after")
                assert lookout.found(), canary


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


@pytest.mark.parametrize("status", [200, 302, 401, 403, 429, 500])
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
