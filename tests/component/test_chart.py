"""What the chart makes, asked of a real API server."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import msgspec.yaml
import pytest

from kohort.act import permissions
from kohort_local.helm import Helm, HelmError
from kohort_local.install import namespace
from kohort_local.prometheus_operator import PROMETHEUS_OPERATOR
from tests.component.other_crds import install_crds
from tests.component.test_documents import VALUES, YAML_BLOCK

Kubectl = Callable[..., str]
Json = dict[str, Any]
NAMESPACE, SHOP, SEARCH, OTHER = "chart", "chart-shop", "chart-search", "chart-other"
OPERATOR = f"system:serviceaccount:{NAMESPACE}:kohort-operator"
PLACED = {
    "podAnnotations": {"example.com/a": "b"},
    "podLabels": {"team": "models"},
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "reserved", "operator": "Exists"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "arm", "operator": "Exists"}]}]
            }
        }
    },
    "extraEnv": [{"name": "A", "value": "b"}],
    "serviceAccount": {"annotations": {"example.com/role": "r"}},
}
PEERS = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "a"}}}]
DOCUMENTS = Path(__file__).parents[2] / "docs"


def values_in_documents() -> dict[str, Json]:
    """Values that documents show, by where."""
    return {
        f"{path.name}, block {number}": msgspec.yaml.decode(block.encode())
        for path in sorted(DOCUMENTS.glob("*.md"))
        for number, block in enumerate(YAML_BLOCK.findall(path.read_text()), start=1)
        if block.startswith(VALUES)
    }


MATRIX: dict[str, Json] = {
    "defaults": {},
    "no-more-than-needed": {
        "crds": {"enabled": False},
        "rbac": {"create": False, "aggregate": False},
        "podDisruptionBudget": {"enabled": False},
    },
    "crd-that-goes": {"crds": {"keep": False}},
    "some-namespaces": {"watchNamespaces": [SHOP, SEARCH]},
    "all-features": {
        "watchNamespaces": [SHOP],
        "modelNames": {"enabled": True},
        "gatewayAPI": {"enabled": True},
        "view": {"enabled": True, "from": PEERS},
        "prometheus": {"urls": ["http://prometheus:9090"], "secretNames": ["reader"]},
        "networkPolicy": {"enabled": True},
        "monitoring": {
            "podMonitors": {"enabled": True, "labels": {"a": "b"}},
            "rules": {"enabled": True, "labels": {"a": "b"}},
            "dashboards": {"enabled": True, "annotations": {"grafana_folder": "Models"}},
        },
    },
    "features-everywhere": {
        "modelNames": {"enabled": True},
        "gatewayAPI": {"enabled": True},
        "networkPolicy": {"enabled": True, "clients": PEERS, "metrics": PEERS},
    },
    "a-mirror-and-digests": {
        "image": {
            "registry": "mirror.example/all/",
            "pullSecrets": [{"name": "mirror"}],
            "pullPolicy": "Always",
        },
        "operator": {"image": {"digest": "sha256:" + "0" * 64}},
        "gateway": {"image": {"tag": "7"}},
    },
    **values_in_documents(),
    "placed": {"operator": PLACED, "gateway": PLACED},
    "outside-clients": {
        "operator": {"eventSink": "https://events.example/kohort", "extraArgs": ["--workers=4"]},
        "gateway": {
            "autoscaling": {"enabled": True},
            "service": {
                "type": "LoadBalancer",
                "annotations": {"example.com/internal": "true"},
                "loadBalancerClass": "example.com/fast",
                "externalTrafficPolicy": "Local",
            },
        },
    },
}


@pytest.fixture(scope="module")
def helm() -> Helm:
    return Helm(print)


@pytest.fixture(scope="module", autouse=True)
def namespaces(kubectl: Kubectl) -> Iterator[None]:
    install_crds(kubectl, PROMETHEUS_OPERATOR)
    for name in (NAMESPACE, SHOP, SEARCH, OTHER):
        kubectl("apply", "--server-side", "-f", "-", stdin=encoded(namespace(name)))
    yield
    for name in (NAMESPACE, SHOP, SEARCH, OTHER):
        kubectl("delete", "namespace", name, "--wait=false")


def encoded(*objects: Json) -> str:
    listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    return msgspec.json.encode(listed).decode()


def of(kind: str, objects: list[Json]) -> list[Json]:
    return [found for found in objects if found["kind"] == kind]


@pytest.mark.parametrize("name", MATRIX)
def test_a_real_api_server_takes_what_the_chart_makes(
    name: str, helm: Helm, kubectl: Kubectl
) -> None:
    objects = helm.render(NAMESPACE, MATRIX[name])
    names = [(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in objects]
    assert len(set(names)) == len(names)
    told = kubectl(
        *("apply", "--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts"),
        *("-f", "-"),
        stdin=encoded(*objects),
    )
    assert len(told.splitlines()) == len(objects)


@pytest.mark.parametrize("namespaces", [[], [SHOP, SEARCH]], ids=["all", "some"])
def test_secrets_of_models_are_read_by_name_and_only_if_some_are_named(
    namespaces: list[str], helm: Helm
) -> None:
    def rules(values: Json) -> list[Json]:
        roles = [
            role
            for kind in ("Role", "ClusterRole")
            for role in of(kind, helm.render(NAMESPACE, {"watchNamespaces": namespaces, **values}))
            if role["metadata"].get("namespace") != NAMESPACE
        ]
        return [r for role in roles for r in role["rules"] if "secrets" in r["resources"]]

    assert rules({}) == []
    assert rules({"prometheus": {"urls": ["http://p:9090"]}}) == []
    read = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
    named = rules({"prometheus": {"secretNames": ["a", "b"]}})
    assert named == [{**read, "resourceNames": ["a", "b"]}] * max(1, len(namespaces))


@pytest.mark.parametrize("name", MATRIX)
def test_its_pods_are_admitted_where_only_restricted_ones_are(
    name: str, helm: Helm, kubectl: Kubectl
) -> None:
    objects = helm.render(NAMESPACE, MATRIX[name])
    kubectl(
        *("apply", "--server-side", "-f", "-"),
        stdin=encoded(*of("ServiceAccount", objects)),
    )
    for deployment in of("Deployment", objects):
        template = copy.deepcopy(deployment["spec"]["template"])
        template["spec"].pop("priorityClassName", None)  # not in every namespace
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**template["metadata"], "name": "tried", "namespace": NAMESPACE},
            "spec": template["spec"],
        }
        kubectl("create", "--dry-run=server", "-f", "-", stdin=encoded(pod))
        assert deployment["spec"]["selector"]["matchLabels"].items() <= (
            template["metadata"]["labels"].items()
        )


def test_the_same_goes_for_the_pod_that_tests_it(helm: Helm, kubectl: Kubectl) -> None:
    (pod,) = helm.render_tests(NAMESPACE, {})
    kubectl("create", "--dry-run=server", "-f", "-", stdin=encoded(pod))


@pytest.mark.parametrize(
    "values",
    [
        {"operators": {}},
        {"operator": {"replica": 2}},
        {"operator": {"image": {"name": "x"}}},
        {"gateway": {"drain": {"seconds": 1}}},
        {"operator": {"replicas": "two"}},
        {"operator": {"scrapeInterval": "5 seconds"}},
        {"operator": {"eventSink": "events.example"}},
        {"gateway": {"image": {"digest": "latest"}}},
        {"gateway": {"service": {"type": "ExternalName"}}},
        {"watchNamespaces": ["Shop"]},
        {"watchNamespaces": "shop"},
        {"view": {"enabled": "yes"}},
        {"view": {"port": 8443}},
    ],
)
def test_values_that_make_no_sense_are_refused_by_name(helm: Helm, values: Json) -> None:
    with pytest.raises(HelmError, match="values don't meet the specifications"):
        helm.render(NAMESPACE, values)


def test_a_chart_above_may_give_it_global_values(helm: Helm) -> None:
    assert helm.render(NAMESPACE, {"global": {"any": "thing"}})


def test_images_come_from_the_mirror_by_digest_or_tag(helm: Helm) -> None:
    objects = helm.render(NAMESPACE, MATRIX["a-mirror-and-digests"])
    text = encoded(*of("Deployment", objects))
    images = set(re.findall(r'mirror\.example/all/kohort/[^"]+', text))
    assert images == {
        "mirror.example/all/kohort/operator@sha256:" + "0" * 64,
        "mirror.example/all/kohort/gateway:7",
        "mirror.example/all/kohort/server:0.1.0",
    }


def test_an_autoscaler_has_the_gateways_replicas_to_itself(helm: Helm) -> None:
    objects = helm.render(NAMESPACE, MATRIX["outside-clients"])
    deployments = {d["metadata"]["name"]: d for d in of("Deployment", objects)}
    assert "replicas" not in deployments["kohort-gateway"]["spec"]
    assert deployments["kohort-operator"]["spec"]["replicas"] == 2


def test_a_pod_that_drains_is_given_the_time(helm: Helm) -> None:
    objects = helm.render(NAMESPACE, {"gateway": {"drain": {"timeoutSeconds": 600}}})
    gateway = next(d for d in of("Deployment", objects) if "gateway" in d["metadata"]["name"])
    assert gateway["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 615


@pytest.mark.parametrize(
    ("values", "concerns"),
    [
        ({}, {"models"}),
        ({"modelNames": {"enabled": True}}, {"models", "names"}),
        ({"gatewayAPI": {"enabled": True}}, {"models", "gateway-api"}),
        ({"view": {"enabled": True}}, {"models", "view"}),
    ],
)
def test_flags_and_permissions_are_asked_for_together(
    helm: Helm, values: Json, concerns: set[str]
) -> None:
    own = {"fleet", "lease", "certificates"}
    objects = helm.render(NAMESPACE, {**values, "rbac": {"aggregate": False}})
    everywhere = {o["metadata"]["name"]: o["rules"] for o in of("ClusterRole", objects)}
    here = {o["metadata"]["name"]: o["rules"] for o in of("Role", objects)}
    assert everywhere == {f"kohort-operator-{c}": permissions.CONCERNS[c] for c in concerns}
    assert here == {f"kohort-operator-{c}": permissions.CONCERNS[c] for c in own}
    (operator,) = (d for d in of("Deployment", objects) if "operator" in d["metadata"]["name"])
    flags = {
        a.partition("=")[0] for a in operator["spec"]["template"]["spec"]["containers"][0]["args"]
    }
    assert ("--gateway-service" in flags) == ("names" in concerns)
    assert ("--gateway-api" in flags) == ("gateway-api" in concerns)
    assert ("--view-port" in flags) == ("view" in concerns)


def test_the_view_has_a_port_and_a_service_only_where_it_is_switched_on(helm: Helm) -> None:
    for enabled in (False, True):
        objects = helm.render(
            NAMESPACE,
            {"view": {"enabled": enabled, "from": PEERS}, "networkPolicy": {"enabled": True}},
        )
        text = encoded(*objects)
        assert ("https-view" in text) == enabled
        assert ("kohort-view" in [s["metadata"]["name"] for s in of("Service", objects)]) == enabled
        assert ("tokenreviews" in text) == enabled
        policy = next(
            p for p in of("NetworkPolicy", objects) if p["metadata"]["name"] == "kohort-operator"
        )
        rules = [r for r in policy["spec"]["ingress"] if r["ports"] == [{"port": "https-view"}]]
        assert [r["from"] for r in rules] == [PEERS] * enabled


@pytest.fixture(scope="module")
def limited(helm: Helm, kubectl: Kubectl) -> Iterator[None]:
    """Permissions of an operator of two namespaces; and a person who may edit one of them."""
    objects = helm.render(NAMESPACE, {"watchNamespaces": [SHOP, SEARCH]})
    kinds = ("ClusterRole", "Role", "RoleBinding", "ServiceAccount")
    access = [o for o in objects if o["kind"] in kinds]
    kubectl("apply", "--server-side", "-f", "-", stdin=encoded(*access))
    for role in ("view", "edit"):
        kubectl(
            "create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}", "-n", SHOP
        )
    yield
    for made in of("ClusterRole", objects):
        kubectl("delete", "clusterrole", made["metadata"]["name"])


def allowed(kubectl: Kubectl, who: str, where: str, verb: str, what: str) -> bool:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": who, "resourceAttributes": attributes(where, verb, what)},
    }
    text = msgspec.json.encode(review).decode()
    return kubectl("create", "-o", "jsonpath={.status.allowed}", "-f", "-", stdin=text) == "true"


def attributes(where: str, verb: str, what: str) -> Json:
    """``what``: RESOURCE[/SUBRESOURCE][.GROUP][:NAME]."""
    what, _, name = what.partition(":")
    resource, _, group = what.partition(".")
    resource, _, sub = resource.partition("/")
    return {
        "namespace": where,
        "verb": verb,
        "resource": resource,
        "subresource": sub,
        "group": group,
        "name": name,
    }


@pytest.mark.parametrize("where", [SHOP, SEARCH])
@pytest.mark.parametrize(
    ("verb", "what"),
    [
        ("watch", "modeldeployments.kohort.dev"),
        ("update", "modeldeployments/status.kohort.dev"),
        ("patch", "deployments.apps"),
        ("create", "controllerrevisions.apps"),
        ("list", "pods"),
        ("create", "events.events.k8s.io"),
    ],
)
def test_an_operator_may_do_its_work_where_it_watches(
    limited: None, kubectl: Kubectl, where: str, verb: str, what: str
) -> None:
    assert allowed(kubectl, OPERATOR, where, verb, what)
    assert not allowed(kubectl, OPERATOR, OTHER, verb, what)
    assert not allowed(kubectl, OPERATOR, "", verb, what), "in all namespaces"


@pytest.mark.parametrize(
    ("where", "verb", "what"),
    [
        (SHOP, "get", "secrets"),
        (SHOP, "list", "secrets"),
        (SHOP, "get", "configmaps"),
        (SHOP, "create", "pods"),
        (SHOP, "create", "pods/exec"),
        (SHOP, "delete", "pods"),
        (SHOP, "create", "services"),
        (SHOP, "update", "modeldeployments.kohort.dev"),
        (SHOP, "delete", "modeldeployments.kohort.dev"),
        (SHOP, "create", "rolebindings.rbac.authorization.k8s.io"),
        (SHOP, "impersonate", "serviceaccounts"),
        (SHOP, "create", "serviceaccounts/token"),
        (NAMESPACE, "list", "secrets"),
        (NAMESPACE, "get", "secrets:somebody-elses"),
        (NAMESPACE, "delete", "secrets:kohort-authority"),
        (NAMESPACE, "update", "leases.coordination.k8s.io:somebody-elses"),
        (NAMESPACE, "patch", "deployments.apps"),
        ("", "list", "namespaces"),
        ("", "list", "nodes"),
        ("", "get", "customresourcedefinitions.apiextensions.k8s.io"),
    ],
)
def test_an_operator_may_do_nothing_else(
    limited: None, kubectl: Kubectl, where: str, verb: str, what: str
) -> None:
    assert not allowed(kubectl, OPERATOR, where, verb, what)


def test_an_operators_own_secrets_are_its_own(limited: None, kubectl: Kubectl) -> None:
    for name in (permissions.AUTHORITY_SECRET, permissions.OPERATOR_SECRET):
        assert allowed(kubectl, OPERATOR, NAMESPACE, "update", f"secrets:{name}")


def test_gateways_may_do_nothing(limited: None, kubectl: Kubectl) -> None:
    gateway = f"system:serviceaccount:{NAMESPACE}:kohort-gateway"
    assert not allowed(kubectl, gateway, NAMESPACE, "get", f"secrets:{permissions.GATEWAY_SECRET}")
    assert not allowed(kubectl, gateway, NAMESPACE, "list", "pods")


def test_people_may_do_with_models_what_they_may_do_in_their_namespace(
    limited: None, kubectl: Kubectl
) -> None:
    models, scale = "modeldeployments.kohort.dev", "modeldeployments/scale.kohort.dev"
    assert allowed(kubectl, "edit", SHOP, "create", models)
    assert allowed(kubectl, "edit", SHOP, "patch", scale)
    assert allowed(kubectl, "view", SHOP, "watch", models)
    assert not allowed(kubectl, "view", SHOP, "create", models)
    assert not allowed(kubectl, "view", SHOP, "patch", scale)
    assert not allowed(kubectl, "edit", SHOP, "update", "modeldeployments/status.kohort.dev")
    assert not allowed(kubectl, "edit", SEARCH, "create", models)
