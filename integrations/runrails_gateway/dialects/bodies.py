"""A request's bytes with members added or replaced; every other byte stays what the caller sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["with_changes"]


def with_changes(raw: bytes, body: Mapping[str, object], changes: Mapping[str, object]) -> bytes:
    """
    The bytes to send on.

    Args:
        raw: As they came; `runrails_gateway.jsonin.read_json` has accepted them.
        body: What they mean.
        changes: Members to add or to replace, as `runrails.clients.plan.capped` has them.
    """
    raise NotImplementedError
