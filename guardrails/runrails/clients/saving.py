"""
Cheaper requests of guarded clients: a shorter conversation, a cheaper model, or an answer that is there already.

All of it saves money and decides nothing: whatever goes wrong here is an event, and the request goes out as it was.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from runrails.calls import Economy
from runrails.clients.plan import request_body
from runrails.clients.reading import inherited
from runrails.clients.shelving import Shelf, asking, shelf_of
from runrails.savers.wire import shorter
from runrails.thrift import asked_as, cheaper_model, pruning_of, shortened_to, tell_of_refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.calls import ModelResult
    from runrails.clients.edge import Edge, Ticket
    from runrails.clients.plan import Options, Plan
    from runrails.run import Run
    from runrails.savers.caching import ResponseCache

__all__ = ["CACHE_HOOKS", "Keeping", "spare"]

CACHE_HOOKS = ("_process_response", "_maybe_override_cast_to")
"""What the cache needs of an SDK beside what every guarded client does."""
_RAW_HEADER = "x-stainless-raw-response"
"""By which the SDKs tell themselves that the caller wants the response as it is."""
_CREDENTIALS = ("api_key", "auth_token", "aws_access_key")
"""Whose key it is decides what may be seen. Only the hash of all that makes up a cache's key remains of them."""
_DEPLOYED = "/deployments/"
"""In the address of a client for one deployment, which answers whatever model a request names."""
Body = Mapping[str, object]


class _Client(Protocol):
    @property
    def base_url(self) -> object: ...
    @property
    def default_headers(self) -> Mapping[str, object]: ...


class _Told(Protocol):
    status_code: int
    content: bytes


class _Library(Protocol):
    """The HTTP library of an SDK."""

    Request: Callable[..., object]
    Response: Callable[..., object]


class Spared(NamedTuple):
    """A request as it is to be sent."""

    options: Options
    plan: Plan
    keeping: Keeping | None


class Keeping(Shelf):
    """The same for a request of an SDK, which makes its answer of a response."""

    __slots__ = ("seen",)

    def __init__(self, shelf: Shelf) -> None:
        super().__init__(shelf.cache, shelf.key, shelf.tell)
        self.seen: object = None
        """The response that the provider gave."""

    def keep(self, ticket: Ticket, result: ModelResult) -> None:
        """Keep the answer that has come, if it is whole and of the request as it was asked. Never raises."""
        try:
            if self.seen is not None:
                seen = cast("_Told", self.seen)
                self.keep_body(seen.status_code, seen.content, ticket.permit, result)
        except Exception as exc:  # noqa: BLE001 -- the answer is the user's
            self.tell(type(exc).__name__)

    def answer(self, client: object, cast_to: object, options: Options) -> object:
        """
        The stored answer, as the SDK makes it of a response; a coroutine gives it for an asynchronous client.

        Raises:
            Exception: Whatever the SDK or the caller's own parser has against it.
        """
        options = copy.copy(options)
        kind = inherited(client, "_maybe_override_cast_to")(cast_to, options)
        return inherited(client, "_process_response")(
            cast_to=kind, options=options, response=_response(client, options, self.body), stream=False,
            stream_cls=None, retries_taken=0,
        )  # fmt: skip


def spare(edge: Edge, run: Run, client: object, options: Options, plan: Plan, more: Mapping[str, object]) -> Spared:
    """What is to be sent of a request that is about to be sent in a run, and where its answer is kept. Never raises."""
    for change in () if edge.guard.mode == "observe" else (_shorten, _cheapen):  # observing changes no request
        try:
            options, plan = change(edge, run, client, options, plan)
        except Exception as exc:  # noqa: BLE001 -- see above
            _failed(edge, run, exc)
    keeping = None
    cache = edge.guard.cache
    if cache is not None:
        try:
            keeping = _keeping(run, cache, client, options, plan, more)
            if keeping is not None:
                keeping.look(plan)
            if keeping is not None and keeping.stored is not None:
                # What was done to the request beside that saved nothing: it is not sent.
                plan.call = replace(plan.call, economy=Economy(stored=True))
        except Exception as exc:  # noqa: BLE001 -- see above
            keeping = None
            _failed(edge, run, exc)
    return Spared(options, plan, keeping)


def _shorten(edge: Edge, run: Run, client: object, options: Options, plan: Plan) -> tuple[Options, Plan]:
    pruning = pruning_of(run)
    cut = None if pruning is None else shorter(plan.call.endpoint, request_body(options), pruning)
    if cut is None:
        return options, plan
    changed = _changed(options, cut.key, cut.messages)
    made = edge.dialect.plan(client, changed)
    if made is None:
        return options, plan
    made.call = shortened_to(plan.call, made.call, cut.left_out)
    return changed, made


def _cheapen(edge: Edge, run: Run, client: object, options: Options, plan: Plan) -> tuple[Options, Plan]:
    model = cheaper_model(run, plan.call)
    if model is None:
        return options, plan
    if _DEPLOYED in str(cast("_Client", client).base_url):
        tell_of_refusal(run, plan.call.model, model, "adapter")
        return options, plan
    changed = _changed(options, "model", model)
    made = edge.dialect.plan(client, changed)
    if made is None or made.call.model != model:
        return options, plan
    made.call = asked_as(run, plan.call, made.call)
    return changed, made


def _changed(options: Options, name: str, value: object) -> Options:
    """The same request with another value; the caller's own is not changed."""
    changed = copy.copy(options)
    changed.json_data = {**cast("Body", options.json_data), name: value}
    extra = options.extra_json
    if isinstance(extra, Mapping) and name in extra:
        changed.extra_json = {**cast("Body", extra), name: value}
    return changed


def _keeping(
    run: Run, cache: ResponseCache, client: object, options: Options, plan: Plan, more: Mapping[str, object]
) -> Keeping | None:
    """Where the answer to a request would be kept; None if it is not to be."""
    body = request_body(options)
    headers = _headers(options)
    # A middleware of the client's own may change what is sent and what comes back; a traced call tells of its response.
    touched = getattr(client, "_middleware", None) or more.get("call") is not None
    if plan.stream is not None or body.get("stream") or touched or headers.get(_RAW_HEADER) == "stream":
        return None
    told = cast("_Client", client)
    asked = {
        "provider": plan.call.provider, "address": str(told.base_url), "path": options.url,
        "query": getattr(options, "params", None) or {},
        "headers": asking({**_named(told.default_headers), **_named(getattr(options, "headers", None))}),
        "credentials": [each for name in _CREDENTIALS if isinstance(each := getattr(client, name, None), str)],
    }  # fmt: skip
    shelf = shelf_of(run, cache, plan, dict(body), asked)
    return None if shelf is None else Keeping(shelf)


def _response(client: object, options: Options, body: bytes | None) -> object:
    """A response of the library that the client sends with."""
    from datetime import timedelta

    library = _library(getattr(client, "_client", None))
    address = f"{str(cast('_Client', client).base_url).rstrip('/')}/{options.url.lstrip('/')}"
    request = library.Request("POST", address, headers=_headers(options))
    response = library.Response(
        200, headers={"content-type": "application/json", "x-runrails-cache": "hit"}, content=body, request=request
    )
    setattr(response, "elapsed", timedelta(0))  # noqa: B010 -- the libraries' own type is not known here
    return response


def _library(http_client: object) -> _Library:
    for kind in type(http_client).__mro__:
        module = sys.modules.get(kind.__module__.partition(".")[0])
        if hasattr(module, "Request") and hasattr(module, "Response"):
            return cast("_Library", module)
    raise TypeError("the client's HTTP library is not known")


def _headers(options: Options) -> dict[str, str]:
    return _lower(getattr(options, "headers", None))


def _lower(headers: object) -> dict[str, str]:
    """Headers that are text, by their names in lower case."""
    return {name: value for name, value in _named(headers).items() if value is not None}


def _named(headers: object) -> dict[str, str | None]:
    """Headers by their names in lower case; None for one that is to be left out."""
    if not isinstance(headers, Mapping):
        return {}
    known = cast("Mapping[object, object]", headers)
    return {str(name).lower(): value if isinstance(value, str) else None for name, value in known.items()}


def _failed(edge: Edge, run: Run, error: Exception) -> None:
    edge.guard.emit("adapter_failed", "error", adapter="clients", hook="saving", error=type(error).__name__, run=run.id)
