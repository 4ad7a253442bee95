"""AWS identities: what is set up, what is remembered, who is let in when things happen at once or not at all."""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC
from threading import Barrier, Event
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rr_aws import ACCOUNT, ALLOWED, REGION, SERVER_ID, Key, StrictSTS, answer_xml, error_xml
from runrails import ConfigError
from runrails.cli import main
from runrails.documents import Address, Document, DocumentStore
from runrails.documents.memory import MemoryDocuments
from runrails.errors import StoreUnavailable
from runrails.identity.errors import AuthBusy, Unauthenticated
from runrails.identity.principal import Principal
from runrails.secretvalue import Secret
from runrails.testing import ManualClock
from runrails_aws.identity import (
    REASONS,
    AWSIdentity,
    Exchange,
    Grant,
    Grants,
    HTTPSTransport,
    LambdaIdentity,
    Proof,
    is_proof,
    parse_proof,
    sign_proof,
)
from runrails_aws.identity.answer import ANSWER_BYTES_MAX, STSAnswer
from runrails_aws.identity.canonical import STSRequest, signed_request
from runrails_aws.identity.proof import PROOF_CHARS_MAX
from runrails_aws.identity.regions import REGIONS
from runrails_aws.identity.verify import WINDOW_MS

USER_ARN = f"arn:aws:iam::{ACCOUNT}:user/alice"
ROLE_ARN = f"arn:aws:iam::{ACCOUNT}:role/ci"
SCOPES = frozenset({"ai:complete"})
GRANTS = [Grant(arn=USER_ARN, user="alice", scopes=SCOPES), Grant(arn=ROLE_ARN, user="ci", org="acme", scopes=SCOPES)]
USER_ID = "AIDA" + "B" * 17


class Bench:
    """A server, an STS, and one user."""

    def __init__(self, **settings: object) -> None:
        self.clock = ManualClock()
        self.sts = StrictSTS(self.clock)
        self.alice = self.sts.user("alice")
        self.documents: DocumentStore = MemoryDocuments(clock=self.clock)
        self.identity = self.server(**settings)

    def server(self, **settings: object) -> AWSIdentity:
        given = {"transport": self.sts, "regions": ALLOWED, "clock": self.clock} | settings
        grants = given.pop("grants", GRANTS)
        return AWSIdentity(SERVER_ID, grants, given.pop("documents", self.documents), **given)  # type: ignore[arg-type]

    def proof(self, key: Key | None = None) -> Proof:
        return sign_proof(SERVER_ID, REGION, credentials=key or self.alice, clock=self.clock)

    def verified(self) -> str:
        return self.identity.verify(self.proof()).user

    def used(self) -> int:
        return len(list(self.documents.find("proof")))


def reason_of(call: Callable[[], object]) -> str:
    with pytest.raises(Unauthenticated) as caught:
        call()
    return caught.value.reason


# What is set up.


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"regions": "eu-central-1"}, "several"),
        ({"regions": []}, "Without a region"),
        ({"regions": ["eu-central-1", "eu-central-9"]}, "no region eu-central-9"),
        ({"regions": ["us-iso-east-1"]}, "us-iso-east-1"),
        ({"regions": ["EU-CENTRAL-1"]}, "EU-CENTRAL-1"),
        ({"in_flight_max": 0}, "in_flight_max"),
        ({"in_flight_max": 257}, "in_flight_max"),
        ({"in_flight_max": True}, "in_flight_max"),
        ({"in_flight_max": 2.0}, "in_flight_max"),
        ({"grants": [*GRANTS, GRANTS[0]]}, "two grants"),
    ],
)
def test_a_server_that_is_set_up_wrongly_does_not_start(settings: dict[str, object], hint: str) -> None:
    """What would let the wrong ones in, or nobody, is refused before anybody comes."""
    with pytest.raises(ConfigError, match=hint):
        Bench().server(**settings)


@pytest.mark.parametrize("server_id", ["", "a b", "gateway\r\nx: y", "ga\u0442eway", "x" * 129, "-x", None])
def test_a_server_needs_a_name_that_a_header_can_carry(server_id: str) -> None:
    """Server and caller refuse a malformed id alike."""
    with pytest.raises(ConfigError, match="server's id"):
        AWSIdentity(server_id, GRANTS, MemoryDocuments(), regions=ALLOWED)
    with pytest.raises(ConfigError, match="server's id"):
        sign_proof(server_id, REGION, credentials=Key("AKIA" + "B" * 16, "s"))


@pytest.mark.parametrize(
    ("field", "values"),
    [
        (
            "arn",
            [
                "", "*", f"arn:aws:iam::{ACCOUNT}:root", f"arn:aws:iam::{ACCOUNT}:user/*", "arn:aws:iam::*:role/ci",
                f"arn:aws:iam::{ACCOUNT}:role/svc/ci", f"arn:aws:sts::{ACCOUNT}:assumed-role/ci/x", f"{ROLE_ARN}\n",
                f"arn:aws-iso:iam::{ACCOUNT}:role/ci", "arn:aws:iam::12345678901:role/ci", f"{USER_ARN} ", None,
                f"arn:aws:iam::{ACCOUNT}:user//alice", f"arn:aws:iam::{ACCOUNT}:user/\u0430lice",
            ],
        ),
        ("user", ["", "a b", "user:alice", None]),
        ("org", ["", "a/b"]),
        ("scopes", [frozenset(), frozenset({"*"}), frozenset({"ai:complete", "admin:*"}), frozenset({"AI:COMPLETE"})]),
        ("unique_id", ["", 5, "AIDA", "AROA" + "B" * 17, "alice", USER_ID.lower(), f"{USER_ID}:x"]),
    ],
)  # fmt: skip
def test_grants_are_exact(field: str, values: list[object]) -> None:
    """A grant names one user or role, one of ours, and powers that exist; there is no pattern."""
    for value in values:
        with pytest.raises(ValueError):
            replace(GRANTS[0], **{field: value})
    with pytest.raises(TypeError, match="several"):
        replace(GRANTS[0], scopes="ai:complete")  # type: ignore[arg-type]


def test_what_a_grant_says_that_is_right() -> None:
    """Paths of users, single sign-on roles, every partition, and scopes as any collection."""
    named = [
        f"arn:{partition}:iam::{ACCOUNT}:{name}"
        for partition in ("aws", "aws-cn", "aws-us-gov")
        for name in ("user/a", "user/a/b/c.d", "role/AWSReservedSSO_X_0123", "role/a+b=c,d.e@f-g_h")
    ]
    grants = Grants(Grant(arn=arn, user="u", scopes=["ai:embed"]) for arn in named)  # type: ignore[arg-type]
    assert len(named) == len(grants)
    assert {frozenset({"ai:embed"})} == {grant.scopes for arn in named if (grant := grants.of(arn))}
    assert grants.of(named[0].upper()) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"region": None}, {"key_id": 5}, {"date": None}, {"signature": "0" * 64}, {"signature": None},
        {"token": "A" * 40}, {"token": b"A" * 40},
    ],
)  # fmt: skip
def test_a_proof_is_of_the_right_types(fields: dict[str, object]) -> None:
    """What is no text, and a secret that is not kept as one, is refused as malformed."""
    right = {"region": REGION, "key_id": "AKIA" + "B" * 16, "date": "20261118T110640Z", "signature": Secret("0" * 64)}
    assert Proof(**right)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="malformed"):
        Proof(**right | fields)  # type: ignore[arg-type]


def test_what_is_allowed_at_the_edges() -> None:
    """The most and the least that may wait, grants that are grants already, and HTTPS where nothing else is said."""
    grants = Grants(GRANTS)
    for most in (1, 256):
        assert "alice" == Bench(grants=grants, in_flight_max=most).verified()
    documents = MemoryDocuments()
    asked = AWSIdentity(SERVER_ID, grants, documents, regions=["eu-central-1"])._transport
    assert isinstance(asked, HTTPSTransport)
    assert 16 * 1024 == ANSWER_BYTES_MAX


def test_there_is_no_third_form_of_events() -> None:
    """Which events a function gets is written down, not guessed from what came."""
    with pytest.raises(ConfigError, match="form"):
        LambdaIdentity("alb", GRANTS, MemoryDocuments())  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout_ms", [0, 60_001, True, 1.5])
def test_time_for_sts_is_bounded(timeout_ms: int) -> None:
    """A transport without an end is refused."""
    with pytest.raises(ConfigError, match="timeout_ms"):
        HTTPSTransport(timeout_ms=timeout_ms)


def test_the_table_of_regions_is_amazons() -> None:
    """Every region there is one that botocore knows, in the same partition, under the same host."""
    from botocore.loaders import Loader
    from botocore.regions import EndpointResolver

    resolver = EndpointResolver(Loader().load_data("endpoints"))
    partitions = {"aws", "aws-cn", "aws-us-gov"}
    known = {
        name: (partition, resolver.construct_endpoint("sts", name, partition)["hostname"])
        for partition in partitions
        for name in resolver.get_available_endpoints("sts", partition)
    }
    # An older botocore lacks regions, a newer one may have more than the table.
    both = known.keys() & REGIONS.keys()
    assert len(both) >= 30
    assert {name: known[name] for name in both} == {
        name: (REGIONS[name].partition, REGIONS[name].host) for name in both
    }
    assert partitions == {region.partition for region in REGIONS.values()}


# What is remembered.


def test_a_pinned_identity_is_the_only_one() -> None:
    """A grant that names the unique id takes no other, from the first time on, and remembers nothing."""
    bench = Bench()
    bench.sts.role("ci")
    other = [Grant(arn=ROLE_ARN, user="ci", scopes=SCOPES, unique_id="AROA" + "C" * 17)]
    key = bench.sts.assume("ci", "build")
    proof = bench.proof(key)
    assert "aws_id_changed" == reason_of(lambda: bench.server(grants=other).verify(proof))
    right = [replace(other[0], unique_id=bench.sts.roles["aws", "ci"])]
    assert "ci" == bench.server(grants=right).verify(proof).user
    assert [] == list(bench.documents.find("aws-identity"))


def test_a_role_made_anew_comes_in_when_its_operator_says_so() -> None:
    """Until then whoever makes a role of a known name inherits nothing; and nobody else's memory is touched."""
    bench = Bench()
    bench.identity.verify(bench.proof())
    bench.sts.role("ci")
    bench.identity.verify(bench.proof(bench.sts.assume("ci", "build")))
    bench.sts.role("ci")
    again = bench.proof(bench.sts.assume("ci", "build"))
    assert "aws_id_changed" == reason_of(lambda: bench.identity.verify(again))
    assert [True, False] == [bench.identity.forget(ROLE_ARN), bench.identity.forget(ROLE_ARN)]
    assert "ci" == bench.identity.verify(again).user
    assert 2 == len(list(bench.documents.find("aws-identity")))
    with pytest.raises(ValueError, match="exact ARN"):
        bench.identity.forget("arn:aws:sts::123456789012:assumed-role/ci/build")


def test_a_used_proof_is_remembered_longer_than_it_could_be_used() -> None:
    """An hour beyond its window, for hosts whose clocks differ; then it is forgotten, so nothing grows."""
    bench = Bench()
    text = bench.proof().reveal()
    bench.identity.verify(text)
    late = bench.server(clock=lambda: bench.clock() - 3_600_000)  # a host whose clock is an hour behind
    bench.clock.advance(WINDOW_MS + 3_599_999)
    assert 1 == bench.used()
    assert "aws_proof_used" == reason_of(lambda: late.verify(text))
    bench.clock.advance(1)
    assert 0 == bench.used()
    assert "aws_sts_clock" == reason_of(lambda: late.verify(text))  # by then AWS itself has long refused it


def test_clocks_that_differ_close() -> None:
    """A server whose clock is wrong lets nobody in, and its log says which clock to look at."""
    bench = Bench()
    proof = bench.proof()
    for off_ms, reason in [(-30_001, "aws_proof_early"), (WINDOW_MS + 1, "aws_proof_stale")]:
        wrong = bench.server(clock=lambda off_ms=off_ms: bench.clock() + off_ms)
        assert reason == reason_of(lambda wrong=wrong: wrong.verify(proof))  # type: ignore[misc]
        assert "clock" in REASONS[reason]
    bench.clock.advance(16 * 60_000)
    ours = bench.server(clock=lambda: bench.clock() - 16 * 60_000)
    assert "aws_sts_clock" == reason_of(lambda: ours.verify(proof))
    assert 0 == bench.used()


def test_a_session_that_has_ended_is_refused_by_aws() -> None:
    """A proof signed in time by credentials that end before it is shown."""
    bench = Bench()
    bench.sts.role("ci")
    proof = bench.proof(bench.sts.assume("ci", "build", ends_ms=bench.clock() + 1_000))
    bench.clock.advance(1_000)
    assert "aws_session_expired" == reason_of(lambda: bench.identity.verify(proof))


# What happens at once.


def test_of_all_who_show_one_proof_at_once_one_comes_in() -> None:
    """Whatever the order in which hosts ask AWS, a proof opens once."""
    bench = Bench()
    together = Barrier(8)

    def slow(request: STSRequest, /) -> STSAnswer:
        together.wait(10)
        return bench.sts(request)

    servers = [bench.server(transport=slow) for _ in range(8)]
    proof = bench.proof()

    def outcome(server: AWSIdentity) -> str:
        try:
            return server.verify(proof).user
        except Unauthenticated as refused:
            return refused.reason

    with ThreadPoolExecutor(8) as pool:
        outcomes = sorted(pool.map(outcome, servers))
    assert ["alice", *["aws_proof_used"] * 7] == outcomes
    assert 1 == bench.used()


class Racing(MemoryDocuments):
    """Two hosts have both looked for an identity before either writes it."""

    def __init__(self, clock: Callable[[], int]) -> None:
        super().__init__(clock=clock)
        self.together = Barrier(2)
        self.looks = 0

    def get(self, address: Address) -> Document | None:
        found = super().get(address)
        if address.kind == "aws-identity":
            self.looks += 1
            if self.looks <= 2:
                self.together.wait(10)
        return found


def test_of_two_first_identities_under_one_name_one_is_kept() -> None:
    """Two hosts that see two unique ids at the same first time do not both take theirs."""
    bench = Bench()
    documents = Racing(bench.clock)
    bench.sts.user("alice")
    keys = list(bench.sts.keys.values())
    proofs = [bench.proof(known.key) for known in keys]
    server = bench.server(documents=documents)

    def outcome(proof: Proof) -> str:
        try:
            return str(server.verify(proof).session_id)
        except Unauthenticated as refused:
            return refused.reason

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(outcome, proofs)
    assert "aws_id_changed" in (first, second)
    assert {first, second} - {"aws_id_changed"} < {known.user_id for known in keys}
    assert 1 == len(list(documents.find("aws-identity")))


def test_two_first_logins_of_one_identity_both_come_in() -> None:
    """Whoever writes second finds the same unique id; and once it is known nobody writes it again."""
    bench = Bench()
    documents = Racing(bench.clock)
    server = bench.server(documents=documents)
    first = bench.proof()
    bench.clock.advance(1_000)
    with ThreadPoolExecutor(2) as pool:
        assert ["alice", "alice"] == [one.user for one in pool.map(server.verify, [first, bench.proof()])]
    [seen] = documents.find("aws-identity")
    bench.clock.advance(1_000)
    looked = documents.looks
    assert "alice" == server.verify(bench.proof()).user
    assert (looked + 1, [seen]) == (documents.looks, list(documents.find("aws-identity")))


def test_an_identity_that_cannot_be_kept_is_not_taken() -> None:
    """A store that neither has nor takes it, as when somebody else forgets it in between, closes."""
    bench = Bench()

    class Forgetful(MemoryDocuments):
        """Keeps nothing."""

        def put(
            self, address: Address, data: bytes, *, expected: int, expires_ms: int | None = None
        ) -> Document | None:
            return None

    server = bench.server(documents=Forgetful(clock=bench.clock))
    assert "aws_id_changed" == reason_of(lambda: server.verify(bench.proof()))


def test_no_more_wait_for_sts_than_may() -> None:
    """A flood of proofs holds as many threads as it may. A good one is told to come again, and not that it is wrong."""
    bench = Bench()
    entered, go = Event(), Event()

    def stuck(request: STSRequest, /) -> STSAnswer:
        entered.set()
        go.wait(30)
        return bench.sts(request)

    server = bench.server(transport=stuck, in_flight_max=1)
    first = bench.proof()
    bench.clock.advance(1_000)
    second = bench.proof()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.verify, first)
        assert entered.wait(30)
        with pytest.raises(AuthBusy) as caught:
            server.verify(second)
        assert (503, "aws_busy") == (caught.value.http_status, caught.value.reason)
        assert "aws" not in f"{caught.value} {caught.value.as_dict()}" and 0 == bench.used()
        go.set()
        assert "alice" == waiting.result(30).user
    assert "alice" == server.verify(second).user


class Broken(Exception):
    """What somebody else's transport may raise, with everything in it."""


def test_a_transport_that_breaks_closes_and_tells_nothing() -> None:
    """Whatever it raises, nobody comes in, and the place it held is free again."""
    bench = Bench()
    bench.sts.role("ci")
    key = bench.sts.assume("ci", "build")

    def broken(request: STSRequest, /) -> STSAnswer:
        raise Broken(dict(request.headers))

    server = bench.server(transport=broken, in_flight_max=1)
    proof = bench.proof(key)
    for _ in range(3):
        with pytest.raises(Unauthenticated) as caught:
            server.verify(proof)
        assert "aws_sts_unreachable" == caught.value.reason
        assert caught.value.__context__ is None
    assert 0 == bench.used()


def test_without_its_documents_nobody_comes_in() -> None:
    """Where nobody can say whether a proof was used, it is not taken; it can be shown again later."""
    bench = Bench()

    class Down(MemoryDocuments):
        """Reads or writes fail."""

        failing = "get"

        def get(self, address: Address) -> Document | None:
            self._maybe("get")
            return super().get(address)

        def put(
            self, address: Address, data: bytes, *, expected: int, expires_ms: int | None = None
        ) -> Document | None:
            self._maybe("put")
            return super().put(address, data, expected=expected, expires_ms=expires_ms)

        def _maybe(self, verb: str) -> None:
            if self.failing == verb:
                raise StoreUnavailable("It is down.", next_step="Wait.")

    documents = Down(clock=bench.clock)
    server = bench.server(documents=documents)
    proof = bench.proof()
    for documents.failing in ("get", "put"):
        with pytest.raises(StoreUnavailable):
            server.verify(proof)
    documents.failing = ""
    assert "alice" == server.verify(proof).user


# The caller's side.


def test_proofs_are_signed_by_whatever_credentials_a_session_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """A boto3 session, the default one, credentials that renew themselves; the token goes along if there is one."""
    import boto3

    bench = Bench()
    bench.sts.role("ci")
    key = bench.sts.assume("ci", "build")
    assert key.token is not None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key.secret_key)
    monkeypatch.setenv("AWS_SESSION_TOKEN", key.token)
    proof = sign_proof(SERVER_ID, REGION, clock=bench.clock)
    assert (key.access_key, Secret(key.token)) == (proof.key_id, proof.token)
    assert proof == sign_proof(SERVER_ID, REGION, session=boto3.session.Session(), clock=bench.clock)
    assert proof == sign_proof(SERVER_ID, REGION, credentials=key, clock=bench.clock)
    renewing = SimpleNamespace(get_frozen_credentials=lambda: bench.alice)
    other = SimpleNamespace(get_credentials=lambda: renewing)
    assert bench.alice.access_key == sign_proof(SERVER_ID, REGION, session=other, clock=bench.clock).key_id
    assert "ci" == bench.identity.verify(proof).user


def test_who_has_no_credentials_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials, a missing profile, credentials of an emulator, no such region: an error that says what to do."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    nobody = SimpleNamespace(get_credentials=lambda: None)
    with pytest.raises(ConfigError, match="no AWS credentials"):
        sign_proof(SERVER_ID, REGION, session=nobody)
    with pytest.raises(ConfigError, match="ProfileNotFound"):
        sign_proof(SERVER_ID, REGION, profile="nobody")
    with pytest.raises(ConfigError, match="access key id"):
        sign_proof(SERVER_ID, REGION, credentials=Key("test", "test"))
    with pytest.raises(ConfigError, match="session token"):
        sign_proof(SERVER_ID, REGION, credentials=Key("ASIA" + "B" * 16, "test"))
    with pytest.raises(ConfigError, match="no region of that name"):
        sign_proof(SERVER_ID, "mars", credentials=Key("AKIA" + "B" * 16, "test"))


def test_a_proof_is_printed_for_a_shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`runrails aws proof` prints one line that the server takes, without the secret in it."""
    bench = Bench()
    bench.clock.set(time.time_ns() // 1_000_000)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", bench.alice.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", bench.alice.secret_key)
    assert 0 == run(["aws", "proof", SERVER_ID, "--region", REGION])
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert bench.alice.secret_key not in told
    assert "alice" == bench.identity.verify(told.strip()).user
    assert 2 == run(["aws", "proof", SERVER_ID, "--region", "mars"])
    assert 2 == run(["aws", "proof", "a b", "--region", REGION, "--json"])
    assert "" == capsys.readouterr().out


def run(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return int(str(left.value.code or 0))


# The text.

FIELDS = st.fixed_dictionaries(
    {
        "region": st.sampled_from(sorted(REGIONS)),
        "key_id": st.from_regex(r"AKIA[A-Z0-9]{12,60}", fullmatch=True),
        "date": st.datetimes(timezones=st.just(UTC)).map(
            lambda moment: moment.replace(year=2000 + moment.year % 100, day=min(moment.day, 28)).strftime(
                "%Y%m%dT%H%M%SZ"
            )
        ),
        "signature": st.from_regex(r"[0-9a-f]{64}", fullmatch=True).map(Secret),
    }
)


@settings(max_examples=50, deadline=None)
@given(FIELDS, st.none() | st.from_regex(r"[A-Za-z0-9+/_-]{16,200}={0,2}", fullmatch=True))
def test_what_is_written_is_read(fields: dict[str, object], token: str | None) -> None:
    """Every proof has one text, and every text one proof."""
    if token is not None:
        fields = {**fields, "key_id": str(fields["key_id"]).replace("AKIA", "ASIA", 1), "token": Secret(token)}
    proof = Proof(**fields)  # type: ignore[arg-type]
    text = proof.reveal()
    assert (proof, text) == (parse_proof(text), parse_proof(text).reveal())
    assert is_proof(text)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_text_breaks_the_reader(data: st.DataObject) -> None:
    """Cut, doubled, exchanged or foreign characters: a proof in its one spelling, or a ValueError."""
    good = f"runrails-aws-v1.{REGION}.ASIA{'B' * 16}.20261118T110640Z.{'0' * 64}.{'A' * 40}="
    at = data.draw(st.integers(0, len(good)))
    text = good[:at] + data.draw(st.text(max_size=8)) + good[at + data.draw(st.integers(0, 8)) :]
    try:
        read = parse_proof(text).reveal()
    except ValueError:
        return
    assert text == read


def test_the_longest_proof_fits() -> None:
    """A token of the longest form goes into the text, and a text of one character more is refused unread."""
    room = PROOF_CHARS_MAX - len(f"runrails-aws-v1.{REGION}.ASIA{'B' * 16}.20261118T110640Z.{'0' * 64}.")
    proof = Proof(
        region=REGION, key_id="ASIA" + "B" * 16, date="20261118T110640Z", signature=Secret("0" * 64),
        token=Secret("A" * room),
    )  # fmt: skip
    assert PROOF_CHARS_MAX == len(proof.reveal())
    assert proof == parse_proof(proof.reveal())
    with pytest.raises(ValueError, match="at most 4,096"):
        parse_proof(proof.reveal() + "A")


# A token instead.


class Issuer:
    """Issues what it is asked for, and remembers it."""

    def __init__(self) -> None:
        self.issued: list[tuple[Principal, int]] = []

    def issue(self, principal: Principal, ttl_ms: int) -> Secret:
        self.issued.append((principal, ttl_ms))
        return Secret(f"token-{len(self.issued)}")


def test_a_proof_is_exchanged_for_a_token_of_a_quarter_of_an_hour() -> None:
    """Once; the token lives as long as it says, not as short as the proof; who is refused gets none."""
    bench, issuer = Bench(), Issuer()
    exchange = Exchange(bench.identity, issuer)
    proof = bench.proof()
    assert Secret("token-1") == exchange.exchange(proof.reveal())
    [(principal, ttl_ms)] = issuer.issued
    assert (900_000, None, "alice", SCOPES) == (ttl_ms, principal.expires_ms, principal.user, principal.scopes)
    assert "aws_proof_used" == reason_of(lambda: exchange.exchange(proof))
    assert 1 == len(issuer.issued)
    for ttl_ms in (1_000, 3_600_000):
        bench.clock.advance(1_000)
        Exchange(bench.identity, issuer, ttl_ms=ttl_ms).exchange(bench.proof())
    assert [1_000, 3_600_000] == [issued for _, issued in issuer.issued[1:]]
    for wrong in (999, 3_600_001, True, 5_000.0):
        with pytest.raises(ConfigError, match="ttl_ms"):
            Exchange(bench.identity, issuer, ttl_ms=wrong)  # type: ignore[arg-type]


# Nothing leaks.


def pieces(secret: str) -> Iterator[str]:
    """Every twelve characters of it."""
    return (secret[at : at + 12] for at in range(len(secret) - 11))


def test_no_part_of_a_secret_shows_anywhere(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Session token, signature and secret key: not in logs at DEBUG, output, reprs or errors, whatever happens."""
    caplog.set_level(logging.DEBUG)
    bench = Bench()
    bench.sts.role("ci")
    key = bench.sts.assume("ci", "build")
    proof = bench.proof(key)
    assert key.token is not None
    shown: list[str] = [repr(proof), str(proof), f"{proof}", repr(asdict(proof)), repr([proof]), repr(bench.identity)]
    request = signed_request(REGIONS[REGION], SERVER_ID, proof)
    shown += [repr(request), str(request)]
    shown += [repr(bench.identity.verify(proof))]
    answers = [
        STSAnswer(403, "text/xml", error_xml(code, f"{key.token} {proof.signature.reveal()}"))
        for code in ("SignatureDoesNotMatch", "ExpiredToken", "Other")
    ]
    answers += [STSAnswer(200, "text/xml", answer_xml(str(key.token), proof.signature.reveal()))]
    for answer in answers:
        server = bench.server(transport=lambda _, answer=answer: answer, documents=MemoryDocuments())
        shown += told(lambda server=server: server.verify(proof))  # type: ignore[misc]
    text = proof.reveal()
    for bad in (text, text + "\n", text.replace(".", ".."), text.upper(), text[:-30], text.replace("eu-", "us-", 1)):
        shown += told(lambda bad=bad: bench.identity.verify(bad))  # type: ignore[misc]
    with pytest.raises(TypeError) as caught:
        pickle.dumps(proof)
    shown += [str(caught.value)]
    for change in ({"token": Secret(key.token + "\n")}, {"signature": Secret(key.token)}, {"token": None}):
        with pytest.raises(ValueError) as wrong:
            replace(proof, **change)  # type: ignore[arg-type]
        shown += [repr(wrong.value), repr(wrong.value.__context__)]
    out = capfd.readouterr()
    everything = "\n".join([*shown, caplog.text, out.out, out.err])
    assert "Proof(region=" in everything
    for secret in (key.secret_key, key.token, proof.signature.reveal()):
        assert [] == [piece for piece in pieces(secret) if piece in everything]


def told(call: Callable[[], object]) -> list[str]:
    """Everything an error and those behind it say."""
    with pytest.raises(Unauthenticated) as caught:
        call()
    said: list[str] = []
    error: BaseException | None = caught.value
    while error is not None:
        said += [repr(error), str(error), repr(error.args), repr(vars(error))]
        error = error.__cause__ or error.__context__
    return [*said, repr(caught.value.as_dict()), repr(pickle.loads(pickle.dumps(caught.value)))]
