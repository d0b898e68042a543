"""Models behind a gateway of the Gateway API, on a real control plane; the test speaks for the gateway."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kohort.act import permissions
from kohort_local.cluster import Cluster
from tests.component.operator_parts import (
    OperatorProcess,
    eventually,
    install,
    make_model,
    operator,
)
from tests.component.other_crds import install_crds
from tests.conftest import Kubectl

CRD = Path(__file__).parents[2] / "crds" / "kohort.dev_modeldeployments.yaml"
DNS_NAME = "kohort-gateway.kohort-system.svc.cluster.local"
FLAGS = ["--gateway-api", f"--gateway-service={DNS_NAME}"]
Json = dict[str, Any]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gateway-api")


@pytest.fixture(scope="module", autouse=True)
def running(cluster: Cluster, kubectl: Kubectl, directory: Path) -> Iterator[OperatorProcess]:
    server = shutil.which("kohort-server", path=str(Path(sys.executable).parent))
    cluster.add_images({"kohort/server": {"entrypoint": [str(server)]}})
    install_crds(kubectl)
    rules = [*permissions.GATEWAY_API_RULES, *permissions.NAME_RULES]
    kubeconfig = directory / "operator.kubeconfig"
    account = install(kubectl, CRD, cluster.kubeconfig, kubeconfig, rules)
    with operator(account, "portable", directory / "operator.log", FLAGS) as process:
        yield process


def through(*hosts: str) -> Json:
    """The spec's route, with hosts for gRPC."""
    gateway = {"parentRefs": [{"name": "public"}], "grpcHostnames": hosts}
    return {"type": "GatewayAPI", "gatewayAPI": gateway}


@dataclass
class Model:
    """A ModelDeployment, and what the gateway says of its routes."""

    kubectl: Kubectl
    uris: list[str]
    name: str

    def apply(self, version: int = 0, **spec: Any) -> None:
        route = {"type": "GatewayAPI", "gatewayAPI": {"parentRefs": [{"name": "public"}]}}
        body = {
            "apiVersion": "kohort.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": self.name, "namespace": "default"},
            "spec": {
                "model": {"uri": self.uris[version]},
                "keepWarm": "0s",
                "route": route,
                **spec,
            },
        }
        self.kubectl("apply", "-f", "-", stdin=msgspec.json.encode(body).decode())

    def get(self, kind: str = "mdep", name: str = "") -> Json:
        """An object; empty when there is none."""
        text = self.kubectl("get", kind, name or self.name, "--ignore-not-found", "-o", "json")
        return dict(msgspec.json.decode(text)) if text else {}

    @property
    def cohort(self) -> Json:
        return dict(self.get().get("status", {}).get("cohorts", [{}])[0])

    def condition(self, kind: str) -> Json:
        conditions = self.get().get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == kind), {})

    def weights(self) -> dict[str, int]:
        """What the HTTPRoute wants of the last cohort, by revision."""
        rules = self.get("httproute").get("spec", {}).get("rules", [{}])
        return {ref["name"]: ref["weight"] for ref in rules[-1].get("backendRefs", [])}

    def wants(self, weights: dict[str, int]) -> None:
        eventually(lambda: self.weights() == weights, f"the route has {weights}")

    def answer(self, *, late: int = 0, **conditions: bool) -> None:
        """The gateway speaks of the route as it is, or as it was ``late`` generations ago."""
        route = self.get("httproute")
        told = [
            {
                "type": kind,
                "status": str(conditions.get(kind, True)),
                "reason": "Tested",
                "message": "says the test",
                "observedGeneration": route["metadata"]["generation"] - late,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
            for kind in ("Accepted", "ResolvedRefs")
        ]
        parent = {
            "parentRef": {"name": "public"},
            "controllerName": "example.com/test",
            "conditions": told,
        }
        patch = msgspec.json.encode({"status": {"parents": [parent]}}).decode()
        arguments = ("--subresource=status", "--type=merge", "-p", patch)
        self.kubectl("patch", "httproute", self.name, *arguments)

    def served(self) -> str:
        """The first revision, once its route has been accepted."""
        self.apply()
        eventually(self.weights, "a route")
        self.answer()
        eventually(lambda: self.condition("Ready").get("status") == "True", "it is ready")
        return str(self.cohort["stable"])


@pytest.fixture(scope="module")
def uris(directory: Path) -> list[str]:
    return [make_model(directory / f"{n}.onnx", float(n)).as_uri() for n in (1, 2)]


@pytest.fixture
def make(kubectl: Kubectl, uris: list[str]) -> Iterator[Callable[[str], Model]]:
    names: list[str] = []

    def named(name: str) -> Model:
        names.append(name)
        return Model(kubectl, uris, name)

    yield named
    for name in names:
        kubectl("delete", "mdep", name, "--ignore-not-found")


def test_a_model_is_ready_once_the_gateway_has_accepted_its_route(
    make: Callable[[str], Model],
) -> None:
    model = make("first")
    model.apply()
    eventually(model.weights, "a route")
    eventually(
        lambda: model.condition("RoutesAccepted").get("status") == "False",
        "it waits for the gateway",
    )
    ready = model.condition("Ready")
    assert ready["status"] == "False"
    assert "waits for gateway default/public" in ready["message"]
    assert model.condition("Sticky")["reason"] == "NotExpressible"
    revision = model.cohort["stable"]
    assert model.weights() == {revision: 100}
    assert model.get("service", revision)["spec"]["selector"] == {
        "kohort.dev/model": "first",
        "kohort.dev/revision": revision,
    }
    model.answer(ResolvedRefs=False)
    eventually(
        lambda: (
            "ResolvedRefs is False: Tested: says the test" in model.condition("Ready")["message"]
        ),
        "what the gateway says is passed on",
    )
    model.answer()
    eventually(lambda: model.condition("Ready")["status"] == "True", "it is ready")
    assert model.condition("RoutesAccepted")["status"] == "True"


def test_a_weight_counts_as_moved_once_the_gateway_follows_the_newest_route(
    make: Callable[[str], Model],
) -> None:
    model = make("moving")
    old = model.served()
    steps = [{"name": "everyone", "steps": [{"weight": 30, "hold": "1s"}]}]
    gateway = {"parentRefs": [{"name": "public"}], "stepsByTime": True}
    model.apply(1, cohorts=steps, route={"type": "GatewayAPI", "gatewayAPI": gateway})
    eventually(lambda: model.cohort.get("canary"), "a canary")
    new = model.cohort["canary"]
    model.wants({old: 100, new: 0})
    assert model.get("service", new)
    model.answer()
    model.wants({old: 70, new: 30})
    model.answer(late=1)
    eventually(lambda: "waits for gateway default/public" in model.cohort["message"], "it waits")
    assert "stepStartedAt" not in model.cohort
    model.answer()
    model.wants({old: 0, new: 100})
    assert model.cohort["stable"] == old
    model.answer()
    eventually(lambda: model.cohort["stable"] == new, "it is promoted")
    assert model.cohort["decisions"][0]["message"] == "its steps compared nothing"
    model.wants({new: 100})
    assert model.get("service", old)
    model.answer()
    eventually(lambda: not model.get("deployment", old), "the old revision's pods are gone")
    eventually(lambda: not model.get("service", old), "and then its Service")
    assert model.get("service", new)
    eventually(lambda: model.condition("Ready")["status"] == "True", "it is ready")


def test_without_counters_only_a_person_goes_on(
    make: Callable[[str], Model], kubectl: Kubectl
) -> None:
    model = make("careful")
    old = model.served()
    model.apply(1, cohorts=[{"name": "everyone", "steps": [{"weight": 20, "hold": "100ms"}]}])
    eventually(lambda: model.cohort.get("canary"), "a canary")
    new = model.cohort["canary"]
    model.wants({old: 100, new: 0})
    model.answer()
    model.wants({old: 80, new: 20})
    model.answer()
    eventually(lambda: model.cohort.get("stepStartedAt"), "the step has begun")
    eventually(lambda: "waits for a person" in model.cohort["message"], "it says what it waits for")
    assert "stepsByTime" in model.cohort["message"]
    assert model.get()["status"]["phase"] == "Paused"
    assert "evidence" not in model.cohort
    kubectl("annotate", "mdep", model.name, "kohort.dev/command=promote everyone id=1")
    model.wants({old: 0, new: 100})
    model.answer()
    eventually(lambda: model.cohort["stable"] == new, "it is promoted")


def test_a_table_that_no_route_can_hold_is_refused_and_the_former_stays(
    make: Callable[[str], Model],
) -> None:
    model = make("wide")
    model.served()
    before = model.get("httproute")["spec"]
    values = [f"v{n}" for n in range(40)]
    headers = [{"headers": [{"name": "x-org", "values": values}]}]
    model.apply(cohorts=[{"name": "many", "match": headers}, {"name": "everyone"}])
    stalled = eventually(lambda: model.condition("Stalled"), "it says so")
    assert stalled["reason"] == "RoutesRefused"
    assert "set route.gatewayAPI.hostnames" in stalled["message"]
    assert model.condition("Ready")["status"] == "False"
    assert model.get("httproute")["spec"] == before
    model.apply()
    eventually(lambda: model.condition("Ready")["status"] == "True", "corrected, it is ready")


def test_a_route_that_somebody_edits_is_put_right(
    make: Callable[[str], Model], kubectl: Kubectl
) -> None:
    model = make("edited")
    revision = model.served()
    patch = '[{"op": "replace", "path": "/spec/rules/0/backendRefs/0/weight", "value": 1}]'
    kubectl("patch", "httproute", "edited", "--type=json", "-p", patch)
    model.wants({revision: 100})
    kubectl("label", "service", revision, "kohort.dev/model-")
    kubectl("patch", "service", revision, "-p", '{"spec": {"selector": {"kohort.dev/model": "x"}}}')
    kubectl("annotate", "mdep", "edited", "touched=yes")
    eventually(
        lambda: model.get("service", revision)["spec"]["selector"]["kohort.dev/model"] == "edited",
        "also a Service that the operator has lost sight of",
    )


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute"])
def test_a_route_of_somebody_else_is_not_taken_over(
    kind: str, make: Callable[[str], Model], kubectl: Kubectl
) -> None:
    name, resource = f"their-{kind.lower()}", kind.lower()
    theirs = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"parentRefs": [{"name": "other"}]},
    }
    kubectl("apply", "-f", "-", stdin=msgspec.json.encode(theirs).decode())
    model = make(name)
    before = model.get(resource)
    model.apply(route=through("grpc.example.com"))
    stalled = eventually(lambda: model.condition("Stalled"), "it says so")
    assert f"{resource}s {name} is there and not Kohort's" in stalled["message"]
    assert model.get(resource) == before
    kubectl("delete", "mdep", name)
    assert model.get(resource) == before
    kubectl("delete", resource, name)


def test_grpc_clients_get_a_route_and_lose_it_with_their_hosts(
    make: Callable[[str], Model],
) -> None:
    model = make("calling")
    model.apply(route=through("grpc.example.com"))
    eventually(lambda: model.get("grpcroute"), "a route for gRPC")
    model.apply(route=through("other.example.com"))
    eventually(
        lambda: model.get("grpcroute")["spec"]["hostnames"] == ["other.example.com"], "another host"
    )
    model.answer()
    told = eventually(
        lambda: model.condition("RoutesAccepted").get("status") == "False", "gRPC is waited for"
    )
    assert told
    model.apply(route=through())
    eventually(lambda: not model.get("grpcroute"), "it is gone")
    eventually(lambda: model.condition("Ready")["status"] == "True", "HTTP is enough")


def test_a_model_of_kohorts_own_gateways_has_a_name_in_the_cluster(
    make: Callable[[str], Model],
) -> None:
    model = make("named")
    model.apply(route={"type": "Envoy"})
    service = eventually(lambda: model.get("service"), "a Service")
    assert service["spec"]["type"] == "ExternalName"
    assert service["spec"]["externalName"] == DNS_NAME
    assert service["metadata"]["ownerReferences"][0]["uid"] == model.get()["metadata"]["uid"]
    assert not model.get("httproute")


def test_a_service_of_somebody_else_keeps_its_name(
    make: Callable[[str], Model], kubectl: Kubectl
) -> None:
    kubectl("create", "service", "clusterip", "occupied", "--tcp=80")
    model = make("occupied")
    before = model.get("service")
    model.apply(route={"type": "Envoy"})
    told = eventually(lambda: model.condition("NameResolves"), "it says so")
    assert told["reason"] == "NameTaken"
    assert "services occupied is there and not Kohort's" in told["message"]
    assert model.get("service") == before
    kubectl("delete", "service", "occupied")
    kubectl("annotate", "mdep", "occupied", "touched=yes")
    eventually(lambda: model.get("service"), "a Service of its own")
    eventually(lambda: not model.condition("NameResolves"), "nothing left to say")


def test_everything_of_a_deleted_model_goes(make: Callable[[str], Model], kubectl: Kubectl) -> None:
    model = make("short")
    model.served()
    kubectl("delete", "mdep", "short")
    kinds = "httproutes,services,deployments"
    eventually(
        lambda: not kubectl("get", kinds, "-l", "kohort.dev/model=short", "-o", "name"),
        "nothing is left",
    )


def test_no_call_was_forbidden_and_a_model_at_rest_costs_no_write(
    make: Callable[[str], Model], running: OperatorProcess, kubectl: Kubectl
) -> None:
    def figure(label: str) -> float:
        lines = running.get("/metrics")[1].splitlines()
        return sum(float(line.split()[-1]) for line in lines if label in line and line[0] != "#")

    make("resting").served()
    before = {verb: figure(f'verb="{verb}"') for verb in ("PATCH", "POST", "DELETE")}
    passes = figure("reconcile_seconds_count")
    kubectl("annotate", "mdep", "resting", "touched=yes")
    eventually(lambda: figure("reconcile_seconds_count") > passes, "it has looked again")
    assert {verb: figure(f'verb="{verb}"') for verb in before} == before
    assert 'code="403"' not in running.get("/metrics")[1]
