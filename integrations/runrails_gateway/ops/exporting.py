"""Whether traces are asked for, as OpenTelemetry's own settings say, and where they go."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

from runrails.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

    from runrails_gateway.ops.tracing import Tracing

__all__ = ["open_tracing"]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_ON = frozenset({"1", "true"})


def open_tracing() -> Tracing | None:
    """
    Traces, if the process has somewhere to send them: because it was started with `opentelemetry-instrument`, or
    because `OTEL_EXPORTER_OTLP_ENDPOINT` is set. `OTEL_SDK_DISABLED` switches them off.

    Raises:
        ConfigError: An endpoint is set, and OpenTelemetry's SDK or its exporter is not installed.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() in _ON:
        return None
    wanted = any(os.environ.get(each, "").strip() for each in _ENDPOINTS)
    wanted = wanted and os.environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() != "none"
    if find_spec("opentelemetry") is None:
        if wanted:
            raise _missing()
        return None
    from opentelemetry import trace

    from runrails_gateway.ops.tracing import Tracing

    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return Tracing()
    if not wanted:
        return None
    provider = _provider()
    return Tracing(provider, close=provider.shutdown, flush=provider.force_flush)


def _provider() -> TracerProvider:
    try:
        exporter = vars(import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter"))["OTLPSpanExporter"]
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise _missing() from None
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: "runrails-gateway"}
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(cast("Callable[[], SpanExporter]", exporter)()))
    return provider


def _missing() -> ConfigError:
    return ConfigError(
        "Traces are to be sent to an OTLP endpoint, and what sends them is not installed.",
        next_step="pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http (or OTEL_SDK_DISABLED=true).",
        setting=_ENDPOINTS[1],
    )
