"""An error as HTTP tells it, before a dialect writes it down."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Kind", "Scalar", "Told"]

Scalar: TypeAlias = "str | int | bool | None"
Kind: TypeAlias = Literal[
    "invalid_request", "authentication", "permission", "not_found", "conflict", "too_large", "budget", "stopped",
    "rate_limit", "unavailable", "upstream", "timed_out", "internal",
]  # fmt: skip
"""What sort of error it is; each dialect has its own `type` for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a caller is told of an error."""

    status: int
    kind: Kind
    code: str
    """Which error exactly, as a word of ours."""
    message: str
    param: str | None = None
    """The member of the request it is about."""
    fields: Mapping[str, Scalar] = field(default_factory=dict[str, Scalar])
    """Further facts: whose budget, which limit."""
    headers: tuple[tuple[str, str], ...] = ()
    """Names in lower case. `content-type` is not among them."""
    request_id: str = ""
