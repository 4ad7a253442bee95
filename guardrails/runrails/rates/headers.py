"""What HTTP answers say of rates: the names and forms of OpenAI's API, which clients know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.rates.limiter import Granted, Limited

if TYPE_CHECKING:
    from runrails.rates.limiter import Figure

__all__ = ["RETRY_AFTER_S_MAX", "duration", "rate_headers", "retry_headers"]

RETRY_AFTER_S_MAX = 60
"""
The longest wait that a client is sent to. Some SDKs sleep however long they are told, so beyond this they are told not
to try again by themselves.
"""


def rate_headers(decision: Granted | Limited) -> dict[str, str]:
    """
    The headers of an answer: ``x-ratelimit-limit-requests`` and its like, and for a refusal when to try again.

    ``retry-after`` is whole seconds, rounded up; ``retry-after-ms`` is exact. After more than a minute, or if it can
    never be granted, ``x-should-retry: false`` keeps SDKs from trying by themselves.
    """
    found: dict[str, str] = {}
    for name, figure in (("requests", decision.requests), ("tokens", decision.tokens)):
        if figure is not None:
            found.update(_figure_headers(name, figure))
    if isinstance(decision, Limited):
        found.update(retry_headers(decision.retry_after_ms))
    return found


def _figure_headers(name: str, figure: Figure) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{name}": str(figure.limit),
        f"x-ratelimit-remaining-{name}": str(figure.remaining),
        f"x-ratelimit-reset-{name}": duration(figure.reset_ms),
    }


def retry_headers(wait_ms: int | None) -> dict[str, str]:
    """When to try again; None: never."""
    if wait_ms is None:
        return {"x-should-retry": "false"}
    seconds = -(-wait_ms // 1_000)
    if seconds > RETRY_AFTER_S_MAX:
        return {"retry-after": str(RETRY_AFTER_S_MAX), "x-should-retry": "false"}
    return {"retry-after": str(seconds), "retry-after-ms": str(wait_ms)}


def duration(ms: int) -> str:
    """A duration as Go writes it, and OpenAI with it: ``0s``, ``17ms``, ``1.5s``, ``6m0s``, ``1h0m0s``."""
    if 0 < ms < 1_000:
        return f"{ms}ms"
    minutes, rest_ms = divmod(ms, 60_000)
    seconds = f"{rest_ms // 1_000}.{rest_ms % 1_000:03d}".rstrip("0").rstrip(".") + "s"
    if not minutes:
        return seconds
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}"
