"""What has come of an answer: kept as it came and boiled down to its texts now and then; tells when it is a lot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from runrails.bounds import text_tokens_bound

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

    from runrails.growth import Growth
    from runrails.usage import Usage

__all__ = ["NOTHING", "Coming"]

KEPT_SIZE_MAX = 262_144
"""What is kept beyond this is boiled down to its texts, so that a long answer is not kept whole."""
LOOK_EVERY = 1_024
"""How much comes at least until one looks again; less would be looking all the time near the limit."""
_SAMPLES, _SAMPLES_MORE = 8, 1
"""Pieces that are looked into to learn how much there is around their texts: at first, and at every other look."""

_P = TypeVar("_P", bound="Sized")


class Coming(Generic[_P]):
    """
    The content of one answer, in pieces of which `boil` tells the text.

    A chunk costs an append and a comparison. What surrounds the text of a chunk is some forty times as long as that on
    the wires of today, so it is learnt from a few and taken off before anything is decoded. What that gets
    wrong is put right when all of it is boiled down, at the latest after `KEPT_SIZE_MAX`.
    """

    __slots__ = (
        "_boil", "_kept", "_look_at", "_sampled", "_shells", "_size", "_texts", "_tokens", "_tokens_max", "_told_max",
        "floor_usage", "grown", "input_usage",
    )  # fmt: skip

    def __init__(self, boil: Callable[[list[_P]], str]) -> None:
        self._boil = boil
        self._kept: list[_P] = []
        self._size = 0
        self._look_at = KEPT_SIZE_MAX
        self._shells = self._sampled = 0
        """What was around the texts of pieces that were looked into, and of how many."""
        self._texts: list[str] = []
        self._tokens = 0
        self._tokens_max: int | None = None
        self._told_max: int | None = None
        self.grown = False
        """Whether more came than was asked to be told of."""
        self.input_usage: Usage | None = None
        self.floor_usage: Usage | None = None

    @property
    def tokens(self) -> int:
        """The most tokens that its texts so far can be."""
        self._boil_down()
        return self._tokens

    def texts(self) -> tuple[str, ...]:
        """All of its texts so far."""
        self._boil_down()
        return tuple(self._texts)

    def watch(self, growth: Growth) -> None:
        """Tell once more has come than `growth` says."""
        self._tokens_max, self._told_max = growth.tokens_max, growth.told_max
        self.grown = False
        self._look_on()

    def keep(self, piece: _P) -> None:
        """Take in a piece."""
        self._kept.append(piece)
        self._size += len(piece)
        if self._size > self._look_at:
            self._look()

    def keep_wide(self, piece: _P) -> None:
        """Take in a piece whose text may be several tokens a character."""
        self._size += 3 * len(piece)
        self.keep(piece)

    def told(self, input_usage: Usage | None, floor_usage: Usage | None) -> None:
        """Usage was reported before the end."""
        self.input_usage, self.floor_usage = input_usage, floor_usage
        if floor_usage is not None and self._told_max is not None and floor_usage.output_tokens > self._told_max:
            self.grown = True

    def _look(self) -> None:
        if self._size > KEPT_SIZE_MAX or (self._tokens_max is not None and self._room() < 0):
            self._boil_down()
        if self._tokens_max is not None and self._tokens > self._tokens_max:
            self.grown = True
        self._look_on()

    def _look_on(self) -> None:
        room = KEPT_SIZE_MAX if self.grown or self._tokens_max is None else self._room()
        self._look_at = min(KEPT_SIZE_MAX, self._size + max(room, LOOK_EVERY))

    def _room(self) -> int:
        """How much text may come until it is too much."""
        kept = self._kept
        self._learn(kept[:: len(kept) // _SAMPLES + 1] if self._sampled < _SAMPLES else kept[-_SAMPLES_MORE:])
        around = self._shells * len(kept) // self._sampled if self._sampled else 0
        return (self._tokens_max or 0) - self._tokens - self._size + around

    def _learn(self, pieces: list[_P]) -> None:
        for piece in pieces:
            text = self._boil([piece])
            if text:  # One without tells nothing: it may be much longer, as the one that tells how it began.
                self._shells += len(piece) - text_tokens_bound((text,))
                self._sampled += 1

    def _boil_down(self) -> None:
        if self._kept:
            text = self._boil(self._kept)
            self._texts.append(text)
            self._tokens += text_tokens_bound((text,))
            self._kept.clear()
            self._size = 0


NOTHING: Coming[bytes] = Coming(lambda _: "")
"""For an answer of which nobody tells what came."""
