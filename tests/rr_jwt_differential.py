"""
Tokens changed at random, shown to us and to joserfc: what it refuses, we refuse as well.

The suite plays 2,000 of them. More, in the background of a free evening: python tests/rr_jwt_differential.py 100000
"""

from __future__ import annotations

import json
import sys
import warnings
from random import Random
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey

from rr_jwt import AUDIENCE, EC, ED, ISSUER, NOW_S, SECRETS, Desk, claims, header, pem, public_keys, shared_keys, token
from runrails.identity.errors import Unauthenticated

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
ODD: list[Any] = [
    None, True, False, 0, 1, -1, 1.5, 2**31, 2**53, 2**63, "", " ", "0", "none", "\ud800", "\u0000", [], [[]], {},
    {"a": 1},
    NOW_S, str(NOW_S), float(NOW_S), NOW_S + 30, NOW_S + 31, NOW_S - 29, NOW_S - 30, NOW_S - 31, NOW_S + 3_600,
    ["ai:complete"], ["ai:complete", "admin:keys"], "ai:complete", ISSUER, AUDIENCE, [AUDIENCE], "service",
    "hs1", "ed1",
]  # fmt: skip
NAMES = ["alg", "kid", "typ", "crit", "b64", "jwk", "zip", *claims(), "nbf", "org", "scope", "admin"]
KEYS = {"hs1": "HS256", "hs2": "HS256", "ed1": "EdDSA", "ec1": "ES256"}


class Other:
    """Joserfc, set up as carefully as it can be."""

    def __init__(self, *, shared: bool) -> None:
        if shared:
            keys = [OctKey.import_key(secret, {"kid": kid, "alg": "HS256"}) for kid, secret in SECRETS.items()]
            self._set, self._algorithms = KeySet(list(keys)), ["HS256"]
        else:
            ed = OKPKey.import_key(pem(ED), {"kid": "ed1", "alg": "EdDSA"})
            ec = ECKey.import_key(pem(EC), {"kid": "ec1", "alg": "ES256"})
            self._set, self._algorithms = KeySet([ed, ec]), ["EdDSA", "ES256"]
        self._claims = jwt.JWTClaimsRegistry(
            now=NOW_S,
            leeway=30,
            iss={"essential": True, "value": ISSUER},
            aud={"essential": True, "value": AUDIENCE},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            jti={"essential": True},
            type={"essential": True, "value": "service"},
        )

    def takes(self, text: str) -> bool:
        """Whether it lets this token in."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SecurityWarning)  # of the name EdDSA, which RFC 9864 would have longer
                found = jwt.decode(text, self._set, algorithms=self._algorithms)
            self._claims.validate(found.claims)
        except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return False
        return True


def changed_parts(random: Random, part: dict[str, Any]) -> Any:
    """A header or claims with one to three things wrong, or none."""
    for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
        name = random.choice(NAMES)
        match random.randrange(4):
            case 0:
                part.pop(name, None)
            case 1:
                part[name] = random.choice(ODD)
            case 2:
                moved = random.choice(list(part) or ["x"])
                part[moved] = random.choice(ODD)
            case _:
                value = part.get(name)
                if isinstance(value, int):
                    part[name] = value + random.choice((-4_000, -31, -30, -1, 1, 30, 31, 60, 2_700, 2_701, 4_000))
    return part


def written(random: Random, part: dict[str, Any]) -> bytes:
    """As JSON, in one of the ways that readers differ about."""
    text = json.dumps(part)
    match random.randrange(14):
        case 0 if part:
            name = random.choice(list(part))
            text = text[:-1] + f", {json.dumps(name)}: {json.dumps(random.choice(ODD))}}}"
        case 1:
            return text.encode(random.choice(("utf-16", "utf-8-sig", "utf-32")), "surrogatepass")
        case 2:
            text += random.choice((" ", "\n", "x", "{}", ",", "\0"))
        case 3:
            text = text.replace(str(NOW_S), random.choice((f"{NOW_S}.0", "1e9", "NaN", "Infinity", f"0{NOW_S}")))
        case 4:
            text = random.choice((" ", "\t", "\ufeff", "[")) + text
        case _:
            pass
    return text.encode("utf-8", "surrogatepass")


def scrambled(random: Random, text: str) -> str:
    """A token with letters changed, lost, doubled or moved, or none."""
    for _ in range(random.choice((0, 0, 1, 1, 2, 5))):
        at = random.randrange(len(text) + 1)
        match random.randrange(6):
            case 0:
                text = text[:at] + random.choice(ALPHABET) + text[at + 1 :]
            case 1:
                text = text[:at] + text[at + 1 :]
            case 2:
                text = text[:at] + random.choice(ALPHABET + "=. +/\n%\0é") + text[at:]
            case 3:
                text = text[:at]
            case 4:
                text = text + random.choice(("=", "==", "A", ".", "\n", " "))
            case _:
                parts = text.split(".")
                random.shuffle(parts)
                text = ".".join(parts)
        text = text or "."
    return text


def mutant(random: Random) -> tuple[str, bool]:
    """A token that is mostly wrong in some way, and whether it is for shared secrets."""
    kid = random.choice(list(KEYS))
    head, body = header(kid=kid, alg=KEYS[kid]), claims()
    how = random.randrange(4)
    if how == 0:
        head = changed_parts(random, head)
    elif how == 1:
        body = changed_parts(random, body)
    signer = kid if random.randrange(8) else random.choice(list(KEYS))
    text = token(written(random, head), written(random, body), by=signer)
    return (scrambled(random, text) if how == 2 else text), kid in SECRETS


def play(count: int, seed: int = 1) -> tuple[int, int, int, list[str]]:
    """How many both take, we alone refuse and both refuse; and the tokens that only we take, which must be none."""
    random = Random(seed)
    ours = {True: Desk(shared_keys(), cache_ms=0), False: Desk(public_keys(), cache_ms=0)}
    others = {True: Other(shared=True), False: Other(shared=False)}
    both = stricter = neither = 0
    wrong: list[str] = []
    for _ in range(count):
        text, shared = mutant(random)
        try:
            ours[shared].tokens.verify(text)
            taken = True
        except Unauthenticated:
            taken = False
        if others[shared].takes(text):
            both, stricter = both + taken, stricter + (not taken)
        elif taken:
            wrong.append(text)
        else:
            neither += 1
    return both, stricter, neither, wrong


if __name__ == "__main__":
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    took, alone, refused, bad = play(total, seed=int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    print(f"{total:,} tokens: both take {took:,}, only joserfc {alone:,}, neither {refused:,}, only we {len(bad):,}")
    for text in bad[:20]:
        print(text)
    sys.exit(1 if bad else 0)
