"""
What a usage error does not repeat: whoever writes a key where something else belongs must not find it in a log as well.

The command line's own errors quote what was written ("Got unexpected extra argument (…)"), and those of a job end up in
places that its arguments do not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

from runrails.redaction import MASK, redact_text

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["hushed", "without_secrets"]

P = ParamSpec("P")
T = TypeVar("T")

_WORD = re.compile(r"[A-Za-z0-9+/=_-]{32,}|[A-Za-z0-9+=_-]{12,}")
"""The first also has the slashes of base64; shorter ones are paths."""


def hushed(step: Callable[P, T]) -> Callable[P, T]:
    """The same step of a command; its usage errors are without what may be a secret."""

    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return step(*args, **kwargs)
        except Exception as error:
            # Typer brings its own click, whose errors have no common class to name here.
            message = cast("object", getattr(error, "message", None))
            if isinstance(message, str) and hasattr(error, "format_message"):
                error.message = without_secrets(message)  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue] -- see above
            raise

    return run


def without_secrets(message: str) -> str:
    """A message without what has the form of a secret: known ones, and long words of letters and digits."""
    return _WORD.sub(_masked, redact_text(message))


def _masked(found: re.Match[str]) -> str:
    word = found[0]
    mixed = any(each.isdigit() for each in word) and any(each.isalpha() for each in word)
    return MASK if mixed else word
