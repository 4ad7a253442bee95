"""
Doors of a client that do not lead through `request`, such as websockets: nobody could tell what goes through them.

They all read one attribute of the client on the way, which making a copy of the client reads as well.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from runrails.clients.reading import inherited
from runrails.errors import BoundUnknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from runrails.clients.edge import Edge

__all__ = ["Seal", "sealing"]

_copying: ContextVar[bool] = ContextVar("runrails_copying", default=False)


class Seal:
    """Stands in for an attribute that is read on the way to a connection, which is refused there."""

    def __init__(self, edge: Edge, name: str) -> None:
        self._edge = edge
        self._name = name

    def __get__(self, client: object, kind: type | None = None) -> object:
        """
        Its value for a copy; otherwise a connection is about to be opened.

        Raises:
            BoundUnknown: The guard enforces.
        """
        if client is None:
            return self
        if not _copying.get():
            self._edge.bypassed(
                BoundUnknown(
                    "What goes over a connection of its own (realtime, websocket) is not seen, so what it costs "
                    "cannot be told.",
                    next_step="Use a client that is not guarded for it, or send requests: chat completions, responses "
                    "and embeddings are guarded.",
                    endpoint="websocket",
                )
            )
        return client.__dict__.get(self._name)

    def __set__(self, client: object, value: object) -> None:
        client.__dict__[self._name] = value


def sealing(edge: Edge, attribute: str, copiers: Iterable[str]) -> dict[str, object]:
    """What a generated class needs so that `attribute` is read by its methods `copiers` alone."""
    return {attribute: Seal(edge, attribute), **{name: _copier(name) for name in copiers}}


def _copier(name: str) -> Callable[..., object]:
    def copy(self: object, *args: object, **kwargs: object) -> object:
        token = _copying.set(True)
        try:
            return inherited(self, name)(*args, **kwargs)
        finally:
            _copying.reset(token)

    copy.__name__ = name
    return copy
