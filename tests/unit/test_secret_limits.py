"""The edges of what a secret's reference may be, and of what is weak."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from runrails.errors import ConfigError
from runrails.secretrefs import SECRET_BYTES_MAX, check_environment, resolve
from runrails.secretrules import DISTINCT_MIN, REST_MIN, weakness

DRAWN = "q7Zp0Wm4Xc9Vn2Bk8Lj5Hg1Fd6Sa3TyU"
OTHER = "M4xK9vB2nQ8jL5hG1fD6sA3tY7uI0oPe"


@pytest.mark.parametrize(
    ("name", "shown"), [("RUNRAILS_GONE", True), ("SECRETVALUEITSELF", False), ("secret_value_itself", False)]
)
def test_a_name_is_shown_only_if_it_looks_like_one(name: str, shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written in its place may be the secret."""
    monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError) as caught:
        resolve(f"env:{name}", what="RUNRAILS_X")
    assert shown is (name in str(caught.value))


@pytest.mark.parametrize("allow_plain", [False, True])
def test_an_empty_setting_is_empty(allow_plain: bool) -> None:
    """It refers to nothing, so nothing that it refers to is blamed."""
    with pytest.raises(ConfigError, match=r"^RUNRAILS_X is empty\."):
        resolve("", what="RUNRAILS_X", allow_plain=allow_plain)


def test_the_longest_secret_is_one(tmp_path: Path) -> None:
    """One byte more is not, with and without a line break behind it."""
    path = tmp_path / "secret"
    for data, good in (
        (b"x" * SECRET_BYTES_MAX, True),
        (b"x" * SECRET_BYTES_MAX + b"\r\n", True),
        (b"x" * (SECRET_BYTES_MAX + 1), False),
    ):
        path.write_bytes(data)
        if good:
            assert SECRET_BYTES_MAX == len(resolve(f"file:{path}", what="x").reveal_bytes())
        else:
            with pytest.raises(ConfigError, match="longer"):
                resolve(f"file:{path}", what="x")


def test_one_secret_in_two_settings_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is for; those that cannot be read are somebody else's to report."""
    monkeypatch.setenv("FIRST_SECRET", DRAWN)
    monkeypatch.setenv("SECOND_SECRET", OTHER)
    monkeypatch.delenv("GONE_SECRET", raising=False)
    settings = {"RUNRAILS_KEY_PEPPERS": "p1:env:FIRST_SECRET", "RUNRAILS_JWT_KEYS": "k1:HS256:env:SECOND_SECRET"}
    check_environment({**settings, "RUNRAILS_MASTER_KEYS": "k1:env:GONE_SECRET"})
    with pytest.raises(ConfigError, match="the same secret"):
        check_environment({**settings, "RUNRAILS_MASTER_KEYS": "k0:env:GONE_SECRET,k1:env:FIRST_SECRET"})


def test_the_least_that_is_not_weak() -> None:
    """One different character, one letter, one step fewer is."""
    letters = "aXcQeZgW"
    assert DISTINCT_MIN == len(letters) == len(set(letters))
    drawn = "aXcQeZgWXaQcZeWgcaXgQWeZZcWXaegQ"
    assert weakness(drawn.encode(), bytes_min=32) is None
    assert "has too few different characters" == weakness(drawn.replace("Z", "a").encode(), bytes_min=32)
    rest = "qzxwvkjhgfbnmptr"
    assert REST_MIN == len(rest)
    assert weakness(f"{rest}-changeme-changeme".encode(), bytes_min=32) is None
    assert "is made of words, like a placeholder" == weakness(f"{rest[1:]}-changeme-changeme-".encode(), bytes_min=32)


def test_two_thirds_of_a_secret_may_be_steps() -> None:
    """One step more, and anybody would try it."""
    steps = "abcdefghijklmnopqrstu"  # 20 of them
    just = steps + "Q5Z1X9W4J"
    assert 20 == sum(abs(ord(one) - ord(other)) <= 1 for one, other in pairwise(just))
    assert 3 * 20 == 2 * len(just)
    assert weakness(just.encode(), bytes_min=16) is None
    assert "is a sequence that anybody would try" == weakness((steps + "v5Z1X9W4J").encode(), bytes_min=16)
