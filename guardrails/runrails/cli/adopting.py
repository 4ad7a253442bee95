"""Keys of an older platform as lines of JSON, each taken over by its bcrypt hash."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple, cast

from runrails.errors import ConfigError
from runrails.identity.errors import UnknownKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runrails.identity.apikeys import ApiKeys

__all__ = ["Adopted", "adopt_lines"]

LINE_BYTES_MAX = 8_192
_NEEDED = frozenset({"id", "hash", "user"})
_ALLOWED = _NEEDED | {"name", "org", "scopes", "expires_ms"}


class Adopted(NamedTuple):
    """What became of the lines."""

    adopted: int
    known: int
    """How many were there already, of the same user."""
    refused: tuple[tuple[int, str], ...]
    """Which lines were not taken, and why; nothing of what stands in them."""


def adopt_lines(keys: ApiKeys, lines: Iterable[bytes], scopes: Sequence[str]) -> Adopted:
    """
    Take over a key for each line, ``{"id": "sk-…", "hash": "$2b$…", "user": "alice"}``, with `name`, `org`, `scopes`
    and `expires_ms` if it has them. Again is nothing new, so that what was broken off can be done over.

    Args:
        keys: Where to.
        lines: Empty ones are passed over.
        scopes: For lines that name none.

    Raises:
        StoreUnavailable: What was taken over so far stays so.
    """
    adopted = known = 0
    refused: list[tuple[int, str]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            fields = _read(line)
            if _is_known(keys, fields):
                known += 1
                continue
            given = {"scopes": list(scopes), **fields}
            keys.adopt(cast("str", given.pop("id")), cast("str", given.pop("hash")), **given)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] -- checked there
            adopted += 1
        except (ConfigError, TypeError) as error:
            refused.append((number, error.what if isinstance(error, ConfigError) else "A field is of another type."))
    return Adopted(adopted, known, tuple(refused))


def _read(line: bytes) -> dict[str, object]:
    try:
        found: object = json.loads(line) if len(line) <= LINE_BYTES_MAX else None
    except (ValueError, RecursionError):
        found = None  # Outside of the clause: Python's error has the line.
    fields = cast("dict[str, object]", found) if isinstance(found, dict) else {}
    if not _NEEDED <= fields.keys() <= _ALLOWED or not all(isinstance(fields[name], str) for name in _NEEDED):
        raise ConfigError(
            "It is no JSON object with id, hash and user, and perhaps name, org, scopes and expires_ms.",
            next_step='Write {"id": "sk-…", "hash": "$2b$…", "user": "alice"}.',
        )
    return fields


def _is_known(keys: ApiKeys, fields: dict[str, object]) -> bool:
    try:
        info = keys.show(cast("str", fields["id"]))
    except UnknownKey:
        return False
    return info.legacy and info.user == fields["user"]
