"""Spans that a server sends to a collector."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

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
async def collector() -> AsyncIterator[tuple[str, list[tuple[web.BaseRequest, Any]]]]:
    """Where spans go, and what has come."""
    exports: list[tuple[web.BaseRequest, Any]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        exports.append((request, json.loads(await request.read())))
        return web.json_response({})

    async with answering(answer) as port:
        yield f"http://127.0.0.1:{port}", exports


def environment(endpoint: str, **more: str) -> dict[str, str]:
    """That of a server which sends spans there."""
    return {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **more}


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
    more = {
        "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=a%20b",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test,service.name=no",
        "OTEL_SERVICE_NAME": "burgers",
    }
    async with collector() as (endpoint, exports):
        model = linear_model(tmp_path / "m.onnx", "batch")
        given = environment(endpoint, **more)
        with serving(model, "--drain-delay", "0s", env=given) as server:
            for body, headers in requests:
                await asyncio.to_thread(server.call, "POST", INFER, body, headers)
            await asyncio.to_thread(stop, server)
    assert {(r.path, r.content_type, r.headers["x-tenant"]) for r, _ in exports} == {
        ("/v1/traces", "application/json", "a b")
    }
    resources = [resource for _, export in exports for resource in export["resourceSpans"]]
    spans = [span for r in resources for scope in r["scopeSpans"] for span in scope["spans"]]
    codes = {values(span)["http.response.status_code"] for span in spans}
    assert (len(spans), codes) == (2, {"200", "400"})
    assert len({span["spanId"] for span in spans}) == 2
    for span in spans:
        assert (span["traceId"], span["parentSpanId"]) == (TRACE, CALLER)
        assert (span["name"], span["kind"], len(span["spanId"])) == ("infer m", 2, 16)
        assert values(span)["kohort.cohort"] == "staff"
        assert values(span)["kohort.revision"] == "r1"
        assert 0 < int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"]) < 10e9
        assert "status" not in span, "what a client did wrong is no failure of the server"
    assert values(resources[0]["resource"]) == {
        "service.name": "burgers",
        "deployment.environment": "test",
    }


def values(told: dict[str, Any]) -> dict[str, str]:
    """Attributes."""
    return {a["key"]: next(iter(a["value"].values())) for a in told["attributes"]}


@pytest.mark.parametrize(
    ("endpoint", "warning"),
    [
        ("http://127.0.0.1:9", "spans are lost until their collector takes some again"),
        ("collector:4318", "no spans are sent: collector:4318/v1/traces is no address"),
        ("http://127.0.0.1:99999", "no spans are sent"),
    ],
)
def test_without_a_collector_requests_are_answered(
    tmp_path: Path, endpoint: str, warning: str
) -> None:
    model = linear_model(tmp_path / "m.onnx", "batch")
    server = start(model.as_uri(), "--drain-delay", "0s", env=environment(endpoint))
    try:
        wait_until_ready(server)
        for _ in range(5):
            assert server.call("POST", INFER, BODY, SAMPLED).status == 200
        server.process.send_signal(signal.SIGTERM)
        status, log = server.wait()
    finally:
        server.process.kill()
    assert status == 0
    assert log.count(warning) == 1
