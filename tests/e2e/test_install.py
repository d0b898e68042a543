"""The chart over its life: tested, upgraded under traffic, taken away and put back."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from functools import partial
from urllib.request import urlopen

from kohort.contract import PORT_OPERATOR_STATUS
from kohort_local.helm import RELEASE, Values
from kohort_local.install import NAMESPACE, Installation, await_ready
from tests.e2e.world import Model, in_thread, nobody_noticed, pod_names, until

FLEETS = ("operator", "gateway")
API_CALLS = re.compile(r"kohort_operator_api_calls_total\{code=\"(\d+)\".*\} (\S+)")


def pods_of_kohort(installation: Installation) -> set[str]:
    """Names of the operators' and gateways' pods."""
    return {name for fleet in FLEETS for name in pod_names(installation.kubectl, fleet)}


def with_other_pods(values: Values) -> Values:
    """Values of which every pod of both fleets is another one."""
    other = {"podAnnotations": {"example.com/upgraded": "yes"}}
    return {**values, **{fleet: {**values[fleet], **other} for fleet in FLEETS}}


def test_helms_own_test_calls_a_gateway(installation: Installation) -> None:
    told = installation.helm("test", RELEASE, "--namespace", NAMESPACE)
    assert "Succeeded" in told
    log = installation.kubectl("logs", "kohort-test-gateway", "--namespace", NAMESPACE)
    assert "answers 404" in log


def test_operators_are_allowed_everything_that_they_ask_for(
    model: Model, installation: Installation
) -> None:
    def calls() -> Counter[str]:
        """API calls of all operators so far, by status."""
        chosen = ("-n", NAMESPACE, "-l", "app.kubernetes.io/component=operator")
        made: Counter[str] = Counter()
        for pod in installation.kubectl.get("pods", *chosen)["items"]:
            with urlopen(f"http://{pod['status']['podIP']}:{PORT_OPERATOR_STATUS}/metrics") as page:
                for code, number in API_CALLS.findall(page.read().decode()):
                    made[code] += int(float(number))
        return made

    # An API server that has just started refuses everybody for a moment: what counts is what is new.
    before = calls()
    model.apply("v1")
    until("v1 serves both", partial(model.serves, singles="v1", batchers="v1"))
    made = calls()
    assert made["200"] > before["200"]
    assert made["403"] == before["403"]


async def test_an_upgrade_under_traffic_loses_no_request_and_restarts_no_model(
    model: Model, installation: Installation
) -> None:
    before = pods_of_kohort(installation)
    async with model.served("v1") as traffic:
        served_by = model.pods()
        wanted = with_other_pods(installation.values)
        await asyncio.to_thread(installation.helm.upgrade, NAMESPACE, wanted)
        await asyncio.to_thread(await_ready, installation.kubectl)
        seen = traffic.account.total
        await in_thread(
            "every pod of both fleets is another",
            lambda: len(now := pods_of_kohort(installation)) == len(before) and not now & before,
        )
        await in_thread("clients go on", lambda: traffic.account.total > seen + 200)
        assert model.pods() == served_by
    nobody_noticed(traffic.account)
    assert not traffic.account.refused("singles")


async def test_models_outlive_an_installation_and_the_next_one_goes_on_with_them(
    model: Model, installation: Installation
) -> None:
    helm = installation.helm
    model.apply("v1")
    until("v1 serves both", partial(model.serves, singles="v1", batchers="v1"))
    until("two pods", lambda: model.status.get("readyReplicas") == 2)
    served_by = model.pods()
    try:
        helm("uninstall", RELEASE, "--namespace", NAMESPACE)
        until("operators and gateways are gone", lambda: not pods_of_kohort(installation))
        assert model.pods() == served_by
    finally:
        helm.upgrade(NAMESPACE, installation.values, "--wait", "--timeout=120s")
    model.apply("v2")
    async with model.traffic() as traffic:
        await in_thread("v2 serves both", partial(model.serves, singles="v2", batchers="v2"))
    nobody_noticed(traffic.account)
