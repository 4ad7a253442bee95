"""What has come of an answer is told of in time and cheaply, whatever surrounds the texts on the wire."""

from __future__ import annotations

import json

import pytest

from runrails.clients import coming as module
from runrails.clients.coming import LOOK_EVERY, Coming
from runrails.usage import Usage


class Limit:
    """As much of a growth as is asked for here."""

    def __init__(self, tokens_max: int, told_max: int = 10**9) -> None:
        self.tokens_max, self.told_max = tokens_max, told_max


class Wire:
    """Chunks as a provider sends them, and how often their texts were looked into."""

    def __init__(self, *, around: int = 150, padding: int = 0) -> None:
        self.decoded = 0
        self._shell = "x" * around
        self._padding = padding
        self._count = 0

    def chunk(self, text: str) -> bytes:
        """One chunk; with `padding` of all sizes up to that."""
        self._count += 1
        return json.dumps(
            {"i": self._shell, "t": text, "p": "y" * (self._count * 2_654_435_761 % 2**32 * (self._padding + 1) >> 32)}
        ).encode()

    def boil(self, kept: list[bytes]) -> str:
        """The texts in chunks."""
        self.decoded += len(kept)
        return "".join(json.loads(data)["t"] for data in kept)


def come(coming: Coming[bytes], wire: Wire, text: str, *, most: int) -> int:
    """Let chunks of a text come until it is told of; how many did."""
    for number in range(1, most + 1):
        coming.keep(wire.chunk(text))
        if coming.grown:
            return number
    return most + 1


@pytest.mark.parametrize("padding", [0, 20])
@pytest.mark.parametrize("around", [0, 40, 150, 400])
@pytest.mark.parametrize("text", ["word ", "w", "x" * 80, "語り", '\\"\n'])
def test_it_is_told_of_in_time(text: str, around: int, padding: int) -> None:
    """Never before there is more than asked for, and soon after."""
    wire = Wire(around=around, padding=padding)
    coming = Coming(wire.boil)
    coming.watch(Limit(3_000))  # type: ignore[arg-type]  # what is looked at is there
    number = come(coming, wire, text, most=10_000)
    size = len(text.encode())
    assert 3_000 < number * size == coming.tokens
    # Half again as much at most; twice as much where the padding is a multiple of the text.
    assert number * size <= 3_000 * (2 if padding else 1.5) + LOOK_EVERY


def test_an_answer_that_keeps_to_its_cap_is_hardly_looked_into() -> None:
    """A thousand tokens of English under a cap of a thousand: a few chunks are decoded, and nothing is told."""
    wire = Wire()
    coming = Coming(wire.boil)
    coming.watch(Limit(8_000))  # type: ignore[arg-type]  # see above
    assert 1_001 == come(coming, wire, "word ", most=1_000)
    assert wire.decoded <= 150
    assert 5_000 == coming.tokens


def test_it_goes_on_watching_with_a_higher_limit() -> None:
    """Once more is held for, the next time is when that is passed."""
    wire = Wire()
    coming = Coming(wire.boil)
    coming.watch(Limit(1_000))  # type: ignore[arg-type]  # see above
    first = come(coming, wire, "word ", most=10_000)
    coming.watch(Limit(5_000))  # type: ignore[arg-type]  # see above
    assert not coming.grown
    second = come(coming, wire, "word ", most=10_000)
    assert 1_000 < first * 5 < 5_000 < (first + second) * 5 == coming.tokens


def test_usage_that_is_told_counts_at_once() -> None:
    """Exactly, and not before."""
    coming = Coming(Wire().boil)
    coming.watch(Limit(10**9, told_max=100))  # type: ignore[arg-type]  # see above
    coming.told(None, Usage(input_tokens=5, output_tokens=100))
    assert not coming.grown
    coming.told(None, Usage(input_tokens=5, output_tokens=101))
    assert coming.grown


def test_nothing_is_told_that_nobody_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a limit texts are kept, boiled down now and then, and none is lost."""
    monkeypatch.setattr(module, "KEPT_SIZE_MAX", 2_000)
    wire = Wire()
    coming = Coming(wire.boil)
    assert 101 == come(coming, wire, "word ", most=100)
    assert ("word " * 100, 500) == ("".join(coming.texts()), coming.tokens)
