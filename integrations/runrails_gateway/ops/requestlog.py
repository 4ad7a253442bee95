"""One line of JSON for every request: who, what, how it ended, what it cost. Never what was said, nor a credential."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runrails.money import format_usd
from runrails.redaction import redact_text

if TYPE_CHECKING:
    from runrails.clocks import Clock
    from runrails_gateway.exchange import Exchange

__all__ = ["LOGGER", "RequestLog", "line_of"]

LOGGER = "runrails.gateway"
_QUIET = frozenset({"answered"})
STRANGERS_MAX = 20
"""Most lines a second about requests of nobody who is known: anybody can send those, and the log is not theirs."""


class RequestLog:
    """
    Writes to the standard logger ``runrails.gateway``: an ordinary answer at INFO, what went wrong at WARNING.

    Args:
        clock: Wall clock in milliseconds since the epoch.
        monotonic: The clock that exchanges are timed by.
    """

    def __init__(self, clock: Clock, monotonic: Clock) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._logger = logging.getLogger(LOGGER)
        self._second = 0
        self._strangers = 0

    def began(self, exchange: Exchange) -> None:
        """Nothing is written yet."""

    def ended(self, exchange: Exchange) -> None:
        """See `runrails_gateway.exchange.Watcher`."""
        level = logging.INFO if exchange.ending in _QUIET else logging.WARNING
        if not self._logger.isEnabledFor(level):
            return
        now_ms = self._monotonic()
        if exchange.principal is None and not self._has_room(now_ms // 1_000):
            return
        self._logger.log(level, "%s", line_of(exchange, self._clock(), now_ms - exchange.started_ms))

    def _has_room(self, second: int) -> bool:
        if second != self._second:
            untold, self._second, self._strangers = self._strangers - STRANGERS_MAX, second, 0
            if untold > 0:
                self._logger.warning("%s", json.dumps({"untold": untold, "code": "unauthenticated"}))
        self._strangers += 1
        return self._strangers <= STRANGERS_MAX


def line_of(exchange: Exchange, now_ms: int, duration_ms: int) -> str:
    """
    What is written of a request.

    Names that callers choose (a model, a run) may be a secret that somebody has put in the wrong place, so they go
    through the redaction; all else is ours.
    """
    principal, ticket, told = exchange.principal, exchange.ticket, exchange.told
    line: dict[str, object] = {
        "time": datetime.fromtimestamp(now_ms / 1_000, UTC).isoformat(timespec="milliseconds"),
        "request_id": exchange.id, "operation": exchange.dialect.operation, "status": exchange.status,
        "ending": exchange.ending, "duration_ms": duration_ms, "bytes_in": exchange.request_bytes,
        "bytes_out": exchange.bytes_out,
    }  # fmt: skip
    if principal is not None:
        line |= {"user": principal.user, "method": principal.method}
        line |= {name: value for name, value in (("org", principal.org), ("key_id", principal.key_id)) if value}
    if exchange.model:
        line["model"] = redact_text(exchange.model)
    if exchange.run_id is not None:
        line["run"] = exchange.run_id
    if exchange.resent:
        line["sdk_retry"] = exchange.resent
    if told is not None:
        line["code"] = told.code
    if exchange.upstream:
        line["upstream"] = exchange.upstream
    if ticket is not None:
        line |= _cost_of(exchange)
    return json.dumps(line, ensure_ascii=False, separators=(",", ":"))


def _cost_of(exchange: Exchange) -> dict[str, object]:
    ticket, result = exchange.ticket, exchange.result
    if ticket is None:
        return {}
    route = ticket.permit.route
    told: dict[str, object] = {"reservation": ticket.permit.id, "payer": "platform" if route is None else route.payer}
    economy = ticket.permit.call.economy
    if economy is not None:
        told |= {"cached": True} if economy.stored else {}
        told |= {"asked_model": redact_text(economy.asked_model)} if economy.asked_model else {}
        told |= {"messages_left_out": economy.left_out_messages} if economy.left_out_messages else {}
    if ticket.settlement is not None:
        told |= {"cost": format_usd(ticket.settlement.actual_pusd), "unresolved": ticket.settlement.unresolved}
    if result is not None and result.usage is not None:
        told |= {"input_tokens": result.usage.input_tokens, "output_tokens": result.usage.output_tokens}
    return told
