"""Spans that a server sends to a collector."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.component.prometheus_parts import serving as answering
from tests.component.server_process import (
    ServerProcess,
    linear_model,
    serving,
    start,
    wait_until_ready,
)

INFER = "/v2/models/m/infer"
BODY = b'{"inputs":[{"name":"x","shape":[1,64],"datatype":"FP32","data":[%b]}]}' % b",".join(
    [b"1"] * 64
)
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-01", "x-kohort-cohort": "staff"}


@asynccontextmanager
async def collector() -> AsyncIterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """Where spans go, and what has come."""
    exports: list[ExportTraceServiceRequest] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        exports.append(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response()

    async with answering(answer) as port:
        yield f"http://127.0.0.1:{port}", exports


def environment(endpoint: str, **more: str) -> dict[str, str]:
    """That of a server which sends spans there."""
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_COMPRESSION": "none"}
    return {**os.environ, **given, **more}


def stop(server: ServerProcess) -> None:
    """End the server in good order: what it has to say is said by then."""
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0


async def test_a_request_whose_trace_is_sampled_has_a_span_and_others_have_none(
    tmp_path: Path,
) -> None:
    requests = [
        (BODY, SAMPLED),
        (b"{}", SAMPLED),
        (BODY, {"traceparent": f"00-{TRACE}-{CALLER}-00"}),
        (BODY, {"traceparent": "nonsense"}),
        (BODY, {"traceparent": f"00-{'0' * 32}-{CALLER}-01"}),
        (BODY, {}),
    ]
    async with collector() as (endpoint, exports):
        model = linear_model(tmp_path / "m.onnx", "batch")
        with serving(model, "--drain-delay", "0s", env=environment(endpoint)) as server:
            for body, headers in requests:
                await asyncio.to_thread(server.call, "POST", INFER, body, headers)
            await asyncio.to_thread(stop, server)
    resources = [resource for export in exports for resource in export.resource_spans]
    spans = [span for r in resources for scope in r.scope_spans for span in scope.spans]
    codes = {value_of(span, "http.response.status_code") for span in spans}
    assert (len(spans), codes) == (2, {200, 400})
    for span in spans:
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, CALLER)
        assert (span.name, span.kind) == ("infer m", Span.SPAN_KIND_SERVER)
        assert value_of(span, "kohort.cohort") == "staff"
        assert value_of(span, "kohort.revision") == "r1"
        assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 10e9
        assert span.status.code == Status.STATUS_CODE_UNSET
    services = {
        a.value.string_value for a in resources[0].resource.attributes if a.key == "service.name"
    }
    assert services == {"m"}


def value_of(span: Span, name: str) -> str | int | None:
    """An attribute."""
    for attribute in span.attributes:
        if attribute.key == name:
            kind = attribute.value.WhichOneof("value")
            value: str | int = getattr(attribute.value, kind or "string_value")
            return value
    return None


@pytest.mark.parametrize("away", [True, False])
def test_without_a_collector_or_the_packages_requests_are_answered(
    tmp_path: Path, away: bool
) -> None:
    model = linear_model(tmp_path / "m.onnx", "batch")
    before = "" if away else "import sys; sys.modules['opentelemetry.sdk'] = None"
    given = environment("http://127.0.0.1:9")
    server = start(model.as_uri(), "--drain-delay", "0s", before=before, env=given)
    try:
        wait_until_ready(server)
        for _ in range(5):
            assert server.call("POST", INFER, BODY, SAMPLED).status == 200
        server.process.send_signal(signal.SIGTERM)
        status, log = server.wait()
    finally:
        server.process.kill()
    assert status == 0
    assert ("install kohort[otel]" in log) is not away
