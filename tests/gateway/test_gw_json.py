"""JSON from outside: what two readers could understand differently is refused, and nothing of it is ever repeated."""

from __future__ import annotations

import contextlib
import json
import pickle
import time
import traceback
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rr_json_attacks import ATTACKS, CANARY, TAKEN, chat
from runrails_gateway.errors import BadRequest
from runrails_gateway.jsonin import read_json


@pytest.mark.parametrize("case", ATTACKS)
def test_attack_is_refused_by_name_and_nothing_of_it_is_repeated(case):
    """Each is refused with a word of ours; neither message, fields, pickle nor traceback hold a byte of it."""
    raw, reason = ATTACKS[case]
    with pytest.raises(BadRequest) as refused:
        read_json(raw)
    error = refused.value
    assert (reason, 400) == (error.reason, error.http_status)
    said = "".join(traceback.format_exception(error)) + repr(error) + str(error.as_dict()) + repr(pickle.dumps(error))
    assert CANARY not in said
    assert (None, None) == (error.__cause__, error.__context__)


@pytest.mark.parametrize("case", TAKEN)
def test_what_is_unusual_but_plain_is_read(case):
    """What the standard allows, and every reader understands alike, is read as `json` reads it."""
    raw, meant = TAKEN[case]
    assert (json.loads(raw) if meant is None else meant) == read_json(raw)


def test_corpus_is_large_enough():
    """The corpus has a good many attacks, each of them another."""
    assert len(ATTACKS) >= 100
    assert len(ATTACKS) == len({raw for raw, _ in ATTACKS.values()})


def test_depth_can_be_set():
    """The number of levels is an argument."""
    assert {"a": [1]} == read_json(b'{"a":[1]}', depth_max=2)
    assert {"a": "[[{{"} == read_json(b'{"a":"[[{{"}', depth_max=1)  # in a text they open nothing
    with pytest.raises(BadRequest, match="too deep"):
        read_json(b'{"a":[[1]]}', depth_max=2)


_NAMES = st.text(st.characters(codec="utf-8"), max_size=8)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(_NAMES, _VALUES, max_size=5), st.booleans())
@settings(max_examples=150, deadline=None)
def test_whatever_is_plain_json_is_read_as_json_reads_it(body, escapes):
    """Every object that `json` writes, with and without escapes, is read as it was."""
    assert body == read_json(json.dumps(body, ensure_ascii=escapes).encode())


@given(st.binary(max_size=60) | st.text(st.sampled_from('{}[]":,\\ud83de0 17.-eNa'), max_size=40).map(str.encode))
@settings(max_examples=300, deadline=None)
def test_whatever_is_read_is_what_json_reads_and_has_no_half_pairs(raw):
    """No input raises anything but BadRequest, and what is accepted can be sent on as UTF-8."""
    try:
        body = read_json(raw)
    except BadRequest:
        return
    assert json.loads(raw.decode()) == body
    json.dumps(body, ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize(
    "raw",
    [b'{"a":' + b"[" * 4_000_000, b'{"a":' + b'{"a":' * 800_000, b'{"a":"' + b"\\ud83d\\ude00" * 300_000 + b'"}',
     b'{"a":[' + b"1," * 1_000_000 + b"1]}", b'{"a":"' + b'\\"' * 2_000_000 + b'"}', b"{" + b" " * 4_000_000,
     b'{"a":' + b"9" * 4_000_000 + b"}", b'{"a":[' + b"[]," * 300_000 + b"1]}"],
    ids=["lists", "objects", "pairs", "numbers", "quotes", "space", "digits", "empty-lists"],
)  # fmt: skip
def test_megabytes_of_spite_take_no_longer_than_megabytes(raw):
    """No input of some megabytes takes more than a few seconds, in whatever way it is bad."""
    began = time.process_time()
    with contextlib.suppress(BadRequest):
        read_json(raw)
    assert time.process_time() - began < 5


def test_ordinary_bodies_are_read_in_about_twice_the_time_of_json():
    """A conversation of 26 kB takes at most 3 times as long as `json.loads`, which checks nothing (1.8 measured)."""
    raw = chat(88, 300)
    assert 26_000 < len(raw) < 30_000

    def once(read: Any) -> float:
        began = time.thread_time()  # what this thread worked, not what else the machine did
        for _ in range(20):
            read(raw)
        return time.thread_time() - began

    # One after the other, so that both have the same quiet moments.
    ours, theirs = zip(*((once(read_json), once(json.loads)) for _ in range(40)), strict=True)
    assert min(ours) < 3 * min(theirs)
