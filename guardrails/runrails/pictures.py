"""By what a picture is known again, so that what a provider counted for it need not be bounded anew."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import count
from typing import cast

__all__ = ["picture"]

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_unknown = count(1)


def picture(value: object) -> int:
    """
    The same for the same content, whatever marks a cache on it.

    What stands behind an address is never known: whoever has it may put a larger picture there. Of all that cannot be
    told from another each counts as another.
    """
    if isinstance(value, Mapping):
        known = cast("Mapping[str, object]", value)
        return hash(tuple(sorted((key, picture(part)) for key, part in known.items() if key != "cache_control")))
    if isinstance(value, list | tuple):
        return hash(tuple(map(picture, cast("Sequence[object]", value))))
    if isinstance(value, str) and _ADDRESS.match(value):
        return next(_unknown)
    return hash(value) if isinstance(value, str | bytes | int | float | None) else id(value)
