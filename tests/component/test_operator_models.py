"""One operator on a real control plane: from a ModelDeployment to pods and a true status."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kohort_local.cluster import Cluster
from tests.component.operator_parts import (
    OperatorProcess,
    eventually,
    install,
    make_model,
    operator,
)

CRD = Path(__file__).parents[2] / "crds" / "kohort.dev_modeldeployments.yaml"
Kubectl = Callable[..., str]
Json = dict[str, Any]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("operator")


@pytest.fixture(scope="module")
def account(cluster: Cluster, kubectl: Kubectl, directory: Path) -> Path:
    """A kubeconfig with the operator's own permissions, on a cluster that can run model servers."""
    server = shutil.which("kohort-server", path=str(Path(sys.executable).parent))
    cluster.add_images({"kohort/server": {"entrypoint": [str(server)]}})
    return install(kubectl, CRD, cluster.kubeconfig, directory / "operator.kubeconfig")


@pytest.fixture(scope="module", autouse=True)
def running(account: Path, directory: Path) -> Iterator[OperatorProcess]:
    with operator(account, "one", directory / "one.log") as process:
        yield process


@pytest.fixture(scope="module")
def model(directory: Path) -> str:
    return make_model(directory / "model.onnx").as_uri()


def apply(kubectl: Kubectl, name: str, uri: str, **spec: Any) -> None:
    body = {
        "apiVersion": "kohort.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"model": {"uri": uri}, **spec},
    }
    kubectl("apply", "-f", "-", stdin=msgspec.json.encode(body).decode())


def get(kubectl: Kubectl, kind: str, *names: str) -> Json:
    found: Json = msgspec.json.decode(kubectl("get", kind, *names, "-o", "json"))
    return found


def condition(kubectl: Kubectl, name: str, kind: str) -> Json:
    conditions = get(kubectl, "mdep", name)["status"].get("conditions", [])
    return next((c for c in conditions if c["type"] == kind), {})


def served(kubectl: Kubectl, name: str) -> str:
    """The revision that all clients of a model are sent to; empty while there is none."""
    cohorts = get(kubectl, "mdep", name)["status"].get("cohorts", [{}])
    return str(cohorts[0].get("stable", ""))


@pytest.fixture(scope="module")
def burger(kubectl: Kubectl, model: str) -> str:
    """The revision of a model that is served."""
    apply(kubectl, "burger", model)
    return eventually(lambda: served(kubectl, "burger"), "burger is served")


def test_a_model_is_recorded_and_its_pods_belong_to_it(kubectl: Kubectl, burger: str) -> None:
    uid = get(kubectl, "mdep", "burger")["metadata"]["uid"]
    for kind in ("deployment", "controllerrevision"):
        (owner,) = get(kubectl, kind, burger)["metadata"]["ownerReferences"]
        assert owner["uid"] == uid
    assert get(kubectl, "deployment", burger)["status"]["readyReplicas"] == 1


def test_the_record_holds_what_decides_an_answer(kubectl: Kubectl, burger: str, model: str) -> None:
    data = get(kubectl, "controllerrevision", burger)["data"]
    assert data["model"]["uri"] == model
    assert data["image"] == "kohort/server"


def test_status_is_about_the_generation_that_was_seen(kubectl: Kubectl, burger: str) -> None:
    found = get(kubectl, "mdep", "burger")
    assert found["status"]["observedGeneration"] == found["metadata"]["generation"]
    assert found["status"]["desired"] == burger


def test_events_tell_people_what_happened(kubectl: Kubectl, burger: str) -> None:
    def told() -> bool:
        events = get(kubectl, "events.events.k8s.io")["items"]
        return any(e["regarding"]["name"] == "burger" for e in events)

    eventually(told, "an event about burger")


def test_a_deployment_that_somebody_deletes_comes_back(kubectl: Kubectl, burger: str) -> None:
    before = get(kubectl, "deployment", burger)["metadata"]["uid"]
    kubectl("delete", "deployment", burger)

    def back() -> bool:
        found = kubectl("get", "deployment", burger, "--ignore-not-found", "-o", "json")
        return bool(found) and msgspec.json.decode(found)["metadata"]["uid"] != before

    eventually(back, "the deployment is there again")


def test_a_deployment_that_somebody_scales_goes_back(kubectl: Kubectl, burger: str) -> None:
    kubectl("scale", f"deployment/{burger}", "--replicas=0")
    eventually(
        lambda: get(kubectl, "deployment", burger)["spec"]["replicas"] == 1, "one replica again"
    )


def figure(running: OperatorProcess, name: str) -> float:
    """The sum of the operator's metrics that have ``name`` in name or labels."""
    lines = running.get("/metrics")[1].splitlines()
    return sum(float(line.split()[-1]) for line in lines if name in line and line[0] != "#")


def container(kubectl: Kubectl, name: str) -> Json:
    template = get(kubectl, "deployment", name)["spec"]["template"]
    found: Json = template["spec"]["containers"][0]
    return found


def test_an_image_that_somebody_sets_goes_back(kubectl: Kubectl, burger: str) -> None:
    kubectl("set", "image", f"deployment/{burger}", "server=somebody/else")
    eventually(lambda: container(kubectl, burger)["image"] == "kohort/server", "its own image")


def test_a_variable_that_somebody_sets_goes_back(kubectl: Kubectl, burger: str) -> None:
    before = container(kubectl, burger)["env"]
    kubectl("set", "env", f"deployment/{burger}", "TMPDIR=/elsewhere")
    eventually(lambda: container(kubectl, burger)["env"] == before, "its own variables")


@pytest.mark.parametrize(
    "label", ["kohort.dev/revision", "kohort.dev/model", "app.kubernetes.io/managed-by"]
)
def test_a_label_that_somebody_takes_away_comes_back(
    kubectl: Kubectl, burger: str, label: str
) -> None:
    before = get(kubectl, "deployment", burger)["metadata"]["labels"]
    kubectl("label", "deployment", burger, f"{label}-")
    eventually(
        lambda: get(kubectl, "deployment", burger)["metadata"]["labels"] == before, "all labels"
    )


def test_what_others_add_to_pods_stays_and_is_written_once(
    kubectl: Kubectl, burger: str, running: OperatorProcess
) -> None:
    kubectl("set", "env", f"deployment/{burger}", "ADDED=yes")

    def noted() -> bool:
        metadata = get(kubectl, "deployment", burger)["metadata"]
        applied = metadata["annotations"]["kohort.dev/applied-hash"]
        return bool(applied.endswith(f"/{metadata['generation']}"))

    eventually(noted, "its generation is noted")
    assert {"name": "ADDED", "value": "yes"} in container(kubectl, burger)["env"]
    writes, passes = figure(running, 'verb="PATCH"'), figure(running, "reconcile_seconds_count")
    kubectl("annotate", "mdep", "burger", "touched=yes")
    eventually(
        lambda: figure(running, "reconcile_seconds_count") > passes, "the operator has looked again"
    )
    assert figure(running, 'verb="PATCH"') == writes
    kubectl("set", "env", f"deployment/{burger}", "ADDED-")
    eventually(noted, "its generation is noted again")


def test_scaling_the_model_scales_its_pods_and_makes_no_revision(
    kubectl: Kubectl, burger: str
) -> None:
    kubectl("scale", "mdep/burger", "--replicas=2")
    eventually(
        lambda: get(kubectl, "deployment", burger)["status"].get("readyReplicas") == 2,
        "two ready pods",
    )
    assert get(kubectl, "mdep", "burger")["status"]["desired"] == burger


def test_a_status_that_somebody_overwrites_is_put_right(kubectl: Kubectl, burger: str) -> None:
    patch = '{"status": {"message": "all is lost", "summary": {"stable": "v9"}}}'
    kubectl("patch", "mdep", "burger", "--subresource=status", "--type=merge", "-p", patch)
    eventually(
        lambda: get(kubectl, "mdep", "burger")["status"].get("summary", {}).get("stable") == "v1",
        "the truth again",
    )


def test_a_file_that_is_missing_is_told_in_a_condition(kubectl: Kubectl) -> None:
    apply(kubectl, "missing", "file:///nowhere/model.onnx")
    ready = eventually(
        lambda: (
            condition(kubectl, "missing", "Ready")
            if condition(kubectl, "missing", "Ready").get("reason") == "ModelNotFound"
            else {}
        ),
        "the reason is told",
    )
    assert "/nowhere/model.onnx" in ready["message"]
    kubectl("delete", "mdep", "missing")


def test_a_gpu_that_no_node_has_is_waited_for(kubectl: Kubectl, model: str) -> None:
    apply(kubectl, "hungry", model, gpu={"count": 16})
    eventually(
        lambda: condition(kubectl, "hungry", "Ready").get("reason") == "WaitingForGPU",
        "it says that it waits for a GPU",
    )
    kubectl("delete", "mdep", "hungry")


def test_a_template_that_kubernetes_refuses_is_told_with_its_words(
    kubectl: Kubectl, model: str
) -> None:
    overlay = {"spec": {"restartPolicy": "Sometimes"}}
    apply(kubectl, "odd", model, template=overlay)
    ready = eventually(
        lambda: (
            condition(kubectl, "odd", "Ready")
            if condition(kubectl, "odd", "Ready").get("reason") == "DeploymentRefused"
            else {}
        ),
        "the refusal is told",
    )
    assert "restartPolicy" in ready["message"]
    apply(kubectl, "odd", model, template={})
    eventually(lambda: served(kubectl, "odd"), "the corrected model is served")
    kubectl("delete", "mdep", "odd")


def test_everything_of_a_deleted_model_goes(kubectl: Kubectl, model: str) -> None:
    apply(kubectl, "short", model)
    revision = eventually(lambda: served(kubectl, "short"), "short is served")
    kubectl("delete", "mdep", "short")

    def left() -> str:
        kinds = "deployments,controllerrevisions,pods"
        return kubectl("get", kinds, "-l", "kohort.dev/model=short", "-o", "name")

    eventually(lambda: not left(), f"nothing of {revision} is left")


def test_two_models_in_two_namespaces_may_have_one_name(kubectl: Kubectl, model: str) -> None:
    kubectl("create", "namespace", "elsewhere")
    body = {
        "apiVersion": "kohort.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "burger", "namespace": "elsewhere"},
        "spec": {"model": {"uri": model}},
    }
    kubectl("apply", "-f", "-", stdin=msgspec.json.encode(body).decode())
    eventually(
        lambda: kubectl("get", "deployments", "-n", "elsewhere", "-o", "name").strip(),
        "its own pods",
    )
    kubectl("delete", "namespace", "elsewhere", "--wait=false")


def test_the_operator_tells_prometheus_what_it_does(running: OperatorProcess, burger: str) -> None:
    assert running.get("/healthz") == (200, "ok\n")
    text = running.get("/metrics")[1]
    assert 'kohort_operator_api_calls_total{code="201",resource="deployments",verb="PATCH"}' in text
    assert "kohort_operator_models" in text
    assert "burger" not in text


def test_no_call_was_forbidden(running: OperatorProcess, burger: str) -> None:
    """The rules of act/permissions.py are complete: all of this ran with no other permission."""
    assert 'code="403"' not in running.get("/metrics")[1]


def test_the_operator_needs_no_more_than_it_is_given(account: Path) -> None:
    refused = subprocess.run(
        ["kubectl", "--kubeconfig", str(account), "get", "secrets", "-n", "default"],
        executable=shutil.which("kubectl", path=str(Path(sys.executable).parent)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "forbidden" in refused.stderr
