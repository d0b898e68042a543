"""A model that Git owns: nothing drifts, and Argo CD and Flux are told the truth through a real rollout."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec

from kohort_local.kubectl import KubectlError
from tests.e2e.world import Model, until
from tests.unit.test_gitops import AGREE, ARGO, kstatus

PAUSING = [{"name": "everyone", "steps": [{"weight": 20, "pause": {}}, {"weight": 100}]}]


def resource(model: Model) -> dict[str, Any]:
    found = model.kubectl.get("mdep", model.name, "-n", model.namespace, "--show-managed-fields")
    return dict(found)


def apply(model: Model, manifest: dict[str, Any], *options: str) -> str:
    """As Flux does, and Argo CD if it is told to."""
    text = msgspec.json.encode(manifest).decode()
    command = ("apply", "--server-side", "--field-manager=git", *options, "-f", "-")
    return model.kubectl(*command, stdin=text)


def drift(model: Model, manifest: dict[str, Any]) -> str:
    """What Git would change; empty when it would change nothing."""
    text = msgspec.json.encode(manifest).decode()
    try:
        return model.kubectl(
            *("diff", "--server-side", "--field-manager=git", "-f", "-"), stdin=text
        )
    except KubectlError as error:
        return str(error)


def told(model: Model) -> str:
    """What Argo CD says, with which Flux must agree."""
    found = resource(model)
    argo, _ = ARGO(found)
    assert argo in AGREE[kstatus(found)], found["status"]["conditions"]
    return str(argo)


def follow(model: Model, end: str) -> list[str]:
    """What was said until the end was, each word once in a row."""
    said: list[str] = []
    by = time.monotonic() + 90
    while not said or said[-1] != end:
        assert time.monotonic() < by, (said, model.status.get("message"))
        word = told(model)
        if not said or said[-1] != word:
            said.append(word)
        time.sleep(0.1)
    return said


def test_an_idle_model_does_not_drift_and_the_operator_writes_nothing_but_status(
    model: Model,
) -> None:
    manifest = model.manifest("v1")
    apply(model, manifest)
    until("v1 serves", lambda: model.serves(singles="v1", batchers="v1"))
    until("and is at rest", lambda: model.condition("Ready").get("status") == "True")
    assert drift(model, manifest) == ""
    before = resource(model)["metadata"]["resourceVersion"]
    apply(model, manifest)  # without --force-conflicts: nobody else owns what Git says
    time.sleep(3)
    found = resource(model)
    assert found["metadata"]["resourceVersion"] == before, "an apply of the same changes nothing"
    assert found["metadata"].keys() & {"finalizers", "annotations", "ownerReferences"} == set()
    others = [m for m in found["metadata"]["managedFields"] if m["manager"] != "git"]
    assert [m["subresource"] for m in others] == ["status"]


async def test_argo_cd_and_flux_follow_a_rollout_to_its_end(model: Model) -> None:
    apply(model, model.manifest("v1"))
    assert follow(model, "Healthy") == ["Progressing", "Healthy"]
    async with model.traffic():
        apply(model, model.manifest("v2"))
        said = await asyncio.to_thread(follow, model, "Healthy")
    assert said == ["Progressing", "Healthy"]
    assert model.serves(singles="v2", batchers="v2")


def test_a_step_that_waits_for_a_person_is_suspended_until_the_person_comes(model: Model) -> None:
    apply(model, model.manifest("v1", cohorts=PAUSING))
    follow(model, "Healthy")
    apply(model, model.manifest("v2", cohorts=PAUSING))
    assert follow(model, "Suspended") == ["Progressing", "Suspended"]
    line = "kohort.dev/command=promote everyone by=git id=1"
    model.kubectl("annotate", "mdep", model.name, "-n", model.namespace, line)
    assert follow(model, "Healthy")[-2:] == ["Progressing", "Healthy"]


def test_a_model_that_cannot_be_fetched_is_degraded_and_a_revert_heals_it(model: Model) -> None:
    spec = {"progressDeadline": "10s"}
    apply(model, model.manifest("v1", **spec))
    follow(model, "Healthy")
    broken = model.manifest("v1", **spec)
    broken["spec"]["model"] = {"uri": "file:///nowhere/model.onnx"}
    apply(model, broken)
    assert follow(model, "Degraded") == ["Progressing", "Degraded"]
    assert "no file" in ARGO(resource(model))[1]
    apply(model, model.manifest("v1", **spec))
    assert follow(model, "Healthy")[-1] == "Healthy"
