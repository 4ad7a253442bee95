"""Callers with AWS credentials, as the environment describes them: who comes in, and what half a setting does."""

from __future__ import annotations

import json
import secrets
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from rr_aws import ACCOUNT, REGION, SERVER_ID, Key, StrictSTS
from rr_gateway import HI, MODEL, World, gateway
from rr_gateway_http import CHAT, post
from rr_keys import PEPPERS
from rr_serve import command_undone
from runrails import ConfigError
from runrails.cli.secretchecks import check_secrets
from runrails.cli.shell import run
from runrails.clocks import system_ms
from runrails.documents.memory import MemoryDocuments
from runrails.identity.apikeys import ApiKeys
from runrails.identity.authenticate import Authenticator
from runrails.identity.errors import Unauthenticated
from runrails.identity.jwt import KeySet, Tokens
from runrails.identity.opening import aws_of_environment
from runrails.secretvalue import Secret
from runrails_aws.identity import sign_proof
from runrails_aws.identity.opening import Described, describe

ROLE = f"arn:aws:iam::{ACCOUNT}:role/nightly"
GRANTS = f'[[grant]]\narn = "{ROLE}"\nuser = "nightly"\norg = "acme"\nscopes = ["ai:complete"]\n'
PLATFORM = "sk-of-the-house-0123456789abcdefg"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """All that proofs need, and the environment that says so."""
    path = tmp_path / "grants.toml"
    path.write_text(GRANTS)
    said = {
        "RUNRAILS_AWS_SERVER_ID": SERVER_ID, "RUNRAILS_AWS_REGIONS": f"{REGION}, us-east-1",
        "RUNRAILS_AWS_GRANTS": str(path),
    }  # fmt: skip
    for name, text in said.items():
        monkeypatch.setenv(name, text)
    return said


class Login:
    """An STS, and somebody who has assumed the role there."""

    def __init__(self) -> None:
        self.sts = StrictSTS(system_ms)
        self.sts.role("nightly")
        self.key: Key = self.sts.assume("nightly", "job-1")
        self._at_ms = system_ms()

    def proof(self) -> str:
        """A new one; two of the same second would be one, so each is of a second before the one made before it."""
        self._at_ms -= 1_000
        credentials: Any = SimpleNamespace(**self.key._asdict())
        return sign_proof(SERVER_ID, REGION, credentials=credentials, clock=lambda: self._at_ms).reveal()


@contextmanager
def served(login: Login, *, with_tokens: bool = True) -> Iterator[World]:
    """A gateway that takes what the environment describes, and asks that STS."""
    documents = MemoryDocuments()
    described = aws_of_environment()
    assert isinstance(described, Described)
    keys = ApiKeys(documents, PEPPERS)
    signing = KeySet.shared({"k1": Secret(secrets.token_bytes(32))})
    tokens = Tokens(signing, "gateway", "gateway", documents=documents) if with_tokens else None
    authenticator = Authenticator(keys, tokens, described.open(documents, transport=login.sts))
    with gateway(authenticator=authenticator, tokens=tokens, documents=documents) as made:
        made.key = keys.create("alice", scopes=("ai:complete",))[1].reveal()
        yield made


def token_of(made: World, credential: str) -> tuple[int, Any]:
    """What the exchange answers."""
    answer = post(made, "/v1/tokens", key=credential, raw=b"")
    return answer.status, answer.json()


def test_a_role_logs_in_and_calls_models_for_its_users_money(settings: dict[str, str]) -> None:
    """Its proof is good once, the token for a quarter of an hour of any SDK's calls; STS is asked once."""
    login = Login()
    with served(login) as made:
        proof = login.proof()
        status, told = token_of(made, proof)
        assert (201, 900, "nightly", "acme", ["ai:complete"]) == (
            status, told["expires_s"], told["user"], told["org"], told["scopes"]
        )  # fmt: skip
        with openai.OpenAI(base_url=made.openai_url, api_key=told["token"]) as client:
            for _ in range(2):
                client.chat.completions.create(model=MODEL, messages=HI, max_tokens=2000)  # type: ignore[arg-type]
        assert (1, made.billed) == (len(login.sts.asked), made.store.balance(made.account("user:nightly")).spent)
        assert made.billed == made.store.balance(made.account("org:acme")).spent > 0
        assert 401 == token_of(made, proof)[0]


def test_a_proof_itself_opens_one_call(settings: dict[str, str]) -> None:
    """For whoever calls so seldom that no token is worth it; the same proof again opens nothing."""
    login = Login()
    with served(login, with_tokens=False) as made:
        proof = login.proof()
        assert [200, 401] == [post(made, CHAT, key=proof, model=MODEL, max_tokens=20).status for _ in range(2)]
        assert 1 == made.hits


def test_only_a_proof_is_exchanged(settings: dict[str, str]) -> None:
    """Not a key, whose limits no token has; not a token, which would never end; and not where none can be made."""
    login = Login()
    with served(login) as made:
        token = token_of(made, login.proof())[1]["token"]
        for credential in (made.key, token):
            status, told = token_of(made, credential)
            assert (403, False) == (status, credential in json.dumps(told))
        assert 401 == token_of(made, "runrails-aws-v1.nonsense")[0]
    with served(login, with_tokens=False) as made:
        status, told = token_of(made, login.proof())
        assert (409, True) == (status, "RUNRAILS_JWT_KEYS" in told["error"]["message"])


def test_somebody_else_of_the_account_does_not_come_in(settings: dict[str, str]) -> None:
    """Who AWS says it is, and is not granted, is nobody; so is another server's proof."""
    login = Login()
    login.key = login.sts.user("mallory")
    with served(login) as made:
        assert 401 == token_of(made, login.proof())[0]
        made.untouched()


def test_the_environments_gateway_takes_proofs(
    settings: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`from_env` opens what it describes: a proof of yesterday is refused as one, not as an unknown kind."""
    from runrails_gateway import GatewayConfig

    monkeypatch.setenv("OPENAI_API_KEY", PLATFORM)
    monkeypatch.setenv("RUNRAILS_KEY_PEPPERS", "p1:env:PEPPER")
    monkeypatch.setenv("PEPPER", b64encode(secrets.token_bytes(32)).decode())
    credentials: Any = SimpleNamespace(**Login().key._asdict())
    proof = sign_proof(SERVER_ID, REGION, credentials=credentials, clock=lambda: system_ms() - 86_400_000).reveal()
    for reason in ("aws_proof_stale", "kind_not_accepted"):
        with closing(GatewayConfig.from_env()) as config, pytest.raises(Unauthenticated) as refused:
            config.authenticator.authenticate([("authorization", f"Bearer {proof}")])
        assert reason == refused.value.reason
        for name in settings:
            monkeypatch.delenv(name, raising=False)


# What the environment says.

HALF = {
    "no server id": ({"RUNRAILS_AWS_SERVER_ID": ""}, "RUNRAILS_AWS_SERVER_ID"),
    "no grants": ({"RUNRAILS_AWS_GRANTS": ""}, "RUNRAILS_AWS_GRANTS"),
    "no region": ({"RUNRAILS_AWS_REGIONS": ""}, "RUNRAILS_AWS_REGIONS"),
    "a comma for regions": ({"RUNRAILS_AWS_REGIONS": ","}, "RUNRAILS_AWS_REGIONS"),
    "no such region": ({"RUNRAILS_AWS_REGIONS": "eu-central-9"}, "RUNRAILS_AWS_REGIONS"),
    "a host for a region": ({"RUNRAILS_AWS_REGIONS": "https://sts.evil.example"}, "RUNRAILS_AWS_REGIONS"),
    "a malformed server id": ({"RUNRAILS_AWS_SERVER_ID": "https://me/"}, "server's id"),
    "no network": ({"RUNRAILS_AWS_STS_NETWORKS": "10.0.0.0/99"}, "RUNRAILS_AWS_STS_NETWORKS"),
    "no file": ({"RUNRAILS_AWS_GRANTS": "/nowhere.toml"}, "No such file"),
    "another setting": ({"RUNRAILS_AWS_GRANT": "x"}, "RUNRAILS_AWS_GRANT."),
    "an endpoint": ({"RUNRAILS_AWS_STS_ENDPOINT": "http://127.0.0.1:1"}, "RUNRAILS_AWS_STS_ENDPOINT"),
    "events and proofs": ({"RUNRAILS_AWS_EVENTS": "iam"}, "RUNRAILS_AWS_EVENTS"),
    "unknown events": ({"RUNRAILS_AWS_EVENTS": "all"}, "RUNRAILS_AWS_EVENTS"),
}


@pytest.mark.parametrize("name", HALF)
def test_half_a_setting_is_refused_by_name(
    name: str, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is let in by a gateway whose operator believes that something else is set; the doctor says so, too."""
    changes, hint = HALF[name]
    for setting, text in changes.items():
        monkeypatch.setenv(setting, text)
    with pytest.raises(ConfigError) as refused:
        aws_of_environment()
    assert hint in f"{refused.value.what} {refused.value.next_step}"
    found = [each for each in check_secrets() if each.check == "AWS callers"]
    assert [("problem", refused.value.what)] == [(each.state, each.detail) for each in found]


BAD = {
    "empty": "", "no toml": "[[grant", "something else": "[grants]\n", "two kinds": GRANTS + "[other]\na = 1\n",
    "a number": 'grant = 5\n', "numbers": "grant = [1, 2]\n", "no arn": GRANTS.replace("arn =", "name ="),
    "a pattern": GRANTS.replace("role/nightly", "role/*"), "an account": GRANTS.replace("role/nightly", "root"),
    "no scope": GRANTS.replace('["ai:complete"]', "[]"), "an unknown scope": GRANTS.replace("ai:complete", "ai:*"),
    "scopes as text": GRANTS.replace('["ai:complete"]', '"ai:complete"'), "twice": GRANTS + GRANTS,
    "an unknown member": GRANTS + 'month = "5"\n', "a user's id for a role": GRANTS + f'unique_id = "AIDA{"B" * 17}"\n',
    "too large": GRANTS + "#" * 1_048_576,
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_grants_that_say_something_else_are_refused(name: str, settings: dict[str, str]) -> None:
    """Nothing by pattern, nothing unknown, nothing twice."""
    Path(settings["RUNRAILS_AWS_GRANTS"]).write_text(BAD[name])
    with pytest.raises(ConfigError, match=r"RUNRAILS_AWS_GRANTS|two grants"):
        describe()


def test_without_settings_there_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one is none."""
    assert aws_of_environment() is None
    monkeypatch.setenv("RUNRAILS_AWS_GRANTS", " ")
    assert aws_of_environment() is None


@pytest.fixture
def own(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process may run the command: what it sets and configures is undone."""
    with command_undone():
        monkeypatch.setenv("OPENAI_API_KEY", PLATFORM)
        yield


def test_serve_and_doctor_say_who_comes_in(
    own: None, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the start, by `--check` and in the doctor's table: whose proofs, for which server, and whose STS is asked."""
    told = f"1 granted, by proof to {SERVER_ID}, STS of {REGION}, us-east-1"
    assert 0 == run(["serve", "--check", "--json"])
    assert ["API keys", f"AWS identities: {told}"] == json.loads(capsys.readouterr().out)["callers"]
    assert 0 == run(["serve", "--check"])
    assert told in " ".join(capsys.readouterr().err.split())
    assert [("ok", told)] == [(each.state, each.detail) for each in check_secrets() if each.check == "AWS callers"]
    monkeypatch.setenv("RUNRAILS_AWS_REGIONS", "")
    assert 2 == run(["serve", "--check", "--json"])
    half = capsys.readouterr()
    assert ("", True) == (half.out, "RUNRAILS_AWS_REGIONS" in half.err)


def test_a_server_believes_no_events(
    own: None, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has none: who sets that has another thing in mind, and is told."""
    for name in ("RUNRAILS_AWS_SERVER_ID", "RUNRAILS_AWS_REGIONS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("RUNRAILS_AWS_EVENTS", "iam")
    assert 2 == run(["serve", "--check", "--json"])
    assert "RUNRAILS_AWS_EVENTS" in capsys.readouterr().err
