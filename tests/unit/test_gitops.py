"""What Argo CD and Flux make of a model's status: neither calls a rollout done too early, and both agree."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import invariant
from lupa.lua51 import LuaRuntime
from msgspec import structs

from kohort.api.status import Status
from kohort.plan.world import Problem
from kohort.route.table import ModelKey
from kohort.runtime.models import Model
from kohort.runtime.reconcile import invalid_status
from tests.unit.plan_simulation import Cluster, Cohort, Step, model, serving
from tests.unit.test_plan_properties import AnyRollout

DOCUMENT = Path(__file__).parents[2] / "docs" / "gitops.md"
KEY = "resource.customizations.health.kohort.dev_ModelDeployment"
Json = dict[str, Any]
# What Argo CD says, by what kstatus says.
AGREE = {
    "Current": {"Healthy"},
    "Failed": {"Degraded"},
    "InProgress": {"Progressing", "Suspended"},
}
NO_LIBRARIES = "string, table, math, io, os, coroutine, debug, package, require = nil"


def health_check() -> Any:
    """Argo CD's health check out of the document, as a function of an object."""
    found = re.search(rf"  {re.escape(KEY)}: \|\n(.*?)^```", DOCUMENT.read_text(), re.M | re.S)
    assert found
    lua = LuaRuntime(unpack_returned_tuples=True)
    lua.execute(NO_LIBRARIES)
    function = lua.eval(f"function(obj)\n{found[1]}\nend")

    def check(resource: Json) -> tuple[str, str]:
        told = function(lua.table_from(resource, recursive=True))
        return told["status"], told["message"]

    return check


ARGO = health_check()


def kstatus(resource: Json) -> str:
    """The generic rules of kstatus, in its order: Flux goes by these."""
    status = resource.get("status", {})
    if status.get("observedGeneration") != resource["metadata"]["generation"]:
        return "InProgress"
    conditions = {c["type"]: c["status"] for c in status.get("conditions", [])}
    if conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Stalled") == "True":
        return "Failed"
    if conditions.get("Ready", "True") != "True":
        return "InProgress"
    return "Current"


def resource_of(status: Status, generation: int) -> Json:
    """The object as the API server hands it out."""
    return {"metadata": {"generation": generation}, "status": msgspec.to_builtins(status)}


def told(status: Status, generation: int) -> str:
    """What both say, which must agree; the word of Argo CD."""
    resource = resource_of(status, generation)
    argo, message = ARGO(resource)
    assert argo in AGREE[kstatus(resource)], resource["status"]["conditions"]
    assert message
    return str(argo)


def of(cluster: Cluster) -> str:
    return told(cluster.status, cluster.generation)


class BothAgree(AnyRollout):
    """Random rollouts, looked at by both after each thing that happens."""

    @invariant()
    def argo_cd_and_flux_say_the_same(self) -> None:
        if not hasattr(self, "cluster"):
            return
        status, desired = self.cluster.status, self.cluster.desired
        argo = of(self.cluster)
        if argo == "Healthy":
            assert all(c.stable == status.desired and not c.canary for c in status.cohorts)
            assert status.desired == desired
        if status.observed_generation != self.cluster.generation:
            assert argo == "Progressing"


TestBothAgree = BothAgree.TestCase
TestBothAgree.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_a_model_that_no_operator_has_seen_is_progressing() -> None:
    nobody: Json = {"metadata": {"generation": 1}}
    assert ARGO(nobody)[0] == "Progressing"
    # As the API server fills it in.
    default = {**nobody, "status": {"observedGeneration": -1}}
    assert ARGO(default)[0] == "Progressing"
    assert kstatus(default) == "InProgress"


def test_a_rollout_is_progressing_until_its_end_and_then_healthy() -> None:
    cluster = serving(model(1))
    assert of(cluster) == "Healthy"
    cluster.edit(model(2))
    assert of(cluster) == "Progressing", "nobody has seen the edit"
    cluster.tick()
    assert of(cluster) == "Progressing"
    cluster.until(Cluster.finished)
    cluster.tick()
    assert of(cluster) == "Healthy"


def test_a_revision_that_was_sent_back_is_degraded_and_the_message_says_why() -> None:
    cluster = serving(model(1))
    cluster.edit(model(2))
    cluster.bad.add(cluster.desired)
    cluster.until(lambda c: bool(c.cohort().rejected))
    cluster.tick()
    cluster.tick()
    assert of(cluster) == "Degraded"
    _, message = ARGO(resource_of(cluster.status, cluster.generation))
    assert "failed" in message


def test_a_rollout_that_goes_on_beside_a_cohort_that_is_back_is_progressing() -> None:
    steps = (Step(weight=50, hold="10m"),)
    both = (Cohort(name="a", steps=steps), Cohort(name="all", after=(), steps=steps))
    cluster = serving(model(1, cohorts=both))
    cluster.edit(model(2, cohorts=both))
    cluster.until(lambda c: all(cohort.weight for cohort in c.status.cohorts))
    back = structs.replace(cluster.status.cohorts[0], canary="", weight=0, rejected=cluster.desired)
    cluster.status = structs.replace(cluster.status, cohorts=(back, *cluster.status.cohorts[1:]))
    cluster.decide()
    assert of(cluster) == "Progressing"


def test_a_rollout_that_waits_for_a_person_is_suspended() -> None:
    cluster = serving(model(1))
    cluster.edit(model(2, paused=True))
    cluster.tick()
    assert of(cluster) == "Suspended"


def test_pods_that_do_not_come_in_time_are_degraded() -> None:
    cluster = serving(model(1))
    cluster.edit(model(2))
    while cluster.desired not in cluster.pods:
        cluster.decide()
    cluster.pods[cluster.desired].problem = Problem("ErrImagePull", "no such image")
    cluster.until(lambda c: of(c) == "Degraded")


@pytest.mark.parametrize("generation", [1, 7])
def test_a_spec_that_cannot_be_read_is_degraded(generation: int) -> None:
    unreadable = Model(
        ModelKey("shop", "burger"),
        "u",
        generation,
        1,
        False,
        None,
        Status(),
        invalid="no such field",
    )
    assert told(invalid_status(unreadable, datetime.now(UTC)), generation) == "Degraded"
