"""A Prometheus that tells what is no counter, or nothing, decides nothing; who may read it, and who not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from kohort.api.status import Verdict
from kohort.observe.prometheus import Access, PrometheusError, Question, ask
from kohort.plan import evidence
from kohort.route.envoy.certificates import authority, gateway_files, operator_files
from tests.component.gateway_parts import (
    LOCALHOST,
    until,
)
from tests.component.prometheus_parts import (
    RealPrometheus,
    Rollout,
    Secrets,
    becomes,
    conversions,
    guarded,
    job,
    prometheus,
    read,
    serving,
)

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
