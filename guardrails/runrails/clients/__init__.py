"""
Guarded clients: what the adapters of the providers' SDKs have in common.

The SDKs differ in what they send; an adapter reads that (`Dialect`). They agree in how they send it: one method,
`request`, with the retries inside it, which is where a generated subclass of the client's class stands guard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from runrails.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.clients.edge import Edge
    from runrails.guard import Guard
    from runrails.run import Run

__all__ = ["run_of", "wrap"]

_C = TypeVar("_C")


def wrap(guard: Guard, client: _C) -> _C:
    """
    Guard a client of a provider's SDK; see `Guard.wrap`.

    The adapter is found by the entry points of `runrails.clients`: the name is the top module of the client's class.

    Raises:
        ConfigError: No adapter for it is installed, it cannot guard this client, or another guard has it.
    """
    from importlib.metadata import entry_points

    adapters = entry_points(group="runrails.clients")
    modules = [kind.__module__.partition(".")[0] for kind in type(client).__mro__]
    for module in modules:
        for entry in adapters:
            if entry.name == module:
                guarded = cast("Callable[[Guard, _C], _C]", entry.load())
                return guarded(guard, client)
    known = ", ".join(sorted({entry.name for entry in adapters})) or "none"
    kind = type(client)
    raise ConfigError(
        f"runrails cannot guard a {kind.__module__}.{kind.__qualname__}; it knows the clients of: {known}.",
        next_step="Pass a client object of one of these SDKs, not its class or one of its resources.",
    )


def run_of(guard: Guard, client: object) -> Run:
    """
    The run of a wrapped client's own; see `Guard.run_of`.

    Raises:
        ConfigError: This guard has not wrapped it.
    """
    edge: Edge | None = getattr(client, "runrails_edge", None)
    if edge is None or edge.guard is not guard:
        kind = type(client)
        raise ConfigError(
            f"This {kind.__module__}.{kind.__qualname__} is not a client that this guard has wrapped.",
            next_step="Pass what guard.wrap(client) gave back, or a copy of it, to the same guard.",
        )
    return edge.own_run()
