"""A request's bytes with members added or replaced; every other byte stays what the caller sent."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["with_changes"]

_SPACE = re.compile(r"[ \t\n\r]*")
_decode_at = cast("Callable[[str, int], tuple[object, int]]", json.JSONDecoder().raw_decode)


def with_changes(raw: bytes, body: Mapping[str, object], changes: Mapping[str, object]) -> bytes:
    """
    The bytes to send on: numbers stay as they were written, members stay in their order, new ones come last.

    Args:
        raw: As they came; `runrails_gateway.jsonin.read_json` has accepted them.
        body: What they mean.
        changes: Members to add or to replace, as `runrails.clients.plan.capped` has them.
    """
    if not changes:
        return raw
    new = {name: value for name, value in changes.items() if name not in body}
    if len(new) < len(changes):
        raw = _replaced(raw, changes)
    if not new:
        return raw
    end = raw.rindex(b"}")  # an object's last byte but for space
    members = _json(new)[1:-1].encode()
    return b"".join((raw[:end], b"," if body else b"", members, raw[end:]))


def _replaced(raw: bytes, changes: Mapping[str, object]) -> bytes:
    """Step through the members of the outermost object, and put the new values where the old ones are."""
    text = raw.decode()
    pieces: list[str] = []
    kept_to = 0
    at = text.index("{") + 1
    while text[at - 1] != "}":
        name, at = _decode_at(text, _after_space(text, at))
        begin = _after_space(text, _after_space(text, at) + 1)  # past the colon
        _, end = _decode_at(text, begin)
        if name in changes:
            pieces += (text[kept_to:begin], _json(changes[cast("str", name)]))
            kept_to = end
        at = _after_space(text, end) + 1  # past a comma, or the brace at the end
    return "".join((*pieces, text[kept_to:])).encode()


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
