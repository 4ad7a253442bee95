"""Whose money a call is, as LangChain's `metadata` says it: it comes down to every model from wherever it was given."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from runrails.attribution import Attribution
from runrails.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runrails.guard import Guard
    from runrails.run import Run

__all__ = ["attribution_of", "open_run"]


def attribution_of(metadata: Mapping[str, object] | None) -> Attribution | None:
    """
    What `{"runrails_user": "bob", "runrails_key": …, "runrails_org": …, "runrails_tags": {"team": "x"}}` says, and
    `"runrails_byok": True` for a call on a key of the user's own.

    Raises:
        ConfigError: An id, a tag or the last of these is malformed.
    """
    if not metadata:
        return None
    user, key = metadata.get("runrails_user"), metadata.get("runrails_key")
    org, tags = metadata.get("runrails_org"), metadata.get("runrails_tags")
    byok = metadata.get("runrails_byok")
    if user is None and key is None and org is None and tags is None and byok is None:
        return None
    try:
        # Whatever it is, it is checked there.
        return Attribution(
            user=cast("str | None", user), key=cast("str | None", key), org=cast("str | None", org),
            tags=cast("Mapping[str, str] | None", tags), byok=cast("bool | None", byok),
        )  # fmt: skip
    except ConfigError as exc:
        raise ConfigError(
            f"LangChain's metadata says wrongly whose call it is: {exc.what}",
            next_step='Write config={"metadata": {"runrails_user": "bob", "runrails_tags": {"team": "search"}}}.',
        ) from None


def open_run(guard: Guard, metadata: Mapping[str, object] | None) -> Run:
    """
    A run for all that is called with this metadata, in this context: it is theirs, and reports and ends as theirs.

    Raises:
        ConfigError: The metadata is malformed, or the run cannot be opened.
    """
    return guard.run_for(attribution_of(metadata))
