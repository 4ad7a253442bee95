"""Strict checks of decoded JSON: what is wrong, where, and how to write it. Values are never quoted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, cast

__all__ = ["Invalid", "Json", "entries", "kind_of", "mapping", "optional_number", "optional_text", "required_text"]

Json = Mapping[str, object]
"""A decoded JSON object."""

_KINDS: Final[Mapping[type, str]] = {
    dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number",
    type(None): "null",
}  # fmt: skip


class Invalid(ValueError):
    """A line that cannot be read as a recorded run: `what` is wrong with it, and the `fix`."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what} {fix}")
        self.what = what
        self.fix = fix


def kind_of(value: object) -> str:
    """The kind of a decoded JSON value, in words."""
    return _KINDS.get(type(value), "something else")


def mapping(value: object, where: str, fix: str) -> Json:
    """
    The value as a JSON object.

    Raises:
        Invalid: It is anything else.
    """
    if isinstance(value, dict):
        return cast("Json", value)
    raise Invalid(f"{where} must be an object, not {kind_of(value)}.", fix)


def entries(value: object, where: str, fix: str) -> list[object]:
    """
    The value as a list; null is an empty one.

    Raises:
        Invalid: It is anything else.
    """
    if value is None:
        return []
    if isinstance(value, list):
        return cast("list[object]", value)
    raise Invalid(f"{where} must be a list, not {kind_of(value)}.", fix)


def required_text(value: object, where: str, fix: str) -> str:
    """
    The value as text that is not empty.

    Raises:
        Invalid: It is anything else.
    """
    if isinstance(value, str) and value:
        return value
    found = "empty" if value == "" else "missing" if value is None else kind_of(value)
    raise Invalid(f"{where} must be text that is not empty, but it is {found}.", fix)


def optional_text(value: object, where: str, fix: str) -> str | None:
    """
    The value as text, or None for null.

    Raises:
        Invalid: It is anything else.
    """
    if value is None or isinstance(value, str):
        return value
    raise Invalid(f"{where} must be text, not {kind_of(value)}.", fix)


def optional_number(value: object, where: str, fix: str) -> None:
    """
    Check that the value is a finite number or null.

    Raises:
        Invalid: It is anything else.
    """
    # Only a float can be infinite, and isfinite cannot take an int of more than 308 digits.
    if value is None or type(value) is int or (type(value) is float and math.isfinite(value)):
        return
    raise Invalid(f"{where} must be a finite number, not {kind_of(value)}.", fix)
