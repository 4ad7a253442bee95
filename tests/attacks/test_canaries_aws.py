"""Canaries through AWS: KMS, Parameter Store and STS by way of moto, whose SDK logs whole answers; and proofs."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws
from moto.core import set_initial_no_auth_action_count

import rr_canaries as birds
from rr_aws import ACCOUNT, REGION, SERVER_ID, Key, answer_xml, error_xml
from rr_canaries import Lookout, Shell
from rr_notify import warned
from runrails.cli.shell import OK, USAGE
from runrails.credentials import CredentialId, Vault
from runrails.credentials.opening import open_wrapper
from runrails.credentials.revalidation import check_key
from runrails.credentials.validation import Validator
from runrails.documents.sqlite import SQLiteDocuments
from runrails.identity.errors import Unauthenticated
from runrails.identity.jwt import KeySet, Tokens
from runrails.notify import Notifier
from runrails.redaction import RedactingFilter
from runrails.secretrefs import resolve
from runrails.secretvalue import Secret
from runrails.testing import ManualClock
from runrails_aws.identity import AWSIdentity, Exchange, Grant, LambdaIdentity, Proof, parse_proof, sign_proof
from runrails_aws.identity.answer import STSAnswer
from runrails_aws.keycheck import access_keys
from runrails_aws.kms import KMSWrapper
from runrails_aws.notify import SNSSender
from runrails_aws.quiet import quietly
from runrails_aws.ssm import read

ALICE = CredentialId("user:alice", "openai")
NOW_MS = 1_795_262_400_000
CREDENTIALS = Key("ASIACANARY2345678XYZ", birds.AWS_SECRET.text, birds.AWS_TOKEN.text)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cloud of this test's own. The process signs with keys that are canaries too."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in (
        ("ACCESS_KEY_ID", CREDENTIALS.access_key), ("SECRET_ACCESS_KEY", CREDENTIALS.secret_key),
        ("SESSION_TOKEN", str(CREDENTIALS.token)), ("DEFAULT_REGION", REGION),
    ):  # fmt: skip
        monkeypatch.setenv(f"AWS_{name}", value)
    with mock_aws(config={"core": {"mock_credentials": False}}):
        yield


def admin(service: str) -> Any:
    """A client to set things up with, whose own logs are not the matter."""
    return boto3.client(service, region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")


@pytest.fixture
def quiet_start(aws: None, tmp_path: Any) -> dict[str, str]:
    """A key and parameters, put there before anybody listens."""
    arn = admin("kms").create_key()["KeyMetadata"]["Arn"]
    ssm = admin("ssm")
    for name, canary, kind in (
        ("/rr/pepper", birds.PEPPER, "SecureString"), ("/rr/plain", birds.OLD_PEPPER, "String"),
    ):  # fmt: skip
        ssm.put_parameter(Name=name, Value=canary.text, Type=kind)
    return {"kms": arn}


def learning(lookout: Lookout, arn: str) -> Any:
    """A client like the one that is made by default, whose data keys are looked out for."""
    client: Any = boto3.client("kms", region_name=arn.split(":")[3])

    def learn(parsed: Any, **_: Any) -> None:
        if "Plaintext" in parsed:
            lookout.learn("data key of KMS", parsed["Plaintext"])

    client.meta.events.register("after-call.kms", learn)
    return client


@pytest.mark.parametrize("own", [False, True], ids=["given client", "own client"])
def test_kms(quiet_start: dict[str, str], lookout: Lookout, tmp_path: Any, own: bool) -> None:
    """Sealed and opened through KMS: neither the data key nor the session's token is in anybody's log."""
    arn = quiet_start["kms"]
    wrapper = open_wrapper(f"kms:{arn}") if own else KMSWrapper(arn, learning(lookout, arn))
    vault = Vault(SQLiteDocuments(tmp_path / "v.db"), wrapper, cache_ms=0)
    lookout.show(vault.add(ALICE, Secret(birds.OPENAI.text)), vault, wrapper)
    assert birds.OPENAI.text == vault.get(ALICE).secret.reveal()
    lookout.show(vault.rewrap())
    gone = open_wrapper(f"kms:{arn.rpartition('/')[0]}/{'1' * 8}-2222-3333-4444-{'5' * 12}")
    context = ALICE.context(1, b"{}")
    for act in (
        lambda: gone.new_data_key(context), lambda: gone.unwrap(b"x" * 200, gone.active, context),
        lambda: wrapper.unwrap(b"x" * 200, arn, context), lambda: wrapper.unwrap(b"x", gone.active, context),
        lambda: Vault(SQLiteDocuments(tmp_path / "v.db"), gone).get(ALICE),
    ):  # fmt: skip
        lookout.show(lookout.fails(act))
    assert any("botocore" in each.where for each in lookout.told)


@pytest.mark.parametrize(
    "fault",
    [
        ClientError({"Error": {"Code": "AccessDeniedException", "Message": birds.AWS_TOKEN.text}}, "Decrypt"),
        ClientError({"Error": {"Code": birds.AWS_SECRET.text, "Message": birds.AWS_TOKEN.text}}, "Decrypt"),
        EndpointConnectionError(endpoint_url=f"https://u:{birds.PASSWORD.text}@kms"),
        ValueError(birds.MASTER.text), KeyError(birds.MASTER.text),
    ],
    ids=["denied", "odd code", "unreachable", "value", "key"],
)  # fmt: skip
def test_kms_and_ssm_and_sns_that_fail_and_quote(lookout: Lookout, tmp_path: Any, fault: Exception) -> None:
    """What they say in their errors is not said on."""

    class Failing:
        def __getattr__(self, name: str) -> Callable[..., object]:
            def act(**_: object) -> object:
                raise fault

            return act

    arn = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"
    wrapper = KMSWrapper(arn, Failing())
    vault = Vault(SQLiteDocuments(tmp_path / "v.db"), wrapper)
    lookout.fails(lambda: vault.add(ALICE, Secret(birds.OPENAI.text)))
    lookout.fails(lambda: read("///rr/pepper", what="RUNRAILS_KEY_PEPPERS", client=Failing()))  # type: ignore[arg-type]
    notifier = Notifier(SNSSender(f"arn:aws:sns:{REGION}:{ACCOUNT}:t", client=Failing()), attempts_max=1)  # type: ignore[arg-type]
    notifier(warned())
    assert notifier.flush(10)
    lookout.show(notifier, *notifier._lanes)
    lookout.hear("delivered", repr([lane.total for lane in notifier._lanes]))


def test_ssm(quiet_start: dict[str, str], lookout: Lookout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that was read, one that is not sealed, one that is not there."""
    found = resolve("ssm:///rr/pepper", what="RUNRAILS_KEY_PEPPERS")
    assert birds.PEPPER.text == found.reveal()
    lookout.show(found)
    for reference in ("ssm:///rr/plain", "ssm:///rr/none", f"ssm:///{birds.PEPPER.text}!", "ssm:///rr/pepper:7"):
        lookout.fails(lambda reference=reference: resolve(reference, what="RUNRAILS_KEY_PEPPERS"), frames=False)
    assert any("botocore" in each.where for each in lookout.told)


def test_others_may_still_log(quiet_start: dict[str, str], lookout: Lookout) -> None:
    """Only our own questions for secrets are quiet: the control, which shows that moto's answers are logged at all."""
    resolve("ssm:///rr/pepper", what="X")
    before = len(lookout.told)
    boto3.client("ssm", region_name=REGION).get_parameter(Name="/rr/pepper", WithDecryption=True)
    loud = [each for each in lookout.told[before:] if birds.PEPPER.text in each.text]
    assert {"log botocore.parsers DEBUG"} <= {each.where for each in loud}
    del lookout.told[before:]  # that was its sense


def test_the_filter_masks_what_is_signed(quiet_start: dict[str, str]) -> None:
    """Whoever listens to the SDK at DEBUG has the session's token masked by it."""
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    logger, level = logging.getLogger("botocore"), logging.getLogger("botocore").level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        for masked in (False, True):
            if masked:
                handler.addFilter(RedactingFilter())
            lines.truncate(0)
            boto3.client("kms", region_name=REGION).list_keys()
            assert masked != (birds.AWS_TOKEN.text[20:32] in lines.getvalue())
            assert "CanonicalRequest" in lines.getvalue()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_quiet_is_for_one_context_and_below_warnings() -> None:
    """Errors of the SDK are heard all the same, and other threads are; so is everything afterwards."""
    logger, lines = logging.getLogger("botocore.canary"), io.StringIO()
    logger.handlers, logger.propagate = [logging.StreamHandler(lines)], False
    logger.setLevel(logging.DEBUG)
    with quietly():
        logger.debug("a")
        logger.info("b")
        logger.warning("c")
        other = threading.Thread(target=logger.debug, args=("d",))
        other.start()
        other.join()
        with quietly():
            logger.debug("e")
        logger.debug("f")
    logger.debug("g")
    assert ["c", "d", "g"] == lines.getvalue().split()
    logger.handlers = []


def test_the_check_of_aws_keys(aws: None, lookout: Lookout, tmp_path: Any) -> None:
    """Through STS, with keys that are good, with another's secret and with a session's token that is none."""
    from runrails.credentials.ring import KeyRing

    vault = Vault(SQLiteDocuments(tmp_path / "v.db"), KeyRing("k1", {"k1": Secret(birds.MASTER.text)}))
    iam = admin("iam")
    iam.create_user(UserName="alice")
    made = iam.create_access_key(UserName="alice")["AccessKey"]
    lookout.learn("secret key of AWS", made["SecretAccessKey"])
    lookout.told.clear()  # of the administrator, who made it
    for number, text in enumerate([
        f"{made['AccessKeyId']}:{made['SecretAccessKey']}", f"{made['AccessKeyId']}:{birds.AWS_SECRET.text}",
        birds.AWS_KEYS.text, f"{made['AccessKeyId']}:{made['SecretAccessKey']}:{birds.AWS_TOKEN.text}",
    ]):  # fmt: skip
        which = CredentialId("user:alice", "bedrock", f"n{number}")
        vault.add(which, Secret(text), region=REGION)

        @set_initial_no_auth_action_count(0)
        def check(which: CredentialId = which) -> object:
            return check_key(vault, which, Validator())

        lookout.show(check(), access_keys(text))
    lookout.show(*vault.list())
    assert "valid" == vault.list()[0].status


ANSWERS: dict[str, STSAnswer | Exception] = {
    "refused": STSAnswer(403, "text/xml", error_xml("SignatureDoesNotMatch", f"{birds.AWS_TOKEN.text} is wrong")),
    "echo": STSAnswer(200, "text/xml", answer_xml(f"arn:aws:iam::{ACCOUNT}:user/{birds.AWS_TOKEN.text}", "AIDAX")),
    "no XML": STSAnswer(200, "text/xml", birds.AWS_TOKEN.text.encode()),
    "entities": STSAnswer(200, "text/xml", f"<!DOCTYPE x [<!ENTITY a '{birds.AWS_TOKEN.text}'>]><x>&a;</x>".encode()),
    "not granted": STSAnswer(200, "text/xml", answer_xml(f"arn:aws:iam::{ACCOUNT}:user/bob", "AIDA" + "B" * 17)),
    "unreachable": OSError(birds.AWS_TOKEN.text),
    "good": STSAnswer(200, "text/xml", answer_xml(f"arn:aws:iam::{ACCOUNT}:user/alice", "AIDA" + "A" * 17)),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_proofs(lookout: Lookout, tmp_path: Any, answer: str) -> None:
    """Signed, shown to a server, exchanged for a token, and shown again; STS says what it likes."""

    def transport(request: Any, /) -> STSAnswer:
        lookout.hear("request", f"{request!r} {request}")
        said = ANSWERS[answer]
        if isinstance(said, Exception):
            raise said
        return said

    clock = ManualClock(NOW_MS)
    documents = SQLiteDocuments(tmp_path / "d.db", clock=clock)
    grant = Grant(arn=f"arn:aws:iam::{ACCOUNT}:user/alice", user="alice", scopes={"ai:agent"})
    identity = AWSIdentity(SERVER_ID, [grant], documents, regions=[REGION], clock=clock, transport=transport)
    keys = KeySet.shared({"k1": Secret(birds.JWT_SECRET.text)})
    exchange = Exchange(identity, Tokens(keys, "iss", "aud", documents=documents, clock=clock))
    proof = sign_proof(SERVER_ID, REGION, credentials=CREDENTIALS, clock=clock)
    lookout.learn("proof's signature", proof.signature.reveal())
    lookout.show(proof, identity, exchange, grant)
    if answer == "good":
        token = exchange.exchange(proof)
        lookout.learn("token's signature", token.reveal().rpartition(".")[2])
        lookout.show(token)
    for _ in range(2):
        error = lookout.fails(lambda: exchange.exchange(proof.reveal()), Unauthenticated, frames=False)
        lookout.hear("reason", getattr(error, "reason", ""))


def test_proofs_that_are_none(lookout: Lookout) -> None:
    """Malformed in every part; and keys that are no keys."""
    proof = sign_proof(SERVER_ID, REGION, credentials=CREDENTIALS, clock=ManualClock(NOW_MS))
    text = proof.reveal()
    lookout.learn("proof's signature", proof.signature.reveal())
    for way in (
        text + "x", text[::-1], text.replace("v1", "v2"), birds.AWS_TOKEN.text, f"runrails-aws-{text}",
    ):  # fmt: skip
        lookout.fails(lambda way=way: parse_proof(way), ValueError, frames=False)
    names = ("region", "key_id", "date", "signature", "token")
    made = (proof.region, proof.key_id, proof.date, proof.signature, proof.token)
    for place in range(5):
        wrong: list[Any] = list(made)
        wrong[place] = birds.AWS_TOKEN.text + "!" if place < 3 else Secret(birds.AWS_TOKEN.text + "!")
        lookout.fails(lambda wrong=wrong: Proof(**dict(zip(names, wrong, strict=True))), ValueError, frames=False)
    for key in (
        Key(birds.AWS_SECRET.text, birds.AWS_SECRET.text), Key("AKIA2345678901234567", birds.AWS_SECRET.text, "!" * 20),
        CREDENTIALS._replace(token=birds.AWS_TOKEN.text + " "),
    ):  # fmt: skip
        lookout.fails(lambda key=key: sign_proof(SERVER_ID, REGION, credentials=key), frames=False)
    lookout.fails(lambda: sign_proof(birds.AWS_TOKEN.text + "!", REGION, credentials=CREDENTIALS), frames=False)


def test_a_proof_is_printed_once(aws: None, lookout: Lookout, shell: Shell) -> None:
    """`runrails aws proof` shows the proof on stdout; the secret key is nowhere, the token only in the proof."""
    for as_json in ([], ["--json"]):
        result = shell("aws", "proof", SERVER_ID, "--region", REGION, *as_json, shows=True)
        assert OK == result.code
        proof = json.loads(result.out)["proof"] if as_json else result.out.strip()
        assert parse_proof(proof).region == REGION
    assert USAGE == shell("aws", "proof", SERVER_ID, "--region", "nowhere-1").code


def test_lambda_events(lookout: Lookout, tmp_path: Any) -> None:
    """Headers in an event hold what callers sent; nothing of them is told, nor what stands in the wrong place."""
    grant = Grant(arn=f"arn:aws:iam::{ACCOUNT}:user/alice", user="alice", scopes={"ai:agent"})
    identity = LambdaIdentity("http", [grant], SQLiteDocuments(tmp_path / "d.db"))
    told = birds.AWS_TOKEN.text
    for iam in ({"userArn": told, "userId": told, "accountId": told}, {"userArn": [told]}, told, None):
        event = {
            "version": "2.0", "headers": {"authorization": told, "x-amz-security-token": told},
            "requestContext": {"authorizer": {"iam": iam}},
        }  # fmt: skip
        error = lookout.fails(lambda event=event: identity.verify(event), Unauthenticated, frames=False)
        lookout.hear("reason", getattr(error, "reason", ""))
    lookout.show(identity)
    assert logging.getLogger("botocore") is not None
