"""
Requests of a conversation, each of which brings along all that the one before it did: read by what is new.

What was read is kept for some minutes, in few bytes and for its owner alone: a request that begins with the very same
text is the same up to there. Whatever is read in this way is equal to what `read_json` makes of all of it, and what is
refused is refused by that. Pure; for one event loop.
"""

from __future__ import annotations

import json.decoder
from collections import OrderedDict
from contextlib import suppress
from sys import getsizeof
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

from runrails.wirecount import Measured
from runrails_gateway.jsonin import DEPTH_MAX, after_space, has_half_pair, is_deep, read_json, scan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["BYTES_MAX", "BYTES_MIN", "Growing", "Grown", "Memo", "measured_of"]

BYTES_MIN = 8_192
"""A smaller request is read sooner than found."""
BYTES_MAX = 6_000_000
"""Of all that is kept, by `_size`."""
KEPT_MS_MAX = 300_000
LISTS = {"chat.complete": "messages", "messages.create": "messages", "responses.create": "input"}
"""Where each operation has its conversation."""
MARKS_MAX = 24
LOOKED_MAX = 4
"""So many of an owner's conversations, the newest, may have been changed before their end."""
ALIKE_CHARS = 4_096
CHANGED_MAX = 4
"""So many items at the end of a conversation may be others in the next request, and it is that conversation still."""
_PARSED, _ITEM_BYTES = 2, 900
"""What the parts of a text take once they are read, as measured: so many times the text, and for each item besides."""
_State = TypeVar("_State")
_scan_name = cast("Callable[[str, int], tuple[str, int]]", vars(json.decoder)["scanstring"])
"""The text whose first letter is at a place, and where it ends, behind its mark."""


class Memo:
    """What others made of the first items of a conversation, to go on from. Nothing in it is changed, but replaced."""

    __slots__ = ("_states",)

    def __init__(self, states: dict[str, tuple[int, object]]) -> None:
        self._states = states

    def known(self, what: str, items: int, begin: Callable[[], _State]) -> tuple[int, _State]:
        """How many of `items` have been looked at, and what came of it; `begin()` if nothing did."""
        known = self._states.get(what)
        return (0, begin()) if known is None or known[0] > items else cast("tuple[int, _State]", known)

    def note(self, what: str, items: int, state: object) -> None:
        """What came of the first so many."""
        self._states[what] = (items, state)

    def grown(self, items: int) -> Memo:
        """The same for a conversation that begins with so many of these items."""
        return Memo({what: known for what, known in self._states.items() if known[0] <= items})


class Grown(dict[str, object]):
    """A request's JSON, and what is known of its conversation. What is in it must not be changed."""

    __slots__ = ("count", "memo")
    memo: Memo
    count: int
    """How many its conversation has."""


def measured_of(body: Mapping[str, object]) -> Measured | None:
    """What measuring the conversation of a request may go on from."""
    if type(body) is not Grown:
        return None
    _, known = body.memo.known("wire", body.count, Measured)
    measured = known.grown()
    body.memo.note("wire", body.count, measured)
    return measured


class _Kept:
    """A list as it was read."""

    __slots__ = ("at_ms", "items", "marks", "memo", "owner", "size", "text")

    def __init__(self, owner: tuple[str, ...], text: str, items: list[object], memo: Memo) -> None:
        self.owner = owner
        self.text = text
        """From the bracket in front to the end of the last item."""
        self.items = items
        self.memo = memo
        self.marks: list[tuple[int, int]] = []
        """Places before the end where it may have gone on otherwise: how many characters, how many items."""
        self.size = _PARSED * getsizeof(text) + getsizeof(text) + _ITEM_BYTES * len(items)
        self.at_ms = 0


class _List(NamedTuple):
    """A list in a request."""

    kept: _Kept
    new_from: int
    """How many of its items are as they were kept."""
    begin: int
    same_to: int
    """Where the text begins that nobody has looked at."""
    replaces: _Kept | None


class Growing:
    """
    Reads requests.

    Args:
        bytes_min: A smaller request is read as a whole.
        bytes_max: Of all that is kept.
        kept_ms_max: What was not asked for so long is forgotten, at the next request.
    """

    def __init__(
        self, *, bytes_min: int = BYTES_MIN, bytes_max: int = BYTES_MAX, kept_ms_max: int = KEPT_MS_MAX
    ) -> None:  # fmt: skip
        self._bytes_min = bytes_min
        self._bytes_max = bytes_max
        self._kept_ms_max = kept_ms_max
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        self._of: dict[tuple[str, ...], list[_Kept]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        """How many conversations are kept."""
        return len(self._kept)

    @property
    def size(self) -> int:
        """About how many bytes they take."""
        return self._bytes

    def read(self, raw: bytes, *, operation: str, owner: tuple[str, ...], now_ms: int) -> dict[str, object]:
        """
        As `read_json`, and raises as that.

        Args:
            raw: A request's body.
            operation: What it asks for.
            owner: Whose it is; nothing of it is used for anybody else.
            now_ms: Of a monotonic clock.
        """
        member = LISTS.get(operation)
        if member is None or len(raw) < self._bytes_min:
            return read_json(raw)
        scanned: tuple[Grown, _List | None] | None = None
        with suppress(ValueError, IndexError, StopIteration, RecursionError):
            scanned = self._scan(raw.decode(), member, (operation, *owner))
        if scanned is None:  # Not where it was caught: that error may hold all of the text.
            return read_json(raw)  # It says why, if it is not for being unusual alone.
        body, found = scanned
        if found is None:
            return dict(body)
        self._keep(found, now_ms)
        return body

    def _scan(self, text: str, member: str, owner: tuple[str, ...]) -> tuple[Grown, _List | None]:
        """One object, member by member. Raises whatever comes for one that is not as it should be."""
        body, found = Grown(), None
        at = after_space(text, 0)
        _expect(text[at] == "{")
        while True:
            at = after_space(text, at + 1)
            _expect(text[at] == '"')
            name, at = _scan_name(text, at + 1)
            at = after_space(text, at)
            _expect(text[at] == ":" and name not in body)
            at = after_space(text, at + 1)
            if name == member and text[at] == "[":
                found, at = self._scan_list(text, at, owner)
                items = found.kept.items
                body[name], body.count, body.memo = items.copy(), len(items), found.kept.memo
            else:
                body[name], at = scan(text, at)
            at = after_space(text, at)
            if text[at] == "}":
                break
            _expect(text[at] == ",")
        _expect(after_space(text, at + 1) == len(text))
        _check(text, body, member, found)
        return body, found

    def _scan_list(self, text: str, at: int, owner: tuple[str, ...]) -> tuple[_List, int]:
        owned = self._of.get(owner, [])
        for kept in reversed(owned):
            if text.startswith(kept.text, at):
                found = _scan_rest(text, at, kept, len(kept.text), len(kept.items))
                if found is not None:
                    return found
        newest = owned[: -LOOKED_MAX - 1 : -1]
        for kept in newest:
            mark = _newest_mark(text, at, kept)
            found = None if mark is None else _scan_rest(text, at, kept, *mark)
            if found is not None:
                return found
        # One that was changed near its end will be changed there again: then marks are needed.
        alike = any(text.startswith(kept.text[:ALIKE_CHARS], at) for kept in newest)
        return _scan_steps(text, at, owner) if alike else _scan_whole(text, at, owner)

    def _keep(self, found: _List, now_ms: int) -> None:
        if found.replaces is not None:
            self._forget(found.replaces)
        kept = found.kept
        kept.at_ms = now_ms
        if kept.size <= self._bytes_max // 4:
            self._kept[id(kept)] = kept
            self._of.setdefault(kept.owner, []).append(kept)
            self._bytes += kept.size
        while self._kept:
            oldest = next(iter(self._kept.values()))
            if self._bytes <= self._bytes_max and now_ms - oldest.at_ms <= self._kept_ms_max:
                return
            self._forget(oldest)

    def _forget(self, kept: _Kept) -> None:
        if self._kept.pop(id(kept), None) is None:
            return
        self._bytes -= kept.size
        owned = self._of[kept.owner]
        owned.remove(kept)
        if not owned:
            del self._of[kept.owner]


def _newest_mark(text: str, begin: int, kept: _Kept) -> tuple[int, int] | None:
    """The latest place up to which a list is the same."""
    marks = kept.marks
    if not marks or not text.startswith(kept.text[: marks[0][0]], begin):
        return None
    return next((mark for mark in reversed(marks) if text.startswith(kept.text[: mark[0]], begin)), None)


def _scan_rest(text: str, begin: int, kept: _Kept, length: int, items: int) -> tuple[_List, int] | None:
    """What comes behind the beginning that is known; None if its last item goes on otherwise."""
    at = after_space(text, begin + length)
    if text[at] not in ",]":
        return None
    grown = kept.items[:items]
    end, ends = _scan_items(text, begin, at, grown, [(length, items)])
    list_ = _Kept(kept.owner, text[begin : begin + ends[-1][0]], grown, kept.memo.grown(items))
    list_.marks = [*[mark for mark in kept.marks if mark[0] < length], *ends[:-1]][-MARKS_MAX:]
    replaces = kept if len(kept.items) - items <= CHANGED_MAX else None
    return _List(list_, items, begin, begin + length, replaces), end


def _scan_steps(text: str, begin: int, owner: tuple[str, ...]) -> tuple[_List, int]:
    """A list that is new, item by item."""
    items: list[object] = []
    item, at = scan(text, after_space(text, begin + 1))
    items.append(item)
    end, ends = _scan_items(text, begin, after_space(text, at), items, [(at - begin, 1)])
    list_ = _Kept(owner, text[begin : begin + ends[-1][0]], items, Memo({}))
    list_.marks = ends[:-1][-MARKS_MAX:]
    return _List(list_, 0, begin, begin, None), end


def _scan_items(
    text: str, begin: int, at: int, items: list[object], ends: list[tuple[int, int]]
) -> tuple[int, list[tuple[int, int]]]:
    """From the comma or bracket at `at` on; `items` and `ends` have what came before. Where the list ends, and both."""
    while text[at] == ",":
        item, at = scan(text, after_space(text, at + 1))
        items.append(item)
        ends.append((at - begin, len(items)))
        at = after_space(text, at)
    _expect(text[at] == "]")
    return at + 1, ends


def _scan_whole(text: str, begin: int, owner: tuple[str, ...]) -> tuple[_List, int]:
    """A list that is new, at once."""
    value, end = scan(text, begin)
    items = cast("list[object]", value)
    _expect(bool(items))
    said = text[begin : end - 1].rstrip(" \t\n\r")
    return _List(_Kept(owner, said, items, Memo({})), 0, begin, begin, None), end


def _check(text: str, body: Grown, member: str, found: _List | None) -> None:
    """What `read_json` refuses besides, in all that has not passed it before."""
    if found is None:
        _expect(not has_half_pair(text.encode()) and not is_deep([*body.values()], DEPTH_MAX))
        return
    _expect(not has_half_pair(text[: found.begin].encode()) and not has_half_pair(text[found.same_to :].encode()))
    others = [value for name, value in body.items() if name != member]
    _expect(not is_deep(others, DEPTH_MAX) and not is_deep(found.kept.items[found.new_from :], DEPTH_MAX - 1))


def _expect(truth: bool) -> None:  # noqa: FBT001 -- it is all there is to say
    if not truth:
        raise ValueError
