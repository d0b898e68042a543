"""Errors and latency through the Prometheus that scrapes gateways: the verdict that they give themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from aiohttp import web

from kohort.api.status import Verdict
from kohort.observe import gateways
from kohort.observe.gateways import GatewayAddress
from kohort.observe.slots import SlotLedger
from kohort.route.table import Endpoint
from tests.component.gateway_parts import KEY, LOCALHOST, Fleet, ModelServer, fleet, table
from tests.component.prometheus_parts import Rollout, becomes, job, prometheus, read

PATH = f"/{KEY.namespace}/{KEY.name}/v2/models/m/infer"


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
