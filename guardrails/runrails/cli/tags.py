"""The `--tag` option, the same everywhere."""

from __future__ import annotations

from typing import Annotated

import typer

from runrails.attribution import Attribution
from runrails.errors import ConfigError

__all__ = ["Tag", "tags_of"]

Tag = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="NAME=VALUE", help="Only what has this tag; given more than once, all of them."),
]


def tags_of(given: list[str] | None) -> dict[str, str]:
    """The tags asked for. Raises BadParameter."""
    tags: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter("A tag is written NAME=VALUE, for instance team=search.", param_hint="--tag")
        if tags.setdefault(name, value) != value:
            raise typer.BadParameter("A call has a tag once only; two values were asked for.", param_hint="--tag")
    try:
        return dict(Attribution(tags=tags).tags)
    except ConfigError as error:
        raise typer.BadParameter(error.what, param_hint="--tag") from error
