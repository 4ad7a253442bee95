"""Checking AWS access keys: by asking STS whose they are, against moto with IAM authentication on."""

from __future__ import annotations

import os
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.core import set_initial_no_auth_action_count

from runrails.credentials import CredentialId, KeyRing, Vault
from runrails.credentials.validation import Validation, Validator
from runrails.documents.memory import MemoryDocuments
from runrails.secretvalue import Secret
from runrails_aws.keycheck import access_keys, check

BEDROCK = CredentialId("user:alice", "bedrock")
FORM = "AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


def signed_in() -> str:
    """A new user's access keys, as the vault keeps them."""
    iam: Any = boto3.client("iam", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    iam.create_user(UserName="alice")
    made = iam.create_access_key(UserName="alice")["AccessKey"]
    return f"{made['AccessKeyId']}:{made['SecretAccessKey']}"


def credential(secret: str, **options: Any) -> Any:
    """A key of the vault."""
    vault = Vault(MemoryDocuments(), KeyRing("k1", {"k1": Secret(os.urandom(32))}))
    vault.add(BEDROCK, Secret(secret), **options)
    return vault.get(BEDROCK)


def test_a_key_of_another_form_is_none() -> None:
    """Nobody is asked."""
    for text in ("sk-abc", "AKIA:x", FORM + ":", FORM.replace(":", " "), FORM + "\n"):
        assert Validation("invalid", "malformed") == check(credential(text), timeout_ms=1_000)
    assert access_keys(FORM) is not None
    assert "AKIA" not in repr(access_keys(FORM))


def test_no_other_address_is_asked() -> None:
    """Keys that sign are not for other hosts."""
    key = credential(FORM, base_url="https://sts.example.com")
    assert Validation("unverified", "address_not_allowed") == check(key, timeout_ms=1_000)


@mock_aws
def test_sts_knows_its_own() -> None:
    """The right key is valid; one with another secret, and one of nobody's, are not."""
    good = signed_in()
    key_id, secret = good.split(":")

    @set_initial_no_auth_action_count(0)
    def ask(text: str) -> Validation:
        return Validator().validate(credential(text, region="eu-central-1"))

    assert Validation("valid", "accepted") == ask(good)
    assert Validation("invalid", "refused") == ask(f"{key_id}:{secret[::-1]}")
    assert Validation("invalid", "refused") == ask(f"AKIA{'B' * 16}:{secret}")


def test_nobody_there_says_nothing() -> None:
    """Without a network it is unverified, once and quickly; proxies and addresses of the environment are not used."""
    from botocore.exceptions import EndpointConnectionError

    class Down:
        def __getattr__(self, name: str) -> Any:
            raise EndpointConnectionError(endpoint_url="https://sts")

    import runrails_aws.keycheck as room

    made: list[Any] = []
    real = room._sts

    def sts(*args: Any) -> Any:
        made.append(real(*args))
        return Down()

    room._sts = sts
    try:
        assert Validation("unverified", "connection") == check(credential(FORM), timeout_ms=700)
    finally:
        room._sts = real
    (client,) = made
    config = client.meta.config
    assert ("https://sts.us-east-1.amazonaws.com", {}, 0.7, 1) == (
        client.meta.endpoint_url, config.proxies, config.connect_timeout, config.retries["total_max_attempts"]
    )  # fmt: skip


@pytest.mark.parametrize("region", ["cn-north-1", "us-gov-west-1"])
def test_every_partition_has_its_own_address(region: str) -> None:
    """China's has another end."""
    from runrails_aws.keycheck import AccessKeys, _sts

    suffix = ".cn" if region.startswith("cn-") else ""
    client = _sts(AccessKeys("AKIA", Secret("s"), None), region, 1_000)
    assert f"https://sts.{region}.amazonaws.com{suffix}" == client.meta.endpoint_url
