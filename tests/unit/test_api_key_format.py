"""How API keys are written, and that nobody else's scanner takes them for a key of another service."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import pytest

from rr_keys import resealed
from runrails.identity.apikeys import SCANNER_REGEX
from runrails.identity.apikeys.format import checksum, make_key, new_key_id, parse_key, prefix_of

DRAWN = random.Random(1).randbytes
"""The same keys in each run: one in some hundred thousand has a pattern of somebody's by chance."""

# Written by us after the forms of well-known keys; each stands for a family that scanners look for anywhere in a text.
DANGEROUS = {
    "stripe": r"(?:sk|rk|pk)_(?:live|test|prod)_[0-9a-zA-Z]{10,99}",
    "live or test and 35": r"(?:live|test)_[0-9a-zA-Z]{35}",
    "github": r"(?:ghp|gho|ghu|ghs|ghr)_[0-9a-zA-Z]{36,76}",
    "github, fine-grained": r"github_pat_\w{82}",
    "gitlab": r"glpat-[\w-]{20}",
    "openai": r"sk-[0-9a-zA-Z]{20}T3BlbkFJ[0-9a-zA-Z]{20}",
    "any sk- key": r"sk-[0-9A-Za-z_-]{20,}",
    "npm": r"npm_[0-9a-zA-Z]{36}",
    "figma": r"fig[du]_[0-9a-zA-Z]{40}",
    "hugging face": r"(?:hf|api_org)_[a-zA-Z]{34}",
    "replicate": r"r8_[0-9A-Za-z_-]{37}",
    "klaviyo": r"pk_[0-9a-f]{34}",
    "aws": r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b",
    "google": r"AIza[0-9A-Za-z_-]{35}\b",
    "slack": r"xox[abprs]-[0-9A-Za-z-]{10,}",
    "json web token": r"eyJ[0-9A-Za-z_-]+\.eyJ",
    "any small letters, _ and 30": r"[a-z0-9]_[0-9a-zA-Z]{30,}",
}


def written(key_id: str, environment: str = "live") -> str:
    body = f"rr_{environment}_{key_id}_{'a1B2' * 10}xyz"
    return body + checksum(body)


def test_a_key_has_74_characters_and_says_its_id_and_environment() -> None:
    """What is made can be read, and begins with what may be shown of it."""
    for environment in ("live", "test"):
        key_id = new_key_id(DRAWN)
        text = make_key(environment, key_id, DRAWN).reveal()
        assert len(text) == 74
        assert parse_key(text) == (key_id, environment)
        assert text.startswith(prefix_of(environment, key_id) + "_")
        assert re.fullmatch(SCANNER_REGEX, text)


def test_a_written_key_does_not_change_between_versions() -> None:
    """The checksum is CRC-32 in six digits of base62, as scanners may compute it too."""
    assert checksum("rr_live_0123456789abcdeF_" + "0" * 43) == "3og31p"
    assert checksum("") == "000000"


@pytest.mark.parametrize(
    "broken",
    [
        "", "rr", "rr_live_", "rr_live__", "x" * 74, "é" * 74, "\ud800" * 74, "rr_live_" + "\n" * 66, None, 74,
        b"rr_live_", ["rr_live_"],
    ],
)  # fmt: skip
def test_what_is_no_key_is_none(broken: object) -> None:
    """Nothing, something else, something of the right length, and what is no text at all."""
    assert parse_key(broken) is None


def test_every_single_changed_character_is_refused_by_the_form_or_the_checksum() -> None:
    """A checksum is wrong after any mistyped character; none reaches the store."""
    text = written("0123456789abcdeF")
    assert parse_key(text) is not None
    for place in range(len(text)):
        for letter in "0aZ_- \n":
            if letter != text[place]:
                assert parse_key(text[:place] + letter + text[place + 1 :]) is None


def test_a_right_checksum_does_not_save_a_wrong_form() -> None:
    """Other environments, prefixes, alphabets and separators, each with the checksum that goes with it."""
    for wrong in (
        written("0123456789abcdef"),  # the id ends in a small letter
        resealed(written("0123456789abcdeF").replace("rr_live", "rr_prod")),
        resealed(written("0123456789abcdeF").replace("rr_live", "RR_LIVE")),
        resealed(written("0123456789abcdeF").replace("rr_", "sk_")),
        resealed(written("0123456789abcd-F")),
        resealed(written("0123456789abcdeF")[:25] + "_" * 43 + "000000"),
        written("0123456789abcdeFG")[:74],
    ):
        assert len(wrong) == 74
        assert parse_key(wrong) is None


def test_older_keys_are_known_only_where_they_are_wanted() -> None:
    """`sk-` and 48 characters; their first twelve are the id."""
    text = "sk-" + "aB3-_xyz" * 6
    assert parse_key(text) is None
    assert parse_key(text, legacy=True) == ("sk-aB3-_xyza", None)
    assert parse_key(text + "x", legacy=True) is None
    assert parse_key(text[:-1], legacy=True) is None
    assert parse_key(text[:-1] + "\n", legacy=True) is None


def test_every_character_is_drawn_equally_often() -> None:
    """No byte is folded onto a part of the alphabet, and a source that repeats itself is drawn from again."""
    drawn = Counter("".join(make_key("live", "0123456789abcdeF", DRAWN).reveal()[25:68] for _ in range(2_000)))
    assert len(drawn) == 62
    assert max(drawn.values()) < 1.25 * min(drawn.values())
    unusable = iter([b"\xff" * 15, bytes(15), b"\xff", b"\x00"])
    assert new_key_id(lambda count: next(unusable)) == "0" * 15 + "A"


def test_no_pattern_of_another_service_finds_a_key() -> None:
    """However the id ends in its drawn characters: also as another service's keys begin."""
    beginnings = (
        "sk",
        "rk",
        "pk",
        "ghp",
        "gho",
        "ghu",
        "ghs",
        "ghr",
        "npm",
        "hf",
        "r8",
        "figd",
        "figu",
        "xoxb",
        "glpat",
    )
    ids = [new_key_id(DRAWN) for _ in range(300)]
    ids += [(new_key_id(DRAWN)[: 15 - len(each)] + each + "Q") for each in beginnings for _ in range(5)]
    texts = [make_key(env, key_id, DRAWN).reveal() for env in ("live", "test") for key_id in ids]
    for service, pattern in DANGEROUS.items():
        found = [text for text in texts if re.search(pattern, text)]
        assert found == [], service


def test_those_patterns_would_find_what_we_do_not_do() -> None:
    """The test above can fail: an id that ends in small letters, no separator, another prefix."""
    secret = "0aB" * 16
    for service, text in {
        "github": f"rr_live_0123456789abcghp_{secret}",
        "live or test and 35": f"rr_live_0123456789abcdeF{secret}",
        "stripe": f"grk_live_0123456789abcdeF_{secret}",
        "any sk- key": f"sk-{secret}",
    }.items():
        assert re.search(DANGEROUS[service], text), service


def test_the_documentation_has_our_scanner_pattern() -> None:
    """As it is."""
    assert SCANNER_REGEX in (Path(__file__).parents[2] / "docs" / "identity.md").read_text(encoding="utf-8")


def test_our_scanner_pattern_finds_keys_in_text_and_nothing_else() -> None:
    """In code, JSON, headers and URLs; not inside a longer word, and not with a character missing."""
    text = written("0123456789abcdeF")
    for around in ("{}", 'KEY = "{}"', "Authorization: Bearer {}\n", "https://x/?key={}&y", "<{}>"):
        assert re.findall(SCANNER_REGEX, around.format(text)) == [text]
    for other in (text[:-1], text + "0", "x" + text, text.replace("live", "prod"), text.upper()):
        assert re.search(SCANNER_REGEX, other) is None
