"""A model server's own metrics, as a real Prometheus has them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.component.gateway_parts import until
from tests.component.prometheus_parts import RealPrometheus, job, prometheus
from tests.component.server_process import linear_model, serving

REQUESTS = 40


async def value_of(server: RealPrometheus, query: str) -> float | None:
    """What a query that gives one series says, if it gives any."""
    url, timeout = f"{server.url}/api/v1/query", aiohttp.ClientTimeout(total=10)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(url, params={"query": query}) as response,
    ):
        if response.status != 200:  # it has only just started
            return None
        told: dict[str, Any] = await response.json()
    series = told["data"]["result"]
    return float(series[0]["value"][1]) if len(series) == 1 else None


@pytest.mark.parametrize("native", [True, False])
async def test_durations_are_native_histograms_for_whoever_scrapes_those(
    tmp_path: Path, native: bool
) -> None:
    name = 'kohort_server_request_duration_seconds{}code="200"{}'.format
    queries = {
        True: (f"histogram_count({name('{', '}')})", f"histogram_quantile(1, {name('{', '}')})"),
        False: (name("_count{", "}"), f"histogram_quantile(1, {name('_bucket{', '}')})"),
    }
    with serving(linear_model(tmp_path / "m.onnx", "batch")) as server:
        scraping = {**job("models", "/metrics", (server.port, {}))}
        scraping["scrape_native_histograms"] = native
        for _ in range(REQUESTS):
            body = b'{"inputs":[{"name":"x","shape":[1,64],"datatype":"FP32","data":[%b]}]}' % (
                b",".join([b"1"] * 64)
            )
            answer = await asyncio.to_thread(server.call, "POST", "/v2/models/m/infer", body)
            assert answer.status == 200
        async with prometheus(tmp_path, scraping) as made:

            async def counted() -> bool:
                return await value_of(made, queries[native][0]) == REQUESTS

            await until(counted, 30)
            slowest = await value_of(made, queries[native][1])
            assert slowest is not None
            assert 0 < slowest < 10
            other = queries[not native][0]
            assert await value_of(made, other) is None
            assert await value_of(made, "sum(kohort_server_requests_total)") == REQUESTS
            assert await value_of(made, "nv_inference_request_success") == REQUESTS
            assert await value_of(made, "process_resident_memory_bytes") is not None
