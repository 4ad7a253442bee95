"""
Identities that somebody else vouches for, as settings describe them.

Who can verify them is outside the core, under the entry points `runrails.identities`: by name, what describes the
settings. Servers open what it describes; the doctor tells of it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol, cast

from runrails.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runrails.documents import DocumentStore
    from runrails.identity.authenticate import Verifier
    from runrails.identity.principal import Principal

__all__ = ["AWS_PREFIX", "ENTRY_POINTS", "Described", "EventVerifier", "aws_of_environment"]

ENTRY_POINTS = "runrails.identities"
AWS_PREFIX = "RUNRAILS_AWS_"
"""What the settings for callers with AWS credentials begin with; one of them alone is a mistake that is told."""


class EventVerifier(Protocol):
    """Tells whom an event names that the platform itself has made."""

    def verify(self, event: Mapping[str, object], /) -> Principal:
        """Raises Unauthenticated or StoreUnavailable."""
        ...


class Described(Protocol):
    """What settings say; nothing is opened or asked yet."""

    @property
    def told(self) -> str:
        """The same in words."""
        ...

    @property
    def by_events(self) -> bool:
        """Whether events of a function are to be believed."""
        ...

    def open(self, documents: DocumentStore) -> Verifier | None:
        """What verifies credentials in headers; None where there are none."""
        ...

    def open_events(self, documents: DocumentStore) -> EventVerifier | None:
        """What reads events; None where those are not believed."""
        ...


def aws_of_environment() -> Described | None:
    """
    How callers with AWS credentials come in; None if no setting speaks of them.

    Raises:
        ConfigError: Half of the settings is missing, or one is malformed.
    """
    if not any(name.startswith(AWS_PREFIX) and text.strip() for name, text in os.environ.items()):
        return None
    from importlib.metadata import entry_points

    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == "aws":
            return cast("Callable[[], Described]", entry.load())()
    raise ConfigError(
        "Callers with AWS credentials need the distribution, and this is a source tree alone.",
        next_step="Install it: pip install -e .",
    )
