"""Secrets in the Parameter Store, against moto: decrypted, of the version that was asked for, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from moto import mock_aws

from runrails.errors import ConfigError
from runrails.secretrefs import resolve
from runrails_aws.ssm import read

CANARY = "c4n4ry-Qm9bVtX2sLpR7wZkD1yHfJ8uNe5gTa"


@pytest.fixture(scope="module")
def ssm() -> Iterator[Any]:
    """A store with a secret in two versions, a plain parameter and a list."""
    with pytest.MonkeyPatch.context() as patched, mock_aws():
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patched.delenv(name)
        for name, value in (("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x"), ("DEFAULT_REGION", "eu-west-1")):
            patched.setenv(f"AWS_{name}", value)
        client = boto3.client("ssm", region_name="eu-west-1")
        client.put_parameter(Name="/rr/jwt-key", Value=CANARY + "-1", Type="SecureString")
        client.put_parameter(Name="/rr/jwt-key", Value=CANARY + "-2", Type="SecureString", Overwrite=True)
        client.put_parameter(Name="/rr/plain", Value=CANARY, Type="String")
        client.put_parameter(Name="/rr/list", Value=f"{CANARY},x", Type="StringList")
        yield client


def test_a_secure_string_is_read_decrypted(ssm: Any) -> None:
    """The newest version, or the one that is asked for by its number."""
    assert CANARY + "-2" == resolve("ssm:///rr/jwt-key", what="RUNRAILS_X").reveal()
    assert [f"{CANARY}-1", f"{CANARY}-2"] == [
        resolve(f"ssm:///rr/jwt-key:{version}", what="RUNRAILS_X").reveal() for version in (1, 2)
    ]


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("ssm:///rr/missing", "ParameterNotFound"),
        ("ssm:///rr/jwt-key:9", "ParameterVersionNotFound"),
        ("ssm:///rr/plain", "not a SecureString"),
        ("ssm:///rr/list", "not a SecureString"),
        ("ssm://rr/jwt-key", "must name"),
        ("ssm:/rr/jwt-key", "must name"),
        ("ssm:///", "must name"),
        ("ssm:////rr/jwt-key", "must name"),
        ("ssm:///rr//jwt-key", "must name"),
        ("ssm:///rr/jwt-key/", "must name"),
        ("ssm:///rr/jwt-key:", "must name"),
        ("ssm:///rr/jwt-key:0", "must name"),
        ("ssm:///rr/jwt-key:latest", "must name"),
        ("ssm:///rr/jwt key", "must name"),
        ("ssm:///rr/jwt-key?region=x", "must name"),
        ("ssm:///rr/jwt-key\n", "must name"),
        ("ssm:///" + "a" * 1_011, "must name"),
    ],
)
def test_what_is_no_secret_there_is_refused(ssm: Any, reference: str, why: str) -> None:
    """The setting and the reason are named, and nothing of any value."""
    with pytest.raises(ConfigError, match=why) as caught:
        resolve(reference, what="RUNRAILS_X")
    error = caught.value
    assert "RUNRAILS_X" == error.fields["setting"]
    shown = f"{error!r} {error.as_dict()} {error.__context__!r} {error.__cause__!r}"
    assert CANARY[:12] not in shown


class Fake:
    """A client that answers as it is told, and keeps what it was asked."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.asked: list[dict[str, object]] = []

    def get_parameter(self, **request: object) -> Any:
        self.asked.append(request)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def parameter(**changes: Any) -> dict[str, Any]:
    """A good answer of SSM, but for what is changed."""
    return {"Parameter": {"Name": "/a", "Type": "SecureString", "Value": CANARY, "Version": 3, **changes}}


def test_it_always_asks_for_the_decrypted_value() -> None:
    """With the version in the name, as SSM wants it."""
    client = Fake(parameter())
    assert CANARY == read("///a:3", what="X", client=client)
    assert [{"Name": "/a:3", "WithDecryption": True}] == client.asked


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"Parameter": None},
        {"Parameter": {}},
        parameter(Name="/b"),
        parameter(Version=2),
        parameter(Type="String"),
        parameter(Type=None),
        parameter(Value=""),
        parameter(Value=None),
        parameter(Value=7),
        parameter(Value=f"kms:alias/aws/ssm:{CANARY}"),
        parameter(Value="AQICAHh" + CANARY),
        RuntimeError(CANARY),
    ],
)
def test_answers_that_are_not_the_decrypted_secret_are_refused(answer: Any) -> None:
    """Another parameter, another version, another type, or what is still encrypted."""
    with pytest.raises(ConfigError) as caught:
        read("///a:3", what="X", client=Fake(answer))
    error = caught.value
    assert CANARY[:12] not in f"{error!r} {error.as_dict()} {error.__context__!r} {error.__cause__!r}"


def test_moto_shows_what_would_come_undecrypted(ssm: Any) -> None:
    """Without asking for decryption a text comes that looks like any other, and that we would refuse."""
    sealed = ssm.get_parameter(Name="/rr/jwt-key")["Parameter"]["Value"]
    with pytest.raises(ConfigError, match="without having been decrypted"):
        read("///a", what="X", client=Fake(parameter(Value=sealed)))


def test_without_a_region_the_error_says_so(ssm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What boto3 says of its own set-up becomes one error that names the setting."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(ConfigError, match="NoRegionError"):
        resolve("ssm:///rr/jwt-key", what="RUNRAILS_X")


def test_a_store_that_is_away_does_not_hold_a_program_up() -> None:
    """A refused connection becomes the same kind of error, by its name alone."""
    client = boto3.client(
        "ssm", region_name="eu-west-1", endpoint_url="http://127.0.0.1:9", aws_access_key_id="x",
        aws_secret_access_key=CANARY, config=Config(connect_timeout=1, retries={"total_max_attempts": 1}),
    )  # fmt: skip
    with pytest.raises(ConfigError, match="EndpointConnectionError") as caught:
        read("///a", what="X", client=client)
    assert CANARY[:12] not in f"{caught.value!r} {caught.value.__context__!r}"
