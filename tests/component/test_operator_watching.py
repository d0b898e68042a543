"""An operator whose watch of models fails notices, and begins anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import msgspec.yaml
import pytest

from kohort.kube import from_kubeconfig
from kohort_local.cluster import Cluster
from tests.component.faulty_proxy import NONE, Faults, FaultyProxy
from tests.component.operator_parts import OperatorProcess, eventually, install, operator

Kubectl = Callable[..., str]
CRD = Path(__file__).parents[2] / "crds" / "kohort.dev_modeldeployments.yaml"


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[FaultyProxy]:
    with FaultyProxy(from_kubeconfig(cluster.kubeconfig)) as proxy:
        yield proxy


@pytest.fixture
def account(cluster: Cluster, kubectl: Kubectl, proxy: FaultyProxy, tmp_path: Path) -> Path:
    """A kubeconfig of the operator's account that leads through the proxy."""
    path = install(kubectl, CRD, cluster.kubeconfig, tmp_path / "operator.kubeconfig")
    config = msgspec.yaml.decode(path.read_bytes())
    config["clusters"][0]["cluster"] = {"server": proxy.url}
    path.write_bytes(msgspec.yaml.encode(config))
    return path


def apply(kubectl: Kubectl, name: str) -> None:
    body = {
        "apiVersion": "kohort.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"model": {"uri": "file:///nowhere/model.onnx"}},
    }
    kubectl("apply", "-f", "-", stdin=msgspec.json.encode(body).decode())


def is_seen(kubectl: Kubectl, name: str) -> bool:
    """Whether the operator has made pods of a model."""
    return bool(kubectl("get", "deployments", "-l", f"kohort.dev/model={name}", "-o", "name"))


def models(running: OperatorProcess) -> bool:
    return "kohort_operator_models_watch_lag_seconds 0.0" in running.get("/metrics")[1]


@pytest.mark.parametrize(
    ("faults", "trouble"),
    [
        pytest.param(Faults(share=1, codes=(400,), only="^/apis?$"), 400, id="discovery fails"),
        pytest.param(Faults(watch_seconds=1, watch_error=500), 0, id="watches end with an error"),
    ],
)
def test_models_are_watched_again_after_the_watch_failed(
    kubectl: Kubectl,
    account: Path,
    proxy: FaultyProxy,
    tmp_path: Path,
    faults: Faults,
    trouble: int,
    request: pytest.FixtureRequest,
) -> None:
    """The list that the operator makes every five minutes cannot be what finds the model."""
    proxy.faults = faults
    log = tmp_path / "operator.log"
    with operator(account, "one", log) as running:
        eventually(lambda: "Watching models failed" in log.read_text(), "the watch has failed")
        proxy.faults = NONE
        name = "seen-" + "".join(c for c in request.node.callspec.id if c.isalnum())
        apply(kubectl, name)
        eventually(lambda: is_seen(kubectl, name), "the model is seen")
        eventually(lambda: models(running), "the watch tells what is known")
    assert not trouble or proxy.answered["proxy", trouble]
    kubectl("delete", "mdep", name)
