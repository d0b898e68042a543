"""Spans of inference requests, sent to an OpenTelemetry collector where an endpoint is given.

By OTLP over HTTP in JSON, which needs no package: https://opentelemetry.io/docs/specs/otlp. Only requests
get a span whose own trace is sampled (the header traceparent says so): whoever calls decides which these
are, and all others cost nothing.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
import urllib3

from kohort.contract import HEADER_COHORT
from kohort_server.logs import trace_of

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
HEADERS = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
SERVICE, RESOURCE = "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"
COHORT = HEADER_COHORT.encode()
SERVER_SPAN, FAILED = 2, 2  # SPAN_KIND_SERVER, STATUS_CODE_ERROR

MOST_SPANS, SENT_AT_ONCE = 4096, 512
SECONDS_BETWEEN = 2.0
TIMEOUT = 5.0
LAST_EXPORT = 2.0
MOST_ANSWER = 65536  # bytes that are read of an answer

log = logging.getLogger(__name__)

Span = dict[str, Any]


class Collector:
    """Where spans go. Any trouble with it is an `urllib3.exceptions.HTTPError`."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        """Raises `ValueError` for what is no address."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url} is no address like http://collector:4318")
        _ = parts.port  # out of range it raises, and not when spans are sent
        self._url = url
        self._headers = {**headers, "Content-Type": "application/json"}
        self._pool = urllib3.PoolManager(timeout=TIMEOUT, retries=False)

    def send(self, body: bytes) -> None:
        """Send one message."""
        answer = self._pool.request(
            "POST", self._url, body=body, headers=self._headers, preload_content=False
        )
        try:
            answer.read(MOST_ANSWER)
        finally:
            answer.close()
        if answer.status >= 300:
            raise urllib3.exceptions.HTTPError(f"it answered {answer.status}")


class Tracing:
    """Sends a span for each request that asks for one, from a thread of its own.

    What a collector does not take in time goes: no more spans are kept than ``MOST_SPANS``.
    """

    def __init__(self, collector: Collector, model: str, revision: str) -> None:
        self._collector = collector
        self._name = f"infer {model}"
        self._common = [
            _attribute("kohort.model", model),
            _attribute("kohort.revision", revision),
        ]
        resource = {
            "service.name": model,
            **pairs(os.environ.get(RESOURCE, "")),
            **({"service.name": os.environ[SERVICE]} if os.environ.get(SERVICE) else {}),
        }
        self._resource = {"attributes": [_attribute(*pair) for pair in resource.items()]}
        self._spans: deque[Span] = deque(maxlen=MOST_SPANS)
        self._ended = threading.Event()
        self._away = False
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def answered(self, headers: dict[bytes, bytes], code: int, received: float) -> None:
        """Note that a request was answered now; `received` is the time.perf_counter of its last byte."""
        traceparent = headers.get(b"traceparent")
        if traceparent is None or not is_sampled(traceparent) or not (trace := trace_of(headers)):
            return
        now = time.time_ns()
        attributes = [*self._common, _attribute("http.response.status_code", code)]
        if cohort := headers.get(COHORT):
            attributes.append(_attribute("kohort.cohort", cohort.decode("latin-1")))
        span: Span = {
            "traceId": trace["trace_id"],
            "spanId": secrets.token_hex(8),
            "parentSpanId": trace["span_id"],
            "name": self._name,
            "kind": SERVER_SPAN,
            "startTimeUnixNano": str(now - int((time.perf_counter() - received) * 1e9)),
            "endTimeUnixNano": str(now),
            "attributes": attributes,
            "flags": 1,
        }
        if state := headers.get(b"tracestate"):
            span["traceState"] = state.decode("latin-1")
        if code >= 500:
            span["status"] = {"code": FAILED}
        self._spans.append(span)

    def close(self) -> None:
        """Send what is left; blocks for two seconds at most."""
        self._ended.set()
        self._thread.join(LAST_EXPORT)

    def _run(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN):
            self._send_all()
        self._send_all()

    def _send_all(self) -> None:
        while self._spans:
            spans = [self._spans.popleft() for _ in range(min(SENT_AT_ONCE, len(self._spans)))]
            try:
                self._collector.send(self._message(spans))
            except urllib3.exceptions.HTTPError as error:
                if not self._away:
                    log.warning("spans are lost until their collector takes some again: %s", error)
                self._away = True
                return
            self._away = False

    def _message(self, spans: list[Span]) -> bytes:
        scope = {"name": "kohort-server", "version": version("kohort")}
        scoped = [{"scope": scope, "spans": spans}]
        return msgspec.json.encode(
            {"resourceSpans": [{"resource": self._resource, "scopeSpans": scoped}]}
        )


def is_sampled(traceparent: bytes) -> bool:
    """Whether a header in the form of W3C Trace Context has the flag set that asks for a span."""
    try:
        return bool(int(traceparent[53:55], 16) & 1)
    except ValueError:
        return False


def pairs(text: str) -> dict[str, str]:
    """``a=1,b=2%20c`` as OpenTelemetry's variables have it; what is no pair is left out."""
    told = (part.partition("=") for part in text.split(","))
    return {
        name.strip(): unquote(value.strip()) for name, sign, value in told if sign and name.strip()
    }


def _attribute(name: str, value: str | int) -> dict[str, Any]:
    # 64-bit integers are strings in this JSON.
    told = {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}
    return {"key": name, "value": told}


def tracing(model: str, revision: str) -> Tracing | None:
    """What sends spans, if the environment names an endpoint for them."""
    base = os.environ.get(ENDPOINT, "")
    url = os.environ.get(TRACES_ENDPOINT, "") or (base and base.rstrip("/") + "/v1/traces")
    if not url:
        return None
    headers = {k: v for name in HEADERS for k, v in pairs(os.environ.get(name, "")).items()}
    try:
        return Tracing(Collector(url, headers), model, revision)
    except ValueError as error:
        log.warning("no spans are sent: %s", error)
        return None
