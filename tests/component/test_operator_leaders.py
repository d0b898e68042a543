"""Several operators: one decides, all serve routes, and none of them is missed for long."""

from __future__ import annotations

import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest

from kohort_local.cluster import Cluster
from tests.component.operator_parts import (
    NAMESPACE,
    PATIENT_LEASE,
    OperatorProcess,
    eventually,
    install,
    make_model,
    operator,
)

CRD = Path(__file__).parents[2] / "crds" / "kohort.dev_modeldeployments.yaml"
Kubectl = Callable[..., str]
Start = Callable[[str], OperatorProcess]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("leaders")


@pytest.fixture(scope="module")
def account(cluster: Cluster, kubectl: Kubectl, directory: Path) -> Path:
    server = shutil.which("kohort-server", path=str(Path(sys.executable).parent))
    cluster.add_images({"kohort/server": {"entrypoint": [str(server)]}})
    return install(kubectl, CRD, cluster.kubeconfig, directory / "operator.kubeconfig")


@pytest.fixture
def first(account: Path, directory: Path) -> Iterator[OperatorProcess]:
    with operator(account, "first", directory / "first.log") as process:
        eventually(process.leads, "the first operator leads")
        yield process


@pytest.fixture
def second(account: Path, directory: Path, first: OperatorProcess) -> Iterator[OperatorProcess]:
    """An operator that stands by."""
    with operator(account, "second", directory / "second.log") as process:
        yield process


@pytest.fixture(scope="module")
def model(directory: Path) -> str:
    return make_model(directory / "model.onnx").as_uri()


def holder(kubectl: Kubectl) -> str:
    path = "jsonpath={.spec.holderIdentity}"
    return kubectl("get", "lease", "kohort-operator", "-n", NAMESPACE, "-o", path)


@pytest.fixture
def serve(kubectl: Kubectl, model: str) -> Iterator[Callable[[str], None]]:
    """Applies a model and waits until somebody has made it served."""
    made: list[str] = []

    def make(name: str) -> None:
        made.append(name)
        body = {
            "apiVersion": "kohort.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"model": {"uri": model}},
        }
        kubectl("apply", "-f", "-", stdin=msgspec.json.encode(body).decode())
        path = "jsonpath={.status.cohorts[0].stable}"
        eventually(lambda: kubectl("get", "mdep", name, "-o", path), f"{name} is served")

    yield make
    for name in made:
        kubectl("delete", "mdep", name)


def test_one_decides_and_both_are_ready_to_serve_routes(
    first: OperatorProcess, second: OperatorProcess, kubectl: Kubectl
) -> None:
    assert holder(kubectl) == "first"
    assert not second.leads()
    assert second.get("/readyz")[0] == 200


def published(process: OperatorProcess) -> bool:
    """Whether it has sent routes to a gateway."""
    page = process.get("/metrics")[1]
    return bool(re.search(r"^kohort_operator_route_pushes_total [1-9]", page, re.M))


def test_the_one_that_stands_by_knows_all_models_and_publishes_their_routes(
    first: OperatorProcess, second: OperatorProcess, serve: Callable[[str], None]
) -> None:
    serve("known")
    for process in (first, second):
        eventually(
            partial(published, process),
            f"{process.identity} publishes routes",
        )
    assert 'verb="PATCH"' not in second.get("/metrics")[1]


def test_a_leader_that_ends_in_good_order_gives_the_lease_back(
    first: OperatorProcess,
    second: OperatorProcess,
    kubectl: Kubectl,
    serve: Callable[[str], None],
) -> None:
    assert first.end() == 0
    assert holder(kubectl) in ("", "second")
    eventually(second.leads, "the second operator leads")
    serve("after-the-end")


def test_a_leader_that_is_killed_is_replaced(
    first: OperatorProcess, second: OperatorProcess, serve: Callable[[str], None]
) -> None:
    first.end(signal.SIGKILL)
    eventually(second.leads, "the second operator leads")
    serve("after-the-kill")


def test_a_leader_that_has_lost_the_lease_stands_by_and_serves_routes_on(
    first: OperatorProcess, kubectl: Kubectl
) -> None:
    patch = '{"spec": {"holderIdentity": "somebody-else", "leaseDurationSeconds": 3600}}'
    kubectl("patch", "lease", "kohort-operator", "-n", NAMESPACE, "--type=merge", "-p", patch)
    eventually(lambda: not first.leads(), "the first operator stands by")
    assert first.get("/readyz")[0] == 200
    assert holder(kubectl) == "somebody-else"
    kubectl("delete", "lease", "kohort-operator", "-n", NAMESPACE)
    eventually(first.leads, "the first operator leads again")


def test_a_frozen_leader_that_wakes_up_late_does_not_lead_on(
    first: OperatorProcess, second: OperatorProcess
) -> None:
    first.process.send_signal(signal.SIGSTOP)
    eventually(second.leads, "the second operator leads")
    first.process.send_signal(signal.SIGCONT)
    eventually(lambda: first.get("/readyz")[0] == 200, "the first operator is awake")
    eventually(lambda: not first.leads(), "the first operator stands by")
    assert second.leads()


def test_a_long_outage_of_the_api_server_ends_no_operator(
    first: OperatorProcess, cluster: Cluster, serve: Callable[[str], None]
) -> None:
    cluster.stop("kube-apiserver")
    try:
        eventually(lambda: not first.leads(), "the first operator leads no more")
        assert first.get("/readyz")[0] == 200
    finally:
        cluster.start("kube-apiserver")
    eventually(first.leads, "the first operator leads again")
    serve("after-the-outage")


def test_a_restarted_api_server_is_taken_up_again(
    account: Path, directory: Path, cluster: Cluster, serve: Callable[[str], None]
) -> None:
    with operator(account, "patient", directory / "patient.log", PATIENT_LEASE) as process:
        serve("before")
        cluster.restart("kube-apiserver")
        serve("after")
        assert process.leads()
        assert process.end() == 0
