"""Putting the key that was chosen for a call into its request, at the last moment before it leaves."""

from __future__ import annotations

import copy
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from runrails.cover import route_above
from runrails.errors import CredentialError

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

    from runrails.clients.edge import Edge, Ticket
    from runrails.clients.plan import Options, Plan
    from runrails.keyroutes import KeyPlace, Route

__all__ = [
    "Request", "SupportsKeys", "akey_refused", "covered_route", "has_own_auth", "in_place", "key_refused", "keyed",
    "place_of", "put_chosen_key", "put_key", "unredirected",
]  # fmt: skip


class Address(Protocol):
    """Where a request goes."""

    scheme: str
    host: str
    port: int | None


class Request(Protocol):
    """A request of the SDKs' HTTP library, about to be sent."""

    @property
    def headers(self) -> MutableMapping[str, str]:
        """Names in any case."""
        ...

    @property
    def url(self) -> Address:
        """Where it goes."""
        ...


@runtime_checkable
class SupportsKeys(Protocol):
    """A dialect of a provider whose keys are one header."""

    def place(self, client: object) -> KeyPlace | None:
        """Where the client's key goes; None if it has no plain key, or something else puts one in after us."""
        ...

    def is_home(self, host: str) -> bool:
        """Whether that host is the provider's own."""
        ...

    def put_key(self, headers: MutableMapping[str, str], key: str) -> None:
        """Replace the client's own key, and whatever else says whose account it is."""
        ...


keyed: ContextVar[Route | None] = ContextVar("runrails_keyed", default=None)
"""The key of the request that is being sent in this context for a layer above, which has the permit."""


def in_place(edge: Edge, client: object, plan: Plan) -> Plan:
    """The plan, with where its key goes."""
    place = edge.dialect.place(client) if isinstance(edge.dialect, SupportsKeys) else None
    if place is not None:
        plan.call = replace(plan.call, place=place)
    return plan


def place_of(client: object) -> KeyPlace | None:
    """Where the key of a guarded client goes; None if no other one can be put in."""
    edge: Edge | None = getattr(type(client), "runrails_edge", None)
    return edge.dialect.place(client) if edge is not None and isinstance(edge.dialect, SupportsKeys) else None


def covered_route(edge: Edge) -> Route | None:
    """The key that a layer above has chosen for the request that is about to be sent."""
    route = route_above(edge.guard)
    return None if route is None or route.secret is None else route


def put_chosen_key(edge: Edge, ticket: Ticket | None, request: object) -> None:
    """Put in the key of the call whose request is about to leave, if one was chosen. Raises like `put_key`."""
    route = keyed.get() if ticket is None else ticket.permit.route
    if route is not None:
        put_key(edge, cast("Request", request), route)


def put_key(edge: Edge, request: Request, route: Route) -> None:
    """
    Put the key in.

    Raises:
        CredentialError: The request goes elsewhere than the key belongs. Nothing was sent.
    """
    dialect, place, secret = edge.dialect, route.place, route.secret
    if secret is None:
        return
    if place is None or not isinstance(dialect, SupportsKeys) or not _belongs(dialect, place, request.url):
        raise CredentialError(
            f"The key {route.name} is not sent to another address than its provider's.",
            next_step="Use a client without a base_url of its own, or add the key with that base_url.",
            credential=route.name,
        )
    dialect.put_key(request.headers, secret.reveal())


def unredirected(options: Options) -> Options:
    """The same request, which follows no redirect: a key in a header of its own would go along to any host."""
    changed = copy.copy(options)
    changed.follow_redirects = False  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue] -- of both SDKs' options
    return changed


def key_refused(edge: Edge, route: Route | None, error: BaseException) -> bool:
    """After an error: if the provider has refused the key, mark it. True if the call may be made on the next one."""
    router = edge.guard.credentials
    if router is None or route is None or route.secret is None or getattr(error, "status_code", None) != 401:
        return False
    try:
        return router.refused(route)
    except Exception as exc:  # noqa: BLE001 -- the provider's answer is the user's to see
        edge.guard.emit("credential_not_marked", "error", credential=route.name, error=type(exc).__name__)
        return False


async def akey_refused(edge: Edge, route: Route | None, error: BaseException) -> bool:
    """As `key_refused`, without blocking the event loop."""
    router = edge.guard.credentials
    if router is not None and router.remote:
        from runrails import aio

        return await aio.off_loop(edge.guard, key_refused, edge, route, error)
    return key_refused(edge, route, error)


def has_own_auth(client: object, names: Iterable[str]) -> bool:
    """Whether a client signs its requests by one of these attributes, or its HTTP client does, after all of ours."""
    library: object = getattr(client, "_client", None)
    return getattr(library, "auth", None) is not None or any(getattr(client, name, None) is not None for name in names)


def _belongs(dialect: SupportsKeys, place: KeyPlace, url: Address) -> bool:
    port = url.port or _PORTS.get(url.scheme)
    if place.base_url is None:
        return (url.scheme, port) == ("https", 443) and dialect.is_home(url.host)
    from urllib.parse import urlsplit

    given = urlsplit(place.base_url)
    return (url.scheme, url.host, port) == (given.scheme, given.hostname, given.port or _PORTS.get(given.scheme))


_PORTS = {"https": 443, "http": 80}
