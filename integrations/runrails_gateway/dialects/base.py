"""
One dialect of one route: how its requests are read, and how it says that something went wrong.

Nothing here asks anybody or reads a clock. The conversation of a request is read by `runrails_gateway.history`, which
takes the same `body` and a dialect's `operation`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runrails.clients.plan import Plan
    from runrails.keyroutes import KeyPlace
    from runrails_gateway.dialects.told import Told

__all__ = ["Ask", "Body", "Dialect", "Vendor"]

Body: TypeAlias = "Mapping[str, object]"
"""A decoded JSON object, as `runrails_gateway.jsonin.read_json` makes it."""
Vendor = Literal["openai", "anthropic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a request asks for."""

    operation: str
    """The name in `runrails.identity.OPERATIONS`."""
    model: str
    stream: bool
    body: Body = field(repr=False)
    plan: Plan | None = field(repr=False)
    """What it may cost, and how its answer is read; None if it costs nothing."""
    previous_id: str | None = None
    """The answer that it goes on from, in the provider's keeping (Responses API)."""
    user_agent: str = ""


class Dialect(Protocol):
    """One route of one vendor's HTTP."""

    @property
    def name(self) -> Vendor:
        """Whose HTTP it is."""
        ...

    @property
    def path(self) -> str:
        """Where an upstream has it, below its base URL: `/chat/completions`, `/v1/messages`."""
        ...

    @property
    def operation(self) -> str:
        """The name in `runrails.identity.OPERATIONS`."""
        ...

    def read(
        self,
        body: Body,
        *,
        provider: str | None = None,
        place: KeyPlace | None = None,
        region: str | None = None,
        user_agent: str = "",
        retries: int = 0,
    ) -> Ask:
        """
        Read a request.

        Args:
            body: Its JSON.
            provider: Whose prices apply, as the upstream says.
            place: Where its key goes, if another one may be put in.
            region: The cloud region that the upstream is in, on Bedrock.
            user_agent: What the client calls itself.
            retries: How many more attempts may be made.

        Raises:
            BadRequest: It is malformed, or asks for what a gateway cannot serve.
            BoundUnknown: Nobody can tell how much it may cost.
        """
        ...

    def refusal(self, told: Told) -> bytes:
        """The body of an error answer."""
        ...

    def event(self, told: Told) -> bytes:
        """
        A whole server-sent event that ends a stream which has begun; the SDKs raise it.

        It may come after a line that is complete, but not after half of one: its caller would be told of bad JSON. The
        plans' readers hand on whole lines; what they still keep back when a stream breaks off is not to be sent.
        """
        ...
