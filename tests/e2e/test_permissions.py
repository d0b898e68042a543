"""What the operator asks for seldom, with the permissions of an installation: credentials, certificates."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from kohort.act.permissions import AUTHORITY_SECRET, GATEWAY_SECRET, OPERATOR_SECRET
from kohort.runtime.certificates import RENEW_AFTER
from kohort_local.install import NAMESPACE, OPERATOR, Installation, await_ready
from tests.e2e.world import Model, in_thread, nobody_noticed, until

NOBODY = "http://127.0.0.1:9"
LONG_AGO = "2001-01-01T00:00:00+00:00"
SELECTOR = 'x_total{model="{{namespace}}/{{name}}/{{cohort}}",revision="{{revision}}"}'
ANALYSIS = {
    "prometheus": {"url": NOBODY, "secretRef": {"name": "reader"}, "timeout": "1s"},
    "metrics": [
        {"name": "errors"},
        {"name": "visits", "counts": {"total": SELECTOR, "good": SELECTOR, "sumOver": ["pod"]}},
    ],
}


@pytest.fixture
def prometheus_allowed(installation: Installation) -> Iterator[None]:
    """An installation whose models may have a Prometheus and a Secret for it, as long as the test lasts."""
    allowed = {"urls": [NOBODY], "secretNames": ["reader"]}
    try:
        installation.helm.upgrade(NAMESPACE, {**installation.values, "prometheus": allowed})
        await_ready(installation.kubectl)
        yield
    finally:
        installation.helm.upgrade(NAMESPACE, installation.values)
        await_ready(installation.kubectl)


@pytest.fixture
def reader(installation: Installation) -> Iterator[None]:
    kubectl = installation.kubectl
    secret = ("create", "secret", "generic", "reader", "--from-literal=token=t", "-n", "default")
    kubectl(*secret)
    yield
    kubectl("delete", "secret", "reader", "-n", "default")


async def test_credentials_for_prometheus_are_read_in_the_models_namespace(
    prometheus_allowed: None, reader: None, model: Model
) -> None:
    def told() -> str:
        found = model.cohort("singles").get("evidence", [])
        return next((e["message"] for e in found if e["metric"] == "visits"), "")

    async with model.served("v1", analysis=ANALYSIS):
        model.apply("v2", analysis=ANALYSIS)
        await in_thread("Prometheus is asked", lambda: "Prometheus at" in told())
        # It was not the Secret that failed.
        assert "reader" not in told()
        assert model.cohort("singles").get("weight", 0) < 100


async def test_certificates_that_are_due_are_renewed_by_the_next_operator_and_nobody_notices(
    model: Model, installation: Installation
) -> None:
    kubectl = installation.kubectl
    secrets = (AUTHORITY_SECRET, OPERATOR_SECRET, GATEWAY_SECRET)

    def due(name: str) -> Any:
        found = kubectl.get("secret", name, "-n", NAMESPACE)
        return found["metadata"]["annotations"][RENEW_AFTER]

    async with model.served("v1") as traffic:
        for name in secrets:
            line = f"{RENEW_AFTER}={LONG_AGO}"
            kubectl("annotate", "--overwrite", "secret", name, line, "-n", NAMESPACE)
        kubectl("rollout", "restart", f"deployment/{OPERATOR}", "-n", NAMESPACE)
        await in_thread(
            "all are renewed", lambda: all(due(name) > "2026" for name in secrets), within=120
        )
        seen = traffic.account.total
        await in_thread("clients go on", lambda: traffic.account.total > seen + 200)
    await_ready(kubectl)
    nobody_noticed(traffic.account)
    # The new operator has never seen what the revision was made of.
    model.apply("v1", replicas=3)
    until("a third pod", lambda: model.status.get("readyReplicas") == 3)


def test_the_oldest_revision_is_forgotten(model: Model) -> None:
    at_once = [{"name": "everyone", "steps": [{"weight": 100}]}]
    for version in ("v1", "v2", "v3"):
        model.apply(version, cohorts=at_once, historyLimit=1, keepWarm="1s", replicas=1)
        until(f"{version} serves", partial(model.serves, everyone=version))
    until("v1 is on record no more", lambda: model.records() == 2)
