"""The web view of a real operator: the API server decides who sees what, and is asked for nothing else."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kohort.act import permissions
from kohort_local.cluster import Cluster
from tests.component.operator_parts import (
    LEASE,
    NAMESPACE,
    OperatorProcess,
    eventually,
    free_port,
    install,
    operator,
)

Kubectl = Callable[..., str]
CRD = Path(__file__).parents[2] / "crds" / "kohort.dev_modeldeployments.yaml"
SHOP, KITCHEN = "view-shop", "view-kitchen"
SECONDS = 20


@dataclass
class View:
    """The view of one operator, over TLS that the operator's own authority vouches for."""

    process: OperatorProcess
    port: int
    authority: str

    def get(self, path: str, token: str = "", **headers: str) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        with self.open(path, token, **headers) as answer:
            return answer.status, json.load(answer)

    def open(self, path: str, token: str = "", **headers: str) -> Any:
        """An answer that is still to be read."""
        context = ssl.create_default_context(cadata=self.authority)
        context.check_hostname = False  # it is called kohort-operator, and asked at 127.0.0.1
        if token:
            headers["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(f"https://127.0.0.1:{self.port}{path}", headers=headers)
        try:
            return urllib.request.urlopen(request, timeout=SECONDS, context=context)
        except urllib.error.HTTPError as error:
            return error


@pytest.fixture(scope="module")
def account(cluster: Cluster, kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("web") / "operator.kubeconfig"
    return install(kubectl, CRD, cluster.kubeconfig, path, permissions.VIEW_RULES)


@pytest.fixture(scope="module")
def view(account: Path, kubectl: Kubectl) -> Iterator[View]:
    for namespace in (SHOP, KITCHEN):
        kubectl("create", "namespace", namespace)
        apply(kubectl, namespace, "burger")
    port = free_port()
    with operator(
        account, "viewed", account.with_name("viewed.log"), (*LEASE, f"--view-port={port}")
    ) as process:
        secret = json.loads(
            kubectl("get", "secret", "kohort-authority", "-n", NAMESPACE, "-o", "json")
        )
        yield View(process, port, b64decode(secret["data"]["ca.crt"]).decode())
    for namespace in (SHOP, KITCHEN):
        kubectl("delete", "namespace", namespace, "--wait=false")


def apply(kubectl: Kubectl, namespace: str, name: str) -> None:
    body = {
        "apiVersion": "kohort.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"model": {"uri": "file:///nowhere/model.onnx"}},
    }
    kubectl("apply", "-f", "-", stdin=msgspec.json.encode(body).decode())


def person(kubectl: Kubectl, name: str, *resources: str, everywhere: bool = False) -> str:
    """A token of somebody who may get and list these in one namespace, or in all."""
    kubectl("create", "serviceaccount", name, "-n", SHOP)
    if resources:
        kind, scope = ("clusterrole", ()) if everywhere else ("role", ("-n", SHOP))
        rule = ("--verb=get,list", f"--resource={','.join(resources)}")
        kubectl("create", kind, f"view-{name}", *rule, *scope)
        binding = (f"--{kind}=view-{name}", f"--serviceaccount={SHOP}:{name}")
        kubectl("create", f"{kind}binding", f"view-{name}", *binding, *scope)
    return kubectl("create", "token", name, "-n", SHOP).strip()


MODELS = "modeldeployments.kohort.dev"


def test_whoever_may_list_models_of_a_namespace_sees_those_and_no_others(
    view: View, kubectl: Kubectl
) -> None:
    token = person(kubectl, "waiter", MODELS)
    status, told = view.get(f"/api/models?namespace={SHOP}", token)
    assert (status, [m["name"] for m in told["models"]]) == (200, ["burger"])
    assert view.get(f"/api/models/{SHOP}/burger", token)[0] == 200
    for path in (
        "/api/models",
        f"/api/models?namespace={KITCHEN}",
        f"/api/models/{KITCHEN}/burger",
        f"/api/models/{KITCHEN}/nothing",  # whether it is there is not told either
    ):
        status, told = view.get(path, token)
        assert status == 403, path
        assert "system:serviceaccount:view-shop:waiter may not" in told["message"]
    assert view.get(f"/api/models/{SHOP}/nothing", token)[0] == 404


def test_whoever_may_list_models_of_all_namespaces_sees_all(view: View, kubectl: Kubectl) -> None:
    token = person(kubectl, "manager", MODELS, everywhere=True)
    status, told = view.get("/api/models", token)
    assert status == 200
    assert {SHOP, KITCHEN} <= {m["namespace"] for m in told["models"]}


def test_a_token_is_needed_and_must_be_the_clusters_own(view: View, kubectl: Kubectl) -> None:
    stranger = person(kubectl, "stranger")
    for_others = kubectl(
        "create", "token", "stranger", "-n", SHOP, "--audience=https://elsewhere.example"
    ).strip()
    header, payload, signature = stranger.split(".")
    forged = f"{header}.{payload}.{signature[::-1]}"
    for token in ("", "x", forged, for_others, "x" * 7500, "é"):
        quoted = token.encode().decode("latin-1")
        assert view.get(f"/api/models?namespace={SHOP}", quoted)[0] == 401
    assert view.get(f"/api/models?namespace={SHOP}", stranger)[0] == 403


def test_pods_are_shown_to_those_who_may_list_pods(view: View, kubectl: Kubectl) -> None:
    def told(token: str) -> Any:
        return view.get(f"/api/models/{SHOP}/burger", token)[1]["model"]

    sees_pods = person(kubectl, "cook", MODELS, "pods")
    eventually(
        lambda: [p for r in told(sees_pods)["revisions"] for p in r["pods"]], "the pod is shown"
    )
    assert told(sees_pods)["podsShown"]
    without = told(person(kubectl, "guest", MODELS))
    assert not without["podsShown"]
    assert [p for r in without["revisions"] for p in r["pods"]] == []


def test_a_stream_brings_what_happens_in_the_cluster(view: View, kubectl: Kubectl) -> None:
    token = person(kubectl, "watcher", MODELS)
    with view.open(f"/api/models?namespace={SHOP}", token, Accept="text/event-stream") as answer:
        assert answer.status == 200
        assert names(answer) == ["burger"]
        apply(kubectl, SHOP, "waffle")
        until = time.monotonic() + SECONDS
        while names(answer) != ["burger", "waffle"]:
            assert time.monotonic() < until


def names(answer: Any) -> list[str]:
    """The models in the next event."""
    while True:
        line = answer.readline()
        assert line, "the stream ended"
        if line.startswith(b"data: "):
            return [m["name"] for m in json.loads(line[6:])["models"]]


def test_rights_that_are_taken_away_are_gone_within_a_minute(view: View, kubectl: Kubectl) -> None:
    token = person(kubectl, "leaver", MODELS)
    path = f"/api/models?namespace={SHOP}"
    assert view.get(path, token)[0] == 200
    kubectl("delete", "rolebinding", "view-leaver", "-n", SHOP)
    eventually(lambda: view.get(path, token)[0] == 403, "the right is gone")


def calls(process: OperatorProcess) -> dict[str, float]:
    """How often the operator has called the API server, by verb and resource."""
    text = process.get("/metrics")[1]
    found = re.findall(r"^kohort_operator_api_calls_total\{(.*?)\} (\S+)", text, re.M)
    return {labels: float(value) for labels, value in found}


def test_looking_costs_the_api_server_a_review_now_and_then_and_no_data(
    view: View, kubectl: Kubectl
) -> None:
    token = person(kubectl, "fan", MODELS, "pods")
    before = calls(view.process)
    assert before
    for _ in range(100):
        assert view.get(f"/api/models?namespace={SHOP}", token)[0] == 200
        assert view.get(f"/api/models/{SHOP}/burger", token)[0] == 200
    after = calls(view.process)
    new = {labels: n - before.get(labels, 0) for labels, n in after.items()}
    reviews = {labels: n for labels, n in new.items() if "reviews" in labels}
    assert 1 <= sum(reviews.values()) <= 12  # of the token; of lists, the model and its pods
    looks = [k for k, n in new.items() if n and "GET" in k and "modeldeployments" in k]
    assert looks == []


def test_without_the_permission_to_ask_it_shows_nothing_and_says_what_to_do(
    view: View, kubectl: Kubectl
) -> None:
    role = json.loads(kubectl("get", "clusterrole", "kohort-operator", "-o", "json"))
    rules = [r for r in role["rules"] if "tokenreviews" not in r["resources"]]
    body = {
        "apiVersion": role["apiVersion"],
        "kind": "ClusterRole",
        "metadata": {"name": "kohort-operator"},
    }
    token = person(kubectl, "late", MODELS)
    try:
        kubectl("replace", "-f", "-", stdin=json.dumps({**body, "rules": rules}))

        def refused() -> bool:
            status, told = view.get(f"/api/models?namespace={SHOP}&n={time.monotonic()}", fresh())
            return status == 503 and "view.enabled" in told["message"]

        def fresh() -> str:
            return kubectl("create", "token", "late", "-n", SHOP).strip()

        eventually(refused, "the operator may not ask")
    finally:
        kubectl("replace", "-f", "-", stdin=json.dumps({**body, "rules": role["rules"]}))
    eventually(lambda: view.get(f"/api/models?namespace={SHOP}", token)[0] == 200, "it may again")


@pytest.mark.parametrize("everywhere", [False, True])
def test_kubectl_shows_the_same_page_on_this_machine_with_the_persons_own_credentials(
    everywhere: bool, view: View, cluster: Cluster, kubectl: Kubectl
) -> None:
    program = Path(sys.executable).with_name("kubectl-kohort")
    command = [str(program), "view", "burger", "-n", SHOP, f"--kubeconfig={cluster.kubeconfig}"]
    running = subprocess.Popen(
        [*command, *(["-A"] if everywhere else [])], stdout=subprocess.PIPE, text=True
    )
    try:
        assert running.stdout is not None
        address = running.stdout.readline().strip()
        found = re.fullmatch(
            rf"(http://127\.0\.0\.1:\d+)/#key=([\w-]{{43}})&to=%2F{SHOP}%2Fburger", address
        )
        assert found, address
        root, key = found.groups()

        def get(path: str, key: str = key) -> tuple[int, Any]:
            request = urllib.request.Request(
                root + path, headers={"Authorization": f"Bearer {key}"}
            )
            try:
                with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                    return answer.status, json.load(answer)
            except urllib.error.HTTPError as error:
                return error.code, json.load(error)

        status, told = get(f"/api/models/{SHOP}/burger")
        assert (status, told["model"]["podsShown"]) == (200, True)
        assert get(f"/api/models/{SHOP}/burger", "wrong")[0] == 401
        assert get(f"/api/models/{KITCHEN}/burger")[0] == (200 if everywhere else 403)
    finally:
        running.terminate()
        running.wait(SECONDS)


def test_kubectl_says_at_once_that_there_is_no_such_model(cluster: Cluster, view: View) -> None:
    program = Path(sys.executable).with_name("kubectl-kohort")
    done = subprocess.run(
        [str(program), "view", "burgr", "-n", SHOP, f"--kubeconfig={cluster.kubeconfig}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert 'no model deployment "burgr" in view-shop; there is: burger' in done.stderr
