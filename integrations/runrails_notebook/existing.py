"""Clients that were made before the extension was loaded: found among the objects of the process, and guarded."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, NamedTuple, cast

from runrails.clients.guarded import HOOKS

if TYPE_CHECKING:
    from runrails.guard import Guard

__all__ = ["Found", "guard_existing"]

_BOTOCORE = "botocore.client"


class Found(NamedTuple):
    """What was found."""

    guarded: int
    missed: tuple[str, ...]
    """Classes of clients that could not be guarded."""


def guard_existing(guard: Guard, modules: frozenset[str]) -> Found:
    """
    Guard every client of the SDKs `modules` that there is. What another guard has stays with it.

    Clients of boto3 that cost nothing by the call (S3 and so on) are none of our business.
    """
    kinds: dict[int, bool] = {}
    guarded, missed = 0, set[str]()
    for thing in gc.get_objects():
        kind = cast("type[object]", type(thing))
        known = kinds.get(id(kind))
        if known is None:
            known = kinds[id(kind)] = _is_client(kind, modules)
        if known and not hasattr(kind, "runrails_edge") and "runrails_edge" not in vars(thing):
            try:
                guard.wrap(thing)
                guarded += 1
            except Exception:  # noqa: BLE001 -- whatever is wrong with one, it is told, and all others are guarded
                if not _is_botocore(kind):
                    missed.add(f"{kind.__module__.partition('.')[0]}.{kind.__name__}")
    return Found(guarded, tuple(sorted(missed)))


def _is_client(kind: type, modules: frozenset[str]) -> bool:
    tops = {_module(parent).partition(".")[0] for parent in kind.__mro__}
    return bool(tops & modules) and (all(hasattr(kind, name) for name in HOOKS) or _is_botocore(kind))


def _is_botocore(kind: type) -> bool:
    return any(_module(parent) == _BOTOCORE and parent.__name__ == "BaseClient" for parent in kind.__mro__)


def _module(kind: type) -> str:
    """Where a class is from; some of C's classes have something else there than a name."""
    name: object = vars(kind).get("__module__")
    return name if isinstance(name, str) else ""
