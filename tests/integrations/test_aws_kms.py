"""
Master keys in AWS KMS: against moto, a stub for what moto does not do, and a real key if one is named.

With RUNRAILS_TEST_KMS_ARN set (and credentials for it) the same tests use that key in AWS.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import moto
import pytest

from rr_ledger import START_MS
from rr_vault import ALICE, BOB, CANARY, everything_of, leaks, ring
from runrails.credentials import CredentialUnreadable, Vault
from runrails.credentials.envelope import key_id_of, open_, seal
from runrails.credentials.opening import open_wrapper
from runrails.documents.memory import MemoryDocuments
from runrails.errors import ConfigError
from runrails.secretvalue import Secret
from runrails.testing import ManualClock
from runrails_aws.kms import KMSWrapper

REAL = os.environ.get("RUNRAILS_TEST_KMS_ARN", "")
ARN = "arn:aws:kms:eu-west-1:123456789012:key/11111111-2222-3333-4444-555555555555"
CONTEXT = ALICE.context(1, b"{}")


@pytest.fixture
def kms(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Makes keys, or names the real one."""
    if REAL:
        yield lambda: REAL
        return
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with moto.mock_aws():
        import boto3

        client = boto3.client("kms", region_name="eu-west-1")
        yield lambda: client.create_key()["KeyMetadata"]["Arn"]


class Stub:
    """A client that answers as it is told, and remembers what it was asked."""

    def __init__(self, answer: Callable[[str, dict[str, Any]], dict[str, Any]]) -> None:
        self.answer = answer
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def generate_data_key(self, **request: Any) -> dict[str, Any]:
        """As told."""
        self.asked.append(("generate_data_key", request))
        return self.answer("generate_data_key", request)

    def decrypt(self, **request: Any) -> dict[str, Any]:
        """As told."""
        self.asked.append(("decrypt", request))
        return self.answer("decrypt", request)


def working(operation: str, request: dict[str, Any]) -> dict[str, Any]:
    """A service that gives the same data key to everybody."""
    return {"KeyId": request["KeyId"], "Plaintext": bytes(range(32)), "CiphertextBlob": b"wrapped"}


def failing(code: str, status: int = 400) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
    """A service that fails with this code; what it says has what must not be told."""

    def answer(operation: str, request: dict[str, Any]) -> dict[str, Any]:
        from botocore.exceptions import ClientError

        said = {"Error": {"Code": code, "Message": CANARY}, "ResponseMetadata": {"HTTPStatusCode": status}}
        raise ClientError(said, operation)

    return answer


def reason_of(use: Callable[[], object]) -> str:
    """Why it fails; nothing that KMS said is told, nor the canary in any frame."""
    with pytest.raises(CredentialUnreadable) as caught:
        use()
    assert [] == leaks(everything_of(caught.value), CANARY)
    assert caught.value.__context__ is None
    return caught.value.reason


def test_what_kms_seals_kms_opens(kms: Callable[[], str]) -> None:
    """With the key's ARN in the record; for this context and this key alone."""
    arn = kms()
    wrapper = open_wrapper(f"kms:{arn}")
    blob = seal(Secret(CANARY), CONTEXT, wrapper)

    assert (arn, arn, True) == (wrapper.active, key_id_of(blob), wrapper.remote)
    assert CANARY == open_(blob, CONTEXT, wrapper).reveal()
    for other in (
        CONTEXT._replace(owner="user:bob"), CONTEXT._replace(provider="anthropic"), CONTEXT._replace(label="x"),
        CONTEXT._replace(version=2), CONTEXT._replace(purpose="x"),
    ):  # fmt: skip
        assert "wrong_key" == reason_of(lambda other=other: open_(blob, other, wrapper))
    assert "altered" == reason_of(lambda: open_(blob, CONTEXT._replace(public=b"x"), wrapper))
    assert "unknown_key" == reason_of(lambda: open_(blob, CONTEXT, ring()))


def test_every_flipped_bit_of_the_wrapped_key_is_refused(kms: Callable[[], str]) -> None:
    """A bit here and there in an envelope; none opens."""
    wrapper = KMSWrapper(kms())
    blob = seal(Secret(CANARY), CONTEXT, wrapper)
    for place in range(0, len(blob), 16 if REAL else 3):
        flipped = bytearray(blob)
        flipped[place] ^= 1 << place % 8
        assert reason_of(lambda flipped=flipped: open_(bytes(flipped), CONTEXT, wrapper))


def test_keys_move_from_a_ring_to_kms_and_on(kms: Callable[[], str]) -> None:
    """Each step opens everything; afterwards the old key is not needed."""
    documents, clock = MemoryDocuments(), ManualClock(START_MS)
    from runrails.credentials.opening import Wrappers

    first, second = kms(), kms()
    for step, wrapper in enumerate(
        (
            ring(),
            Wrappers([KMSWrapper(first), ring()]),
            Wrappers([KMSWrapper(second), KMSWrapper(first)]),
            KMSWrapper(second),
        )
    ):
        vault = Vault(documents, wrapper, clock=clock)
        if step == 0:
            vault.add(ALICE, Secret(CANARY))
            vault.add(BOB, Secret(CANARY))
        assert CANARY == vault.get(ALICE).secret.reveal()
        done = vault.rewrap()
        assert () == done.unreadable
        assert {wrapper.active} == {info.key_id for info in vault.list()}


def test_every_request_names_key_and_context() -> None:
    """KeyId is pinned, also to open; what CloudTrail gets to see has neither key nor base URL nor hint."""
    stub = Stub(working)
    wrapper = KMSWrapper(ARN, stub)
    open_(seal(Secret(CANARY), CONTEXT, wrapper), CONTEXT, wrapper)
    told = {"owner": "user:alice", "provider": "openai", "label": "default", "version": "1", "purpose": "provider key"}

    assert ["generate_data_key", "decrypt"] == [operation for operation, _ in stub.asked]
    assert [ARN, ARN] == [request["KeyId"] for _, request in stub.asked]
    assert [told, told] == [request["EncryptionContext"] for _, request in stub.asked]
    assert [] == leaks(repr(stub.asked), CANARY)


def test_another_arn_is_never_asked_for() -> None:
    """A record that names another key of the same account is refused here."""
    stub = Stub(working)
    other = ARN.replace("1111", "9999")
    blob = seal(Secret(CANARY), CONTEXT, KMSWrapper(other, stub))
    stub.asked.clear()
    assert "unknown_key" == reason_of(lambda: open_(blob, CONTEXT, KMSWrapper(ARN, stub)))
    assert "unknown_key" == reason_of(lambda: KMSWrapper(ARN, stub).unwrap(b"wrapped", other, CONTEXT))
    assert [] == stub.asked


@pytest.mark.parametrize(
    "answer",
    [
        {"KeyId": ARN.replace("1111", "9999"), "Plaintext": bytes(32), "CiphertextBlob": b"w"},
        {"Plaintext": bytes(32), "CiphertextBlob": b"w"}, {"KeyId": ARN, "CiphertextBlob": b""}, {"KeyId": ARN}, {},
        {"KeyId": ARN, "Plaintext": "text", "CiphertextBlob": "text"},
        {"KeyId": ARN, "Plaintext": b"", "CiphertextBlob": b"w"},
    ],
    ids=range(7),
)  # fmt: skip
def test_an_answer_by_another_key_or_of_another_form_is_refused(answer: dict[str, Any]) -> None:
    """Whatever comes back must say that it is of the key that was asked for, and be bytes."""
    wrapper = KMSWrapper(ARN, Stub(lambda operation, request: answer))
    assert "kms_unusable" == reason_of(lambda: wrapper.new_data_key(CONTEXT))
    assert "kms_unusable" == reason_of(lambda: wrapper.unwrap(b"w", ARN, CONTEXT))


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("DisabledException", 400, "kms_disabled"), ("KMSInvalidStateException", 400, "kms_disabled"),
        ("NotFoundException", 400, "kms_disabled"), ("AccessDeniedException", 400, "kms_denied"),
        ("ExpiredTokenException", 400, "kms_denied"), ("UnrecognizedClientException", 400, "kms_denied"),
        ("InvalidCiphertextException", 400, "wrong_key"), ("IncorrectKeyException", 400, "wrong_key"),
        ("ThrottlingException", 400, "kms_unreachable"), ("KMSInternalException", 500, "kms_unreachable"),
        ("KeyUnavailableException", 500, "kms_unreachable"), ("DependencyTimeoutException", 503, "kms_unreachable"),
        ("Whatever", 502, "kms_unreachable"), ("InvalidKeyUsageException", 400, "kms_unusable"),
        ("ValidationException", 400, "kms_unusable"),
    ],
)  # fmt: skip
def test_every_failure_is_closed_and_says_why(code: str, status: int, reason: str) -> None:
    """One outward error; the operator's reason is one of a closed set."""
    wrapper = KMSWrapper(ARN, Stub(failing(code, status)))
    assert reason == reason_of(lambda: wrapper.new_data_key(CONTEXT))
    assert reason == reason_of(lambda: wrapper.unwrap(b"wrapped", ARN, CONTEXT))


def test_the_kill_switch() -> None:
    """A key that is disabled ends its records within the cache's minute. (moto decrypts with disabled keys.)"""
    clock, stub = ManualClock(START_MS), Stub(working)
    vault = Vault(MemoryDocuments(), KMSWrapper(ARN, stub), clock=clock, monotonic=clock)
    vault.add(ALICE, Secret(CANARY))
    vault.get(ALICE)
    stub.answer = failing("DisabledException")
    assert CANARY == vault.get(ALICE).secret.reveal()
    clock.advance(60_000)
    assert "kms_disabled" == reason_of(lambda: vault.get(ALICE))
    assert "kms_disabled" == reason_of(lambda: vault.add(BOB, Secret(CANARY)))
    assert vault.peek(BOB) is None
    stub.answer = working
    assert CANARY == vault.get(ALICE).secret.reveal()


def test_a_service_that_is_away_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real client and an address where nobody listens; and without credentials."""
    from boto3.session import Session
    from botocore.config import Config

    quick = Config(connect_timeout=1, read_timeout=1, retries={"total_max_attempts": 1})
    session = Session(aws_access_key_id="x", aws_secret_access_key="y", region_name="eu-west-1")
    client = session.client("kms", endpoint_url="http://127.0.0.1:9", config=quick)
    wrapper = KMSWrapper(ARN, client)
    assert "kms_unreachable" == reason_of(lambda: wrapper.new_data_key(CONTEXT))
    client.close()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    assert "kms_denied" == reason_of(lambda: KMSWrapper(ARN).new_data_key(CONTEXT))


@pytest.mark.parametrize(
    "arn",
    [
        "", "alias/mine", ARN.replace("key/", "alias/"), "11111111-2222-3333-4444-555555555555", ARN + "\n", ARN + "/x",
        ARN.replace("kms", "s3"), ARN.replace("123456789012", "12"), "arn:aws:kms::123456789012:key/x",
    ],
    ids=range(9),
)  # fmt: skip
def test_only_a_keys_arn_names_a_key(arn: str) -> None:
    """No alias: whoever may move one would choose the key."""
    with pytest.raises(ConfigError, match="ARN"):
        KMSWrapper(arn)
    assert f"KMSWrapper({ARN!r})" == repr(KMSWrapper(ARN))


def test_other_partitions_and_regions_have_keys() -> None:
    """GovCloud, China, and keys of several regions."""
    for arn in (
        ARN.replace("arn:aws:", "arn:aws-us-gov:"), ARN.replace("arn:aws:", "arn:aws-cn:"),
        "arn:aws:kms:us-east-1:123456789012:key/mrk-1234abcd12ab34cd56ef1234567890ab",
    ):  # fmt: skip
        assert arn == KMSWrapper(arn).active


def test_while_nobody_answers_nobody_waits() -> None:
    """Who asks first waits for the time limits; for two seconds after that others are told at once."""
    from botocore.exceptions import ConnectTimeoutError

    clock = ManualClock(START_MS)
    away = True

    def answer(operation: str, request: dict[str, Any]) -> dict[str, Any]:
        if away:
            raise ConnectTimeoutError(endpoint_url="https://kms.eu-west-1.amazonaws.com")
        return working(operation, request)

    stub = Stub(answer)
    wrapper = KMSWrapper(ARN, stub, monotonic=clock)
    for _ in range(3):
        assert "kms_unreachable" == reason_of(lambda: wrapper.new_data_key(CONTEXT))
        assert "kms_unreachable" == reason_of(lambda: wrapper.unwrap(b"wrapped", ARN, CONTEXT))
    assert 1 == len(stub.asked)
    clock.advance(1_999)
    assert "kms_unreachable" == reason_of(lambda: wrapper.new_data_key(CONTEXT))
    assert 1 == len(stub.asked)
    clock.advance(1)
    away = False
    assert wrapper.new_data_key(CONTEXT)
    assert wrapper.new_data_key(CONTEXT)
    assert 3 == len(stub.asked)


def test_a_limit_is_an_answer() -> None:
    """Whoever is told that there were too many requests was told so at once: the next one is asked for itself."""
    stub = Stub(failing("ThrottlingException"))
    wrapper = KMSWrapper(ARN, stub, monotonic=ManualClock(START_MS))
    for _ in range(3):
        assert "kms_unreachable" == reason_of(lambda: wrapper.new_data_key(CONTEXT))
    assert 3 == len(stub.asked)
