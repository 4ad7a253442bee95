"""
Spans for OpenTelemetry, one a request, with the attributes of its semantic conventions for GenAI (1.38).

The names are written here as the conventions have them, since their package is not stable. No content is recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import context, propagate, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from runrails.money import PUSD_PER_USD

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.trace import Span, TracerProvider

    from runrails_gateway.exchange import Exchange

__all__ = ["Tracing"]

_NAMES = {
    "chat.complete": "chat", "responses.create": "chat", "messages.create": "chat", "embeddings.create": "embeddings",
    "messages.count_tokens": "count_tokens",
}  # fmt: skip
_PROVIDERS = {"bedrock": "aws.bedrock", "azure": "azure.ai.openai", "google": "gcp.gen_ai"}
"""Those that the conventions call otherwise than price tables do."""


class Tracing:
    """
    A watcher that makes spans, as children of what the request's `traceparent` names, or of the span that a middleware
    has made of the request. What is done for a request that was let in, such as asking a provider, is beneath its span;
    looking at its credential is not.

    Args:
        provider: Where spans go; None: the process's own, as `opentelemetry-instrument` sets it.
        close: What is called when no more come, such as the provider's `shutdown`.
        flush: What sends those there are now, such as the provider's `force_flush`.
    """

    def __init__(
        self, provider: TracerProvider | None = None, *, close: Callable[[], object] | None = None,
        flush: Callable[[], object] | None = None,
    ) -> None:  # fmt: skip
        self._close = close
        self._flush = flush
        self._tracer = trace.get_tracer("runrails.gateway", tracer_provider=provider)
        self._spans: dict[int, Span] = {}
        """By the identity of the exchange, which is alive until it has ended."""

    def began(self, exchange: Exchange) -> None:
        """See `runrails_gateway.exchange.Watcher`."""
        around = context.get_current()
        if not trace.get_current_span(around).get_span_context().is_valid:
            told = {name.decode("latin-1"): value.decode("latin-1") for name, value in exchange.headers[:100]}
            around = propagate.extract({name: told[name] for name in ("traceparent", "tracestate") if name in told})
        operation = _NAMES[exchange.dialect.operation]
        span = self._tracer.start_span(operation, context=around, kind=SpanKind.SERVER)
        span.set_attribute("gen_ai.operation.name", operation)
        span.set_attribute("runrails.request.id", exchange.id)
        self._spans[id(exchange)] = span
        context.attach(trace.set_span_in_context(span, around))  # The context is the request's, and ends with it.

    def ended(self, exchange: Exchange) -> None:
        """See `runrails_gateway.exchange.Watcher`."""
        span = self._spans.pop(id(exchange), None)
        if span is None:
            return
        if span.is_recording():
            for name, value in _attributes(exchange).items():
                span.set_attribute(name, value)
            if exchange.ticket is not None:
                span.update_name(f"{_NAMES[exchange.dialect.operation]} {exchange.model}")
            if exchange.status >= 500 or exchange.ending == "failed":
                span.set_status(Status(StatusCode.ERROR))
        span.end()

    def flush(self) -> None:
        """Send what is there, before a process is stopped that cannot say when it goes on."""
        if self._flush is not None:
            self._flush()

    def close(self) -> None:
        """Send what is left. Closing twice is fine."""
        close, self._close = self._close, None
        if close is not None:
            close()


def _attributes(exchange: Exchange) -> dict[str, str | int | float]:
    told: dict[str, str | int | float] = {"http.response.status_code": exchange.status}
    ticket, result = exchange.ticket, exchange.result
    if exchange.told is not None:
        told["error.type"] = exchange.told.code
    if exchange.resent:
        told["http.request.resend_count"] = exchange.resent
    if exchange.run_id is not None:
        told["gen_ai.conversation.id"] = exchange.run_id
    if ticket is None:  # whatever it called a model may be anything
        return told
    told["gen_ai.request.model"] = exchange.model
    provider = ticket.permit.call.provider
    if provider is not None:
        told["gen_ai.provider.name"] = _PROVIDERS.get(provider, provider)
    if ticket.permit.max_tokens is not None:
        told["gen_ai.request.max_tokens"] = ticket.permit.max_tokens
    if ticket.settlement is not None:
        told["runrails.cost_usd"] = ticket.settlement.actual_pusd / PUSD_PER_USD
    if result is not None:
        named = {"gen_ai.response.model": result.model, "gen_ai.response.id": result.answer_id}
        told |= {name: value for name, value in named.items() if value}
        if result.usage is not None:
            told["gen_ai.usage.input_tokens"] = result.usage.input_tokens
            told["gen_ai.usage.output_tokens"] = result.usage.output_tokens
    return told
