"""A secret shows itself to nobody who does not ask by name."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pprint import pformat

import pytest

from rr_vault import CANARY, everything_of, leaks
from runrails.secretvalue import Secret

SECRET = Secret(CANARY)
UNTEXT = Secret(CANARY.encode() + b"\xff")


@dataclass
class Holder:
    """Something that has one."""

    secret: Secret
    others: dict[str, list[Secret]]


HOLDER = Holder(SECRET, {"more": [SECRET]})


def logged() -> str:
    """What the standard library's logging prints of it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("rr.secret")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.debug("%s %r", SECRET, HOLDER, extra={"secret": SECRET})
    logger.removeHandler(handler)
    return stream.getvalue()


@pytest.mark.parametrize(
    "show",
    [
        lambda: repr(SECRET), lambda: str(SECRET), lambda: f"{SECRET}", lambda: f"{SECRET!r:>80}",
        lambda: f"{SECRET:>80}", lambda: f"{SECRET:x}", lambda: "{}|{!r}|{!a}".format(*[SECRET] * 3),
        lambda: repr([SECRET]), lambda: repr(HOLDER), lambda: pformat(HOLDER), lambda: repr(asdict(HOLDER)),
        lambda: repr(dir(SECRET)), logged,
        lambda: json.dumps({"secret": SECRET}, default=str), lambda: repr(Secret(CANARY.encode())),
        lambda: repr(copy.copy(SECRET)), lambda: repr(copy.deepcopy(HOLDER)), lambda: repr(SECRET.__slots__),
    ],
)  # fmt: skip
def test_whatever_shows_it_does_not(show: Callable[[], str]) -> None:
    """No twelve characters of it are in what is shown."""
    assert [] == leaks(show(), CANARY)


@pytest.mark.parametrize(
    "use",
    [
        lambda: pickle.dumps(SECRET), lambda: pickle.dumps(HOLDER, protocol=0), lambda: json.dumps(SECRET),
        lambda: vars(SECRET), lambda: hash(SECRET), lambda: {SECRET}, lambda: iter(SECRET), lambda: len(SECRET),
        lambda: bytes(SECRET), lambda: SECRET + "", lambda: SECRET[0], SECRET.__getstate__,
        SECRET.__reduce__, lambda: SECRET.__reduce_ex__(2), lambda: setattr(SECRET, "_held", b"x"),
        lambda: setattr(SECRET, "more", 1), lambda: delattr(SECRET, "_held"), UNTEXT.reveal,
        lambda: Secret(CANARY + "\ud800"), lambda: Secret(""), lambda: Secret(b""), lambda: Secret(5),
        lambda: Secret(None), lambda: Secret(bytearray(b"x")), lambda: type("More", (Secret,), {}),
    ],
)  # fmt: skip
def test_whatever_would_take_it_apart_fails(use: Callable[[], object]) -> None:
    """With an error that does not have it either."""
    with pytest.raises((TypeError, ValueError, AttributeError)) as caught:
        use()
    assert [] == leaks(everything_of(caught.value), CANARY)
    assert CANARY == SECRET.reveal()


def test_it_is_given_to_who_asks() -> None:
    """As text or bytes, whatever it was made of."""
    assert (CANARY, CANARY.encode()) == (SECRET.reveal(), SECRET.reveal_bytes())
    assert ("ä", "ä".encode()) == (Secret("ä".encode()).reveal(), Secret("ä").reveal_bytes())
    assert b"\xff\x00" == Secret(b"\xff\x00").reveal_bytes()


def test_equal_is_what_holds_the_same_bytes() -> None:
    """Text equals its UTF-8 form; nothing else equals a secret, not even its text."""
    assert Secret("ä") == Secret("ä".encode())
    assert Secret("a") != Secret("b")
    assert Secret("a") != Secret("aa")
    assert (Secret("a") == "a") is False
    assert (Secret("a") == b"a") is False
