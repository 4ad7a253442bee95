"""A log whose reader is slow: nobody waits for it, what fits is written later, and what does not is counted."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

import pytest

from runrails_gateway.ops.unblocked import Unblocked


def logger_of(handler: logging.Handler) -> logging.Logger:
    """A logger of its own, that has no other handler."""
    made = logging.getLogger(f"unblocked.{id(handler)}")
    made.propagate = False
    made.addHandler(handler)
    return made


def gated() -> tuple[Callable[[str], object], threading.Event, list[str]]:
    """A write that waits until it may, and what was written."""
    may, lines = threading.Event(), []

    def write(text: str) -> None:
        assert may.wait(30)
        lines.extend(text.splitlines())

    return write, may, lines


def test_lines_come_in_order_and_all_of_them() -> None:
    """Once somebody waits for them."""
    lines: list[str] = []
    handler = Unblocked(lambda text: lines.extend(text.splitlines()))
    told = logger_of(handler)
    for number in range(1_000):
        told.warning("line %d", number)
    handler.flush()
    assert [f"line {number}" for number in range(1_000)] == lines
    assert 0 == handler.left_out


def test_nobody_waits_for_a_slow_reader() -> None:
    """Lines are kept; those beyond the bound are left out, and how many were is the last line."""
    write, may, lines = gated()
    handler = Unblocked(write, kept_max=10)
    told = logger_of(handler)
    for number in range(500):
        told.warning("line %d", number)
    assert [] == lines
    assert 480 <= handler.left_out <= 490, "ten wait, and up to ten are the thread's"
    may.set()
    handler.flush()
    assert f'{{"untold": {handler.left_out}, "code": "log_full"}}' == lines[-1]
    assert 500 - handler.left_out == len(lines) - 1


@pytest.mark.parametrize("error", [BrokenPipeError(), ValueError("I/O operation on closed file")], ids=repr)
def test_a_reader_who_is_gone_ends_nothing(error: Exception) -> None:
    """What was not written is counted; the thread goes on."""
    lines: list[str] = []
    gone = [error]

    def write(text: str) -> None:
        if gone:
            raise gone.pop()
        lines.extend(text.splitlines())

    handler = Unblocked(write)
    told = logger_of(handler)
    told.warning("one")
    handler.flush()
    assert 1 == handler.left_out
    told.warning("two")
    handler.flush()
    assert "two" in lines


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # of Python 3.12 and later
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fork_writes_its_own() -> None:
    """And not once more what its parent has yet to write."""
    reading, writing = os.pipe()
    write, may, lines = gated()
    handler = Unblocked(write)
    told = logger_of(handler)
    told.warning("the parent's")
    child = os.fork()
    if child == 0:
        handler._write = lambda text: os.write(writing, text.encode())
        told.warning("the child's")
        handler.flush()
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as heard:
        assert "the child's\n" == heard.read()
    may.set()
    handler.flush()
    assert ["the parent's"] == lines
