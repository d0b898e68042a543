"""Counters from a real Prometheus: the verdict of gateways asked themselves, and none without data."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from aiohttp import web
from msgspec import structs

from kohort.analysis import counts
from kohort.analysis.reading import Reading
from kohort.analysis.timestamps import to_time
from kohort.api.status import CohortStatus, Evidence, Verdict
from kohort.kube import ApiError
from kohort.observe import gateways
from kohort.observe.gateways import GatewayAddress
from kohort.observe.prometheus import Access, PrometheusError, Question, ask
from kohort.observe.slots import SlotLedger
from kohort.plan import evidence
from kohort.plan.context import Context, Identity
from kohort.plan.world import World
from kohort.route.envoy.certificates import authority, gateway_files, operator_files
from kohort.route.table import Endpoint, ModelKey
from kohort.runtime.credentials import Credentials
from kohort.runtime.models import Model, Models, convert_model
from kohort.runtime.prometheus import PrometheusReader
from tests.component.gateway_parts import (
    KEY,
    LOCALHOST,
    Fleet,
    ModelServer,
    fleet,
    table,
    until,
)
from tests.component.prometheus_parts import (
    RealPrometheus,
    Shop,
    guarded,
    job,
    prometheus,
    serving,
)

PATH = f"/{KEY.namespace}/{KEY.name}/v2/models/m/infer"
TOTAL = 'visits_total{model="{{namespace}}/{{name}}/{{cohort}}",revision="{{revision}}"}'
GOOD = TOTAL.replace("visits", "conversions")
CONVERSIONS: dict[str, Any] = {
    "name": "conversions",
    "counts": {"total": TOTAL, "good": GOOD, "sumOver": ["pod"]},
}


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
        content = {
            "metadata": {"namespace": KEY.namespace, "name": KEY.name, "resourceVersion": "1"},
            "spec": {"model": {"uri": "file:///m.onnx"}, "analysis": dict(analysis)},
            "status": {"cohorts": [cohort]},
        }
        content["metadata"]["uid"] = "u"
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
        credentials=Credentials(secret or Secrets(), [url]),  # type: ignore[arg-type]
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


def conversions(url: str, **where: Any) -> Rollout:
    """A rollout that is judged by conversions alone."""
    return Rollout({"prometheus": {"url": url, "timeout": "1s", **where}, "metrics": [CONVERSIONS]})


async def becomes(condition: Callable[[], bool], seconds: float = 30) -> None:
    async def holds() -> bool:
        return condition()

    await until(holds, seconds)


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop()


@pytest_asyncio.fixture(scope="module")
async def scraping(
    shop: Shop, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RealPrometheus]:
    """A Prometheus that scrapes the shop."""
    async with serving(shop.answer) as port:
        directory = tmp_path_factory.mktemp("prometheus")
        async with prometheus(directory, job("shop", "/metrics", (port, {}))) as made:
            yield made


def count(shop: Shop, revision: str, pod: str, visits: int, good: int) -> None:
    """So many more visits and conversions."""
    for name, number in (("visits", visits), ("conversions", good)):
        labels = f'model="shop/burger/everyone",revision="{revision}",pod="{pod}"'
        series = f"{name}_total{{{labels}}}"
        shop.lines[series] = shop.lines.get(series, 0) + number


async def test_counts_survive_a_prometheus_that_is_away_and_has_lost_all_and_count_once(
    shop: Shop, scraping: RealPrometheus
) -> None:
    count(shop, "r1", "a", 5000, 4000)
    count(shop, "r1", "b", 700, 70)
    count(shop, "r2", "c", 900, 10)
    rollout = conversions(scraping.url)

    def tallies() -> tuple[int, int, int, int]:
        told = rollout.of("conversions")
        canary, stable = told.canary, told.stable
        return canary.requests, canary.failed, stable.requests, stable.failed

    def known() -> bool:
        state = counts.decode(rollout.of("conversions").state)
        return state is not None and len(state.series) == 6

    async with read(rollout, scraping.url):
        await becomes(known)
        for revision, pod, visits, good in (
            ("r1", "a", 50, 10),
            ("r1", "b", 40, 8),
            ("r2", "c", 30, 6),
        ):
            count(shop, revision, pod, visits, good)
        await becomes(lambda: tallies() == (30, 24, 90, 72))

        await scraping.stop(forget=True)
        count(shop, "r2", "c", 30, 6)
        await becomes(lambda: rollout.of("conversions").verdict is Verdict.METRICS_ERROR)
        assert f"Prometheus at {LOCALHOST}:{scraping.port}" in rollout.of("conversions").message
        assert tallies() == (30, 24, 90, 72)
        assert evidence.untrusted(rollout.cohort)

        await scraping.start()
        count(shop, "r1", "a", 90, 18)
        await becomes(lambda: tallies() == (60, 48, 180, 144))
        assert rollout.of("conversions").verdict is Verdict.INSUFFICIENT

        # A pod that starts anew counts from nought, and its neighbours go on.
        for name in ("visits", "conversions"):
            labels = 'model="shop/burger/everyone",revision="r1",pod="a"'
            shop.lines[f"{name}_total{{{labels}}}"] = 0
        await becomes(lambda: any(sample.value == 0 for sample in samples(rollout)))
        count(shop, "r1", "a", 10, 2)
        count(shop, "r2", "c", 10, 2)
        await becomes(lambda: tallies() == (70, 56, 190, 152))

        # Nobody converts on the canary any more.
        count(shop, "r1", "a", 9000, 1800)
        count(shop, "r2", "c", 3000, 0)
        await becomes(lambda: rollout.of("conversions").verdict is Verdict.FAIL)
        assert tallies() == (3070, 3056, 9190, 7352)
        assert evidence.harm(rollout.cohort) is not None


def samples(rollout: Rollout) -> list[Any]:
    newest = rollout.readings[-1].get("everyone/conversions") if rollout.readings else None
    return list(newest.series.values()) if newest else []


QUERIES: dict[str, tuple[dict[str, Any], str]] = {
    "selects nothing": ({"total": 'nowhere{r="{{revision}}"}'}, 'no series: nowhere{r="r2"}'),
    "has no canary": (
        {"total": 'lonely_total{r="{{revision}}"}'},
        'no series: lonely_total{r="r2"}',
    ),
    "has two series where one is meant": (
        {"total": 'twins_total{r!="{{revision}}"}'},
        '2 series where one was meant: twins_total{r!="r2"}; they differ in pod: name it in sumOver',
    ),
    "is no number": ({"total": 'nan_total{r!="{{revision}}"}'}, "NaN is no count"),
    "is no whole number": ({"total": 'half_total{r!="{{revision}}"}'}, "0.5 is no count"),
    "is below nought": ({"total": 'less_total{r!="{{revision}}"}'}, "-1 is no count"),
    "is of long ago": ({"total": 'old_total{r!="{{revision}}"}'}, "stale: the last sample is "),
    "is worked out": (
        {"total": 'fine_total{r!="{{revision}}"} + 0'},
        "what is worked out hides counters that were reset",
    ),
    "is no PromQL": ({"total": 'fine_total{r!="{{revision}}"'}, "answered 400 to fine_total{r!="),
    "is a rate": (
        {"total": 'rate(fine_total{r!="{{revision}}"}[1m])'},
        "hides counters that were reset",
    ),
}


@pytest_asyncio.fixture(scope="module")
async def odd(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RealPrometheus]:
    """A Prometheus with all that a counter must not be."""
    old = int((time.time() - 40) * 1000)
    text = "\n".join(
        (
            'fine_total{r="all"} 7',
            'lonely_total{r="r1"} 7',
            'twins_total{pod="a"} 7',
            'twins_total{pod="b"} 8',
            'nan_total{r="all"} NaN',
            'half_total{r="all"} 0.5',
            'less_total{r="all"} -1',
            f'old_total{{r="all"}} 7 {old}',
            "",
        )
    )

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=text, headers={"Content-Type": "text/plain; version=0.0.4"})

    async with (
        serving(answer) as port,
        prometheus(tmp_path_factory.mktemp("odd"), job("odd", "/metrics", (port, {}))) as made,
        aiohttp.ClientSession() as session,
    ):
        access = Access(made.url, 5)

        async def scraped() -> bool:
            (found,) = await ask(session, access, [Question.of("old_total")], time.time())
            return not isinstance(found, PrometheusError) and bool(found.values)

        await until(scraped)
        yield made


@pytest.mark.parametrize(("changed", "told"), QUERIES.values(), ids=QUERIES.keys())
async def test_no_verdict_comes_of_a_query_that(
    odd: RealPrometheus, changed: dict[str, Any], told: str
) -> None:
    good = {"total": 'fine_total{r!="{{revision}}"}', "good": 'fine_total{r!="{{revision}}"}'}
    metrics = [
        {"name": "odd", "counts": {**good, **changed}},
        {"name": "fine", "counts": good},
    ]
    where = {"url": odd.url, "staleAfter": "20s"}
    rollout = Rollout({"prometheus": where, "metrics": metrics})
    async with read(rollout, odd.url):
        await becomes(
            lambda: (
                rollout.of("odd").verdict is Verdict.METRICS_ERROR
                and rollout.of("fine").updated is not None
            )
        )
    assert told in rollout.of("odd").message
    assert len(rollout.of("odd").message) <= 512
    # One that makes no sense is no reason to believe nothing of the others.
    assert rollout.of("fine").verdict is Verdict.INSUFFICIENT


async def hanging(_: web.Request) -> web.Response:
    await asyncio.sleep(3)
    return web.Response(text="late")


def answering(
    status: int, text: str, kind: str = "application/json", **headers: str
) -> Callable[[web.Request], Any]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text, content_type=kind, headers=headers)

    return answer


PAGE = (
    "<html><head><style>a{}</style></head><body><h1>It works</h1>" + "x" * 9000 + "</body></html>"
)
APIS: dict[str, tuple[Callable[[web.Request], Any], str]] = {
    "is broken": (answering(503, "no healthy upstream", "text/plain"), "answered 503 to "),
    "is slow": (hanging, "gave no answer in 1 s"),
    "is a web page": (answering(200, PAGE, "text/html"), "check url: It works xxx"),
    "wants to know who asks": (
        answering(401, "who?", "text/plain"),
        "answered 401: check secretRef",
    ),
    "lets nobody in": (answering(403, "no", "text/plain"), "answered 403: check secretRef"),
    "knows only a part": (
        answering(
            200,
            '{"status":"success","data":{"resultType":"vector","result":[]},"warnings":["store away"]}',
        ),
        "warns: store away",
    ),
    "answers something else": (
        answering(200, '{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}'),
        "answered what is none of its own",
    ),
    "says that it failed": (
        answering(200, '{"status":"error","errorType":"internal","error":"disk is full"}'),
        "answered disk is full",
    ),
    "answers no JSON": (answering(200, '{"status":'), "check url"),
}


@pytest.mark.parametrize(("answer", "told"), APIS.values(), ids=APIS.keys())
async def test_no_verdict_comes_of_an_api_that(
    answer: Callable[[web.Request], Any], told: str
) -> None:
    async with serving(answer) as port:
        url = f"http://{LOCALHOST}:{port}"
        rollout = conversions(url)
        async with read(rollout, url):
            await becomes(lambda: rollout.of("conversions").verdict is Verdict.METRICS_ERROR)
    message = rollout.of("conversions").message
    assert f"Prometheus at {LOCALHOST}:{port} " in message
    assert told in message
    assert len(message) <= 512
    assert evidence.untrusted(rollout.cohort) == message
    assert evidence.harm(rollout.cohort) is None


async def test_credentials_go_nowhere_else() -> None:
    asked: list[str] = []

    async def other(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response()

    async with serving(other) as elsewhere:
        place = f"http://{LOCALHOST}:{elsewhere}/take"
        async with serving(answering(307, "", Location=place)) as port:
            url = f"http://{LOCALHOST}:{port}"
            rollout = conversions(url, secretRef={"name": "reader"})
            async with read(rollout, url, Secrets(token="t")):
                await becomes(lambda: rollout.of("conversions").verdict is Verdict.METRICS_ERROR)
    assert f"see {place}: redirects are not followed" in rollout.of("conversions").message
    assert asked == []


ACCESSES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "a token": ({"token": "opensesame\n"}, {"Authorization": "Bearer opensesame"}),
    "a password and a tenant": (
        {"username": "me", "password": "it", "tenant": "shop"},
        {"Authorization": "Basic bWU6aXQ=", "X-Scope-OrgID": "shop"},
    ),
}


@pytest.mark.parametrize(("secret", "expected"), ACCESSES.values(), ids=ACCESSES.keys())
async def test_a_prometheus_lets_in_who_has(
    odd: RealPrometheus, secret: dict[str, str], expected: dict[str, str]
) -> None:
    async with serving(guarded(odd.url, expected)) as port:
        url = f"http://{LOCALHOST}:{port}"
        secrets = Secrets(token="wrong")
        rollout = fine(url)
        async with read(rollout, url, secrets):
            await becomes(lambda: rollout.of("fine").verdict is Verdict.METRICS_ERROR)
            told = rollout.of("fine").message
            assert "answered 401: check secretRef; Please log in" in told
            # A Secret that was put right is read again.
            secrets.data = Secrets(**secret).data
            await becomes(lambda: rollout.of("fine").updated is not None)


def fine(url: str) -> Rollout:
    """A rollout that asks for what is there, with a Secret."""
    query = 'fine_total{r!="{{revision}}"}'
    where = {"url": url, "timeout": "2s", "secretRef": {"name": "reader"}}
    metrics = [{"name": "fine", "counts": {"total": query, "good": query}}]
    return Rollout({"prometheus": where, "metrics": metrics})


async def test_a_prometheus_with_mutual_tls_lets_in_who_has_a_certificate(
    odd: RealPrometheus, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    signer = authority(None, now)
    server = operator_files(None, signer, (LOCALHOST,), now)
    client = gateway_files(None, signer, now)
    for name, content in server.items():
        (tmp_path / name).write_bytes(content)
    tls = {
        "cert_file": str(tmp_path / "tls.crt"),
        "key_file": str(tmp_path / "tls.key"),
        "client_ca_file": str(tmp_path / "ca.crt"),
        "client_auth_type": "RequireAndVerifyClientCert",
    }
    again = {**odd.jobs[0]}
    async with prometheus(tmp_path, again, web={"tls_server_config": tls}) as made:
        rollout = fine(made.url)
        secrets = Secrets(ca_crt=client["ca.crt"])
        async with read(rollout, made.url, secrets):
            await becomes(lambda: rollout.of("fine").verdict is Verdict.METRICS_ERROR)
            whole = {key.replace(".", "_"): value for key, value in client.items()}
            secrets.data = Secrets(**whole).data
            await becomes(lambda: rollout.of("fine").updated is not None)


class Faulty(ModelServer):
    """Fails every fourth request, if at all."""

    failing = False

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        answer = await super()._answer(request)
        if self.failing and self.requests.total() % 4 == 0:
            answer.set_status(500)
        return answer


async def test_the_verdict_is_that_of_gateways_which_are_asked_themselves(tmp_path: Path) -> None:
    good, bad = await ModelServer("r1").start(), await Faulty("r2").start()
    endpoints: dict[str, tuple[Endpoint, ...]] = {"r1": (good.endpoint,), "r2": (bad.endpoint,)}
    try:
        async with fleet(tmp_path, 2) as made:
            wanted = table(25)
            made.server.publish(wanted, endpoints)
            await made.effective(wanted)
            await compared(made, bad, tmp_path)
    finally:
        await good.stop()
        await bad.stop()


async def compared(made: Fleet, canary: Faulty, directory: Path) -> None:
    """Both ways on the same traffic, a gateway that starts anew and a Prometheus that lost all included."""
    targets = [(g.address.status_port, {"pod": g.name}) for g in made.gateways]
    metrics = {"metrics": [{"name": "errors"}, {"name": "latency"}]}
    addresses = [gateway.address for gateway in made.gateways]
    async with prometheus(directory, job("gateways", "/stats/prometheus", *targets)) as scraping:
        direct = Rollout(metrics)
        through = Rollout({**metrics, "source": "Prometheus", "prometheus": {"url": scraping.url}})
        ledger = SlotLedger()

        async def look() -> None:
            scrape = await gateways.scrape(made.session, addresses)
            found = scrape.counts.get((KEY, "everyone"), {})
            cells = {process: found.get(process, {}) for process in scrape.processes}
            slots = ledger.take((KEY, "everyone"), "salt", 25, cells)
            direct.take_readings(KEY, {"everyone": replace(scrape[KEY, "everyone"], slots=slots)})

        async def traffic(number: int) -> None:
            for gateway in made.gateways:
                for client in range(number):
                    headers = {"x-client-id": f"client-{client}"}
                    async with made.session.get(gateway.url + PATH, headers=headers) as answer:
                        await answer.read()
            await look()

        def agree() -> bool:
            one, other = direct.of("errors"), through.of("errors")
            return (one.canary, one.stable) == (other.canary, other.stable)

        async with read(through, scraping.url, at=lambda: addresses):
            await becomes(lambda: through.of("errors").updated is not None)
            await look()
            await look()
            await traffic(60)
            await becomes(agree)
            assert direct.of("errors").canary.requests > 0
            assert (
                through.of("errors").verdict is direct.of("errors").verdict is Verdict.INSUFFICIENT
            )

            await made.restart(made.gateways[1])
            await made.effective(table(25), made.gateways[1])
            await traffic(80)
            await becomes(agree)

            await scraping.stop(forget=True)
            await becomes(lambda: through.of("errors").verdict is Verdict.METRICS_ERROR)
            await traffic(80)
            await scraping.start()
            await becomes(agree)

            assert through.of("latency").verdict is direct.of("latency").verdict
            canary.failing = True
            await traffic(200)
            assert direct.of("errors").verdict is Verdict.FAIL
            # Prometheus looked in the middle of it too, so that fewer may have been enough.
            await becomes(lambda: through.of("errors").verdict is Verdict.FAIL)
            await becomes(lambda: through.of("latency").verdict is direct.of("latency").verdict)

            # A gateway that nobody scrapes is missing.
            addresses.append(GatewayAddress("gateway-9", LOCALHOST, 1, 2))
            await becomes(lambda: through.of("latency").verdict is Verdict.METRICS_ERROR)
            assert "of gateway gateway-9 is not in Prometheus" in through.of("latency").message
