"""Canaries through the command line: what is printed, in words and as JSON, files, processes, and what goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import rr_canaries as birds
from rr_canaries import Canary, Lookout, Result, Shell
from rr_jwt import AUDIENCE, ISSUER
from runrails.cli.shell import BUG, NEGATIVE, OK, USAGE
from runrails.credentials import CredentialId
from runrails.credentials.opening import open_vault
from runrails.documents.opening import open_documents
from runrails.identity.apikeys import ApiKeys
from runrails.identity.apikeys.opening import peppers_of_environment
from runrails.identity.jwt.opening import open_tokens

KEYS = (birds.OPENAI, birds.ANTHROPIC, birds.AWS_KEYS)
KEY = birds.OPENAI.text


@pytest.fixture(autouse=True)
def settings(lookout: Lookout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vault, a master key, a pepper and a key for tokens, all in variables and files that settings name."""
    place = tmp_path / "master.key"
    place.write_text(birds.OTHER_MASTER.text)
    lookout.keeps(place)
    for name, value in {
        "RR_MASTER": birds.MASTER.text, "RR_PEPPER": birds.PEPPER.text, "RR_JWT": birds.JWT_SECRET.text,
        "RUNRAILS_VAULT": f"sqlite:///{tmp_path}/v.db", "RUNRAILS_MASTER_KEYS": "k1:env:RR_MASTER",
        "RUNRAILS_KEY_PEPPERS": "p1:env:RR_PEPPER", "RUNRAILS_JWT_KEYS": "k1:HS256:env:RR_JWT",
        "RUNRAILS_JWT_ISSUER": ISSUER, "RUNRAILS_JWT_AUDIENCE": AUDIENCE,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RUNRAILS_JWT_JWKS_URL", raising=False)


def stored(provider: str = "openai") -> str:
    """What the vault has by now."""
    vault = open_vault()
    try:
        return vault.get(CredentialId("user:local", provider)).secret.reveal()
    finally:
        vault.close()


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["words", "json"])
@pytest.mark.parametrize("canary", KEYS, ids=lambda canary: canary.name.split()[0])
def test_the_life_of_a_provider_key(
    shell: Shell, canary: Canary, as_json: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command of `byok`, and each where it must fail."""
    provider = {"AWS": "bedrock"}.get(canary.name.split()[0], canary.name.split()[0].lower())

    def byok(*args: str, typed: str = "") -> int:
        return shell("byok", *args, *as_json, typed=typed).code

    assert OK == byok("add", provider, typed=f" {canary.text}\n")
    assert canary.text == stored(provider)
    assert USAGE == byok("add", provider, typed=canary.text)
    assert OK == byok("list", "--open")
    assert OK == byok("suspend", provider)
    assert NEGATIVE == byok("validate", provider)
    assert OK == byok("resume", provider)
    assert OK == byok("rotate", provider, typed=birds.ROTATED.text)
    assert birds.ROTATED.text == stored(provider)
    monkeypatch.setenv("RUNRAILS_MASTER_KEYS", f"k2:file:{tmp_path}/master.key,k1:env:RR_MASTER")
    assert OK == byok("rewrap")
    monkeypatch.setenv("RUNRAILS_MASTER_KEYS", "k1:env:RR_MASTER")
    for command in (("list", "--open"), ("rewrap",), ("validate", provider)):
        assert NEGATIVE == byok(*command)
    assert USAGE == byok("rotate", provider, typed=canary.text)
    assert OK == byok("remove", provider)
    for command in (("remove", provider), ("suspend", provider), ("resume", provider), ("rotate", provider)):
        assert NEGATIVE == byok(*command, typed=canary.text)
    assert OK == byok("list")


def test_a_master_key_is_made(shell: Shell, lookout: Lookout, tmp_path: Path) -> None:
    """In its file alone; making it twice, or where it cannot be."""
    place = tmp_path / "new.key"
    for args in (["--json"], [], ["--name", "kms"], ["--name", KEY]):
        shell("byok", "init", str(place), *args)
    lookout.keeps(place)
    lookout.learn("new master key", place.read_text().strip())
    assert OK == shell("doctor").code


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["words", "json"])
def test_the_life_of_an_api_key(shell: Shell, lookout: Lookout, as_json: list[str]) -> None:
    """Shown once on stdout, when it is made or rotated; and nowhere else, whatever is done with it."""

    def text_of(result: Result) -> str:
        text = str(json.loads(result.out)["key"]) if as_json else result.out.strip()
        lookout.learn("API key", text[25:])
        assert text.startswith("rr_live_")
        return text

    text = text_of(shell("keys", "create", "alice", "--name", "ci", "--month", "5", *as_json, shows=True))
    key_id = text[8:24]
    for command in ("show", "suspend", "resume"):
        assert OK == shell("keys", command, key_id, *as_json).code
        # Who hands over the whole key is understood, and not quoted.
        assert OK == shell("keys", command, text, *as_json).code
    second = text_of(shell("keys", "rotate", text, *as_json, shows=True))
    peppers = peppers_of_environment()
    documents = open_documents()
    api = ApiKeys(documents, peppers)
    assert [key_id] * 2 == [api.verify(each).key_id for each in (text, second)]
    api.close()
    documents.close()
    assert OK == shell("keys", "list", *as_json).code
    assert OK == shell("keys", "revoke", second, *as_json).code
    for command in ("rotate", "resume"):
        assert USAGE == shell("keys", command, second, *as_json).code
    assert NEGATIVE == shell("keys", "show", second[::-1], *as_json).code


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["words", "json"])
def test_the_life_of_a_token(shell: Shell, lookout: Lookout, as_json: list[str]) -> None:
    """Shown once on stdout; its id takes it back, and it itself does not, nor is it quoted."""
    result = shell("tokens", "issue", "alice", *as_json, shows=True)
    text = str(json.loads(result.out)["token"]) if as_json else result.out.strip()
    lookout.learn("token's signature", text.rpartition(".")[2])
    documents = open_documents()
    principal = open_tokens(documents).verify(text)
    documents.close()
    assert USAGE == shell("tokens", "revoke", text, *as_json).code
    assert OK == shell("tokens", "revoke", str(principal.session_id), *as_json).code
    assert USAGE == shell("tokens", "jwks", *as_json).code
    for args in (["--ttl", text], ["--scope", text], ["--org", f"{text}!"]):
        assert USAGE == shell("tokens", "issue", "alice", *args, *as_json).code


WRONG = (
    ("byok", "add", "openai", "{}"), ("byok", "add", "openai", "--key", "{}"), ("byok", "add", "openai", "--key={}"),
    ("byok", "add", "{}"), ("byok", "add", "openai", "--owner", "{}"), ("byok", "add", "openai", "--label", "{}!"),
    ("byok", "add", "openai", "--base-url", "https://u:{}@x.example.com"), ("byok", "add", "openai", "--region", "{}"),
    ("byok", "add", "openai", "--base-url", "https://x.example.com/v1?key={}"), ("byok", "add", "-k{}"),
    ("byok", "rotate", "openai", "{}"), ("byok", "remove", "openai", "{}"), ("byok", "suspend", "openai", "{}"),
    ("byok", "resume", "openai", "{}"), ("byok", "list", "{}"), ("byok", "rewrap", "{}"), ("byok", "remove", "{}"),
    ("byok", "validate", "openai", "{}"), ("byok", "validate", "{}"), ("byok", "init", "--name", "{}"),
    ("byok", "list", "--vault", "postgres://u:{}@db/v"), ("byok", "list", "--owner", "{}"), ("byok", "{}"),
    ("byok", "validate", "--allow-host", "https://{}"), ("byok", "list", "--vault", "sqlite:{}"),
    ("keys", "create", "{}!"), ("keys", "create", "alice", "{}"), ("keys", "create", "a", "--scope", "{}"),
    ("keys", "create", "a", "--expires-in", "{}"), ("keys", "create", "a", "--month", "{}"), ("keys", "show", "{}"),
    ("keys", "create", "a", "--requests-per-minute", "{}"), ("keys", "create", "a", "--environment", "{}"),
    ("keys", "rotate", "{}", "--overlap", "{}"), ("keys", "list", "{}"), ("keys", "suspend", "a", "{}"), ("keys", "{}"),
    ("keys", "show", "a", "{}"), ("keys", "revoke", "{}"), ("keys", "list", "--vault", "redis://:{}@h"),
    ("tokens", "issue", "{}!"), ("tokens", "issue", "alice", "{}"), ("tokens", "revoke", "x", "{}"), ("tokens", "{}"),
    ("tokens", "jwks", "{}"), ("doctor", "--store", "postgres://u:{}@db/l"), ("doctor", "{}"),
    ("usage", "--store", "redis://u:{}@db/l"), ("usage", "export", "--store", "mysql://u:{}@db/l"),
    ("runs", "list", "--store", "dynamodb://u:{}@db"), ("report", "x", "--store", "sqlite://{}@db/l"),
    ("budget", "show", "user:alice", "--store", "u:{}@db"), ("ledger", "verify", "--store", "x://{}@db"),
    ("run", "--store", "x://u:{}@db", "true"), ("aws", "proof", "gateway.example.com", "--region", "{}"),
    ("aws", "proof", "{}!", "--region", "eu-west-1"), ("--key", "{}"), ("{}",),
)  # fmt: skip


@pytest.mark.parametrize("args", WRONG, ids=[f"{number}-{'-'.join(each[:2])}" for number, each in enumerate(WRONG)])
def test_a_secret_where_something_else_belongs(shell: Shell, args: tuple[str, ...]) -> None:
    """Somebody writes a key into the command line: it is refused, and not said once more."""
    for as_json in ([], ["--json"]):
        assert BUG != shell(*(each.format(KEY) for each in args), *as_json, typed=birds.ORG_KEY.text).code


SETTINGS: dict[str, dict[str, str]] = {
    "a plain master key": {"RUNRAILS_MASTER_KEYS": birds.MASTER.text},
    "a named plain master key": {"RUNRAILS_MASTER_KEYS": f"k1:{birds.MASTER.text}"},
    "a file called like the key": {"RUNRAILS_MASTER_KEYS": f"k1:file:/{birds.MASTER.text}"},
    "a variable called like it": {"RUNRAILS_MASTER_KEYS": f"k1:env:{birds.OPENAI.text}"},
    "a master key that is no key": {"RUNRAILS_MASTER_KEYS": "k1:env:RR_X", "RR_X": birds.OPENAI.text},
    "a plain pepper": {"RUNRAILS_KEY_PEPPERS": birds.PEPPER.text},
    "a named plain pepper": {"RUNRAILS_KEY_PEPPERS": f"p1:{birds.PEPPER.text}"},
    "a weak pepper": {"RUNRAILS_KEY_PEPPERS": "p1:env:RR_X", "RR_X": birds.PEPPER.text[:14]},
    "a plain token key": {"RUNRAILS_JWT_KEYS": birds.JWT_SECRET.text},
    "a named plain token key": {"RUNRAILS_JWT_KEYS": f"k1:HS256:{birds.JWT_SECRET.text}"},
    "a token key for another algorithm": {"RUNRAILS_JWT_KEYS": "k1:EdDSA:env:RR_JWT"},
    "PEM as a shared secret": {"RUNRAILS_JWT_KEYS": "k1:HS256:env:RR_X", "RR_X": birds.JWT_PEM.text},
    "one secret twice": {"RUNRAILS_JWT_KEYS": "k1:HS256:env:RR_PEPPER"},
    "a vault with a password": {"RUNRAILS_VAULT": f"postgres://u:{birds.PASSWORD.text}@db/v"},
    "a store with a password": {"RUNRAILS_STORE": f"postgres://u:{birds.PASSWORD.text}@db/l", "RUNRAILS_VAULT": ""},
    "a table with a password": {"RUNRAILS_STORE": f"dynamodb://u:{birds.PASSWORD.text}@t", "RUNRAILS_VAULT": ""},
    "a key as the user": {"RUNRAILS_USER": f"{birds.OPENAI.text}!"},
    "a key set as a host": {"RUNRAILS_KEY_HOSTS": f"https://u:{birds.PASSWORD.text}@x"},
    "keys published under a password": {
        "RUNRAILS_JWT_KEYS": "", "RUNRAILS_JWT_JWKS_URL": f"https://u:{birds.PASSWORD.text}@x.example.com"
    },
}  # fmt: skip
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("doctor",), ("byok", "add", "openai"), ("byok", "list", "--open"), ("byok", "validate"), ("byok", "rewrap"),
    ("keys", "list"), ("tokens", "issue", "alice"), ("tokens", "jwks"), ("usage",), ("run", "true"),
)  # fmt: skip


def test_mistakes_are_still_explained(shell: Shell) -> None:
    """Short words, paths and what is known are said once more; so a mistake in writing is seen."""
    for args, words in {
        ("bugdet", "show"): ["bugdet"], ("byok", "add", "openai", "--lable", "x"): ["--lable"],
        ("keys", "create", "a", "--environment", "production"): ["production", "live"],
        ("keys", "show", "a", "surplus-argument"): ["surplus-argument"],
        ("keys", "adopt", "/var/lib/older/keys.jsonl"): ["cannot be read"],
    }.items():  # fmt: skip
        result = shell(*args)
        assert USAGE == result.code
        assert [word for word in words if word not in result.err] == []


def commands_of(setting: str) -> list[tuple[str, ...]]:
    """The commands that read a setting: master keys are of `byok`, and so on; the others are everybody's."""
    groups = {"RUNRAILS_MASTER_KEYS": {"byok"}, "RUNRAILS_KEY_PEPPERS": {"keys"}, "RUNRAILS_JWT_KEYS": {"tokens"}}
    readers = groups.get(next(iter(SETTINGS[setting])))
    return [each for each in COMMANDS if readers is None or each[0] in {"doctor", *readers}]


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_that_is_wrong(shell: Shell, lookout: Lookout, setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command that reads settings tells what is wrong with them, and nothing of what they hold."""
    assert OK == shell("byok", "add", "anthropic", typed=birds.ANTHROPIC.text).code
    for name, value in SETTINGS[setting].items():
        monkeypatch.setenv(name, value)
    # What is in the environment by a test's own hand is not told by it.
    lookout._environment |= SETTINGS[setting]
    for command in commands_of(setting):
        for as_json in ([], ["--json"]) if command[0] not in {"doctor", "run"} else ([],):  # doctor is slow
            result = shell(*command, *as_json, typed=KEY, shows=command[:2] == ("tokens", "issue"))
            assert BUG != result.code, command


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["words", "json"])
def test_older_keys_are_taken_over(shell: Shell, as_json: list[str]) -> None:
    """From lines in which somebody has put the key itself, instead of its id or of its hash."""
    key, kept = birds.LEGACY.text, "$2b$04$" + "." * 53
    for fields, code in (
        ({"id": key[:12], "hash": kept}, OK), ({"id": key, "hash": kept}, NEGATIVE),
        ({"id": key[:12] + "x", "hash": key}, NEGATIVE), ({key: 1}, NEGATIVE),
        ({"id": "sk-older678x", "hash": kept, "name": key + "\n"}, NEGATIVE),
        ({"id": "sk-older678x", "hash": kept, "scopes": [key]}, NEGATIVE),
    ):  # fmt: skip
        assert code == shell("keys", "adopt", *as_json, typed=json.dumps({"user": "alice", **fields})).code, fields


def test_books_are_told(shell: Shell, lookout: Lookout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Usage, exports, runs and reports of calls on a user's own key."""
    from rr_clients import HI, MODEL
    from rr_routed import Keys
    from runrails.stores.sqlite import SQLiteStore

    url = f"sqlite:///{tmp_path}/books.db"
    with Keys(store=SQLiteStore(tmp_path / "books.db")) as world:
        world.own("user:alice", KEY)
        with world.guard.run("job") as run:
            world.house().chat.completions.create(model=MODEL, messages=HI)
        assert [KEY] == world.seen
    monkeypatch.setenv("RUNRAILS_STORE", url)
    for command in (
        ("usage",), ("usage", "export"), ("usage", "export", "--format", "jsonl"), ("usage", "calls"), ("runs", "list"),
        ("runs", "show", run.id), ("report", run.id), ("budget", "show", "user:alice"), ("ledger", "verify"),
    ):  # fmt: skip
        for as_json in ([], ["--json"]):
            assert BUG != shell(*command, *as_json).code
    assert "user:alice/openai/default" in shell("usage", "export").out


@pytest.mark.parametrize("typed", ["", "\n", "\0" * 40, "é" * 30, "x" * 20_000, birds.OPENAI.text * 400])
def test_what_is_typed_may_be_anything(shell: Shell, typed: str) -> None:
    """Too long, empty, no ASCII: stored or refused, never shown."""
    for command in ("add", "rotate"):
        assert BUG != shell("byok", command, "openai", typed=typed + KEY).code
        assert OK == shell("byok", "list", "--json").code


def test_a_bug_of_ours_shows_no_values(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The traceback of the last line of defence has code and no local variables."""

    class Broken:
        def isatty(self) -> bool:
            text = birds.OPENAI.text
            raise RuntimeError(f"a bug near {len(text)} characters")

        def __init__(self, text: str) -> None:
            del text

    monkeypatch.setattr(birds, "Typed", Broken)
    result = shell("byok", "add", "openai", typed=KEY)
    assert BUG == result.code and "a bug near" in result.err


def test_children_are_given_nothing_more(lookout: Lookout, monkeypatch: pytest.MonkeyPatch) -> None:
    """`runrails run` hands on what it was given and adds settings of its own; stderr of a process of its own."""
    names = "import json, os; print(json.dumps(dict(os.environ)))"
    monkeypatch.setenv("RR_OWN", KEY)
    given = dict(os.environ)
    done = subprocess.run(
        [sys.executable, "-m", "runrails.cli", "run", "--run", "1", "--", sys.executable, "-c", names],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    told: dict[str, str] = json.loads(done.stdout.splitlines()[0])
    lookout.hear("child's new environment", repr({name: told[name] for name in told if told[name] != given.get(name)}))
    lookout.hear("stderr", done.stderr)
    assert told["RR_OWN"] == KEY


def test_keys_through_a_pipe_of_their_own(lookout: Lookout) -> None:
    """In processes of their own, with Python's own warnings and debugging on."""
    loud = {**os.environ, "PYTHONDEVMODE": "1", "PYTHONWARNINGS": "default", "OPENAI_LOG": "debug"}
    steps: tuple[tuple[Callable[[int], bool], tuple[str, ...]], ...] = (
        (lambda code: code == OK, ("add", "openai")), (lambda code: code == USAGE, ("add", "openai", KEY)),
        (lambda code: code == OK, ("list", "--json")),
    )  # fmt: skip
    for wanted, args in steps:
        done = subprocess.run(
            [sys.executable, "-m", "runrails.cli", "byok", *(each for each in args if each != KEY)],
            input=KEY, env=loud, capture_output=True, text=True, check=False,
        )  # fmt: skip
        lookout.hear("a process's output", done.stdout + done.stderr)
        assert wanted(done.returncode), done.stderr
