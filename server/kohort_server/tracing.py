"""Spans of inference requests for OpenTelemetry, where an endpoint is given and the packages are there.

Only requests get a span whose own trace is sampled (the header traceparent says so): whoever calls
decides which these are, and all others cost nothing.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

from kohort.contract import HEADER_COHORT
from kohort_server.logs import trace_of

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
SERVICE = "OTEL_SERVICE_NAME"
LAST_EXPORT = 2.0  # seconds
COHORT = HEADER_COHORT.encode()

log = logging.getLogger(__name__)


def is_sampled(traceparent: bytes) -> bool:
    """Whether a header in the form of W3C Trace Context has the flag set that asks for a span."""
    try:
        return bool(int(traceparent[53:55], 16) & 1)
    except ValueError:
        return False


class Tracing:
    """Sends a span for each request that asks for one, from a thread of its own."""

    def __init__(self, model: str, revision: str) -> None:
        """Raises `ImportError` without OpenTelemetry's packages."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
        from opentelemetry.trace import SpanKind, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = TracerProvider(
            resource=Resource.create({SERVICE_NAME: os.environ.get(SERVICE, model)}),
            sampler=ParentBased(ALWAYS_OFF),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("kohort-server")
        self._extract = TraceContextTextMapPropagator().extract
        self._kind = SpanKind.SERVER
        self._failed = StatusCode.ERROR
        self._name = f"infer {model}"
        self._common = {"kohort.model": model, "kohort.revision": revision}

    def answered(self, headers: dict[bytes, bytes], code: int, received: float) -> None:
        """Note that a request was answered now; `received` is the time.perf_counter of its last byte."""
        traceparent = headers.get(b"traceparent")
        if traceparent is None or not is_sampled(traceparent) or not trace_of(headers):
            return
        carrier = {
            name: headers[name.encode()].decode("latin-1")
            for name in ("traceparent", "tracestate")
            if name.encode() in headers
        }
        now = time.time_ns()
        attributes: dict[str, Any] = {**self._common, "http.response.status_code": code}
        if cohort := headers.get(COHORT):
            attributes["kohort.cohort"] = cohort.decode("latin-1")
        span = self._tracer.start_span(
            self._name,
            context=self._extract(carrier),
            kind=self._kind,
            attributes=attributes,
            start_time=now - int((time.perf_counter() - received) * 1e9),
        )
        if code >= 500:
            span.set_status(self._failed)
        span.end(now)

    def close(self) -> None:
        """Send what is left; blocks for two seconds at most."""
        last = threading.Thread(target=self._provider.shutdown, daemon=True)
        last.start()
        last.join(LAST_EXPORT)


def tracing(model: str, revision: str) -> Tracing | None:
    """What sends spans, if the environment names an endpoint for them."""
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return None
    try:
        return Tracing(model, revision)
    except ImportError as error:
        log.warning("no spans are sent: %s; install kohort[otel]", error)
        return None
