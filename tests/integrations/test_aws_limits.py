"""The edges of what is read from AWS: the longest name, codes that are none, and errors that stay ours."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from botocore.exceptions import ParamValidationError

from rr_vault import ALICE, CANARY
from runrails.clocks import system_ms
from runrails.credentials import CredentialUnreadable
from runrails.errors import ConfigError
from runrails.testing import ManualClock
from runrails_aws.dynamodb.documents import open_url
from runrails_aws.identity.proof import PREFIX, parse_proof
from runrails_aws.identity.sign import sign_proof
from runrails_aws.kms import KMSWrapper
from runrails_aws.ssm import read

KEY = "arn:aws:kms:eu-west-1:123456789012:key/12345678-1234-1234-1234-123456789012"


class Fake:
    """A client of the Parameter Store that answers or raises as it is told."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def get_parameter(self, **request: object) -> Any:
        """Either."""
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def test_the_longest_name_is_one() -> None:
    """1,011 characters, as AWS has it, and not one more."""
    name = "/" + "a" * 1_010
    answer = {"Parameter": {"Name": name, "Type": "SecureString", "Value": CANARY, "Version": 1}}
    assert CANARY == read(f"//{name}", what="X", client=Fake(answer))
    with pytest.raises(ConfigError, match="must name a parameter"):
        read(f"//{name}a", what="X", client=Fake(answer))


@pytest.mark.parametrize(
    "code", ["", "Access Denied", CANARY, "x" * 65, 7, None, ["AccessDenied"]], ids=lambda code: str(code)[:16]
)
def test_what_is_no_code_is_not_shown(code: Any) -> None:
    """An answer may quote anything: only a word of letters is a code."""
    error = ValueError("text of it")
    error.response = {"Error": {"Code": code}}  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="cannot be read: ValueError") as caught:
        read("///a", what="X", client=Fake(error))
    assert CANARY[:12] not in str(caught.value)


@pytest.mark.parametrize("response", [None, [], {"Error": []}, {"Error": None}])
def test_an_answer_of_any_form_has_no_code(response: Any) -> None:
    """And nothing crashes."""
    error = OSError("text of it")
    error.response = response  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="cannot be read: OSError"):
        read("///a", what="X", client=Fake(error))


def test_without_boto3_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the key and for the parameter, and not that KMS is away."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setitem(sys.modules, "boto3.session", None)
    with pytest.raises(ConfigError, match="needs boto3"):
        read("///a", what="X")
    with pytest.raises(ConfigError, match="needs boto3"):
        KMSWrapper(KEY).new_data_key(ALICE.context(1, b"{}"))
    with pytest.raises(ConfigError, match="boto3 is missing"):
        sign_proof("gateway.example.com", region="eu-west-1")


def test_a_refusal_of_ours_keeps_its_reason() -> None:
    """A client that raises one is believed, and KMS does not count as away."""

    class Refusing:
        def generate_data_key(self, **request: object) -> Any:
            raise CredentialUnreadable("unknown_key")

        def decrypt(self, **request: object) -> Any:
            raise NotImplementedError

    with pytest.raises(CredentialUnreadable) as caught:
        KMSWrapper(KEY, Refusing()).new_data_key(ALICE.context(1, b"{}"))  # type: ignore[arg-type]
    assert "unknown_key" == caught.value.reason


def test_only_silence_lets_kms_be_left_alone() -> None:
    """A request that boto3 itself refuses says nothing of the service: the next one is asked."""

    class Wrong:
        asked = 0

        def generate_data_key(self, **request: object) -> Any:
            self.asked += 1
            raise ParamValidationError(report="of this request")

        def decrypt(self, **request: object) -> Any:
            raise NotImplementedError

    client = Wrong()
    wrapper = KMSWrapper(KEY, client)  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(CredentialUnreadable) as caught:
            wrapper.new_data_key(ALICE.context(1, b"{}"))
        assert "kms_unusable" == caught.value.reason
    assert 2 == client.asked


@pytest.mark.parametrize("date", ["20260230T120000Z", "20261301T120000Z", "20261122T246000Z"])
def test_a_moment_that_never_is_has_our_words(date: str) -> None:
    """And not those of Python, which would tell what it was given."""
    with pytest.raises(ValueError, match=r"^A proof's date does not exist\.$"):
        parse_proof(f"{PREFIX}eu-west-1.AKIA{'A' * 16}.{date}.{'0' * 64}")


def test_by_default_the_servers_clock_counts() -> None:
    """The usual clock is this machine's, which a shared engine does not believe; one that was chosen it does."""
    chosen = ManualClock(0)
    clocks = [open_url("dynamodb://ledger?region=eu-west-1", each)._time._clock for each in (None, system_ms, chosen)]
    assert [None, None, chosen] == clocks
