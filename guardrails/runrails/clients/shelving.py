"""
The place of one request's answer in the response cache: for guarded clients and for a gateway alike.

It saves money and decides nothing: whatever goes wrong here is told, and the request goes out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from runrails.calls import ModelResult
from runrails.savers.caching import Tenant, key_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.calls import Permit
    from runrails.clients.plan import Plan
    from runrails.run import Run
    from runrails.savers.caching import ResponseCache

__all__ = ["Shelf", "asking", "shelf_of"]

_LABELLING_HEADERS = frozenset({
    "accept", "accept-encoding", "baggage", "connection", "content-length", "content-type", "host", "idempotency-key",
    "sentry-trace", "traceparent", "tracestate", "user-agent",
})  # fmt: skip
_LABELLING_STARTS = (
    "x-stainless-", "x-trace", "x-b3-", "x-request-id", "x-client-request-id", "x-correlation-id", "x-amzn-trace-id",
    "x-cloud-trace-context", "x-datadog-", "x-runrails-",
)  # fmt: skip
"""
Headers that are no part of the question. Any other one may be: gateways choose models, prompts and tenants by theirs.
"""
_ELSEWHERE = ("background", "conversation", "prompt")
"""Requests that name what the provider keeps, which may change, and those that are answered later."""
_ECHOING = "/responses"
_ECHOED = ("metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "user")
Body = Mapping[str, object]


class Shelf:
    """
    The place of one request's answer, and that answer if it is there already.

    Args:
        cache: Where answers are kept.
        key: Under which name this one is.
        tell: Told why something went wrong.
    """

    __slots__ = ("body", "cache", "key", "stored", "tell")

    def __init__(self, cache: ResponseCache, key: str, tell: Callable[[str], None]) -> None:
        self.cache = cache
        self.key = key
        self.tell = tell
        self.body: bytes | None = None
        """The stored answer."""
        self.stored: ModelResult | None = None
        """What that was when it was paid for."""

    def look(self, plan: Plan) -> None:
        """See whether the answer is there. What cannot be read as one is forgotten."""
        body = self.cache.get(self.key, self.tell)
        if body is None:
            return
        try:
            told = plan.answer(cast("Body", json.loads(body)))
        except Exception as exc:  # noqa: BLE001 -- it only saves money
            self.tell(type(exc).__name__)
            self.cache.drop(self.key, self.tell)
            return
        self.body = body
        self.stored = ModelResult(end="cached", stored_usage=told.usage)

    def keep_body(self, status: int, body: bytes, permit: Permit, result: ModelResult) -> None:
        """Keep an answer that has come, if it is whole and of the request as it was asked. Never raises."""
        if not permit.as_asked or result.end != "completed" or result.usage is None or status != 200:
            return
        try:
            if _is_whole(json.loads(body)):
                self.cache.put(self.key, body, self.tell)
        except Exception as exc:  # noqa: BLE001 -- the answer is the user's
            self.tell(type(exc).__name__)


def shelf_of(
    run: Run, cache: ResponseCache, plan: Plan, body: dict[str, object], asked: Mapping[str, object]
) -> Shelf | None:
    """
    Where the answer to a request in a run would be kept; None if it is not to be.

    Args:
        run: Whose it is.
        cache: Where answers are kept.
        plan: The request as it is to be sent. Streams are not kept.
        body: Its JSON.
        asked: Who is asked: provider, address, path, and headers that change answers.
    """
    if plan.stream is not None or body.get("stream") or any(body.get(name) for name in _ELSEWHERE):
        return None
    by = run.accounts.payer(plan.call)
    key = key_of(Tenant(by.user, by.key, by.org), {**asked, **_echoed(plan, body)}, body)

    def tell(reason: str) -> None:
        run.guard.emit("cache_failed", "warning", run=run.id, reason=reason)

    return None if key is None else Shelf(cache, key, tell)


def _echoed(plan: Plan, body: Body) -> dict[str, object]:
    """
    What an answer repeats of its request. It is no part of the question, but one end user's must not come back in an
    answer to another one of the same key.
    """
    if plan.call.endpoint != _ECHOING:
        return {}
    return {"echoed": {name: body[name] for name in _ECHOED if name in body}}


def asking(headers: Mapping[str, str | None]) -> dict[str, str | None]:
    """Of headers, by their names in lower case, those that can change an answer."""
    return {
        name: value
        for name, value in headers.items()
        if name not in _LABELLING_HEADERS and not name.startswith(_LABELLING_STARTS)
    }


def _is_whole(body: object) -> bool:
    """Whether a decoded answer is the last word of the provider."""
    if not isinstance(body, Mapping):
        return False
    known = cast("Body", body)
    return not known.get("error") and known.get("status", "completed") == "completed"
