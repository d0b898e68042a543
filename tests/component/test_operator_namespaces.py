"""An operator that is limited to some namespaces, and allowed no others."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from kohort_local.cluster import Cluster
from kohort_local.helm import Helm
from tests.component.operator_parts import NAMESPACE, OperatorProcess, eventually, install, operator

CRD = Path(__file__).parents[2] / "crds" / "kohort.dev_modeldeployments.yaml"
Kubectl = Callable[..., str]
WATCHED, OTHER = "watched", "unwatched"


@pytest.fixture(scope="module")
def running(
    cluster: Cluster, kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    directory = tmp_path_factory.mktemp("namespaces")
    server = shutil.which("kohort-server", path=str(Path(sys.executable).parent))
    cluster.add_images({"kohort/server": {"entrypoint": [str(server)]}})
    account = install(kubectl, CRD, cluster.kubeconfig, directory / "operator.kubeconfig")
    for namespace in (WATCHED, OTHER):
        kubectl("create", "namespace", namespace)
    # What the chart gives an operator of one namespace, and nothing else.
    kubectl("delete", "clusterrolebinding", "kohort-operator")
    kubectl("delete", "rolebinding", "kohort-operator", f"--namespace={NAMESPACE}")
    values = {"watchNamespaces": [WATCHED]}
    for item in Helm(print).render(NAMESPACE, values):
        if item["kind"] in ("Role", "RoleBinding"):
            text = msgspec.json.encode(item).decode()
            kubectl("apply", "--server-side", "-f", "-", stdin=text)
    flags = [f"--watch-namespaces={WATCHED}"]
    with operator(account, "limited", directory / "limited.log", flags) as process:
        yield process
    for namespace in (WATCHED, OTHER):
        kubectl("delete", "namespace", namespace, "--wait=false")


def apply(kubectl: Kubectl, namespace: str) -> None:
    body = {
        "apiVersion": "kohort.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "burger", "namespace": namespace},
        "spec": {"model": {"uri": "file:///nowhere/model.onnx"}},
    }
    kubectl("apply", "-f", "-", stdin=msgspec.json.encode(body).decode())


def test_models_of_its_namespaces_are_its_business_and_no_others(
    running: OperatorProcess, kubectl: Kubectl
) -> None:
    apply(kubectl, OTHER)
    apply(kubectl, WATCHED)
    path = "jsonpath={.status.conditions[?(@.type=='Ready')].reason}"
    eventually(
        lambda: kubectl("get", "mdep", "burger", "-n", WATCHED, "-o", path) == "ModelNotFound",
        "the watched model is looked after",
    )
    assert kubectl("get", "mdep", "burger", "-n", OTHER, "-o", path) == ""
    assert 'code="403"' not in running.get("/metrics")[1]


def test_an_operator_without_a_way_to_the_api_server_says_what_to_set(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("kohort-operator")
    done = subprocess.run(
        [
            str(program),
            "run",
            "--namespace=x",
            "--server-image=i",
            f"--service-account-dir={tmp_path}",
        ],
        capture_output=True,
        text=True,
        check=False,
        env={},
    )
    assert done.returncode == 1
    assert "set --kubeconfig" in done.stderr
