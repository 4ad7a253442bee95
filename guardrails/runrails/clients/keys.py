"""Putting the key that was chosen for a call into its request, at the last moment before it leaves."""

from __future__ import annotations

import copy
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from runrails.clients.echoes import mask_logs, unsay
from runrails.clients.plan import is_straight
from runrails.cover import route_above
from runrails.errors import CredentialError
from runrails.keyroutes import address_of, is_sendable

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

    from runrails.clients.edge import Edge
    from runrails.clients.plan import Options, Plan
    from runrails.keyroutes import KeyPlace, Place, Route
    from runrails.secretvalue import Secret

__all__ = [
    "HIDDEN", "Chosen", "Request", "SupportsKeys", "akey_refused", "covered_route", "has_own_auth", "in_place",
    "key_refused", "note_cover", "place_of", "put_chosen_key", "put_key", "unredirected",
]  # fmt: skip

HIDDEN = "hidden-by-runrails"
"""What stands in a request in the place of the key, once it is sent."""


class Request(Protocol):
    """A request of the SDKs' HTTP library, about to be sent."""

    @property
    def headers(self) -> MutableMapping[str, str]:
        """Names in any case."""
        ...

    @property
    def url(self) -> object:
        """Where it goes; its `str` is in ASCII."""
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


class Chosen:
    """From now on, and until `end`, this key goes into the requests that are sent in this context; None: no other."""

    __slots__ = ("_edge", "_requests", "_route", "_token")

    def __init__(self, edge: Edge, route: Route | None) -> None:
        self._edge = edge
        self._route = route
        self._requests: list[Request] = []
        self._token = _chosen.set(self)
        if self.secret is not None:
            mask_logs(_secret_now)

    @property
    def secret(self) -> Secret | None:
        """The key; None: the client's own goes out."""
        return None if self._route is None else self._route.secret

    def put_into(self, request: Request) -> None:
        """Put it in. Raises like `put_key`."""
        if self._route is not None and self._route.secret is not None:
            put_key(self._edge, request, self._route)
            self._requests.append(request)

    def end(self) -> None:
        """Take it out of the requests that were sent, too: the SDKs' errors and raw answers keep them."""
        _chosen.reset(self._token)
        dialect = self._edge.dialect
        while self._requests and isinstance(dialect, SupportsKeys):
            dialect.put_key(self._requests.pop().headers, HIDDEN)


def _secret_now() -> Secret | None:
    chosen = _chosen.get()
    return None if chosen is None else chosen.secret


_chosen: ContextVar[Chosen | None] = ContextVar("runrails_chosen", default=None)
_covered: ContextVar[Route | None] = ContextVar("runrails_covered_route", default=None)
"""The key for the request that a cover has just been taken for; whoever sends it takes it from here."""


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


def note_cover(edge: Edge) -> None:
    """A cover has been taken for the request that is about to be sent: its key is for no other one."""
    _covered.set(route_above(edge.guard))


def covered_route() -> Route | None:
    """The key that a layer above has chosen for the request that is about to be sent; it is told once."""
    route = _covered.get()
    if route is not None:
        _covered.set(None)
    return None if route is None or route.secret is None else route


def put_chosen_key(request: object) -> None:
    """Put in the key of the call whose request is about to leave, if one was chosen. Raises like `put_key`."""
    chosen = _chosen.get()
    if chosen is not None:
        chosen.put_into(cast("Request", request))


def put_key(edge: Edge, request: Request, route: Route) -> None:
    """
    Put the key in.

    Raises:
        CredentialError: The request goes elsewhere than the key belongs, or no header can hold it. Nothing was sent.
    """
    dialect, place, secret = edge.dialect, route.place, route.secret
    if secret is None:
        return
    if not is_sendable(secret.reveal_bytes()):
        raise CredentialError(
            f"The key {route.name} cannot be sent: a provider key is one word of plain ASCII.",
            next_step="Replace it with `runrails byok rotate`, without the line breaks or other signs in it.",
            credential=route.name,
        )
    if place is None or not isinstance(dialect, SupportsKeys) or not _belongs(dialect, place, request):
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
    if router is None or route is None or route.secret is None:
        return False
    unsay(error, route.secret)
    if getattr(error, "status_code", None) != 401:
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
    if getattr(library, "auth", None) is not None or any(getattr(client, name, None) is not None for name in names):
        return True
    # A user in the address: the HTTP library signs with it.
    return bool(getattr(getattr(client, "base_url", None), "userinfo", b""))


def _belongs(dialect: SupportsKeys, place: KeyPlace, request: Request) -> bool:
    """Whether a request's address is the key's own, or below it."""
    sent = address_of(str(request.url))
    if sent is None or not _is_addressee(request, sent):
        return False
    if place.base_url is None:
        return (sent.scheme, sent.port) == ("https", 443) and dialect.is_home(sent.host)
    own = address_of(place.base_url)
    if own is None or sent[:3] != own[:3]:
        return False
    return sent.path.startswith(f"{own.path}/") and is_straight(sent.path.removeprefix(f"{own.path}/"))


def _is_addressee(request: Request, sent: Place) -> bool:
    """Whether the host of the address is also whom the request asks for, and nobody else signs it."""
    from urllib.parse import urlsplit

    netloc = urlsplit(str(request.url)).netloc
    if "@" in netloc:  # The HTTP library signs with it, after us.
        return False
    # Servers of many share one address: who answers there is said by the header.
    name = f"[{sent.host}]" if ":" in sent.host else sent.host
    names = {f"{name}:{sent.port}", name} if (sent.scheme, sent.port) in _USUAL else {f"{name}:{sent.port}"}
    return request.headers.get("host", netloc).lower() in names


_USUAL = {("https", 443), ("http", 80)}
