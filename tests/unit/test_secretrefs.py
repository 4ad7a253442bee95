"""References to secrets: what they find, what they refuse, and that nothing of a secret is told on the way."""

from __future__ import annotations

import os
import random
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runrails.errors import ConfigError
from runrails.secretrefs import SECRET_BYTES_MAX, check_distinct, check_strength, resolve
from runrails.secretrules import weakness
from runrails.secretvalue import Secret

CANARY = "c4n4ry-Qm9bVtX2sLpR7wZkD1yHfJ8uNe5gTa"


def told(error: BaseException) -> str:
    """All that an error says, with what it was raised after."""
    found = f"{error!r} {error} {getattr(error, 'as_dict', dict)()}"
    for other in (error.__cause__, error.__context__):
        found += "" if other is None else told(other)
    return found


def leaks(error: BaseException, secret: str = CANARY) -> bool:
    """Whether any twelve letters of the secret are in it."""
    text = told(error)
    return any(secret[at : at + 12] in text for at in range(len(secret) - 11))


def test_a_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The value of the variable, to the last letter; changing it later changes nothing."""
    monkeypatch.setenv("SOME_KEY", CANARY + " \n")
    found = resolve("env:SOME_KEY", what="RUNRAILS_X")
    monkeypatch.setenv("SOME_KEY", "other")
    assert (CANARY + " \n", "Secret(…)") == (found.reveal(), repr(found))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (CANARY.encode(), CANARY.encode()),
        (CANARY.encode() + b"\n", CANARY.encode()),
        (CANARY.encode() + b"\r\n", CANARY.encode()),
        (CANARY.encode() + b"\n\n", CANARY.encode() + b"\n"),
        (CANARY.encode() + b" ", CANARY.encode() + b" "),
        (b"\xff\xfe" * 20 + b"\n", b"\xff\xfe" * 20 + b"\n"),
        (b"x" * SECRET_BYTES_MAX, b"x" * SECRET_BYTES_MAX),
        (b"x" * SECRET_BYTES_MAX + b"\r\n", b"x" * SECRET_BYTES_MAX),
    ],
)
def test_a_file_is_read(tmp_path: Path, data: bytes, expected: bytes) -> None:
    """As it is, but for the line break that an editor puts at the end of a text."""
    (tmp_path / "key").write_bytes(data)
    assert expected == resolve(f"file:{tmp_path}/key", what="RUNRAILS_X").reveal_bytes()
    assert expected == resolve(f"file://{tmp_path}/key", what="RUNRAILS_X").reveal_bytes()


@pytest.mark.parametrize(
    "reference",
    [
        "",
        CANARY,
        "env",
        "env:",
        "env:A B",
        "env:\ud800",
        "env:1A",
        "env:A=B",
        "env:RUNRAILS_NOT_THERE",
        f"env:{CANARY}",
        "ENV:SOME_KEY",
        "env:SOME_KEY ",
        " env:SOME_KEY",
        "file:",
        "file:relative",
        "file:~/key",
        "file:/not/there",
        "file:/",
        "file:/a\0b",
        "file:/a\nb",
        "evn:SOME_KEY",
        f"{CANARY[:3]}:{CANARY}",
        "http://example.com/secret",
        "data:x",
        "env:EMPTY_ONE",
    ],
)
@pytest.mark.parametrize("allow_plain", [False, True])
def test_what_refers_to_nothing_is_refused(reference: str, allow_plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting is named, and neither what was written there nor any secret is shown."""
    monkeypatch.setenv("SOME_KEY", CANARY)
    monkeypatch.setenv("EMPTY_ONE", "")
    if allow_plain and reference in {CANARY, "env", "ENV:SOME_KEY", " env:SOME_KEY"}:
        assert reference == resolve(reference, what="RUNRAILS_X", allow_plain=True).reveal()
        return
    with pytest.raises(ConfigError) as caught:
        resolve(reference, what="RUNRAILS_X", allow_plain=allow_plain)
    assert "RUNRAILS_X" == caught.value.fields["setting"] and "RUNRAILS_X" in str(caught.value)
    assert not leaks(caught.value)


def test_a_path_begins_at_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is meant from wherever a process happens to be is refused, even if it is there."""
    (tmp_path / "key").write_bytes(CANARY.encode())
    monkeypatch.chdir(tmp_path)
    for reference in ("file:key", "file:./key", "file://key"):
        with pytest.raises(ConfigError, match="absolute path"):
            resolve(reference, what="RUNRAILS_X")


def test_too_much_is_no_secret(tmp_path: Path) -> None:
    """A byte more than a secret may have is refused, in a file, in a variable, and from a file without an end."""
    (tmp_path / "key").write_bytes(b"x" * (SECRET_BYTES_MAX + 1))
    for reference in (f"file:{tmp_path}/key", "file:/dev/zero"):
        with pytest.raises(ConfigError, match="longer than"):
            resolve(reference, what="RUNRAILS_X")
    (tmp_path / "key").write_bytes(b"")
    with pytest.raises(ConfigError, match="is empty"):
        resolve(f"file:{tmp_path}/key", what="RUNRAILS_X")


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    """A directory is no file; the error says why, as the system does."""
    with pytest.raises(ConfigError, match="directory"):
        resolve(f"file:{tmp_path}", what="RUNRAILS_X")


def test_a_variable_that_is_no_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that no text has cannot come through the environment; they are told to come from a file."""
    monkeypatch.setitem(os.environb, b"SOME_KEY", CANARY.encode() + b"\xff")
    with pytest.raises(ConfigError, match="no text") as caught:
        resolve("env:SOME_KEY", what="RUNRAILS_X")
    assert not leaks(caught.value)


DRAWN = random.Random(1)
"""The same keys in each run: of as many as are drawn in ten thousand runs, one has too few different digits."""
MAKERS: list[Callable[[], bytes]] = [
    lambda: DRAWN.randbytes(32),
    lambda: DRAWN.randbytes(16).hex().encode(),
    lambda: DRAWN.randbytes(32).hex().encode(),
    lambda: urlsafe_b64encode(DRAWN.randbytes(32)).rstrip(b"="),
    lambda: b64encode(DRAWN.randbytes(32)),
    lambda: b64encode(DRAWN.randbytes(64)),
    lambda: "".join(DRAWN.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(32)).encode(),
]


@pytest.mark.parametrize("make", MAKERS)
def test_drawn_keys_are_strong(make: Callable[[], bytes]) -> None:
    """Of 2,000 keys that were drawn in the usual ways none is refused."""
    assert [] == [found for _ in range(2_000) if (found := weakness(make(), bytes_min=32)) is not None]


WEAK: list[bytes] = [
    b"aeiaouzeaiozua5eizoaue5iaoeuz5iaeou",
    b"Zk9Qw3Er5Ty7Ui1Op2As" * 2,
    b"Zk9Qw3Er5Ty7Ui1O" * 2 + b"Zk9",
    b"x" * 31,
    bytes.fromhex("c1f3a47e90b2d85566e7083b1c9a4fd2207e8b6a5d13f9c4ee018273b5a6d4"),
    b"\0" * 32,
    b"a" * 64,
    b"ab" * 16,
    b"0123456" * 8,
    b"0123456789abcdef" * 2,
    b"0123456789abcdef0123456789abcde" + b"f",
    bytes(range(32)),
    bytes(range(64)),
    bytes(reversed(range(32))),
    b"abcdefghijklmnopqrstuvwxyz0123456789",
    b"aabbccddeeffgghhiijjkkllmmnnooppqq",
    b"secret" * 6,
    b"changeme" * 4,
    b"change-me-change-me-change-me-change-me",
    b"this-is-my-super-secret-jwt-signing-key",
    b"your-256-bit-secret-goes-here!!!",
    b"CHANGE_ME_TO_A_LONG_RANDOM_STRING_PLEASE",
    b"replace-this-with-a-real-production-secret",
    b"please-generate-a-random-32-byte-secret-here",
    b"insecure-default-development-key-do-not-use",
    b"my-secret-my-secret-my-secret-my-secret",
    b"test-test-test-test-test-test-test-test1",
    b"supersecretpasswordsupersecretpass",
    b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    b"runrails-example-pepper-for-local-testing",
    b"PLACEHOLDER_PLACEHOLDER_PLACEHOLDER_1",
    b"correct horse battery staple correct horse",
    b"AKIAAKIAAKIAAKIAAKIAAKIAAKIAAKIAAKIA",
    b"1234567890123456789012345678901234567890",
    b"qwertyuiopqwertyuiopqwertyuiopqwerty",
    b"password1234password5678password90ab",
    b"todo: put the jwt secret of the gateway here",
]


@pytest.mark.parametrize("secret", WEAK)
def test_what_people_write_for_a_secret_is_refused(secret: bytes) -> None:
    """Short ones, repetitions, sequences and placeholders; the error names the setting and shows nothing of it."""
    with pytest.raises(ConfigError) as caught:
        check_strength(Secret(secret), what="RUNRAILS_PEPPER")
    assert "RUNRAILS_PEPPER" in str(caught.value)
    text = secret.decode("latin-1")
    assert not any(text[at : at + 12] in told(caught.value) for at in range(len(text) - 11))


def test_the_least_length_can_be_another() -> None:
    """A caller says how many bytes it needs; one less is refused."""
    drawn = Secret(DRAWN.randbytes(16))
    assert drawn is check_strength(drawn, what="x", bytes_min=16)
    with pytest.raises(ConfigError, match="shorter than 17 bytes"):
        check_strength(drawn, what="x", bytes_min=17)


def test_one_secret_in_two_places_is_refused() -> None:
    """The two settings are named; different secrets are fine, whatever they are called."""
    one, two, three = (Secret(CANARY + end) for end in "abc")
    check_distinct({})
    check_distinct({"pepper": one, "jwt": two, "master": three})
    for same in ({"pepper": one, "jwt": two, "master": Secret(CANARY + "a")}, {"pepper": one, "master": one}):
        with pytest.raises(ConfigError) as caught:
            check_distinct(same)
        assert "pepper and master are the same secret." in str(caught.value)
        assert not leaks(caught.value)


def test_another_place_is_found_by_its_scheme() -> None:
    """What an integration reads is asked with what stands behind the scheme."""
    with pytest.raises(ConfigError, match="must name a parameter"):
        resolve("ssm:relative/name", what="RUNRAILS_X")


def test_a_source_gives_text_or_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it gives is held as a secret, and what is none is refused."""
    from runrails import secretrefs

    answers: list[Any] = [CANARY, CANARY.encode(), "", b""]
    monkeypatch.setattr(secretrefs, "_elsewhere", lambda scheme, what: lambda rest, what: answers.pop(0))
    for _ in range(2):
        assert CANARY == resolve("vault:x", what="RUNRAILS_X").reveal()
    for _ in range(2):
        with pytest.raises(ConfigError, match="empty"):
            resolve("vault:x", what="RUNRAILS_X")
