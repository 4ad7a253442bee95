"""The vectors of C2SP's Wycheproof for signed tokens and their keys; read where they are kept, skipped where not."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import pytest

from runrails.errors import ConfigError
from runrails.identity.errors import Unauthenticated
from runrails.identity.jwt.jwk import read_jwks
from runrails.identity.jwt.keyset import ALGORITHMS, Key, Keys, KeySet, verify
from runrails.identity.jwt.strict import read_envelope
from runrails.secretvalue import Secret

VECTORS = Path(__file__).parents[3] / "shared" / "data" / "wycheproof"
pytestmark = pytest.mark.skipif(not VECTORS.is_dir(), reason=f"the vectors are not here: {VECTORS}")

DEFECTIVE = {
    367: "labelled invalid for its padding, and letter by letter the valid vector 357",
    370: "the same",
    372: "labelled valid, and has a question mark in it",
    373: "the same",
    346: "labelled valid, and its key is for PS256 while it says PS384",
    350: "the same",
    347: "labelled valid, and its key is for an algorithm that does not exist (ES521)",
    351: "the same",
}
"""Vectors of `json_web_signature` at commit dac1dd4 whose label contradicts RFC 7515 or RFC 7517."""


def load(name: str) -> list[dict[str, Any]]:
    """Groups of vectors that are signed tokens."""
    return json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))["testGroups"]


class Guessable(dict[str, Key]):
    """Keys that no `KeySet` takes."""

    def find(self, kid: str) -> Key | None:
        return self.get(kid)


def keys_of(group: dict[str, Any]) -> Keys:
    """The keys of a group as an operator would set them up: published ones by their set, shared ones by themselves."""
    told = group.get("public") or group["private"]
    entries = told.get("keys", [told])
    if not all(entry["kty"] == "oct" for entry in entries):
        return read_jwks(json.dumps({"keys": entries}).encode())
    if not all(entry.get("alg") == "HS256" and entry.get("use") == "sig" for entry in entries):
        raise ConfigError("Only HS256 is offered with a shared secret.", next_step="Use it.")
    if len({entry["kid"] for entry in entries}) != len(entries):
        raise ConfigError("An id twice cannot be written down in a setting.", next_step="Name them apart.")
    # An empty secret cannot even be made.
    secrets = {entry["kid"]: Secret(urlsafe_b64decode(entry["k"] + "==") or b"\0") for entry in entries}
    try:
        return KeySet.shared(secrets)
    except ConfigError as error:
        # Some vectors have a secret of zeroes or one that counts, which we refuse as one that can be guessed.
        if "shorter" in str(error):
            raise
        return Guessable({kid: Key(kid, "HS256", secret) for kid, secret in secrets.items()})


def offered(group: dict[str, Any]) -> bool:
    """Whether a group is about an algorithm that is offered; of the others, every vector must be refused."""
    told = group.get("public") or group["private"]
    return all(entry.get("alg") in ALGORITHMS for entry in told.get("keys", [told]))


def is_taken(group: dict[str, Any], text: Any) -> bool:
    """Whether a token of this group is verified. Nothing but a refusal may be raised."""
    try:
        verify(read_envelope(text), keys_of(group))
    except (ConfigError, Unauthenticated):
        return False
    return True


@pytest.mark.parametrize(
    ("name", "count", "valid"), [("json_web_signature", 401, 8), ("json_web_key", 26, 2), ("json_web_crypto", 49, 3)]
)
def test_all_vectors_are_answered_as_they_are_labelled(name: str, count: int, valid: int) -> None:
    """Each invalid one is refused, each valid one of an algorithm that is offered is taken, the others are refused."""
    wrong: list[tuple[int, str, bool]] = []
    seen = taken = 0
    for group in load(name):
        for vector in group["tests"]:
            if "jws" not in vector:
                continue
            seen += 1
            got = is_taken(group, vector["jws"])
            wanted = vector["result"] == "valid" and offered(group)
            if name == "json_web_signature" and vector["tcId"] in DEFECTIVE:
                wanted = vector["tcId"] in {367, 370}
            taken += got
            if got is not wanted:
                wrong.append((vector["tcId"], vector["comment"], got))
    assert [] == wrong
    assert (count, True) == (seen, taken >= valid)


def test_the_defective_vectors_are_what_we_say_of_them() -> None:
    """Two are a valid one in another place, two have a letter that no token has, four name two algorithms."""
    found = {vector["tcId"]: (group, vector) for group in load("json_web_signature") for vector in group["tests"]}
    assert all(found[357][1]["jws"] == found[number][1]["jws"] for number in (367, 370))
    assert all("?" in found[number][1]["jws"] and found[number][1]["result"] == "valid" for number in (372, 373))
    for number in (346, 347, 350, 351):
        group, vector = found[number]
        said = json.loads(urlsafe_b64decode(vector["jws"].split(".")[0] + "=="))["alg"]
        assert said != group["public"]["alg"] and vector["result"] == "valid"


def test_no_encrypted_token_is_taken() -> None:
    """Of the vectors for encrypted tokens, each is refused for its form before any key is looked at."""
    texts = [vector["jwe"] for group in load("json_web_encryption") for vector in group["tests"] if "jwe" in vector]
    assert len(texts) > 100
    for text in texts:
        with pytest.raises(Unauthenticated) as caught:
            read_envelope(text)
        assert caught.value.reason in {"token-segments", "token-letters", "token-size", "token-json"}
