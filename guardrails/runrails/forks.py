"""
What a process that was forked makes anew.

A child has the parent's memory and one of its threads: a lock that another thread held is never let go of there, and
work that was given to a thread is never done.
"""

from __future__ import annotations

import os
from typing import Protocol, TypeVar
from weakref import WeakSet

__all__ = ["Renewable", "renew_after_fork"]


class Renewable(Protocol):
    """What has locks or threads."""

    def after_fork(self) -> None:
        """In a child, where nothing else runs yet: locks and threads of its own."""
        ...


_Any = TypeVar("_Any", bound=Renewable)
_renewed: WeakSet[Renewable] = WeakSet()


def renew_after_fork(one: _Any) -> _Any:
    """Have its `after_fork` called in every child, for as long as it is there. Returns it."""
    _renewed.add(one)
    return one


def _after_fork() -> None:
    for one in list(_renewed):
        one.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)
