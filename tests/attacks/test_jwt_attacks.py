"""Tokens as somebody would make them who must not get in, and good ones beside them: none of the first gets in."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest

from rr_attacks import check_nobody
from rr_jwt import (
    AUDIENCE,
    EC,
    ED,
    GONE,
    ISSUER,
    NOW_S,
    SECRETS,
    Desk,
    b64,
    claims,
    drawn,
    encoded,
    header,
    public_keys,
    public_pem,
    shared_keys,
    signature,
    token,
)
from runrails.identity.jwt.jwk import to_jwk
from runrails.identity.principal import SCOPES

GOOD = token()
HEAD, BODY, SIGNATURE = GOOD.split(".")
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the base point of P-256."""
ED_ORDER = 2**252 + 27742317777372353535851937790883648493


def changed_bit(text: str) -> str:
    """Another last character that decodes to the same bytes: the bits that a lax decoder drops."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1]


def with_spare_bits(head: Any, body: dict[str, Any]) -> str:
    """A token whose payload ends in bits to spare, written in the other way, and signed like that."""
    for filler in range(3):
        text = b64(encoded({**body, "sub": "worker-7" + "x" * filler}))
        if len(text) % 4:
            signed = f"{b64(encoded(head))}.{changed_bit(text)}"
            return f"{signed}.{b64(signature(signed.encode(), 'hs1'))}"
    raise AssertionError


def member_twice(value: dict[str, Any], name: str, other: Any) -> bytes:
    """JSON in which a member is there twice."""
    return (json.dumps(value)[:-1] + f", {json.dumps(name)}: {json.dumps(other)}}}").encode()


def raw(value: dict[str, Any], name: str, text: str) -> bytes:
    """JSON in which a member's value is this very text."""
    return json.dumps({**value, name: "\0here"}).replace('"\\u0000here"', text).encode()


def hmac_with(secret: bytes, digest: str = "sha256") -> Any:
    """Signs as if the secret were the shared one."""
    return lambda signed: hmac.digest(secret, signed, digest)


def deep(count: int) -> bytes:
    """A claim that is a list in a list in a list."""
    return raw(claims(), "x", "[" * count + "]" * count)


def ec_parts(signed: bytes) -> tuple[int, int]:
    """The two numbers of a signature."""
    made = signature(signed, "ec1")
    return int.from_bytes(made[:32]), int.from_bytes(made[32:])


def mirrored_ec(signed: bytes) -> bytes:
    """The other signature that every signature of ECDSA has; whoever has one can make it, and gains nothing."""
    r, s = ec_parts(signed)
    return r.to_bytes(32) + (ORDER - s).to_bytes(32)


def shifted_ec(signed: bytes) -> bytes:
    """A signature whose second number is one round further, and one byte longer for it."""
    r, s = ec_parts(signed)
    return r.to_bytes(32) + (s + ORDER).to_bytes(33)


def shifted_ed(signed: bytes) -> bytes:
    """A signature of Ed25519 whose number is one round further, which a lax verifier takes (RFC 8032, 5.1.7)."""
    made = ED.sign(signed)
    return made[:32] + (int.from_bytes(made[32:], "little") + ED_ORDER).to_bytes(32, "little")


def der(signed: bytes) -> bytes:
    """A signature in the form of certificates, not of tokens."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    return EC.sign(signed, ec.ECDSA(hashes.SHA256()))


FORM: list[tuple[str, Any, str]] = [
    ("empty", "", "token-segments"),
    ("blank", " ", "token-segments"),
    ("two dots", "..", "token-letters"),
    ("one segment", HEAD, "token-segments"),
    ("two segments", f"{HEAD}.{BODY}", "token-segments"),
    ("four segments", f"{GOOD}.{SIGNATURE}", "token-segments"),
    ("five segments, as an encrypted token has", f"{HEAD}.{BODY}.{BODY}.{BODY}.{SIGNATURE}", "token-segments"),
    ("a dot before", f".{GOOD}", "token-segments"),
    ("a dot behind", f"{GOOD}.", "token-segments"),
    ("no signature", f"{HEAD}.{BODY}.", "token-letters"),
    ("no payload", f"{HEAD}..{SIGNATURE}", "token-letters"),
    ("no header", f".{BODY}.{SIGNATURE}", "token-letters"),
    ("a blank before", f" {GOOD}", "token-letters"),
    ("a blank behind", f"{GOOD} ", "token-letters"),
    ("a line break behind", f"{GOOD}\n", "token-letters"),
    ("a line break inside", f"{HEAD}.{BODY[:20]}\n{BODY[20:]}.{SIGNATURE}", "token-letters"),
    ("a tab inside", f"{HEAD}.\t{BODY}.{SIGNATURE}", "token-letters"),
    ("NUL", f"{GOOD}\0", "token-letters"),
    ("its scheme with it", f"Bearer {GOOD}", "token-letters"),
    ("quoted", f'"{GOOD}"', "token-letters"),
    ("an accent", f"{GOOD}é", "token-letters"),
    ("full-width letters", GOOD.replace("e", "\uff45"), "token-letters"),
    ("a dot of another alphabet", f"{HEAD}\u3002{BODY}\u3002{SIGNATURE}", "token-letters"),
    ("half a character", f"{GOOD}\ud800", "token-letters"),
    ("escaped dots", f"{HEAD}%2e{BODY}%2e{SIGNATURE}", "token-segments"),
    ("two of them", f"{GOOD},{GOOD}", "token-segments"),
    ("JSON serialization", json.dumps({"protected": HEAD, "payload": BODY, "signature": SIGNATURE}), "token-segments"),
    ("bytes", GOOD.encode(), "token-letters"),
    ("nothing", None, "token-letters"),
    ("a list", [GOOD], "token-letters"),
    ("one byte too long", token(body=claims(org="a" * 128)) + "A" * 4_096, "token-size"),
    ("a megabyte", "A" * 1_048_576, "token-size"),
    ("padding of the header", f"{HEAD}=.{BODY}.{SIGNATURE}", "token-letters"),
    ("padding of the payload", f"{HEAD}.{BODY}==.{SIGNATURE}", "token-letters"),
    ("padding of the signature", f"{GOOD}=", "token-letters"),
    ("the other alphabet", f"{HEAD}.{BODY}.{'+/' + SIGNATURE[2:]}", "token-letters"),
    ("spare bits in the signature", f"{HEAD}.{BODY}.{changed_bit(SIGNATURE)}", "token-encoding"),
    ("spare bits in the payload, signed", with_spare_bits(header(), claims()), "token-encoding"),
    ("a length that base64 has not", f"{HEAD}.{BODY}.{SIGNATURE}AA", "token-encoding"),
    ("one letter", f"{HEAD}.{BODY}.A", "token-encoding"),
]

HEADERS: list[tuple[str, Any, str]] = [
    ("no JSON", token(b"alg=HS256"), "token-json"),
    ("nothing in it", token(b"{}"), "token-header"),
    ("a list", token(b'[{"alg":"HS256"}]'), "token-json"),
    ("a text", token(b'"HS256"'), "token-json"),
    ("null", token(b"null"), "token-json"),
    ("UTF-16", token(json.dumps(header()).encode("utf-16")), "token-json"),
    ("UTF-16 without its mark", token(json.dumps(header()).encode("utf-16-le")), "token-json"),
    ("UTF-8 with a mark", token(b"\xef\xbb\xbf" + encoded(header())), "token-json"),
    ("no UTF-8", token(encoded(header()) + b"\xff"), "token-json"),
    ("something behind", token(encoded(header()) + b"{}"), "token-json"),
    ("single quotes", token(str(header()).encode()), "token-json"),
    ("a comment", token(b"/**/" + encoded(header())), "token-json"),
    ("a comma at the end", token(encoded(header())[:-1] + b",}"), "token-json"),
    (
        "alg twice, none first",
        token(member_twice({"alg": "none", "kid": "hs1", "typ": "JWT"}, "alg", "HS256")),
        "token-json",
    ),
    ("alg twice, none last", token(member_twice(header(), "alg", "none")), "token-json"),
    ("kid twice", token(member_twice(header(), "kid", "hs2")), "token-json"),
    ("alg twice, once escaped", token(encoded(header())[:-1] + b',"\\u0061lg":"none"}'), "token-json"),
    ("NaN", token(raw(header(), "typ", "NaN")), "token-json"),
    ("a fraction", token(raw(header(), "typ", "1.5")), "token-json"),
    ("a number of a thousand digits", token(raw(header(), "typ", "9" * 1_000)), "token-json"),
    ("deeply nested", token(b'{"alg":' + b"[" * 1_200 + b"]" * 1_200 + b"}"), "token-json"),
    *[
        (f"{name} in it", token(header(**{name: value})), "token-header")
        for name, value in {
            "jwk": {"kty": "oct", "k": b64(SECRETS["hs1"])},
            "jku": "https://evil.example.com/keys",
            "x5u": "https://evil.example.com/cert",
            "x5c": ["MIIB"],
            "x5t": "abc",
            "x5t#S256": "abc",
            "cty": "JWT",
            "zip": "DEF",
            "crit": ["exp"],
            "b64": False,
            "enc": "A256GCM",
            "p2c": 2**31,
            "iss": ISSUER,
            "exp": NOW_S + 60,
            "ALG": "none",
            "alg ": "none",
            "": "x",
        }.items()
    ],
    ("no alg", token(header(alg=GONE)), "token-header"),
    ("alg null", token(header(alg=None)), "token-header"),
    ("alg a number", token(header(alg=256)), "token-header"),
    ("alg a list", token(header(alg=["HS256"])), "token-header"),
    ("typ a number", token(header(typ=1)), "token-header"),
    ("typ null", token(header(typ=None)), "token-header"),
    ("no kid", token(header(kid=GONE)), "token-kid"),
    ("kid null", token(header(kid=None)), "token-kid"),
    ("kid a number", token(header(kid=1)), "token-kid"),
    ("kid a list", token(header(kid=["hs1"])), "token-kid"),
    ("kid empty", token(header(kid="")), "token-kid"),
    ("kid a path", token(header(kid="../../dev/null"), signed_by=hmac_with(b"")), "token-kid"),
    ("kid a query", token(header(kid="x' UNION SELECT 'a'--")), "token-kid"),
    ("kid an address", token(header(kid="https://evil.example.com/k")), "token-kid"),
    ("kid with a line break", token(header(kid="hs1\n")), "token-kid"),
    ("kid with NUL", token(header(kid="hs1\0")), "token-kid"),
    ("kid too long", token(header(kid="k" * 129)), "token-kid"),
    ("kid in other letters", token(header(kid="HS1")), "token-kid"),
    ("kid unknown", token(header(kid="hs3")), "token-kid"),
    ("kid half a character", token(header(kid="\ud800")), "token-kid"),
    *[
        (f"typ {typ!r}", token(header(typ=typ)), "token-typ")
        for typ in (GONE, "", "jwt", "JWT ", "at+jwt", "JWE", "dpop+jwt", "application/jwt")
    ],
]

ALGORITHMS: list[tuple[str, Any, str]] = [
    *[
        (f"alg {alg!r}, unsigned", token(header(alg=alg), signed_by=lambda signed: b"\0" * 32), "token-alg")
        for alg in ("none", "None", "NONE", "nOnE", "", " none")
    ],
    *[
        (f"alg {alg!r}, signed for HS256", token(header(alg=alg)), "token-alg")
        for alg in (
            "hs256",
            "HS256 ",
            "HS256\0",
            "ES256",
            "EdDSA",
            "RS256",
            "PS256",
            "A256KW",
            "dir",
            "PBES2-HS256+A128KW",
        )
    ],
    (
        "HS384 with the right secret",
        token(header(alg="HS384"), signed_by=hmac_with(SECRETS["hs1"], "sha384")),
        "token-alg",
    ),
    (
        "HS512 with the right secret",
        token(header(alg="HS512"), signed_by=hmac_with(SECRETS["hs1"], "sha512")),
        "token-alg",
    ),
]

PUBLIC: list[tuple[str, Any, str]] = [
    *[
        (
            f"HS256 with {what} as the secret, kid {kid}",
            token(header(alg="HS256", kid=kid), signed_by=hmac_with(material)),
            "token-alg",
        )
        for kid, private in (("ed1", ED), ("ec1", EC))
        for what, material in (
            ("the public key in PEM", public_pem(private)),
            ("the public key in PEM without its line break", public_pem(private).rstrip()),
            ("the published key", json.dumps(to_jwk(public_keys().find(kid))).encode()),  # type: ignore[arg-type]
            ("nothing", b""),
        )
    ],
    (
        "the raw public key as the secret",
        token(header(alg="HS256", kid="ed1"), signed_by=hmac_with(ED.public_key().public_bytes_raw())),
        "token-alg",
    ),
    ("EdDSA for the key of ES256", token(header(alg="EdDSA", kid="ec1"), by="ed1"), "token-alg"),
    ("ES256 for the key of EdDSA", token(header(alg="ES256", kid="ed1"), by="ec1"), "token-alg"),
    ("ES384", token(header(alg="ES384", kid="ec1"), by="ec1"), "token-alg"),
    ("ES256K", token(header(alg="ES256K", kid="ec1"), by="ec1"), "token-alg"),
    ("Ed448", token(header(alg="Ed448", kid="ed1"), by="ed1"), "token-alg"),
    ("none", token(header(alg="none", kid="ed1"), signed_by=lambda signed: b"\0" * 64), "token-alg"),
    ("a shared secret's token", token(), "token-kid"),
    (
        "ES256 of zeroes (psychic)",
        token(header(alg="ES256", kid="ec1"), signed_by=lambda signed: b"\0" * 64),
        "token-signature",
    ),
    (
        "ES256 of the order",
        token(header(alg="ES256", kid="ec1"), signed_by=lambda signed: ORDER.to_bytes(32) * 2),
        "token-signature",
    ),
    ("ES256 of ones", token(header(alg="ES256", kid="ec1"), signed_by=lambda signed: b"\xff" * 64), "token-signature"),
    ("ES256 one round further", token(header(alg="ES256", kid="ec1"), signed_by=shifted_ec), "token-signature"),
    ("ES256 in DER", token(header(alg="ES256", kid="ec1"), signed_by=der), "token-signature"),
    ("ES256 by the other key", token(header(alg="ES256", kid="ec1"), by="ed1"), "token-signature"),
    ("EdDSA of zeroes", token(header(alg="EdDSA", kid="ed1"), signed_by=lambda signed: b"\0" * 64), "token-signature"),
    ("EdDSA one round further", token(header(alg="EdDSA", kid="ed1"), signed_by=shifted_ed), "token-signature"),
    (
        "EdDSA of a point that is none",
        token(header(alg="EdDSA", kid="ed1"), signed_by=lambda signed: b"\1" + b"\0" * 63),
        "token-signature",
    ),
    ("EdDSA by the other key", token(header(alg="EdDSA", kid="ed1"), by="ec1"), "token-signature"),
    (
        "EdDSA, half of it",
        token(header(alg="EdDSA", kid="ed1"), signed_by=lambda signed: ED.sign(signed)[:32]),
        "token-signature",
    ),
    (
        "EdDSA and a byte more",
        token(header(alg="EdDSA", kid="ed1"), signed_by=lambda signed: ED.sign(signed) + b"\0"),
        "token-signature",
    ),
]

SIGNATURES: list[tuple[str, Any, str]] = [
    ("another's payload", f"{HEAD}.{b64(encoded(claims(sub='root')))}.{SIGNATURE}", "token-signature"),
    ("another key's id", f"{b64(encoded(header(kid='hs2')))}.{BODY}.{SIGNATURE}", "token-signature"),
    ("one bit", f"{HEAD}.{BODY}.{'B' if SIGNATURE[0] == 'A' else 'A'}{SIGNATURE[1:]}", "token-signature"),
    ("half of it", token(signed_by=lambda signed: signature(signed, "hs1")[:16]), "token-signature"),
    ("one byte of it", token(signed_by=lambda signed: signature(signed, "hs1")[:1]), "token-signature"),
    ("a byte more", token(signed_by=lambda signed: signature(signed, "hs1") + b"\0"), "token-signature"),
    ("zeroes", token(signed_by=lambda signed: b"\0" * 32), "token-signature"),
    ("in hexadecimal", token(signed_by=lambda signed: signature(signed, "hs1").hex().encode()), "token-signature"),
    (
        "of the payload alone",
        token(signed_by=lambda signed: signature(signed.split(b".")[1], "hs1")),
        "token-signature",
    ),
    ("a hash without the secret", token(signed_by=lambda signed: hashlib.sha256(signed).digest()), "token-signature"),
    (
        "a hash of secret and text",
        token(signed_by=lambda s: hashlib.sha256(SECRETS["hs1"] + s).digest()),
        "token-signature",
    ),
    ("with an empty secret", token(signed_by=hmac_with(b"")), "token-signature"),
    ("with the secret in base64", token(signed_by=hmac_with(b64(SECRETS["hs1"]).encode())), "token-signature"),
    ("with another secret", token(signed_by=hmac_with(drawn("mallory"))), "token-signature"),
    ("with the other key's secret", token(by="hs2"), "token-signature"),
    ("of another token", f"{HEAD}.{BODY}.{token(body=claims(sub='other')).split('.')[2]}", "token-signature"),
]

CLAIMS: list[tuple[str, Any, str]] = [
    ("no JSON", token(body=b"sub=root"), "token-json"),
    ("a list", token(body=b"[]"), "token-json"),
    ("a text", token(body=b'"x"'), "token-json"),
    ("UTF-16", token(body=json.dumps(claims()).encode("utf-16")), "token-json"),
    ("a mark", token(body=b"\xef\xbb\xbf" + encoded(claims())), "token-json"),
    ("something behind", token(body=encoded(claims()) + b"null"), "token-json"),
    ("nested deeply", token(body=deep(1_300)), "token-json"),
    ("a control character", token(body=encoded(claims()).replace(b"worker", b"wor\nker")), "token-json"),
    ("nothing in them", token(body={}), "token-claims"),
    *[(f"no {name}", token(body=claims(**{name: GONE})), "token-claims") for name in claims()],
    *[
        (f"{name} in them", token(body=claims(**{name: value})), "token-claims")
        for name, value in {
            "admin": True, "role": "admin", "scope": "admin:keys", "permissions": ["*"], "budget": 10**9,
            "user": "root", "cnf": {"jkt": "x"}, "act": {"sub": "root"}, "nonce": "x", "exp ": 9_999_999_999, "": 1,
        }.items()
    ],
    *[
        (f"{name} twice", token(body=member_twice(claims(), name, other)), "token-json")
        for name, other in {
            "exp": NOW_S + 3_000, "sub": "root", "scopes": ["admin:keys"], "aud": "other", "iss": "other", "jti": "y",
            "iat": NOW_S, "type": "service",
        }.items()
    ],
    ("sub twice, once escaped", token(body=encoded(claims())[:-1] + b',"s\\u0075b":"root"}'), "token-json"),
    *[
        (f"exp {text[:20]}", token(body=raw(claims(), "exp", text)), "token-json")
        for text in ("NaN", "Infinity", "-Infinity", "1e400", "1.5", f"{NOW_S + 60}.0", f"{NOW_S}e0", "9" * 400,
                     "1" + "0" * 17)
    ],
    *[
        (f"exp {value!r}", token(body=claims(exp=value)), "token-time")
        for value in (str(NOW_S + 60), True, None, [NOW_S + 60], {}, -1, 2**43, 2**53 - 1)
    ],
    *[(f"iat {value!r}", token(body=claims(iat=value)), "token-time") for value in (str(NOW_S), True, None, [], -1)],
    *[(f"nbf {value!r}", token(body=claims(nbf=value)), "token-time") for value in (str(NOW_S), False, None, [], -1)],
    ("iat with a fraction", token(body=raw(claims(), "iat", f"{NOW_S}.5")), "token-json"),
    ("exp before iat", token(body=claims(iat=NOW_S + 20, exp=NOW_S + 10)), "token-lifetime"),
    ("exp at iat", token(body=claims(iat=NOW_S, exp=NOW_S)), "token-lifetime"),
    ("a second too long", token(body=claims(iat=NOW_S - 1, exp=NOW_S + 3_600)), "token-lifetime"),
    ("ten years", token(body=claims(exp=NOW_S + 315_360_000)), "token-lifetime"),
    ("in milliseconds", token(body=claims(iat=NOW_S * 1_000, exp=NOW_S * 1_000 + 900)), "token-future"),
    ("expired", token(body=claims(iat=NOW_S - 900, exp=NOW_S - 30)), "token-expired"),
    ("expired long ago", token(body=claims(iat=0, exp=900)), "token-expired"),
    ("from the future", token(body=claims(iat=NOW_S + 31, exp=NOW_S + 600)), "token-future"),
    ("not yet", token(body=claims(nbf=NOW_S + 31)), "token-early"),
    *[
        (f"iss {value!r}", token(body=claims(iss=value)), "token-issuer")
        for value in ("", "https://auth.example.co", ISSUER + "/", ISSUER.upper(), [ISSUER], None, {"": ISSUER}, 1)
    ],
    *[
        (f"aud {value!r}", token(body=claims(aud=value)), "token-audience")
        for value in ("", "ai", "ai-platform ", "AI-PLATFORM", [AUDIENCE], [AUDIENCE, "other"], None, {AUDIENCE: 1})
    ],
    *[
        (f"type {value!r}", token(body=claims(type=value)), "token-type")
        for value in ("refresh", "Service", "", ["service"], None, 1, "access")
    ],
    *[
        (f"sub {value!r}", token(body=claims(sub=value)), "token-subject")
        for value in (
            "", 7, None, ["root"], "a/b", "user:alice", "a b", "a\nb", "a\0", "a" * 129, "\uff41lice", "ali\u0301ce",
            "\ud800", "-x", "*", True,
        )
    ],
    *[(f"jti {value!r}", token(body=claims(jti=value)), "token-jti") for value in ("", 7, None, "a/b", "j" * 129)],
    *[(f"org {value!r}", token(body=claims(org=value)), "token-org") for value in ("", 7, None, "a/b", "org:x", [])],
    *[
        (f"scopes {value!r}", token(body=claims(scopes=value)), "token-scopes")
        for value in (
            "ai:complete", "ai:complete admin:keys", [], ["*"], ["admin:*"], ["AI:COMPLETE"], ["ai:complete", "root"],
            ["ai:complete", "ai:complete"], [["ai:complete"]], ["ai:complete", 1], None, {"ai:complete": True}, True,
            ["ai:complete "], [None],
        )
    ],
]  # fmt: skip

SHARED = [*FORM, *HEADERS, *ALGORITHMS, *SIGNATURES, *CLAIMS]

CONTROLS: list[tuple[str, str]] = [
    ("a good one", GOOD),
    ("by the other key", token(header(kid="hs2"))),
    ("with an organisation", token(body=claims(org="acme"))),
    ("with every scope", token(body=claims(scopes=sorted(SCOPES)))),
    ("a whole hour", token(body=claims(iat=NOW_S - 5, exp=NOW_S + 3_595))),
    ("a moment before its end", token(body=claims(iat=NOW_S - 900, exp=NOW_S - 29))),
    ("from a clock that is ahead", token(body=claims(iat=NOW_S + 30))),
    ("from now on", token(body=claims(nbf=NOW_S))),
    ("from a moment that is nearly there", token(body=claims(nbf=NOW_S + 30))),
    ("members in another order", token(dict(reversed(header().items())), dict(reversed(claims().items())))),
    ("blanks in JSON", token(json.dumps(header(), indent=1).encode(), json.dumps(claims(), indent=2).encode())),
    ("an address as the subject", token(body=claims(sub="alice@example.com"))),
    ("names as long as they may be", token(body=claims(sub="a" * 128, org="b" * 128, jti="c" * 128))),
    ("letters as escapes", token(body=encoded(claims()).replace(b"worker", b"\\u0077orker"))),
]
PUBLIC_CONTROLS: list[tuple[str, str]] = [
    ("EdDSA", token(header(alg="EdDSA", kid="ed1"))),
    ("ES256", token(header(alg="ES256", kid="ec1"))),
    ("ES256, the other signature of the same", token(header(alg="ES256", kid="ec1"), signed_by=mirrored_ec)),
]


def refuse(desk: Desk, text: Any, reason: str) -> None:
    """The token is refused for that reason, tells nothing, and nothing is looked up for it."""
    signed = text.rpartition(".")[2] if isinstance(text, str) else ""
    check_nobody(lambda: desk.tokens.verify(text), reason, [signed])
    assert (0, 0) == (desk.documents.reads, desk.documents.writes)


@pytest.mark.parametrize(("text", "reason"), [pytest.param(*case[1:], id=case[0]) for case in SHARED])
def test_tokens_against_shared_secrets_are_refused(text: Any, reason: str) -> None:
    """Every one is refused with one and the same error, before any revocation is looked up."""
    refuse(Desk(), text, reason)


@pytest.mark.parametrize(("text", "reason"), [pytest.param(*case[1:], id=case[0]) for case in PUBLIC])
def test_tokens_against_public_keys_are_refused(text: Any, reason: str) -> None:
    """Whoever knows a public key cannot make a token with it."""
    refuse(Desk(public_keys()), text, reason)


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in CONTROLS])
def test_good_tokens_get_in(text: str) -> None:
    """What keeps to the rules is let in, to the last second and letter of them."""
    assert "jwt" == Desk().tokens.verify(text).method


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in PUBLIC_CONTROLS])
def test_good_tokens_of_public_keys_get_in(text: str) -> None:
    """The same for tokens that another service signed."""
    assert "worker-7" == Desk(public_keys()).tokens.verify(text).user


def test_size_is_counted_to_the_byte() -> None:
    """4,096 bytes are taken and 4,097 are not, whatever they say."""
    bare = len(token(body=encoded(claims())))
    texts = {
        len(made): made
        for blanks in range(3_000)
        if 4_094 <= len(made := token(body=encoded(claims()) + b" " * blanks)) <= 4_098
    }
    assert bare < 4_000 and min(texts) <= 4_096 < max(texts)
    for size, text in texts.items():
        if size <= 4_096:
            assert "worker-7" == Desk().tokens.verify(text).user
        else:
            refuse(Desk(), text, "token-size")


def test_the_lists_are_as_long_as_promised() -> None:
    """At least 124 attacks and 10 good tokens, none twice."""
    attacks = [repr(case[1]) for case in (*SHARED, *PUBLIC)]
    assert len(attacks) >= 124 and len(CONTROLS) + len(PUBLIC_CONTROLS) >= 10
    assert len(attacks) - len(set(attacks)) <= 1  # the good token is an attack on other keys
    assert shared_keys().find("hs1") is not None
