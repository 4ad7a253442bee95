"""Whose money a call is: its user, key and organisation, and tags that say what it is for. Pure values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from runrails.errors import ConfigError
from runrails.ids import check_id

__all__ = ["TAGS_MAX", "TAG_NAME_CHARS_MAX", "TAG_VALUE_CHARS_MAX", "Attribution", "Tags", "check_tags"]

TAGS_MAX = 16
TAG_NAME_CHARS_MAX = 64
TAG_VALUE_CHARS_MAX = 128
Tags = tuple[tuple[str, str], ...]
"""Names and values, in order of the names."""

_NAME = re.compile(rf"[A-Za-z][A-Za-z0-9_.-]{{0,{TAG_NAME_CHARS_MAX - 1}}}")


@dataclass(frozen=True, slots=True, init=False)
class Attribution:
    """
    Whose money, as far as one place says it. What is None here is said elsewhere; see `over`.

    Args:
        user: The user whose month it is.
        key: The API key's id, never the key itself.
        org: The organisation.
        byok: Whether the provider's key is the user's own: the platform bills nothing then.
        tags: What the calls are for, at most 16. They limit nothing; usage is filtered and grouped by them. A name is
            an ASCII letter and up to 63 letters, digits or ``_ . -``; a value 1 to 128 printable characters that do not
            begin with ``(``.

    Raises:
        ConfigError: An id or a tag is malformed. The message never has it.
    """

    user: str | None
    key: str | None
    org: str | None
    tags: Tags
    byok: bool | None

    def __init__(
        self, *, user: str | None = None, key: str | None = None, org: str | None = None,
        tags: Mapping[str, str] | None = None, byok: bool | None = None,
    ) -> None:  # fmt: skip
        _set(self, _id(user, "user"), _id(key, "key"), _id(org, "org"), _tags(tags), byok=_byok(byok))

    def over(self, older: Attribution) -> Attribution:
        """
        Both together: what is said here wins, field by field and tag by tag.

        Raises:
            ConfigError: Together they have more than 16 tags.
        """
        if self in (_NOBODY, older):
            return older
        merged = object.__new__(Attribution)
        tags = self.tags or older.tags
        if self.tags and older.tags:
            tags = tuple(sorted({**dict(older.tags), **dict(self.tags)}.items()))
            _check_count(len(tags))
        byok = older.byok if self.byok is None else self.byok
        _set(merged, self.user or older.user, self.key or older.key, self.org or older.org, tags, byok=byok)
        return merged


def check_tags(tags: object) -> Tags:
    """
    Return `tags` if they are what an `Attribution` holds.

    Raises:
        ConfigError: They are something else.
    """
    # Whoever writes facts by hand gets the same answer from every store.
    if not isinstance(tags, tuple) or tags != _tags(dict(cast("Iterable[tuple[str, str]]", tags))):
        raise _malformed("tags must be a tuple of pairs, in order of their names.")
    return cast("Tags", tags)


_Setter = Callable[[Attribution, object], None]
_set_user, _set_key, _set_org, _set_tags, _set_byok = [
    cast("_Setter", vars(Attribution)[name].__set__) for name in ("user", "key", "org", "tags", "byok")
]
"""What sets the fields of a frozen value: every call makes some, and by name it takes three times as long."""


def _set(
    made: Attribution, user: str | None, key: str | None, org: str | None, tags: Tags, *, byok: bool | None
) -> None:  # fmt: skip
    _set_user(made, user)
    _set_key(made, key)
    _set_org(made, org)
    _set_tags(made, tags)
    _set_byok(made, byok)


def _byok(value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise ConfigError(
        f"byok must be True or False, not {type(value).__name__}.",
        next_step="Pass byok=True for calls on a key of the user's own, or leave it out.",
    )


def _id(value: object, what: str) -> str | None:
    try:
        return None if value is None else check_id(value, what=what)
    except ValueError as exc:
        raise ConfigError(str(exc), next_step=f"Pass {what}=… in that form, or leave it out.") from None


def _tags(given: object) -> Tags:
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        raise _malformed(f"tags must be a mapping of names to values, not {type(given).__name__}.")
    tags = cast("Mapping[object, object]", given)
    _check_count(len(tags))
    return tuple(sorted([_tag(name, value) for name, value in tags.items()]))


def _tag(name: object, value: object) -> tuple[str, str]:
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise _malformed(
            f"A tag's name must be an ASCII letter and at most {TAG_NAME_CHARS_MAX - 1} letters, digits or one of _ . -"
        )
    # What begins with a bracket is a group of ours, as "(other)".
    if not (isinstance(value, str) and 1 <= len(value) <= TAG_VALUE_CHARS_MAX) or value[0] == "(":
        raise _malformed(
            f"The value of a tag must be text of 1 to {TAG_VALUE_CHARS_MAX} characters and not begin with a bracket."
        )
    if not value.isprintable():
        raise _malformed("The value of a tag must be printable: no line breaks, control characters or surrogates.")
    return name, value


def _check_count(count: int) -> None:
    if count > TAGS_MAX:
        raise _malformed(f"A call may have at most {TAGS_MAX} tags, those of its guard and its run included.")


def _malformed(what: str) -> ConfigError:
    return ConfigError(what, next_step='Write tags={"team": "search"}.')


_NOBODY = Attribution()
