"""What providers send, read without ever raising: an answer is its user's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias, cast

from runrails.usage_wire import UsageMalformed

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from runrails.usage import Usage

__all__ = ["Body", "add_strings", "event_of", "map_of", "read_usage", "text_of"]

Body: TypeAlias = Mapping[str, object]
"""A decoded JSON object."""


def read_usage(read: Callable[[Mapping[str, object]], Usage | None], report: Mapping[str, object]) -> Usage | None:
    """A usage report, or None for one that cannot be true: the call is then settled at the hold."""
    try:
        return read(report)
    except UsageMalformed:
        return None


def event_of(line: bytes) -> Body:
    """The object behind `data:`; an empty one if there is none."""
    try:
        return map_of(json.loads(line[5:]))
    except ValueError:
        return {}


def map_of(value: object) -> Body:
    """A JSON object, or an empty one."""
    return cast("Body", value) if type(value) is dict or isinstance(value, Mapping) else {}


def text_of(value: object) -> str | None:
    """A text that is not empty."""
    return value if isinstance(value, str) and value else None


def add_strings(value: object, texts: list[str], but: Container[str]) -> None:
    """Every text in a part of an answer, whatever its form, but for what is under these names."""
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, Mapping):
        for name, part in cast("Body", value).items():
            if name not in but:
                add_strings(part, texts, but)
    elif isinstance(value, list):
        for part in cast("list[object]", value):
            add_strings(part, texts, but)
