"""A real Prometheus, counters for it to scrape, and a rollout that is judged by what it tells."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import yaml
from aiohttp import web
from msgspec import structs

from kohort.analysis.reading import Reading
from kohort.analysis.timestamps import to_time
from kohort.api.status import CohortStatus, Evidence
from kohort.kube import ApiError
from kohort.observe.gateways import GatewayAddress
from kohort.observe.slots import SlotLedger
from kohort.plan import evidence
from kohort.plan.context import Context, Identity
from kohort.plan.world import World
from kohort.route.table import ModelKey
from kohort.runtime.credentials import Credentials
from kohort.runtime.models import Model, Models, convert_model
from kohort.runtime.prometheus import PrometheusReader
from kohort_local.prometheus import PROMETHEUS
from tests.component.gateway_parts import KEY, LOCALHOST, free_port, until

INTERVAL = "1s"

TOTAL = 'visits_total{model="{{namespace}}/{{name}}/{{cohort}}",revision="{{revision}}"}'
GOOD = TOTAL.replace("visits", "conversions")
CONVERSIONS: dict[str, Any] = {
    "name": "conversions",
    "counts": {"total": TOTAL, "good": GOOD, "sumOver": ["pod"]},
}


@dataclass
class RealPrometheus:
    """A Prometheus process that scrapes every second; its data are lost when it is told so."""

    directory: Path
    jobs: list[dict[str, Any]]
    web: dict[str, Any] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.web else 'http'}://{LOCALHOST}:{self.port}"

    async def start(self) -> None:
        """Starts it and waits until it takes connections."""
        program = await asyncio.to_thread(PROMETHEUS.ensure, print) / "prometheus"
        config, tls = self.directory / "prometheus.yml", self.directory / "web.yml"
        settings = {"global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL}}
        config.write_text(yaml.safe_dump({**settings, "scrape_configs": self.jobs}))
        tls.write_text(yaml.safe_dump(self.web))
        self.process = await asyncio.create_subprocess_exec(
            str(program),
            f"--config.file={config}",
            f"--web.config.file={tls}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address={LOCALHOST}:{self.port}",
            "--log.level=warn",
        )

        async def listens() -> bool:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(LOCALHOST, self.port)
                writer.close()
                return True
            return False

        await until(listens)

    async def stop(self, *, forget: bool = False) -> None:
        """Ends it; ``forget``: with all that it knew."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        if forget:
            shutil.rmtree(self.directory / "data", ignore_errors=True)


@asynccontextmanager
async def prometheus(
    directory: Path, *jobs: dict[str, Any], **options: Any
) -> AsyncIterator[RealPrometheus]:
    """A Prometheus for a while."""
    made = RealPrometheus(directory, list(jobs), **options)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


def job(name: str, path: str, *targets: tuple[int, Mapping[str, str]]) -> dict[str, Any]:
    """Ports to scrape, each with labels of its own."""
    static = [{"targets": [f"{LOCALHOST}:{port}"], "labels": dict(own)} for port, own in targets]
    return {"job_name": name, "metrics_path": path, "static_configs": static}


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[int]:
    """The port of an HTTP server that answers everything so."""
    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, LOCALHOST, port).start()
    try:
        yield port
    finally:
        await runner.cleanup()


@dataclass
class Shop:
    """Counters of an application, as text for whoever scrapes it."""

    lines: dict[str, float] = field(default_factory=dict)
    scraped: list[float] = field(default_factory=list)

    async def answer(self, _: web.Request) -> web.Response:
        text = "".join(f"{series} {value}\n" for series, value in self.lines.items())
        self.scraped.append(time.time())
        return web.Response(text=text, headers={"Content-Type": "text/plain; version=0.0.4"})


def guarded(url: str, expected: Mapping[str, str]) -> Answer:
    """Passes requests on to an API if they carry what is expected; 401 otherwise."""

    async def answer(request: web.Request) -> web.Response:
        if any(request.headers.get(name) != value for name, value in expected.items()):
            return web.Response(status=401, text="<html><body>Please <b>log in</b></body></html>")
        async with (
            aiohttp.ClientSession() as session,
            session.post(url + request.path, data=await request.post()) as response,
        ):
            return web.Response(
                status=response.status,
                body=await response.read(),
                content_type="application/json",
            )

    return answer


class Secrets:
    """The API server, as far as one Secret goes."""

    def __init__(self, **data: str | bytes) -> None:
        self.data = {
            key.replace("_", "."): base64.b64encode(
                value if isinstance(value, bytes) else value.encode()
            ).decode()
            for key, value in data.items()
        }

    async def call(self, method: str, path: str, **_: object) -> bytes:
        assert (method, path) == ("GET", f"/api/v1/namespaces/{KEY.namespace}/secrets/reader")
        if not self.data:
            raise ApiError(403, "Forbidden", "no", path)
        return msgspec.json.encode({"data": self.data})


class Rollout:
    """A model whose canary has a quarter of clients, carried on by the planner's own rules."""

    def __init__(self, analysis: Mapping[str, Any]) -> None:
        cohort = {
            "name": "everyone",
            **{"stable": "r1", "canary": "r2", "salt": "salt", "weight": 25},
            "stepStartedAt": to_time(datetime.now(UTC)),
        }
        metadata = {"namespace": KEY.namespace, "name": KEY.name, "resourceVersion": "1"}
        content = {
            "metadata": {**metadata, "uid": "u"},
            "spec": {"model": {"uri": "file:///m.onnx"}, "analysis": dict(analysis)},
            "status": {"cohorts": [cohort]},
        }
        self.models = Models(lambda _: None)
        self.models.put(convert_model(content))
        self.readings: list[Mapping[str, Reading]] = []
        self._become(lambda context, cohort: evidence.begun(context, cohort))

    @property
    def model(self) -> Model:
        found = self.models.get(KEY)
        assert found is not None
        return found

    @property
    def cohort(self) -> CohortStatus:
        return self.model.status.cohorts[0]

    def of(self, metric: str) -> Evidence:
        return next(e for e in self.cohort.evidence if e.metric == metric)

    def take_readings(self, _: ModelKey, readings: Mapping[str, Reading]) -> None:
        self.readings.append(readings)
        self._become(lambda context, cohort: evidence.watched(context, cohort).evidence, readings)

    def _become(
        self,
        then: Callable[[Context, CohortStatus], tuple[Evidence, ...]],
        readings: Mapping[str, Reading] | None = None,
    ) -> None:
        model = self.model
        assert model.spec is not None
        identity = Identity(KEY.namespace, KEY.name, "u", 1)
        world = World(readings=readings or {})
        context = Context(identity, model.spec, world, datetime.now(UTC))
        cohort = structs.replace(self.cohort, evidence=then(context, self.cohort))
        status = structs.replace(model.status, cohorts=(cohort,))
        self.models.put(structs.replace(model, status=status, version=model.version + 1))


@asynccontextmanager
async def read(
    rollout: Rollout,
    url: str,
    secret: Secrets | None = None,
    at: Callable[[], list[GatewayAddress]] = list,
) -> AsyncIterator[None]:
    """Has a rollout's Prometheus read, many times a second."""
    reader = PrometheusReader(
        models=rollout.models,
        gateways=at,
        credentials=Credentials(secret or Secrets(), [url]),
        reconciler=rollout,  # type: ignore[arg-type]
        wake=lambda key, seconds: None,
        slots=SlotLedger(),
        interval=0.1,
    )
    task = asyncio.create_task(reader.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def becomes(condition: Callable[[], bool], seconds: float = 30) -> None:
    async def holds() -> bool:
        return condition()

    await until(holds, seconds)


def conversions(url: str, **where: Any) -> Rollout:
    """A rollout that is judged by conversions alone."""
    return Rollout({"prometheus": {"url": url, "timeout": "1s", **where}, "metrics": [CONVERSIONS]})


@asynccontextmanager
async def judged(analysis: Mapping[str, Any]) -> AsyncIterator[Rollout]:
    """A rollout whose Prometheus is read."""
    rollout = Rollout(analysis)
    async with read(rollout, analysis["prometheus"]["url"]):
        yield rollout


def errors(rollout: Rollout) -> tuple[str, ...]:
    """What was wrong with the last answer about conversions."""
    return rollout.readings[-1]["everyone/conversions"].errors


def samples(rollout: Rollout) -> list[Any]:
    """What it told of them."""
    newest = rollout.readings[-1].get("everyone/conversions") if rollout.readings else None
    return list(newest.series.values()) if newest else []
