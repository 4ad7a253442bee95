"""What an adapter tells the core about its SDK, as protocols: the core knows no vendor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, cast

from runrails.errors import BoundUnknown

if TYPE_CHECKING:
    from runrails.calls import ModelCall, ModelResult, Permit
    from runrails.clients.coming import Coming

__all__ = [
    "AnswerReader", "Dialect", "Leaving", "Options", "Plan", "StreamReader", "capped", "is_straight", "request_body",
]  # fmt: skip

_JSON = frozenset({str, int, float, bool, type(None), list, dict})
"""Types whose values are always sent; by far the most requests have no others."""
_LEFT_OUT = frozenset({"NotGiven", "Omit"})
"""Types of the SDKs' own marks for arguments that were not given."""
Leaving = Literal["ended", "left", "lost"]
"""How a stream was over: read to its end; left by its reader; or the connection or the provider gave up."""


class Options(Protocol):
    """A request's options, as both SDKs have them. Never changed in place: it may be the caller's."""

    method: str
    url: str
    json_data: object
    extra_json: object
    max_retries: object
    post_parser: object

    def get_max_retries(self, max_retries: int) -> int:
        """How often the request may be sent again."""
        ...


class StreamReader(Protocol):
    """Reads along with a streamed body."""

    kept_back: bytes
    """What has come and was not shown yet; not what is hidden."""

    @property
    def coming(self) -> Coming[bytes]:
        """The content that has come."""
        ...

    @property
    def failed(self) -> bool:
        """Whether the stream said that the provider gave up."""
        ...

    def feed(self, data: bytes) -> bytes:
        """Read a piece; return what the caller may see of it."""
        ...

    def rest(self) -> bytes:
        """At the end: what was kept back."""
        ...

    def outcome(self, how: Leaving) -> ModelResult:
        """What the call came to."""
        ...


class AnswerReader(Protocol):
    """Reads a whole answer."""

    def __call__(self, body: Mapping[str, object]) -> ModelResult:
        """What a decoded answer says the call came to."""
        ...


@dataclass(slots=True)
class Plan:
    """A request that costs money. Nobody changes it; freezing it would take as long again as making it."""

    call: ModelCall
    answer: AnswerReader
    stream: StreamReader | None
    """For this one request; None if its answer is no stream."""
    changes: Mapping[str, object]
    """What to put into the request's JSON in any case."""
    cap_name: str
    """The request's name for the cap on output tokens."""


class Dialect(Protocol):
    """What an adapter knows of its SDK's requests."""

    def plan(self, client: object, options: Options) -> Plan | None:
        """
        What a request will cost at most, or None if it is free.

        Raises:
            BoundUnknown: It costs money, and nobody can tell how much.
        """
        ...


def is_straight(path: str) -> bool:
    """Whether a path leads where it seems to: an HTTP library or a server may resolve dots and escapes in it."""
    return not ("//" in path or "%" in path or "\\" in path or "/./" in f"/{path}/" or "/../" in f"/{path}/")


def capped(plan: Plan, permit: Permit) -> Mapping[str, object]:
    """What to put into the request's JSON once the permit is there."""
    if permit.max_tokens == plan.call.max_tokens or permit.max_tokens is None:
        return plan.changes
    return {**plan.changes, plan.cap_name: permit.max_tokens}


def request_body(options: Options) -> Mapping[str, object]:
    """
    A request's JSON as it will be sent, without what the caller left out.

    Raises:
        BoundUnknown: It has none.
    """
    told: dict[str, object] = vars(options)  # Asking the object itself for each takes several times as long.
    given, extra = told.get("json_data"), told.get("extra_json")
    if type(given) is not dict and not isinstance(given, Mapping):
        raise BoundUnknown(
            "The request's body is no JSON object, so what it costs cannot be told.",
            next_step="Send it through the SDK's own methods.",
        )
    body = cast("Mapping[str, object]", given)
    if extra and isinstance(extra, Mapping):
        body = {**body, **cast("Mapping[str, object]", extra)}
    if _JSON.issuperset(map(type, body.values())):
        return body
    for value in body.values():
        if type(value).__name__ in _LEFT_OUT:
            return {name: value for name, value in body.items() if type(value).__name__ not in _LEFT_OUT}
    return body
