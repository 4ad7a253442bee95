"""Reports of usage, read without ever raising: an answer is its user's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.usage_wire import UsageMalformed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runrails.usage import Usage

__all__ = ["read_usage"]


def read_usage(read: Callable[[Mapping[str, object]], Usage | None], report: Mapping[str, object]) -> Usage | None:
    """A usage report, or None for one that cannot be true: the call is then settled at the hold."""
    try:
        return read(report)
    except UsageMalformed:
        return None
