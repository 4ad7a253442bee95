"""
What makes calls cheaper, as the environment says. All of it is off unless it is asked for.

``RUNRAILS_GATEWAY_CACHE`` is ``memory``, for each worker on its own, or a file that all share; an answer in it is good
for ``RUNRAILS_GATEWAY_CACHE_SECONDS`` (a day). ``RUNRAILS_GATEWAY_DOWNGRADE`` names cheaper models, as
``gpt-4o=gpt-4o-mini,o1=o3-mini``, and ``…_DOWNGRADE_ABOVE`` or ``…_DOWNGRADE_KINDS`` when they are used.
``RUNRAILS_GATEWAY_PRUNING`` is ``40/20``: with more than 40 messages, at least the last 20 are sent.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from runrails.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runrails.limits import Limits
    from runrails.savers.caching import ResponseCache
    from runrails.savers.pruning import Pruning
    from runrails.savers.routing import Downgrade

__all__ = ["CACHE", "DOWNGRADE", "PRUNING", "cache_of", "thrifty"]

CACHE, DOWNGRADE, PRUNING = "RUNRAILS_GATEWAY_CACHE", "RUNRAILS_GATEWAY_DOWNGRADE", "RUNRAILS_GATEWAY_PRUNING"
_SECONDS, _ABOVE, _KINDS = f"{CACHE}_SECONDS", f"{DOWNGRADE}_ABOVE", f"{DOWNGRADE}_KINDS"
_DIGITS_MAX = 9
IN_MEMORY = "memory"
_PATH_MARKS = ("/", "\\", ".")
"""A path has one of these, a word has none."""


def cache_of(environment: Mapping[str, str]) -> ResponseCache | None:
    """Where answers are kept; None if they are not. Raises ConfigError."""
    where, seconds = _text(environment, CACHE), _text(environment, _SECONDS)
    if where is None:
        _not_alone(_SECONDS, seconds, CACHE)
        return None
    from runrails.savers.caching import ResponseCache

    if where != IN_MEMORY and not any(mark in where for mark in _PATH_MARKS):
        # `off` or `true` would be a file of that name, full of what users have said.
        raise _malformed(CACHE, f'is "{IN_MEMORY}" or the path of a file, like "./answers.db".', IN_MEMORY)
    ttl_s = 86_400 if seconds is None else _number(_SECONDS, seconds)
    try:
        return ResponseCache(None if where == IN_MEMORY else where, ttl_s=ttl_s)
    except (OSError, ValueError):
        raise _malformed(CACHE, "names a file that cannot be used to keep answers.", "/var/lib/x/answers.db") from None


def thrifty(limits: Limits, environment: Mapping[str, str]) -> Limits:
    """The limits with cheaper models and shorter conversations, where they are asked for. Raises ConfigError."""
    downgrade, pruning = _downgrade(environment), _pruning(environment)
    if downgrade is None and pruning is None:
        return limits
    return replace(limits, downgrade=downgrade, pruning=pruning)


def _downgrade(environment: Mapping[str, str]) -> Downgrade | None:
    models = _items(environment, DOWNGRADE)
    above, kinds = _text(environment, _ABOVE), tuple(_items(environment, _KINDS))
    if not models:
        _not_alone(_ABOVE, above, DOWNGRADE)
        _not_alone(_KINDS, kinds, DOWNGRADE)
        return None
    from runrails.savers.routing import Downgrade

    pairs = [[part.strip() for part in item.split("=")] for item in models]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise _malformed(DOWNGRADE, "must name models and the cheaper ones.", "gpt-4o=gpt-4o-mini")
    try:
        return Downgrade(to={pair[0]: pair[1] for pair in pairs}, above=above, kinds=kinds)
    except (TypeError, ValueError):
        raise _malformed(
            _ABOVE, f"must be a share of a run's budget, or {_KINDS} names kinds of steps.", "0.80"
        ) from None  # fmt: skip


def _pruning(environment: Mapping[str, str]) -> Pruning | None:
    text = _text(environment, PRUNING)
    if text is None:
        return None
    from runrails.savers.pruning import Pruning

    after, _, keep = text.partition("/")
    try:
        return Pruning(after_messages=_number(PRUNING, after), keep_last=_number(PRUNING, keep))
    except (ConfigError, ValueError):
        raise _malformed(
            PRUNING, "must be two whole numbers: from how many messages on, and how many of the last are sent.", "40/20"
        ) from None  # fmt: skip


def _text(environment: Mapping[str, str], name: str) -> str | None:
    return environment.get(name, "").strip() or None


def _items(environment: Mapping[str, str], name: str) -> list[str]:
    return [item.strip() for item in environment.get(name, "").split(",") if item.strip()]


def _number(name: str, text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX and int(text)):
        raise _malformed(name, "must be a whole number above 0.", "3600")
    return int(text)


def _not_alone(name: str, value: object, other: str) -> None:
    """What says how, where nothing says what, would be believed to do something."""
    if value:
        raise _malformed(other, f"is missing, and {name} says nothing without it.", "…")


def _malformed(name: str, what: str, example: str) -> ConfigError:
    return ConfigError(f"{name} {what}", next_step=f"Write {name}={example}, or leave it out.", setting=name)
