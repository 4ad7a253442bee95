"""`runrails tokens`: what is printed where, exit codes, and what a server makes of it."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from rr_jwt import AUDIENCE, ED, ISSUER, b64, drawn, pem
from runrails.cli.shell import OK, USAGE, run
from runrails.documents.sqlite import SQLiteDocuments
from runrails.errors import ConfigError
from runrails.identity.errors import Unauthenticated
from runrails.identity.jwt.opening import open_keys, open_tokens
from runrails.identity.principal import Principal
from runrails.secretrefs import check_environment

Capture = pytest.CaptureFixture[str]
SECRET = b64(drawn("cli"))


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A vault of this test's own, and all that tokens need."""
    monkeypatch.setenv("RR_JWT", SECRET)
    monkeypatch.setenv("RUNRAILS_JWT_KEYS", "k1:HS256:env:RR_JWT")
    monkeypatch.setenv("RUNRAILS_JWT_ISSUER", ISSUER)
    monkeypatch.setenv("RUNRAILS_JWT_AUDIENCE", AUDIENCE)
    monkeypatch.setenv("RUNRAILS_VAULT", f"sqlite:///{tmp_path / 'vault.db'}")
    for name in ("RUNRAILS_JWT_JWKS_URL", "RUNRAILS_KEY_PEPPERS", "RUNRAILS_MASTER_KEYS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "vault.db"


def let_in(file: Path, text: str) -> Principal | None:
    """Whom a server on that vault would let in."""
    with closing(SQLiteDocuments(file)) as documents:
        try:
            return open_tokens(documents).verify(text)
        except Unauthenticated:
            return None


def test_a_token_is_made_printed_and_taken_back(capsys: Capture, file: Path) -> None:
    """On stdout is the token alone; by its id it is taken back, again without complaint."""
    assert OK == run(["tokens", "issue", "alice", "--org", "acme", "--scope", "ai:agent", "--ttl", "10m"])
    out, err = capsys.readouterr()
    principal = let_in(file, out.strip())
    assert principal is not None and ("alice", "acme", {"ai:agent"}) == (
        principal.user,
        principal.org,
        principal.scopes,
    )
    assert principal.session_id is not None and principal.session_id in err and out.strip()[-12:] not in err
    for _ in range(2):
        assert OK == run(["tokens", "revoke", principal.session_id])
    assert let_in(file, out.strip()) is None


def test_with_json_it_is_an_object(capsys: Capture, file: Path) -> None:
    """The same for a program."""
    assert OK == run(["tokens", "issue", "alice", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert ("alice", ["ai:complete"]) == (told["user"], told["scopes"])
    assert OK == run(["tokens", "revoke", told["id"], "--json"])
    assert {"id": told["id"], "revoked": True} == json.loads(capsys.readouterr().out)
    assert let_in(file, told["token"]) is None


@pytest.mark.parametrize(
    "arguments",
    [["alice", "--ttl", "61m"], ["alice", "--ttl", "0s"], ["alice", "--ttl", "1h"], ["alice", "--ttl", "x"], ["a/b"],
     ["alice", "--scope", "root"], ["alice", "--scope", "*"], ["alice", "--org", "a b"]],
)  # fmt: skip
def test_what_is_no_token_is_not_made(capsys: Capture, arguments: list[str]) -> None:
    """Too long, for nobody, or for what does not exist."""
    assert USAGE == run(["tokens", "issue", *arguments])
    out, err = capsys.readouterr()
    assert "" == out and err


def test_a_token_in_the_place_of_its_id_is_not_repeated(capsys: Capture) -> None:
    """Whoever pastes the token itself does not find it in a log."""
    assert OK == run(["tokens", "issue", "alice"])
    text = capsys.readouterr().out.strip()
    assert USAGE == run(["tokens", "revoke", text])
    out, err = capsys.readouterr()
    assert not any(text[at : at + 12] in out + err for at in range(len(text) - 11))


def test_public_keys_are_published_and_shared_ones_never(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The set has the public halves of all keys; a shared secret has none."""
    assert USAGE == run(["tokens", "jwks"])
    assert SECRET[:12] not in "".join(capsys.readouterr())
    (tmp_path / "key.pem").write_bytes(pem(ED))
    monkeypatch.setenv("RUNRAILS_JWT_KEYS", f"2026-11:EdDSA:file:{tmp_path}/key.pem")
    assert OK == run(["tokens", "jwks"])
    entry = json.loads(capsys.readouterr().out)["keys"][0]
    assert {"kid": "2026-11", "alg": "EdDSA", "use": "sig", "kty": "OKP", "crv": "Ed25519"}.items() <= entry.items()
    assert "d" not in entry
    monkeypatch.delenv("RUNRAILS_JWT_KEYS")
    monkeypatch.setenv("RUNRAILS_JWT_JWKS_URL", "https://keys.example.com/")
    assert USAGE == run(["tokens", "jwks"])
    assert USAGE == run(["tokens", "issue", "alice"])


@pytest.mark.parametrize("setting", ["RUNRAILS_JWT_KEYS", "RUNRAILS_JWT_ISSUER", "RUNRAILS_JWT_AUDIENCE"])
def test_what_is_not_set_is_named(capsys: Capture, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    """Each setting that tokens need is named if it is missing."""
    monkeypatch.delenv(setting)
    assert USAGE == run(["tokens", "issue", "alice"])
    assert setting in capsys.readouterr().err.replace("\n", "")


def test_keys_come_from_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Own keys and another service's at once would let either of them in."""
    monkeypatch.setenv("RUNRAILS_JWT_JWKS_URL", "https://keys.example.com/")
    with pytest.raises(ConfigError, match="one of"):
        open_keys()
    monkeypatch.delenv("RUNRAILS_JWT_KEYS")
    assert "RemoteKeys('https://keys.example.com')" == repr(open_keys())


@pytest.mark.parametrize(
    ("setting", "value"),
    [("RUNRAILS_KEY_PEPPERS", "p1:env:RR_JWT"), ("RUNRAILS_MASTER_KEYS", "k2:env:RR_OTHER, k1:env:RR_JWT")],
)
def test_a_key_that_is_used_elsewhere_is_refused(setting: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One secret as token key and as pepper or master key: both settings are named, and the value is not."""
    monkeypatch.setenv("RR_OTHER", b64(drawn("other")))
    check_environment()
    monkeypatch.setenv(setting, value)
    with pytest.raises(ConfigError, match="are the same secret") as caught:
        open_keys()
    assert setting in str(caught.value) and "RUNRAILS_JWT_KEYS" in str(caught.value)
    assert SECRET[:12] not in str(caught.value)


def test_what_cannot_be_read_is_left_to_who_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pepper that this process may not read, or a key of a service, does not keep tokens from being made."""
    monkeypatch.setenv("RUNRAILS_KEY_PEPPERS", "p1:file:/not/there,p2")
    monkeypatch.setenv("RUNRAILS_MASTER_KEYS", "kms:arn:aws:kms:eu-west-1:123456789012:key/x")
    assert "KeySet(['k1'])" == repr(open_keys())
