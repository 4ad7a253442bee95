"""Pages of lists: bounded, by offset."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, TypeVar

from fastapi import Query

from runrails_gateway.admin.models import Id, Listing

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LIMIT_MAX", "OFFSET_MAX", "Limit", "Month", "Offset", "Only", "page_of"]

LIMIT_MAX = 500
OFFSET_MAX = 100_000
Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Most rows of one page.")]
Offset = Annotated[int, Query(ge=0, le=OFFSET_MAX, description="How many rows to leave out.")]
Month = Annotated[
    str | None,
    Query(
        pattern=r"^(19[7-9][0-9]|[2-8][0-9]{3})-(0[1-9]|1[0-2])$",
        description="A month as 2026-11; this one if left out.",
    ),
]
Only = Annotated[Id | None, Query(description="Only of this one.")]
_T = TypeVar("_T")


def page_of(rows: Iterable[_T], limit: int, offset: int) -> Listing[_T]:
    """A page of what there is."""
    found = list(islice(rows, offset, offset + limit + 1))
    more = len(found) > limit and offset + limit <= OFFSET_MAX
    return Listing(data=found[:limit], has_more=more, next_offset=offset + limit if more else None)
