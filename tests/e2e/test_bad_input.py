"""Nonsense: refused at admission, or told in a condition that says what to do; stable is never touched."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kohort_local.kubectl import KubectlError
from tests.e2e.world import Model, in_thread, nobody_noticed, until

Edit = Callable[[dict[str, Any]], None]


def put(path: str, value: Any) -> Edit:
    """An edit of a manifest: ``put("spec.replicas", 0)``."""

    def edit(manifest: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        node: Any = manifest
        for key in parents:
            node = node[int(key)] if isinstance(node, list) else node[key]
        if isinstance(node, list):
            node[int(last)] = value
        else:
            node[last] = value

    return edit


REFUSED: dict[str, tuple[Edit, str]] = {
    "an unknown field": (put("spec.modle", {}), 'unknown field "modle"'),
    "a cohort twice": (put("spec.cohorts.0.name", "singles"), "duplicate entries"),
    "falling weights": (
        put("spec.cohorts.0.steps", [{"weight": 50}, {"weight": 10}]),
        "step weights must not fall",
    ),
    "cohorts that wait for each other": (put("spec.cohorts.0.after", ["singles"]), "after"),
    "a cohort that waits for itself": (put("spec.cohorts.0.after", ["batchers"]), "after"),
    "a cohort for everybody before another": (put("spec.cohorts.0.match", []), "last"),
    "a last cohort that is not for everybody": (
        put("spec.cohorts.1.match", [{"headers": [{"name": "x-app", "value": "scanner"}]}]),
        "last",
    ),
    "a duration that is none": (
        put("spec.cohorts.0.steps", [{"weight": 5, "hold": "soon"}]),
        "should match",
    ),
    "a name of 63 characters": (put("metadata.name", "a" * 63), "40 characters"),
    "a model over http without a digest": (
        put("spec.model", {"uri": "http://127.0.0.1/model.onnx"}),
        "set digest",
    ),
    "no replicas": (put("spec.replicas", 0), "should be greater than or equal to 1"),
    "hold and until": (
        put("spec.cohorts.0.steps", [{"weight": 5, "hold": "1m", "until": "NonInferior"}]),
        "set one of hold, until and pause",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_is_refused_at_admission(what: str, model: Model) -> None:
    edit, words = REFUSED[what]
    manifest = model.manifest("v1")
    edit(manifest)
    with pytest.raises(KubectlError) as refusal:
        model.kubectl.apply(manifest)
    assert words in str(refusal.value)


def broken(tmp_path: Path, name: str, content: bytes) -> str:
    path = tmp_path / name
    path.write_bytes(content)
    return f"file://{path}"


def server(**fields: Any) -> dict[str, Any]:
    """An overlay on the container that serves."""
    return {"name": "server", **fields}


def image(reference: str) -> dict[str, Any]:
    """An overlay that replaces the server's image."""
    return {"spec": {"containers": [server(image=reference)]}}


TOLD: dict[str, tuple[Callable[[Model, Path], dict[str, Any]], str]] = {
    "a digest that is another": (
        lambda model, _: {
            "model": {"uri": f"file://{model.versions['v2']}", "digest": "sha256:" + "0" * 64}
        },
        "DigestMismatch",
    ),
    "a file that is not there": (
        lambda _, tmp: {"model": {"uri": f"file://{tmp}/none.onnx"}},
        "ModelNotFound",
    ),
    "a file that is no model": (
        lambda _, tmp: {"model": {"uri": broken(tmp, "poem.onnx", b"not a model")}},
        "ModelInvalid",
    ),
    "an image that crashes": (
        lambda model, _: {
            "template": {
                "spec": {
                    "containers": [{"name": "server", "command": ["sh", "-c", "echo oops; exit 3"]}]
                }
            }
        },
        "CrashLoopBackOff",
    ),
    "an image that does not exist": (
        lambda model, _: {"template": image("example.com/none:1")},
        "ErrImagePull",
    ),
    "a number where Kubernetes wants text": (
        lambda *_: {
            "template": {"spec": {"containers": [server(env=[{"name": "A", "value": 1}])]}}
        },
        "DeploymentRefused",
    ),
    "a field of the pod that is misspelt": (
        lambda *_: {"template": {"spec": {"nodeSelectors": {"a": "b"}}}},
        "DeploymentRefused",
    ),
    "labels that are none": (
        lambda *_: {"template": {"metadata": {"labels": "team-a"}}},
        "DeploymentRefused",
    ),
    "GPUs where there are none": (lambda model, _: {"gpu": {"count": 4}}, "WaitingForGPU"),
}


@pytest.mark.parametrize("what", TOLD)
async def test_is_told_in_status_and_stable_goes_on(
    what: str, model: Model, tmp_path: Path
) -> None:
    change, reason = TOLD[what]
    model.apply("v1")
    until("v1 serves both", partial(model.serves, singles="v1", batchers="v1"))
    before = model.pods()

    def told() -> bool:
        status = model.status
        revisions = [r for r in status["revisions"] if r["name"] == status["desired"]]
        return any(r.get("reason") == reason and r.get("message") for r in revisions)

    async with model.traffic() as traffic:
        model.apply("v1", **change(model, tmp_path))
        await in_thread(f"status says {reason}", told)
        await in_thread("clients go on", lambda: traffic.account.total > 100)
    nobody_noticed(traffic.account)
    assert before.keys() <= model.pods().keys(), "a pod of stable was touched"
    assert model.condition("Available")["status"] == "True"
    assert model.condition("Ready")["status"] == "False"
    assert reason in str(model.status["conditions"])


async def test_after_a_mistake_the_next_edit_goes_through(model: Model, tmp_path: Path) -> None:
    model.apply("v1")
    until("v1 serves both", partial(model.serves, singles="v1", batchers="v1"))
    model.apply("v1", model={"uri": f"file://{tmp_path}/none.onnx"})
    until("it is tried", lambda: model.cohort("singles").get("canary"))
    async with model.traffic() as traffic:
        model.apply("v2")
        await in_thread("v2 serves both", partial(model.serves, singles="v2", batchers="v2"))
    nobody_noticed(traffic.account)
