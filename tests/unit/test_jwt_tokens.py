"""Tokens from being made to being taken back, and the keys they are signed with."""

from __future__ import annotations

import json
import logging
import pickle
import traceback
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from rr_jwt import (
    AUDIENCE,
    EC,
    ED,
    ISSUER,
    NOW_MS,
    NOW_S,
    SECRETS,
    CountingDocuments,
    Desk,
    b64,
    claims,
    drawn,
    header,
    pem,
    public_keys,
    public_pem,
    shared_keys,
    token,
)
from runrails.documents import Address
from runrails.errors import ConfigError, StoreUnavailable
from runrails.identity.errors import Unauthenticated
from runrails.identity.jwt import Key, KeySet, Tokens
from runrails.identity.principal import SCOPES, Principal
from runrails.rates import Rates
from runrails.secretvalue import Secret
from runrails.testing import ManualClock

ALICE = Principal(user="alice", org="acme", scopes=frozenset({"ai:complete", "ai:agent"}), method="local")


def payload(text: str) -> dict[str, Any]:
    """What a token says, without verifying it."""
    from base64 import urlsafe_b64decode

    body = text.split(".")[1]
    return json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))


@pytest.mark.parametrize("keys", [shared_keys, public_keys])
def test_what_is_issued_is_verified(keys: Any) -> None:
    """Whom a token was made for is who comes back, with its id and its end."""
    desk = Desk(keys())
    made = desk.tokens.issue(ALICE, 900_000)
    assert "Secret(…)" == repr(made)
    found = desk.tokens.verify(made.reveal())
    told = payload(made.reveal())
    assert (
        Principal(
            user="alice",
            org="acme",
            scopes=ALICE.scopes,
            method="jwt",
            session_id=told["jti"],
            expires_ms=NOW_MS + 930_000,
        )
        == found
    )
    assert (NOW_S, NOW_S + 900, "service", AUDIENCE, ISSUER) == tuple(
        told[name] for name in ("iat", "exp", "type", "aud", "iss")
    )


def test_every_token_has_an_id_of_its_own() -> None:
    """Two tokens for the same person differ, so that one can be taken back alone."""
    desk = Desk()
    first, second = (desk.tokens.issue(ALICE).reveal() for _ in range(2))
    assert payload(first)["jti"] != payload(second)["jti"]


@pytest.mark.parametrize("ttl_ms", [-1, 0, 999, 3_600_001, 10**12])
def test_a_token_lives_a_second_to_an_hour(ttl_ms: int) -> None:
    """Longer or shorter ones are not made; the bounds themselves are."""
    desk = Desk()
    with pytest.raises(ValueError, match=r"1 to 3,600 seconds"):
        desk.tokens.issue(ALICE, ttl_ms)
    for good in (1_000, 3_600_000):
        assert "alice" == desk.tokens.verify(desk.tokens.issue(ALICE, good).reveal()).user


def test_a_token_ends_with_its_time() -> None:
    """It is good until half a minute after its end, and not a millisecond more."""
    desk = Desk()
    text = desk.tokens.issue(ALICE, 60_000).reveal()
    desk.clock.advance(89_999)
    assert "alice" == desk.tokens.verify(text).user
    desk.clock.advance(1)
    with pytest.raises(Unauthenticated):
        desk.tokens.verify(text)


def test_a_token_does_not_outlive_what_it_was_made_from() -> None:
    """The end of the principal's own credential is the end of the token; when it is over, none is made."""
    desk = Desk()
    ending = Principal(user="alice", scopes=ALICE.scopes, method="aws", expires_ms=NOW_MS + 5_500)
    assert NOW_S + 5 == payload(desk.tokens.issue(ending).reveal())["exp"]
    desk.clock.advance(5_000)
    with pytest.raises(ValueError, match="expired"):
        desk.tokens.issue(ending)


def test_a_token_made_from_a_token_gains_nothing() -> None:
    """However often somebody comes with a token and is given another, the end stays where it was."""
    desk = Desk()
    text = desk.tokens.issue(ALICE, 60_000).reveal()
    for _ in range(4):
        desk.clock.advance(10_000)
        text = desk.tokens.issue(desk.tokens.verify(text), 60_000).reveal()
        assert NOW_S + 60 == payload(text)["exp"]
    desk.clock.advance(20_000)
    with pytest.raises(ValueError, match="expired"):
        desk.tokens.issue(desk.tokens.verify(text))


@pytest.mark.parametrize(
    "limits", [{"key_id": "k1"}, {"rates": Rates(requests_per_minute=1)}, {"month_pusd": 1}, {"scopes": frozenset()}]
)
def test_what_a_token_cannot_carry_is_not_made_into_one(limits: dict[str, Any]) -> None:
    """An API key's limits would be lost on the way, so no token is made from one; nor one without scopes."""
    desk = Desk()
    told = {"user": "alice", "scopes": ALICE.scopes, "method": "api_key", **limits}
    with pytest.raises(ValueError, match=r"API key|scope"):
        desk.tokens.issue(Principal(**told))


def test_no_token_is_too_long_to_be_taken() -> None:
    """With all names as long as they may be, a token is half of what is taken."""
    clock = ManualClock(NOW_MS)
    keys = KeySet.shared({"k" * 128: Secret(SECRETS["hs1"])})
    tokens = Tokens(
        keys, "i" * 256, "a" * 256, documents=CountingDocuments(clock), clock=clock, make_id=lambda: "j" * 128
    )
    long = Principal(user="a" * 128, org="b" * 128, scopes=SCOPES, method="local")  # type: ignore[arg-type]
    text = tokens.issue(long).reveal()
    assert len(text) < 2_500 and "a" * 128 == tokens.verify(text).user


@pytest.mark.parametrize("name", ["", " ", "a b", "é", "a\n", "x" * 257])
def test_issuer_and_audience_are_names(name: str) -> None:
    """Neither may be empty, too long or hard to compare."""
    documents = CountingDocuments(ManualClock(NOW_MS))
    for pair in ((name, AUDIENCE), (ISSUER, name)):
        with pytest.raises(ConfigError):
            Tokens(shared_keys(), *pair, documents=documents)


def test_keys_are_changed_without_dropping_a_request() -> None:
    """While both keys are known, tokens of both are taken; when the old one is gone, its tokens are."""
    desk = Desk()
    old = desk.tokens.issue(ALICE).reveal()
    both = KeySet.shared({kid: Secret(secret) for kid, secret in SECRETS.items()}, signing="hs2")
    changing = Tokens(both, ISSUER, AUDIENCE, documents=desk.documents, clock=desk.clock)
    new = changing.issue(ALICE).reveal()
    assert ["alice"] * 4 == [each.verify(text).user for each in (desk.tokens, changing) for text in (old, new)]
    after = Tokens(
        KeySet.shared({"hs2": Secret(SECRETS["hs2"])}), ISSUER, AUDIENCE, documents=desk.documents, clock=desk.clock
    )
    assert "alice" == after.verify(new).user
    with pytest.raises(Unauthenticated):
        after.verify(old)


def test_a_revoked_token_ends_everywhere_within_five_seconds() -> None:
    """In the process that revoked it at once; in another, when what it remembers is five seconds old."""
    here = Desk()
    there = Tokens(shared_keys(), ISSUER, AUDIENCE, documents=here.documents, clock=here.clock)
    text = here.tokens.issue(ALICE).reveal()
    jti = here.tokens.verify(text).session_id
    assert jti is not None and "alice" == there.verify(text).user
    here.tokens.revoke(jti)
    with pytest.raises(Unauthenticated) as caught:
        here.tokens.verify(text)
    assert "token-revoked" == caught.value.reason
    here.clock.advance(4_999)
    assert "alice" == there.verify(text).user
    here.clock.advance(1)
    with pytest.raises(Unauthenticated):
        there.verify(text)
    assert "alice" == there.verify(here.tokens.issue(ALICE).reveal()).user


def test_revoking_again_is_nothing_new() -> None:
    """The second time changes nothing, and what is no id is refused."""
    desk = Desk()
    desk.tokens.revoke("j1")
    before = desk.documents.get(Address("revoked", "jwt", "j1"))
    desk.tokens.revoke("j1")
    assert before is not None and before == desk.documents.get(Address("revoked", "jwt", "j1"))
    with pytest.raises(ValueError, match="token's id"):
        desk.tokens.revoke("a/b")


def test_a_revocation_outlives_every_token_and_then_goes() -> None:
    """The longest token made by the fastest clock is still refused; later the record is gone by itself."""
    desk = Desk()
    last = token(body=claims(iat=NOW_S + 30, exp=NOW_S + 3_630))
    desk.tokens.revoke(claims()["jti"])
    desk.clock.advance(3_659_999)
    with pytest.raises(Unauthenticated) as caught:
        desk.tokens.verify(last)
    assert "token-revoked" == caught.value.reason
    desk.clock.advance(120_000)
    assert [] == list(desk.documents.find("revoked"))


def test_one_look_in_five_seconds() -> None:
    """The store is asked once in five seconds for each token, and for none that is not well signed."""
    desk = Desk()
    text = desk.tokens.issue(ALICE).reveal()
    for _ in range(10):
        desk.tokens.verify(text)
    assert 1 == desk.documents.reads
    desk.clock.advance(5_000)
    desk.tokens.verify(text)
    assert 2 == desk.documents.reads


def test_a_clock_that_is_set_back_does_not_keep_an_answer() -> None:
    """What was remembered later than now is asked for again."""
    desk = Desk()
    text = desk.tokens.issue(ALICE).reveal()
    desk.tokens.verify(text)
    desk.clock.advance(-1_000)
    desk.tokens.verify(text)
    assert 2 == desk.documents.reads


def test_the_memory_of_looks_is_bounded() -> None:
    """However many tokens come, no more than ten thousand answers are remembered, the oldest forgotten first."""
    from runrails.identity.jwt.revocation import Revocations

    clock = ManualClock(NOW_MS)
    documents = CountingDocuments(clock)
    revocations = Revocations(documents, clock=clock)
    assert not any(revocations.has(f"j{number}") for number in range(10_001))
    assert 10_001 == documents.reads
    assert not revocations.has("j10000") and not revocations.has("j1")
    assert 10_001 == documents.reads
    assert not revocations.has("j0")
    assert 10_002 == documents.reads


@pytest.mark.parametrize("cache_ms", [-1, 5_001])
def test_a_revocation_may_not_go_unseen_for_longer(cache_ms: int) -> None:
    """More than five seconds is refused."""
    with pytest.raises(ValueError, match="5,000"):
        Desk(cache_ms=cache_ms)


def test_without_the_store_nobody_gets_in() -> None:
    """If nobody can say whether a token was revoked, it is not taken."""

    class Away(CountingDocuments):
        def get(self, address: Address) -> Any:
            raise StoreUnavailable("The store is away.", next_step="Wait.")

    desk = Desk(documents=Away(ManualClock(NOW_MS)))
    with pytest.raises(StoreUnavailable):
        desk.tokens.verify(desk.tokens.issue(ALICE).reveal())


def test_who_only_verifies_cannot_sign() -> None:
    """A process without a private key says so; it is not a refusal of somebody's token."""
    keys = KeySet([Key("ed1", "EdDSA", ED.public_key())])
    desk = Desk(keys)
    with pytest.raises(ConfigError, match="no key to sign"):
        desk.tokens.issue(ALICE)
    with pytest.raises(ConfigError, match="no key to sign"):
        keys.sign(b"x")
    assert "worker-7" == desk.tokens.verify(token(header(alg="EdDSA", kid="ed1"))).user


def test_keys_are_read_from_a_setting(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of them signs; each is checked against its algorithm."""
    (tmp_path / "new.pem").write_bytes(pem(ED))
    (tmp_path / "old.pem").write_bytes(pem(EC))
    keys = KeySet.parse(f"2026-11:EdDSA:file:{tmp_path}/new.pem, 2026-10:ES256:file:{tmp_path}/old.pem")
    assert "KeySet(['2026-10', '2026-11'])" == repr(keys)
    assert keys.signer is not None and ("2026-11", "EdDSA") == keys.signer[:2]
    assert "Key('2026-11', 'EdDSA')" == repr(keys.signer)
    monkeypatch.setenv("JWT_SECRET", b64(drawn("setting")))
    shared = KeySet.parse("k1:HS256:env:JWT_SECRET")
    desk = Desk(shared)
    assert "alice" == desk.tokens.verify(desk.tokens.issue(ALICE).reveal()).user


BAD_SETTINGS = [
    "", "k1", "k1:HS256", "k1:HS256:", "k1:HS512:env:GOOD", "k1:none:env:GOOD", "k1:hs256:env:GOOD", ":HS256:env:GOOD",
    "a/b:HS256:env:GOOD", "k 1:HS256:env:GOOD", "k1:HS256:env:SHORT", "k1:HS256:env:PLACEHOLDER",
    "k1:HS256:env:MISSING_ONE",
    "k1:HS256:plain-secret-that-is-long-enough-for-anyone", "k1:HS256:env:GOOD,k1:HS256:env:OTHER",
    "k1:HS256:env:GOOD,k2:HS256:env:GOOD", "k1:EdDSA:env:GOOD", "k1:EdDSA:env:EC", "k1:ES256:env:ED",
    "k1:EdDSA:env:RSA",
    "k1:EdDSA:env:ED448", "k1:ES256:env:P384", "k1:EdDSA:env:PUBLIC", "k1:EdDSA:env:LOCKED", "k1:HS256:env:ED",
    "k1:HS256:env:PUBLIC", "k1:HS256:env:GOOD,k2:EdDSA:env:ED", "k1:HS256:env:GOOD,",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_SETTINGS)
def test_settings_that_are_none_are_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the setting and shows nothing of a secret."""
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    locked = ED.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    secrets = {
        "GOOD": b64(drawn("good")),
        "OTHER": b64(drawn("other")),
        "SHORT": b64(drawn("good"))[:31],
        "PLACEHOLDER": "change-me-change-me-this-is-my-secret-key",
        "ED": pem(ED).decode(),
        "EC": pem(EC).decode(),
        "PUBLIC": public_pem(ED).decode(),
        "LOCKED": locked.decode(),
        "RSA": pem(rsa.generate_private_key(65537, 2048)).decode() if "RSA" in text else "-",
        "ED448": pem(ed448.Ed448PrivateKey.generate()).decode(),
        "P384": pem(ec.generate_private_key(ec.SECP384R1())).decode(),
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        KeySet.parse(text)
    shown = f"{caught.value!r} {caught.value.as_dict()}"
    assert not any(value[at : at + 12] in shown for value in secrets.values() for at in range(0, len(value) - 11, 4))
    assert "plain-secret" not in shown


@pytest.mark.parametrize("alg", ["", "none", "HS512", "RS256", "hs256", "ES384", "Ed448", "ed25519"])
def test_an_algorithm_that_is_not_offered_is_named_as_such(alg: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the key behind it is, the setting is what is wrong."""
    monkeypatch.setenv("GOOD", b64(drawn("good")))
    with pytest.raises(ConfigError, match="not offered"):
        KeySet.parse(f"k1:{alg}:env:GOOD")


def test_more_keys_than_anybody_needs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty-two are taken and thirty-three are not; none is none."""
    secrets = {f"k{number}": Secret(drawn(str(number))) for number in range(33)}
    with pytest.raises(ConfigError, match="1 to 32"):
        KeySet.shared(secrets)
    del secrets["k32"]
    assert "k31" in repr(KeySet.shared(secrets))
    with pytest.raises(ConfigError, match="1 to 32"):
        KeySet([])


def test_two_keys_are_two_secrets() -> None:
    """The same secret under two ids would be a rotation that changes nothing."""
    with pytest.raises(ConfigError, match="the same secret"):
        KeySet.shared({"k1": Secret(SECRETS["hs1"]), "k2": Secret(SECRETS["hs1"])})


def test_the_key_that_signs_must_be_there() -> None:
    """Neither an unknown id nor a key without its private half can be named as the one that signs."""
    public = Key("ed1", "EdDSA", ED.public_key())
    for signing in ("ed2", "ed1"):
        with pytest.raises(ConfigError, match="no private key"):
            KeySet([public], signing=signing)


def test_a_key_says_nothing_of_itself() -> None:
    """Neither its text nor a pickle of it has the secret."""
    key = shared_keys().find("hs1")
    assert key is not None and "Key('hs1', 'HS256')" == repr(key) == str(key)
    with pytest.raises(TypeError):
        pickle.dumps(key)


def test_what_is_published_verifies_what_was_signed() -> None:
    """The published set is JSON, shows no private half, and is read back as the keys that verify."""
    from runrails.identity.jwt.jwk import read_jwks

    published = json.dumps(public_keys().public_jwks())
    assert not {"d", "k"} & {name for entry in json.loads(published)["keys"] for name in entry}
    desk = Desk(read_jwks(published.encode()))
    for kid, alg in (("ed1", "EdDSA"), ("ec1", "ES256")):
        assert "worker-7" == desk.tokens.verify(token(header(alg=alg, kid=kid))).user
    with pytest.raises(ConfigError, match="never published"):
        shared_keys().public_jwks()


def entry(**changes: Any) -> dict[str, Any]:
    """A published key of Ed25519, but for what is changed; None takes a member out."""
    good = {"kid": "ed1", "alg": "EdDSA", "use": "sig", "kty": "OKP", "crv": "Ed25519"}
    found = {**good, "x": b64(ED.public_key().public_bytes_raw()), **changes}
    return {name: value for name, value in found.items() if value is not None}


def ec_entry(**changes: Any) -> dict[str, Any]:
    """A published key of P-256, but for what is changed."""
    numbers = EC.public_key().public_numbers()
    good = {"kid": "ec1", "alg": "ES256", "kty": "EC", "crv": "P-256"}
    found = {**good, "x": b64(numbers.x.to_bytes(32)), "y": b64(numbers.y.to_bytes(32)), **changes}
    return {name: value for name, value in found.items() if value is not None}


RSA_ENTRY = {"kid": "r1", "kty": "RSA", "alg": "RS256", "use": "sig", "n": b64(b"\xc5" * 256), "e": "AQAB"}
FIELD = 2**255 - 19
BAD_SETS: dict[str, Any] = {
    "no JSON": b"keys",
    "a list": [entry()],
    "no keys": {"jwks": [entry()]},
    "keys that are no list": {"keys": {"0": entry()}},
    "none": {"keys": []},
    "a key that is none": {"keys": [entry(), 1]},
    "too many": {"keys": [entry(kid=f"k{number}") for number in range(33)]},
    "a shared secret": {"keys": [entry(), {"kid": "s", "kty": "oct"}]},
    "a shared secret with another name": {"keys": [entry(), {"kid": "s", "kty": "x", "k": b64(drawn("s"))}]},
    "a private key": {"keys": [entry(d=b64(drawn("d")))]},
    "a private key of RSA beside": {"keys": [entry(), {**RSA_ENTRY, "p": "AQAB"}]},
    "an id twice": {"keys": [entry(), entry()]},
    "an id twice, of different kinds": {"keys": [entry(kid="x"), {**RSA_ENTRY, "kid": "x"}]},
    "only RSA": {"keys": [RSA_ENTRY]},
    "only for encryption": {"keys": [entry(use="enc")]},
    "only for signing": {"keys": [entry(key_ops=["sign"])]},
    "for encryption by operations": {"keys": [entry(key_ops=["verify", "encrypt"])]},
    "an operation twice": {"keys": [entry(key_ops=["verify", "verify"])]},
    "operations as a text": {"keys": [entry(key_ops="verify")]},
    "use null": {"keys": [{**entry(), "use": None}]},
    "no id": {"keys": [entry(kid=None)]},
    "an id that is an address": {"keys": [entry(kid="https://evil.example.com")]},
    "an id that is a number": {"keys": [entry(kid=1)]},
    "another algorithm": {"keys": [ec_entry(alg="ES384")]},
    "HS256 with a public key": {"keys": [entry(alg="HS256")]},
    "none as algorithm": {"keys": [entry(alg="none")]},
    "EdDSA of P-256": {"keys": [ec_entry(alg="EdDSA")]},
    "ES256 of Ed25519": {"keys": [entry(alg="ES256")]},
    "ES256 of P-384": {"keys": [ec_entry(crv="P-384")]},
    "ES256 of RSA": {"keys": [ec_entry(kty="RSA")]},
    "Ed448": {"keys": [entry(crv="Ed448")]},
    "X25519": {"keys": [entry(crv="X25519")]},
    "no x": {"keys": [entry(x=None)]},
    "x a number": {"keys": [entry(x=1)]},
    "x padded": {"keys": [entry(x=entry()["x"] + "=")]},
    "x too short": {"keys": [entry(x=b64(b"\1" * 31))]},
    "x too long": {"keys": [entry(x=b64(b"\1" * 33))]},
    "no y": {"keys": [ec_entry(y=None)]},
    "a point off the curve": {"keys": [ec_entry(y=ec_entry()["x"])]},
    "the point of zeroes": {"keys": [ec_entry(x=b64(b"\0" * 32), y=b64(b"\0" * 32))]},
    "a member twice": json.dumps({"keys": [entry()]}).replace('"kid"', '"kid": "z", "kid"').encode(),
    "a fraction": {"keys": [entry(iat=1.5)]},
    **{
        f"the weak point {y % 1_000} with sign {sign}": {
            "keys": [entry(x=b64((y | sign << 255).to_bytes(32, "little")))]
        }
        for y in (0, 1, FIELD - 1, FIELD, FIELD + 1)
        for sign in (0, 1)
    },
    **{
        f"the weak point {text[:6]}": {"keys": [entry(x=b64(bytes.fromhex(text)))]}
        for text in (
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        )
    },
}


@pytest.mark.parametrize("published", [pytest.param(value, id=name) for name, value in BAD_SETS.items()])
def test_published_sets_that_cannot_be_trusted_are_refused(published: Any) -> None:
    """Whole, and without showing what is in them."""
    from runrails.identity.jwt.jwk import read_jwks

    with pytest.raises(ConfigError, match="published set of keys"):
        read_jwks(published if isinstance(published, bytes) else json.dumps(published).encode())


GOOD_SETS: dict[str, Any] = {
    "without an algorithm": [entry(alg=None), ec_entry(alg=None)],
    "without a use": [entry(use=None), ec_entry()],
    "with operations": [entry(key_ops=["verify"]), ec_entry(key_ops=["sign", "verify"])],
    "beside RSA": [RSA_ENTRY, entry(), ec_entry()],
    "beside one for encryption": [entry(), ec_entry(), {**RSA_ENTRY, "use": "enc"}],
    "beside one without an id": [entry(), ec_entry(), ec_entry(kid=None)],
    "with members that nobody asked for": [entry(x5c=["MIIB"], iat=1_700_000_000, status="active"), ec_entry()],
}


@pytest.mark.parametrize("published", [pytest.param(value, id=name) for name, value in GOOD_SETS.items()])
def test_published_sets_are_read(published: Any) -> None:
    """Keys of ours are found among others, and are for one algorithm each."""
    from runrails.identity.jwt.jwk import read_jwks

    desk = Desk(read_jwks(json.dumps({"keys": published}).encode()))
    for kid, alg in (("ed1", "EdDSA"), ("ec1", "ES256")):
        assert "worker-7" == desk.tokens.verify(token(header(alg=alg, kid=kid))).user
    with pytest.raises(Unauthenticated):
        desk.tokens.verify(token(header(alg="RS256", kid="r1")))


def test_the_weak_points_are_those_of_the_curve() -> None:
    """Eight times each of them is the neutral point, and of a drawn key it is not."""
    from runrails.identity.jwt import jwk

    d = -121665 * pow(121666, -1, FIELD) % FIELD
    for weak in jwk._SMALL_ORDER:
        y = weak
        for _ in range(3):  # doubling three times, by y alone: x² follows from the curve
            xx = (y * y - 1) * pow(d * y * y + 1, -1, FIELD) % FIELD
            y = (y * y + xx) * pow(1 - d * xx * y * y, -1, FIELD) % FIELD
        assert 1 == y
    drawn_y = int.from_bytes(ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw(), "little") % 2**255
    assert drawn_y not in jwk._SMALL_ORDER


def test_nothing_of_a_key_or_token_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """No twelve letters of a key, or of a token's signature, are in a log, a text, an error or its traceback."""
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    hidden: list[str] = []
    for keys, private in ((shared_keys(), SECRETS["hs1"]), (public_keys(), ED.private_bytes_raw())):
        desk = Desk(keys)
        text = desk.tokens.issue(ALICE).reveal()
        jti = desk.tokens.verify(text).session_id or ""
        told += [repr(keys), str(keys.signer), repr(desk.tokens), f"{desk.tokens.__dict__}", f"{keys.__dict__}"]
        hidden += [text.split(".")[2], private.hex(), b64(private), repr(private)[2:-1]]
        for bad in (text + "x", text[:-4] + "AAAA", text.replace(".", "!", 1), text):
            if bad == text:
                desk.tokens.revoke(jti)
            try:
                desk.tokens.verify(bad)
            except Unauthenticated as error:
                told += ["".join(traceback.format_exception(error)), f"{error!r} {error.as_dict()} {error.__dict__}"]
                told.append(repr(pickle.loads(pickle.dumps(error)).__dict__))
            else:
                raise AssertionError
    text = "\n".join([*told, caplog.text])
    assert [] == [each for each in hidden for at in range(len(each) - 11) if each[at : at + 12] in text]
