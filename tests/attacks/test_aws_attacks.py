"""
Attacks on AWS identities: proofs, answers of STS, events of Lambda; and what must be let in all the same.

Every proof is judged by two engines that compute real signatures, moto's and a strict one of our own, which must agree.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from rr_attacks import check_nobody
from rr_aws import (
    ACCOUNT,
    ALLOWED,
    ELSEWHERE,
    NAMESPACE,
    REGION,
    SERVER_ID,
    Engine,
    Key,
    MotoSTS,
    StrictSTS,
    answer_xml,
    error_xml,
)
from runrails.documents.memory import MemoryDocuments
from runrails.identity.authenticate import Authenticator
from runrails.identity.errors import Unauthenticated
from runrails.identity.jwt import KeySet, Tokens
from runrails.identity.principal import Principal
from runrails.secretvalue import Secret
from runrails.testing import ManualClock
from runrails_aws.identity import REASONS, AWSIdentity, Exchange, Grant, LambdaIdentity, Proof, sign_proof
from runrails_aws.identity.answer import ANSWER_BYTES_MAX, STSAnswer
from runrails_aws.identity.canonical import BODY, STSRequest

NOW_MS = 1_795_000_000_000
SCOPES = frozenset({"ai:complete"})
SSO = "AWSReservedSSO_Admin_0123456789abcdef"
ODD_SESSION = "a.b@c=d,e+f_g-1"
GRANTS = [
    Grant(arn=arn, user=user, org=org, scopes=SCOPES)
    for arn, user, org in [
        (f"arn:aws:iam::{ACCOUNT}:user/team/alice", "alice", None),
        (f"arn:aws:iam::{ACCOUNT}:user/bob", "bob", "acme"),
        (f"arn:aws:iam::{ACCOUNT}:role/ci", "ci", None),
        (f"arn:aws:iam::{ACCOUNT}:role/{SSO}", "sso", None),
        (f"arn:aws:iam::{ACCOUNT}:role/reborn", "reborn", None),
        (f"arn:aws-cn:iam::{ACCOUNT}:user/li", "li", None),
        (f"arn:aws-us-gov:iam::{ACCOUNT}:role/gov", "gov", None),
    ]
]
NEVER_ASKED = {
    "aws_proof_malformed", "aws_region_not_allowed", "aws_proof_stale", "aws_proof_early", "aws_proof_used",
}  # fmt: skip


class People(NamedTuple):
    """Whose credentials there are."""

    alice: Key
    bob: Key
    mallory: Key
    ci: Key
    ci_again: Key
    odd: Key
    sso: Key
    intruder: Key
    li: Key
    gov: Key
    twin: Key


class World:
    """One server of ours, with documents of its own, before an engine that tests share."""

    def __init__(self, engine: Engine, people: People, *, now_ms: int = NOW_MS) -> None:
        self.engine = engine
        self.people = people
        self.clock = ManualClock(now_ms)
        self.documents = MemoryDocuments(clock=self.clock)
        self.identity = self.server(SERVER_ID)

    def server(self, server_id: str) -> AWSIdentity:
        return AWSIdentity(
            server_id, GRANTS, self.documents, regions=ALLOWED, clock=self.clock, transport=self.engine
        )  # fmt: skip

    def prove(self, key: Key, *, region: str = REGION, server_id: str = SERVER_ID, after_ms: int = 0) -> str:
        return sign_proof(server_id, region, credentials=key, clock=lambda: NOW_MS + after_ms).reveal()

    def kept(self) -> list[object]:
        return [*self.documents.find("proof"), *self.documents.find("aws-identity")]


def people_of(engine: Engine) -> People:
    engine.role("ci", path="/svc/")
    engine.role(SSO, path="/aws-reserved/sso.amazonaws.com/")
    engine.role("intruder")
    engine.role("gov", partition="aws-us-gov")
    return People(
        alice=engine.user("alice", path="/team/"),
        bob=engine.user("bob"),
        mallory=engine.user("mallory"),
        ci=engine.assume("ci", "build-7", path="/svc/"),
        ci_again=engine.assume("ci", "build-8", path="/svc/"),
        odd=engine.assume("ci", ODD_SESSION, path="/svc/"),
        sso=engine.assume(SSO, "jane@example.com", path="/aws-reserved/sso.amazonaws.com/"),
        intruder=engine.assume("intruder", "build-7"),
        li=engine.user("li", partition="aws-cn"),
        gov=engine.assume("gov", "build-7", partition="aws-us-gov"),
        twin=engine.user("alice", path="/team/", partition="aws-cn"),
    )


Crowd: TypeAlias = tuple[Engine, People]


@pytest.fixture(scope="module", params=["strict", "moto"])
def crowd(request: pytest.FixtureRequest) -> Iterator[Crowd]:
    """An engine, and whom it knows."""
    if request.param == "strict":
        strict = StrictSTS(lambda: NOW_MS)
        yield strict, people_of(strict)
        return
    moto = MotoSTS()
    try:
        yield moto, people_of(moto)
    finally:
        moto.close()


@pytest.fixture
def world(crowd: Crowd) -> World:
    """A server before it."""
    return World(*crowd)


def refused(call: Callable[[], object], reason: str) -> None:
    """See that a caller is told what every refused caller is told, and the operator why."""
    assert reason in REASONS
    check_nobody(call, reason)


# Proofs.


def change(text: str, **fields: str | Callable[[str], str]) -> str:
    """A proof's text with other fields."""
    names = ["version", "region", "key_id", "date", "signature", "token"]
    found = dict(zip(names, text.split("."), strict=False))
    for name, value in fields.items():
        found[name] = value if isinstance(value, str) else value(found[name])
    return ".".join(found.values())


def otherwise(key: Key, *, method: str = "POST", body: bytes = BODY, service: str = "sts", query: str = "",
              **headers: str | None) -> str:  # fmt: skip
    """A proof's text around a signature of another request than the one a proof is of."""
    proof = sign_proof(SERVER_ID, REGION, credentials=key, clock=lambda: NOW_MS)
    host = f"sts.{REGION}.amazonaws.com"
    given: dict[str, str | None] = {
        "content-type": "application/x-www-form-urlencoded; charset=utf-8", "host": host, "x-amz-date": proof.date,
        "x-guard-server-id": SERVER_ID, "x-amz-security-token": key.token,
    }  # fmt: skip
    given.update({name.replace("_", "-"): value for name, value in headers.items()})
    sent = {name: value for name, value in given.items() if value is not None}
    request = AWSRequest(method, f"https://{host}/{query}", sent, body)
    request.context["timestamp"] = proof.date
    signer = SigV4Auth(key, service, REGION)
    return change(
        proof.reveal(),
        signature=signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request),
    )


def flipped(signature: str) -> str:
    return signature[:-1] + ("0" if signature[-1] != "0" else "1")


def used(world: World, text: str) -> str:
    """The same proof, after it has let somebody in."""
    world.identity.verify(text)
    return text


def reborn(world: World) -> str:
    """A proof of a role that was deleted and made anew after its first login."""
    world.engine.role("reborn")
    world.identity.verify(world.prove(world.engine.assume("reborn", "first")))
    world.engine.role("reborn")
    return world.prove(world.engine.assume("reborn", "second"))


Build: TypeAlias = Callable[[World], object]
TOKEN = "FwoGZXIvYXdz" + "A" * 300

PROOFS: dict[str, tuple[Build, str]] = {
    # Whose signature it is.
    "wrong secret": (lambda w: w.prove(w.people.alice._replace(secret_key="x" * 40)), "aws_signature_wrong"),
    "another's secret": (
        lambda w: w.prove(w.people.alice._replace(secret_key=w.people.mallory.secret_key)), "aws_signature_wrong"),
    "unknown key": (lambda w: w.prove(Key("AKIA" + "Z" * 16, "x" * 40)), "aws_key_unknown"),
    "unknown temporary key": (lambda w: w.prove(Key("ASIA" + "Z" * 16, "x" * 40, TOKEN)), "aws_key_unknown"),
    "another's key id": (
        lambda w: change(w.prove(w.people.mallory), key_id=w.people.alice.access_key), "aws_signature_wrong"),
    "another session's token": (
        lambda w: change(w.prove(w.people.ci), token=str(w.people.intruder.token)), "aws_key_unknown"),
    "signed with another session's token": (
        lambda w: w.prove(w.people.ci._replace(token=w.people.intruder.token)), "aws_key_unknown"),
    "one digit changed": (lambda w: change(w.prove(w.people.alice), signature=flipped), "aws_signature_wrong"),
    "no user of the grants": (lambda w: w.prove(w.people.mallory), "aws_not_granted"),
    "no role of the grants": (lambda w: w.prove(w.people.intruder), "aws_not_granted"),
    "a granted name in another partition": (
        lambda w: w.prove(w.people.twin, region="cn-north-1"), "aws_not_granted"),
    "a role made anew": (reborn, "aws_id_changed"),
    # What it is a signature of.
    "for another server": (lambda w: w.prove(w.people.alice, server_id="staging.example.com"), "aws_signature_wrong"),
    "for this server in other letters": (
        lambda w: w.prove(w.people.alice, server_id=SERVER_ID.upper()), "aws_signature_wrong"),
    "for no server": (lambda w: otherwise(w.people.alice, x_guard_server_id=None), "aws_signature_wrong"),
    "for Vault": (
        lambda w: otherwise(w.people.alice, x_guard_server_id=None, x_vault_aws_iam_server_id=SERVER_ID),
        "aws_signature_wrong"),
    "for Kubernetes": (
        lambda w: otherwise(w.people.alice, x_guard_server_id=None, x_k8s_aws_id=SERVER_ID), "aws_signature_wrong"),
    "another action": (
        lambda w: otherwise(w.people.alice, body=b"Action=GetSessionToken&Version=2011-06-15"), "aws_signature_wrong"),
    "one more parameter": (lambda w: otherwise(w.people.alice, body=BODY + b"&X=1"), "aws_signature_wrong"),
    "no body": (lambda w: otherwise(w.people.alice, body=b""), "aws_signature_wrong"),
    "a query": (lambda w: otherwise(w.people.alice, query="?Action=GetCallerIdentity"), "aws_signature_wrong"),
    "another path": (lambda w: otherwise(w.people.alice, query="x"), "aws_signature_wrong"),
    "another method": (lambda w: otherwise(w.people.alice, method="GET"), "aws_signature_wrong"),
    "another service": (lambda w: otherwise(w.people.alice, service="iam"), "aws_signature_wrong"),
    "another host": (lambda w: otherwise(w.people.alice, host="sts.amazonaws.com"), "aws_signature_wrong"),
    "another type": (lambda w: otherwise(w.people.alice, content_type="text/plain"), "aws_signature_wrong"),
    "one more signed header": (lambda w: otherwise(w.people.alice, accept="application/json"), "aws_signature_wrong"),
    "token left unsigned": (lambda w: otherwise(w.people.ci, x_amz_security_token=None), "aws_signature_wrong"),
    "another allowed region's": (
        lambda w: change(w.prove(w.people.alice, region=ELSEWHERE), region=REGION), "aws_signature_wrong"),
    "a China key in Europe": (lambda w: w.prove(w.people.li), "aws_key_unknown"),
    "a European key in China": (lambda w: w.prove(w.people.alice, region="cn-north-1"), "aws_key_unknown"),
    # When it was made, and how often it is shown.
    "another second": (lambda w: change(w.prove(w.people.alice), date="20261118T110641Z"), "aws_signature_wrong"),
    "a second too old": (lambda w: w.prove(w.people.alice, after_ms=-301_000), "aws_proof_stale"),
    "of last year": (lambda w: w.prove(w.people.alice, after_ms=-365 * 86_400_000), "aws_proof_stale"),
    "a second too early": (lambda w: w.prove(w.people.alice, after_ms=31_000), "aws_proof_early"),
    "of next year": (lambda w: w.prove(w.people.alice, after_ms=365 * 86_400_000), "aws_proof_early"),
    "a user's shown twice": (lambda w: used(w, w.prove(w.people.alice)), "aws_proof_used"),
    "a role's shown twice": (lambda w: used(w, w.prove(w.people.ci)), "aws_proof_used"),
    "made twice in one second": (
        lambda w: (used(w, w.prove(w.people.bob)), w.prove(w.people.bob, after_ms=999))[1], "aws_proof_used"),
    # Regions.
    "a region not allowed": (lambda w: w.prove(w.people.alice, region="eu-west-1"), "aws_region_not_allowed"),
    "a region that is none": (
        lambda w: change(w.prove(w.people.alice), region="eu-central-9"), "aws_region_not_allowed"),
    "another host behind the region": (
        lambda w: change(w.prove(w.people.alice), region="ev-il-example-com-1"), "aws_region_not_allowed"),
    # Credentials of the wrong sort.
    "temporary without token": (
        lambda w: ".".join(w.prove(w.people.ci).split(".")[:5]), "aws_proof_malformed"),
    "lasting with token": (lambda w: w.prove(w.people.alice) + "." + TOKEN, "aws_proof_malformed"),
    "a user's unique id as key": (
        lambda w: change(w.prove(w.people.alice), key_id="AIDA" + "Z" * 16), "aws_proof_malformed"),
    # Spelling.
    "no fields": (lambda w: "runrails-aws-v1.", "aws_proof_malformed"),
    "nothing": (lambda w: "", "aws_proof_malformed"),
    "three fields": (lambda w: ".".join(w.prove(w.people.alice).split(".")[:4]), "aws_proof_malformed"),
    "six fields": (lambda w: w.prove(w.people.ci) + "." + TOKEN, "aws_proof_malformed"),
    "an empty field more": (lambda w: w.prove(w.people.alice) + ".", "aws_proof_malformed"),
    "no prefix": (
        lambda w: w.prove(w.people.alice).removeprefix("runrails-aws-v1."), "aws_proof_malformed"),
    "another version": (lambda w: change(w.prove(w.people.alice), version="runrails-aws-v2"), "aws_proof_malformed"),
    "the prefix in capitals": (
        lambda w: change(w.prove(w.people.alice), version="RUNRAILS-AWS-V1"), "aws_proof_malformed"),
    "the prefix twice": (lambda w: "runrails-aws-v1." + w.prove(w.people.alice), "aws_proof_malformed"),
    "Bearer left on": (lambda w: "Bearer " + w.prove(w.people.alice), "aws_proof_malformed"),
    "a space before": (lambda w: " " + w.prove(w.people.alice), "aws_proof_malformed"),
    "a newline behind": (lambda w: w.prove(w.people.alice) + "\n", "aws_proof_malformed"),
    "a replay with a newline": (lambda w: used(w, w.prove(w.people.alice)) + "\n", "aws_proof_malformed"),
    "a replay with the signature in capitals": (
        lambda w: change(used(w, w.prove(w.people.alice)), signature=str.upper), "aws_proof_malformed"),
    "a NUL behind": (lambda w: w.prove(w.people.alice) + "\0", "aws_proof_malformed"),
    "half a character": (lambda w: w.prove(w.people.alice) + "\ud800", "aws_proof_malformed"),
    "longer than allowed": (lambda w: w.prove(w.people.ci._replace(token="A" * 3_700)) + "A" * 400,
                            "aws_proof_malformed"),
    "a mebibyte": (lambda w: w.prove(w.people.ci) + "A" * 1_048_576, "aws_proof_malformed"),
    "a URL": (lambda w: "https://sts.eu-central-1.amazonaws.com/?Action=GetCallerIdentity", "aws_proof_malformed"),
    "JSON": (lambda w: '{"region": "eu-central-1", "url": "https://evil.example"}', "aws_proof_malformed"),
    "an API key": (lambda w: "rr_live_" + "0" * 66, "aws_proof_malformed"),
    "bytes": (lambda w: w.prove(w.people.alice).encode(), "aws_proof_malformed"),
    "None": (lambda w: None, "aws_proof_malformed"),
    "a mapping": (lambda w: {"region": REGION}, "aws_proof_malformed"),
}  # fmt: skip

BAD_FIELDS: dict[str, list[str]] = {
    "region": [
        "", "EU-CENTRAL-1", "eu-central", "eu-central-1/", "eu-central-1@evil", "eu-central-1#", "eu-central-1\r\n",
        "eu-central-1:443", "-central-1", "eu--1", "eu-central-1%2eevil", "\uff45u-central-1", "e\u0301u-central-1",
        "127-0-0-1", "eu-central-100", "eu_central_1",
    ],
    "key_id": [
        "", "akiaiosfodnn7example", "AKIA", "AKIAIOSFODNN7EXAMPL\n", "AKIAIOSFODNN7EXAM LE", "AKIAIOSFODNN7EXAM=LE",
        "AKIAIOSFODNN7EXAMPLE/20261118/us-east-1/sts/aws4_request", "AKIAIOSFODNN7EXAMPLE, SignedHeaders=host",
        "AKIAIOSFODNN7EXAMPL\uff25", "AKIAIOSFODNN7EXAMPL\u0416", "AKIA" + "A" * 200, "AROAIOSFODNN7EXAMPLE",
    ],
    "date": [
        "", "20261118", "2026-11-18T11:06:40Z", "20261118T110640", "20261118t110640z", "20261118T110640Z\n",
        "20261318T110640Z", "20260230T110640Z", "20261100T110640Z", "20261118T240640Z", "20261118T116040Z",
        "20261118T110660Z", "20261118T110640+0000", "99991118T110640Z", "1795000000", "\u0662\u0660261118T110640Z",
        "20261118T110640Z\r\nx-guard-server-id: other",
    ],
    "signature": [
        "", "0" * 63, "0" * 65, "g" * 64, "0" * 63 + "\n", "\uff10" * 64, "0" * 32 + " " + "0" * 31,
        "0" * 64 + ", Signature=" + "0" * 64, "é" * 64,
    ],
    "token": [
        "", "A" * 15, TOKEN + "\r\nx-guard-server-id: other", TOKEN + "\n", TOKEN + " ", TOKEN + "===", TOKEN + ";",
        TOKEN + "é", "=" + TOKEN, TOKEN[:20] + "=" + TOKEN[20:], "A" * 4_001, TOKEN + "\0", TOKEN + ",x",
    ],
}  # fmt: skip
for _name, _values in BAD_FIELDS.items():
    for _number, _value in enumerate(_values):
        PROOFS[f"{_name} malformed {_number}"] = (
            lambda w, name=_name, value=_value: change(w.prove(w.people.ci), **{name: value}), "aws_proof_malformed"
        )  # fmt: skip


@pytest.mark.parametrize("name", PROOFS)
def test_attacks_by_proofs_are_refused_alike_by_both_engines(name: str, world: World) -> None:
    """A proof that is not its sender's own, for this server, now and once, lets nobody in and changes nothing."""
    build, reason = PROOFS[name]
    presented = build(world)
    before, asked = world.kept(), len(world.engine.asked)
    refused(lambda: world.identity.verify(presented), reason)  # type: ignore[arg-type]
    assert world.kept() == before
    assert len(world.engine.asked) - asked == (0 if reason in NEVER_ASKED else 1)


WELCOME: dict[str, tuple[Build, str]] = {
    "a user with a path": (lambda w: w.prove(w.people.alice), "alice"),
    "a user without": (lambda w: w.prove(w.people.bob), "bob"),
    "a role with a path": (lambda w: w.prove(w.people.ci), "ci"),
    "the same role in another session": (
        lambda w: (used(w, w.prove(w.people.ci)), w.prove(w.people.ci_again))[1], "ci"),
    "a session of odd letters": (lambda w: w.prove(w.people.odd), "ci"),
    "single sign-on": (lambda w: w.prove(w.people.sso), "sso"),
    "China": (lambda w: w.prove(w.people.li, region="cn-north-1"), "li"),
    "GovCloud": (lambda w: w.prove(w.people.gov, region="us-gov-west-1"), "gov"),
    "another allowed region": (lambda w: w.prove(w.people.alice, region=ELSEWHERE), "alice"),
    "exactly five minutes old": (lambda w: w.prove(w.people.alice, after_ms=-300_000), "alice"),
    "exactly thirty seconds early": (lambda w: w.prove(w.people.alice, after_ms=30_000), "alice"),
    "one second after the last": (
        lambda w: (used(w, w.prove(w.people.alice)), w.prove(w.people.alice, after_ms=1_000))[1], "alice"),
    "the same second in another region": (
        lambda w: (used(w, w.prove(w.people.alice)), w.prove(w.people.alice, region=ELSEWHERE))[1], "alice"),
    "a value instead of a text": (
        lambda w: sign_proof(SERVER_ID, REGION, credentials=w.people.bob, clock=w.clock), "bob"),
}  # fmt: skip


@pytest.mark.parametrize("name", WELCOME)
def test_who_is_who_they_say_comes_in(name: str, world: World) -> None:
    """A proof of a granted user or role lets exactly it in."""
    build, user = WELCOME[name]
    presented = build(world)
    assert isinstance(presented, str | Proof)
    principal = world.identity.verify(presented)
    grant = next(grant for grant in GRANTS if grant.user == user)
    assert (principal.user, principal.org, principal.scopes) == (user, grant.org, SCOPES)
    assert (principal.method, principal.key_id) == ("aws", None)
    assert (principal.session_id or "")[:4] == ("AIDA" if ":user/" in grant.arn else "AROA")
    assert principal.expires_ms is not None
    assert -1 < principal.expires_ms - NOW_MS <= 330_000


def test_a_proof_for_one_server_opens_no_other(world: World) -> None:
    """The server's id is signed: what was shown to one server is of no use at another with the same grants."""
    text = world.prove(world.people.alice)
    other = world.server("staging.example.com")
    refused(lambda: other.verify(text), "aws_signature_wrong")
    assert world.kept() == []
    assert world.identity.verify(text).user == "alice"


# Answers. Somebody stands between us and STS, or STS can be made to repeat what it was sent.

ALICE = f"arn:aws:iam::{ACCOUNT}:user/team/alice"
ALICE_ID = "AIDA" + "B" * 17
CI = f"arn:aws:sts::{ACCOUNT}:assumed-role/ci/build-7"
CI_ID = "AROA" + "B" * 17 + ":build-7"
GOOD = answer_xml(ALICE, ALICE_ID)
RESULT = GOOD[GOOD.index(b"<GetCallerIdentityResult>") : GOOD.index(b"</GetCallerIdentityResult>") + 26]


def xml(body: bytes | str) -> STSAnswer:
    return STSAnswer(200, "text/xml", body.encode() if isinstance(body, str) else body)


def swap(old: str, new: str) -> STSAnswer:
    assert GOOD.count(old.encode()) >= 1, old
    return xml(GOOD.replace(old.encode(), new.encode(), 1))


def says(arn: str, user_id: str, account: str = ACCOUNT) -> STSAnswer:
    return xml(answer_xml(arn, user_id, account))


MALFORMED = "aws_sts_malformed"
ANSWERS: dict[str, tuple[STSAnswer, str]] = {
    **{f"status {status}": (STSAnswer(status, "text/xml", GOOD), "aws_sts_refused") for status in (201, 204, 206, 400)},
    **{f"redirect {status}": (STSAnswer(status, "text/xml", GOOD), "aws_sts_redirected") for status in (300, 302, 399)},
    **{f"fault {status}": (STSAnswer(status, "text/xml", GOOD), "aws_sts_unavailable") for status in (500, 503)},
    "an identity in a refusal": (STSAnswer(403, "text/xml", GOOD), "aws_sts_refused"),
    "a refusal that says 200": (STSAnswer(200, "text/xml", error_xml("AccessDenied")), MALFORMED),
    "JSON": (STSAnswer(200, "application/json", b'{"GetCallerIdentityResponse": {}}'), "aws_sts_not_xml"),
    "XML that says JSON": (STSAnswer(200, "application/json", GOOD), "aws_sts_not_xml"),
    "HTML": (STSAnswer(200, "text/html", GOOD), "aws_sts_not_xml"),
    "no type": (STSAnswer(200, None, GOOD), "aws_sts_not_xml"),
    "another charset": (STSAnswer(200, "text/xml; charset=utf-16", GOOD), "aws_sts_not_xml"),
    "a type with something behind": (STSAnswer(200, "text/xml\n", GOOD), "aws_sts_not_xml"),
    "one byte too long": (xml(GOOD.ljust(ANSWER_BYTES_MAX + 1)), "aws_sts_oversized"),
    "nothing": (xml(b""), MALFORMED),
    "half of it": (xml(GOOD[: len(GOOD) // 2]), MALFORMED),
    "something behind": (xml(GOOD + b"<x/>"), MALFORMED),
    "two of them": (xml(GOOD + GOOD), MALFORMED),
    "UTF-16": (xml(GOOD.decode().encode("utf-16")), MALFORMED),
    "Latin-1": (xml(GOOD.replace(b"alice", b"al\xefce")), MALFORMED),
    "a NUL": (xml(GOOD.replace(b"alice", b"al\0ice")), MALFORMED),
    "a DTD": (xml(b"<!DOCTYPE x>" + GOOD), MALFORMED),
    "an entity": (xml(b'<!DOCTYPE x [<!ENTITY a "alice">]>' + GOOD.replace(b"alice", b"&a;")), MALFORMED),
    "an entity of nobody": (xml(GOOD.replace(b"alice", b"&a;")), MALFORMED),
    "a comment in the name": (swap("team/alice", "team/<!-- x -->alice"), MALFORMED),
    "CDATA": (swap(ALICE, f"<![CDATA[{ALICE}]]>"), MALFORMED),
    "an instruction in the name": (swap("team/alice", "team/<?x y?>alice"), MALFORMED),
    "an instruction before": (xml(b"<?x y?>" + GOOD), MALFORMED),
    "no namespace": (swap(f' xmlns="{NAMESPACE}"', ""), MALFORMED),
    "another namespace": (swap(NAMESPACE, "https://evil.example/"), MALFORMED),
    "the namespace without its slash": (swap(NAMESPACE, NAMESPACE[:-1]), MALFORMED),
    "another answer of STS": (xml(GOOD.replace(b"GetCallerIdentity", b"GetSessionToken")), MALFORMED),
    "another root": (xml(GOOD.replace(b"GetCallerIdentityResponse", b"Envelope")), MALFORMED),
    "the answer within another": (
        xml(b'<X xmlns="' + NAMESPACE.encode() + b'">' + GOOD + b"</X>"), MALFORMED),
    "the result as the root": (
        xml(RESULT.replace(b"Result>", f'Result xmlns="{NAMESPACE}">'.encode(), 1)), MALFORMED),
    "two results": (xml(GOOD.replace(RESULT, RESULT + RESULT)), MALFORMED),
    "no result": (xml(GOOD.replace(RESULT, b"")), MALFORMED),
    "a result in the metadata": (
        xml(GOOD.replace(RESULT, b"").replace(b"<RequestId>", RESULT + b"<RequestId>")), MALFORMED),
    "a result of another namespace": (swap("<GetCallerIdentityResult>", '<GetCallerIdentityResult xmlns="x">'),
                                      MALFORMED),
    "something beside the result": (swap("<ResponseMetadata>", "<Note/><ResponseMetadata>"), MALFORMED),
    "text beside the result": (swap("<ResponseMetadata>", "x<ResponseMetadata>"), MALFORMED),
    "text in the result": (swap("<UserId>", "x<UserId>"), MALFORMED),
    "text before the fields": (swap("<Arn>", "x<Arn>"), MALFORMED),
    "an attribute of the root": (swap("Response xmlns", 'Response a="b" xmlns'), MALFORMED),
    "an attribute of the result": (swap("IdentityResult>", 'IdentityResult a="b">'), MALFORMED),
    "an attribute of a field": (swap("<Arn>", '<Arn a="b">'), MALFORMED),
    "two names": (swap("<UserId>", f"<Arn>{CI}</Arn><UserId>"), MALFORMED),
    "a name within the name": (swap(ALICE, f"{ALICE}<Arn>{CI}</Arn>"), MALFORMED),
    "an element in the name": (swap("team/alice", "team/<b/>alice"), MALFORMED),
    "no name": (swap(f"<Arn>{ALICE}</Arn>", ""), MALFORMED),
    "no unique id": (swap(f"<UserId>{ALICE_ID}</UserId>", ""), MALFORMED),
    "no account": (swap(f"<Account>{ACCOUNT}</Account>", ""), MALFORMED),
    "a field of another namespace": (swap("<Arn>", '<Arn xmlns="x">'), MALFORMED),
    "a field in other letters": (xml(GOOD.replace(b"Arn>", b"ARN>")), MALFORMED),
    "one field more": (swap("<UserId>", "<Email>a@b</Email><UserId>"), MALFORMED),
    # Who it says it is.
    "a root account": (says(f"arn:aws:iam::{ACCOUNT}:root", ACCOUNT), "aws_kind_not_taken"),
    "a federated user": (says(f"arn:aws:sts::{ACCOUNT}:federated-user/alice", f"{ACCOUNT}:alice"),
                         "aws_kind_not_taken"),
    "a role that nobody assumed": (says(f"arn:aws:iam::{ACCOUNT}:role/ci", CI_ID), "aws_kind_not_taken"),
    "a group": (says(f"arn:aws:iam::{ACCOUNT}:group/alice", ALICE_ID), "aws_kind_not_taken"),
    "a user of STS": (says(f"arn:aws:sts::{ACCOUNT}:user/team/alice", ALICE_ID), "aws_kind_not_taken"),
    "a session without a name": (says(f"arn:aws:sts::{ACCOUNT}:assumed-role/ci/", CI_ID), "aws_kind_not_taken"),
    "a session with a slash": (says(f"{CI}/x", f"{CI_ID}/x"), "aws_kind_not_taken"),
    "no session": (says(f"arn:aws:sts::{ACCOUNT}:assumed-role/ci", CI_ID), "aws_kind_not_taken"),
    "a name with a line behind": (says(f"{ALICE}\n", ALICE_ID), "aws_kind_not_taken"),
    "a name with a space before": (says(f" {ALICE}", ALICE_ID), "aws_kind_not_taken"),
    "a name in Cyrillic": (says(ALICE.replace("alice", "\u0430lice"), ALICE_ID), "aws_kind_not_taken"),
    "a name in full width": (says(ALICE.replace("alice", "\uff41lice"), ALICE_ID), "aws_kind_not_taken"),
    "Arabic digits": (says(ALICE.replace("1", "\u0661"), ALICE_ID), "aws_kind_not_taken"),
    "an account of eleven digits": (says(ALICE.replace("123", "12"), ALICE_ID, ACCOUNT.replace("123", "12")),
                                    "aws_kind_not_taken"),
    "a region in the name": (says(ALICE.replace("iam::", "iam:eu-central-1:"), ALICE_ID), "aws_kind_not_taken"),
    "a partition that is none": (says(ALICE.replace("arn:aws:", "arn:awz:"), ALICE_ID), "aws_kind_not_taken"),
    "a secret partition": (says(ALICE.replace("arn:aws:", "arn:aws-iso:"), ALICE_ID), "aws_kind_not_taken"),
    "a wildcard": (says(f"arn:aws:iam::{ACCOUNT}:user/*", ALICE_ID), "aws_kind_not_taken"),
    "an empty name": (says("", ALICE_ID), "aws_kind_not_taken"),
    "a name too long": (says(f"arn:aws:iam::{ACCOUNT}:user/" + "a" * 65, ALICE_ID), "aws_kind_not_taken"),
    "another account's user": (says(ALICE.replace(ACCOUNT, "9" * 12), ALICE_ID, "9" * 12), "aws_not_granted"),
    "another account's role": (says(CI.replace(ACCOUNT, "9" * 12), CI_ID, "9" * 12), "aws_not_granted"),
    "the user without the path": (says(ALICE.replace("team/", ""), ALICE_ID), "aws_not_granted"),
    "the user with another path": (says(ALICE.replace("team", "Team"), ALICE_ID), "aws_not_granted"),
    "the user in capitals": (says(ALICE.replace("alice", "ALICE"), ALICE_ID), "aws_not_granted"),
    "a user named as the role": (says(f"arn:aws:iam::{ACCOUNT}:user/ci", ALICE_ID), "aws_not_granted"),
    "a role named as the user": (
        says(f"arn:aws:sts::{ACCOUNT}:assumed-role/bob/build-7", CI_ID), "aws_not_granted"),
    "a role whose name begins as ours": (
        says(f"arn:aws:sts::{ACCOUNT}:assumed-role/ci2/build-7", CI_ID), "aws_not_granted"),
    "China's user from Europe": (
        says(f"arn:aws-cn:iam::{ACCOUNT}:user/li", ALICE_ID), "aws_partition_wrong"),
    "another account beside the name": (says(ALICE, ALICE_ID, "9" * 12), "aws_answer_inconsistent"),
    "a key id as unique id": (says(ALICE, "AKIA" + "B" * 16), "aws_answer_inconsistent"),
    "a role's unique id at a user": (says(ALICE, "AROA" + "B" * 17), "aws_answer_inconsistent"),
    "a user's unique id at a role": (says(CI, ALICE_ID + ":build-7"), "aws_answer_inconsistent"),
    "a session at a user": (says(ALICE, ALICE_ID + ":build-7"), "aws_answer_inconsistent"),
    "an empty session at a user": (says(ALICE, ALICE_ID + ":"), "aws_answer_inconsistent"),
    "a role without session": (says(CI, CI_ID.partition(":")[0]), "aws_answer_inconsistent"),
    "a role with another session": (says(CI, CI_ID + "8"), "aws_answer_inconsistent"),
    "a unique id in small letters": (says(ALICE, ALICE_ID.lower()), "aws_answer_inconsistent"),
    "a unique id with a line behind": (says(ALICE, ALICE_ID + "\n"), "aws_answer_inconsistent"),
    "an empty unique id": (says(ALICE, ""), "aws_answer_inconsistent"),
    # What STS itself refuses.
    "an expired session": (STSAnswer(403, "text/xml", error_xml("ExpiredToken")), "aws_session_expired"),
    "a clock that differs": (
        STSAnswer(403, "text/xml", error_xml("SignatureDoesNotMatch", "Signature expired: …")), "aws_sts_clock"),
    "a region switched off": (STSAnswer(403, "text/xml", error_xml("RegionDisabledException")), "aws_region_disabled"),
    "too many": (STSAnswer(400, "text/xml", error_xml("Throttling")), "aws_sts_throttled"),
    "an unknown code": (STSAnswer(403, "text/xml", error_xml("Whatever")), "aws_sts_refused"),
}  # fmt: skip


def bench(answer: Callable[[STSRequest], STSAnswer]) -> tuple[AWSIdentity, str, MemoryDocuments]:
    """A server that is answered so, and a proof to show it."""
    documents = MemoryDocuments(clock=lambda: NOW_MS)
    identity = AWSIdentity(
        SERVER_ID, GRANTS, documents, regions=ALLOWED, clock=lambda: NOW_MS, transport=answer
    )  # fmt: skip
    key = Key("AKIA" + "B" * 16, "s" * 40)
    return identity, sign_proof(SERVER_ID, REGION, credentials=key, clock=lambda: NOW_MS).reveal(), documents


@pytest.mark.parametrize("name", ANSWERS)
def test_attacks_by_answers_are_refused(name: str) -> None:
    """What is not exactly an answer of STS that names a granted identity lets nobody in."""
    answer, reason = ANSWERS[name]
    identity, text, documents = bench(lambda _: answer)
    refused(lambda: identity.verify(text), reason)
    assert [*documents.find("proof"), *documents.find("aws-identity")] == []


GOOD_ANSWERS: dict[str, tuple[STSAnswer, str]] = {
    "a user": (xml(GOOD), "alice"),
    "a role": (says(CI, CI_ID), "ci"),
    "with a declaration": (xml(b'<?xml version="1.0" encoding="UTF-8"?>\n' + GOOD), "alice"),
    "on one line": (xml(b"".join(line.strip() for line in GOOD.splitlines())), "alice"),
    "with another prefix": (xml(GOOD.replace(b"xmlns=", b"xmlns:s=").replace(b"</", b"</s:").replace(b"<", b"<s:")
                                .replace(b"<s:/s:", b"</s:")), "alice"),
    "with a charset": (STSAnswer(200, "text/xml; charset=utf-8", GOOD), "alice"),
    "as long as allowed": (xml(GOOD.ljust(ANSWER_BYTES_MAX)), "alice"),
    "without metadata": (xml(GOOD[: GOOD.index(b"<ResponseM")] + b"</GetCallerIdentityResponse>"), "alice"),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD_ANSWERS)
def test_answers_of_sts_are_understood(name: str) -> None:
    """STS's own answer is taken in every spelling that XML has for it."""
    answer, user = GOOD_ANSWERS[name]
    identity, text, _ = bench(lambda _: answer)
    assert identity.verify(text).user == user


# Events of Lambda.

Event: TypeAlias = Mapping[str, object]


def rest(**identity: object) -> Event:
    """An event of a REST API with IAM authorisation."""
    named: dict[str, object] = {
        "userArn": CI, "user": CI_ID, "caller": CI_ID, "accountId": ACCOUNT, "accessKey": "ASIA" + "B" * 16,
        "sourceIp": "203.0.113.7", "cognitoIdentityId": None,
    }  # fmt: skip
    return {
        "resource": "/{proxy+}", "httpMethod": "POST", "path": "/v1", "headers": {"host": "x"},
        "requestContext": {"accountId": ACCOUNT, "stage": "prod", "identity": named | identity},
    }  # fmt: skip


def http(**iam: object) -> dict[str, object]:
    """An event of an HTTP API or a function URL with IAM authorisation."""
    named: dict[str, object] = {
        "userArn": CI, "userId": CI_ID, "callerId": CI_ID, "accountId": ACCOUNT, "accessKey": "ASIA" + "B" * 16,
        "cognitoIdentity": None, "principalOrgId": None,
    }  # fmt: skip
    return {
        "version": "2.0", "routeKey": "$default", "rawPath": "/v1", "headers": {"host": "x"},
        "requestContext": {"accountId": ACCOUNT, "authorizer": {"iam": named | iam}},
    }  # fmt: skip


FORGED = '{"identity": {"userArn": "' + CI + '"}, "authorizer": {"iam": {"userArn": "' + CI + '"}}}'
ANONYMOUS, BROKEN = "aws_event_anonymous", "aws_event_malformed"
NOBODY = {"userArn": None, "user": None, "caller": None, "accountId": None, "accessKey": None}
EVENTS: dict[str, tuple[str, Event, str]] = {
    "a route without authorisation": ("rest", rest(**NOBODY), ANONYMOUS),
    "a header of the context's name": (
        "rest", {**rest(**NOBODY), "headers": {"x-amzn-request-context": FORGED}}, ANONYMOUS),
    "the same for HTTP": (
        "http",
        {**http(), "requestContext": {"accountId": ACCOUNT}, "headers": {"x-amzn-request-context": FORGED}},
        ANONYMOUS),
    "an ARN in a header": ("rest", {**rest(**NOBODY), "headers": {"userArn": CI, "x-amz-user-arn": CI}}, ANONYMOUS),
    "an ARN in the body": ("rest", {**rest(**NOBODY), "body": FORGED}, ANONYMOUS),
    "an ARN in the query": ("rest", {**rest(**NOBODY), "queryStringParameters": {"userArn": CI}}, ANONYMOUS),
    "an ARN beside the identity": (
        "rest", {**rest(), "requestContext": {"userArn": CI, "user": CI_ID, "accountId": ACCOUNT}}, ANONYMOUS),
    "an identity beside the context": ("rest", {"identity": {"userArn": CI}, "requestContext": {"x": 1}}, ANONYMOUS),
    "a context that is text": ("rest", {**rest(), "requestContext": FORGED}, BROKEN),
    "no context": ("rest", {"httpMethod": "GET", "headers": {}}, BROKEN),
    "an empty context": ("rest", {**rest(), "requestContext": {}}, BROKEN),
    "an empty event": ("http", {}, BROKEN),
    "an identity that is text": ("rest", {**rest(), "requestContext": {"identity": FORGED}}, ANONYMOUS),
    "an identity that is a list": ("rest", {**rest(), "requestContext": {"identity": [CI]}}, ANONYMOUS),
    "a REST event where HTTP is expected": ("http", rest(), BROKEN),
    "an HTTP event where REST is expected": ("rest", http(), BROKEN),
    "both, where REST is expected": (
        "rest", {**http(), "requestContext": {**rest()["requestContext"]}}, BROKEN),  # type: ignore[dict-item]
    "a version that is a number": ("http", {**http(), "version": 2.0}, BROKEN),
    "no version": ("http", {name: value for name, value in http().items() if name != "version"}, BROKEN),
    "what a Lambda authorizer says": (
        "http", {**http(), "requestContext": {"authorizer": {"lambda": {"userArn": CI, "userId": CI_ID}}}}, ANONYMOUS),
    "what a REST authorizer says": (
        "rest", {**rest(), "requestContext": {"authorizer": {"userArn": CI, "user": CI_ID}}}, ANONYMOUS),
    "claims of a JWT": (
        "http", {**http(), "requestContext": {"authorizer": {"jwt": {"claims": {"userArn": CI}}}}}, ANONYMOUS),
    "an event of a load balancer": (
        "rest", {**rest(**NOBODY), "requestContext": {"elb": {"targetGroupArn": CI}}}, ANONYMOUS),
    "an ARN that is a list": ("rest", rest(userArn=[CI]), ANONYMOUS),
    "no unique id": ("rest", rest(user=None), ANONYMOUS),
    "no account": ("http", http(accountId=None), ANONYMOUS),
    "an account that is a number": ("http", http(accountId=int(ACCOUNT)), ANONYMOUS),
    "a root account": ("http", http(userArn=f"arn:aws:iam::{ACCOUNT}:root", userId=ACCOUNT), "aws_kind_not_taken"),
    "a role that is not granted": (
        "http", http(userArn=CI.replace("/ci/", "/intruder/")), "aws_not_granted"),
    "another account's role": (
        "rest", rest(userArn=CI.replace(ACCOUNT, "9" * 12), accountId="9" * 12), "aws_not_granted"),
    "another account beside the name": ("rest", rest(accountId="9" * 12), "aws_answer_inconsistent"),
    "another session": ("rest", rest(user=CI_ID + "8"), "aws_answer_inconsistent"),
}  # fmt: skip


@pytest.mark.parametrize("name", EVENTS)
def test_attacks_by_events_are_refused(name: str) -> None:
    """Only what AWS itself writes into an event of the configured form counts; headers never do."""
    form, event, reason = EVENTS[name]
    documents = MemoryDocuments()
    identity = LambdaIdentity(form, GRANTS, documents)  # type: ignore[arg-type]
    refused(lambda: identity.verify(event), reason)
    assert [*documents.find("aws-identity")] == []


@pytest.mark.parametrize(
    ("form", "event", "user"),
    [
        ("rest", rest(), "ci"),
        ("rest", rest(userArn=ALICE, user=ALICE_ID, caller=ALICE_ID), "alice"),
        ("rest", {**rest(), "version": "1.0"}, "ci"),
        ("http", http(), "ci"),
        ("http", http(userArn=ALICE, userId=ALICE_ID, callerId=ALICE_ID), "alice"),
        ("http", {**http(), "headers": {"x-amzn-request-context": "{}"}}, "ci"),
        ("http", http(userArn=f"arn:aws-cn:iam::{ACCOUNT}:user/li", userId=ALICE_ID), "li"),
    ],
)
def test_events_of_lambda_are_understood(form: str, event: Event, user: str) -> None:
    """Whom a gateway of AWS has authenticated comes in, again and again, from whatever partition."""
    identity = LambdaIdentity(form, GRANTS, MemoryDocuments())  # type: ignore[arg-type]
    first = identity.verify(event)
    assert first == identity.verify(event)
    assert first == Principal(user=user, scopes=SCOPES, method="aws", session_id=first.session_id)


def test_a_role_made_anew_inherits_nothing_through_events() -> None:
    """Both ways share what they have seen: the unique id that came first under a name is the only one taken."""
    documents = MemoryDocuments()
    identity = LambdaIdentity("http", GRANTS, documents)
    identity.verify(http())
    seen = [*documents.find("aws-identity")]
    again = http(userId="AROA" + "C" * 17 + ":build-7")
    refused(lambda: identity.verify(again), "aws_id_changed")
    rest_identity = LambdaIdentity("rest", GRANTS, documents)
    refused(lambda: rest_identity.verify(rest(user="AROA" + "C" * 17 + ":build-7")), "aws_id_changed")
    assert [*documents.find("aws-identity")] == seen
    assert identity.forget(f"arn:aws:iam::{ACCOUNT}:role/ci") is True
    assert identity.verify(again).session_id == "AROA" + "C" * 17


def test_there_are_enough_cases() -> None:
    """The corpus does not shrink unnoticed."""
    assert len(PROOFS) + len(ANSWERS) + len(EVENTS) >= 250
    assert len(WELCOME) + len(GOOD_ANSWERS) + 7 >= 25


# The way in.


def test_a_login_through_the_front_door(world: World) -> None:
    """A proof in a request's headers lets in once; the token it is exchanged for opens again and again, and ends."""
    documents, now = MemoryDocuments(clock=world.clock), world.clock
    keys = KeySet.shared({"k1": Secret(secrets.token_bytes(32))})
    tokens = Tokens(keys, "https://gateway.example.com", "gateway", documents=documents, clock=now)
    door = Authenticator(tokens=tokens, aws=world.identity)
    text = world.prove(world.people.bob)
    assert door.authenticate([("Authorization", f"Bearer {text}")]).user == "bob"
    refused(lambda: door.authenticate([("Authorization", f"Bearer {text}")]), "aws_proof_used")

    login = Exchange(world.identity, tokens).exchange(world.prove(world.people.ci))
    for _ in range(2):
        principal = door.authenticate([("authorization", f"Bearer {login.reveal()}")])
        assert (principal.user, principal.scopes, principal.method) == ("ci", SCOPES, "jwt")
        assert 900_000 <= (principal.expires_ms or 0) - NOW_MS <= 960_000  # a quarter of an hour, and leeway
    refused(lambda: world.identity.verify(login.reveal()), "aws_proof_malformed")
    now.advance(900_000 + 60_000)
    with pytest.raises(Unauthenticated):
        door.authenticate([("authorization", f"Bearer {login.reveal()}")])
