"""What an installation of Kohort consists of, as Kubernetes objects."""

from __future__ import annotations

from typing import Any

from kohort import contract
from kohort.act.permissions import CLUSTER_RULES, GATEWAY_SECRET, NAMESPACE_RULES
from kohort.api.crd import definition

NAMESPACE = "kohort-system"
OPERATOR = "kohort-operator"
GATEWAY = "kohort-gateway"
OPERATOR_IMAGE = "kohort/operator"
GATEWAY_IMAGE = "kohort/gateway"
SERVER_IMAGE = "kohort/server"

Manifest = dict[str, Any]

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
POD_IDENTITY = [
    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
]
TOKEN_DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount"
TLS_DIRECTORY = "/etc/kohort/tls"


def installation(
    *, gateway_port: int, routes_port: int, operators: int, gateways: int, scrape_interval: str
) -> list[Manifest]:
    """Everything that `kubectl apply` needs, in order; ports are node ports on 127.0.0.1."""
    return [
        definition(),
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": NAMESPACE,
                "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
            },
        },
        *_access(),
        *_operator(operators, routes_port, scrape_interval),
        *_gateway(gateways, gateway_port, routes_port),
    ]


def _labels(name: str, component: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/part-of": "kohort",
        contract.LABEL_COMPONENT: component,
    }


def _access() -> list[Manifest]:
    """Service accounts, and for the operator's what it must be allowed to do."""
    subject = {"kind": "ServiceAccount", "name": OPERATOR, "namespace": NAMESPACE}
    role_api = "rbac.authorization.k8s.io/v1"
    return [
        *(
            {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "automountServiceAccountToken": name == OPERATOR,
            }
            for name in (OPERATOR, GATEWAY)
        ),
        {
            "apiVersion": role_api,
            "kind": "ClusterRole",
            "metadata": {"name": OPERATOR},
            "rules": CLUSTER_RULES,
        },
        {
            "apiVersion": role_api,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": OPERATOR},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": OPERATOR,
            },
            "subjects": [subject],
        },
        {
            "apiVersion": role_api,
            "kind": "Role",
            "metadata": {"name": OPERATOR, "namespace": NAMESPACE},
            "rules": NAMESPACE_RULES,
        },
        {
            "apiVersion": role_api,
            "kind": "RoleBinding",
            "metadata": {"name": OPERATOR, "namespace": NAMESPACE},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": OPERATOR},
            "subjects": [subject],
        },
    ]


def _deployment(name: str, component: str, replicas: int, pod: Manifest) -> Manifest:
    labels = _labels(name, component)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app.kubernetes.io/name": name}},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"serviceAccountName": name, **pod},
            },
        },
    }


def _service(name: str, component: str, port: int, target: str, node_port: int) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": _labels(name, component)},
        "spec": {
            "type": "NodePort",
            "selector": {"app.kubernetes.io/name": name},
            "ports": [{"name": target, "port": port, "targetPort": target, "nodePort": node_port}],
        },
    }


def _operator(replicas: int, routes_port: int, scrape_interval: str) -> list[Manifest]:
    container = {
        "name": "operator",
        "image": OPERATOR_IMAGE,
        "args": [
            "run",
            "--namespace=" + NAMESPACE,
            "--identity=$(POD_NAME)",
            "--listen-address=$(POD_IP)",
            "--service-account-dir=" + TOKEN_DIRECTORY,
            "--server-image=" + SERVER_IMAGE,
            "--scrape-interval=" + scrape_interval,
        ],
        "env": POD_IDENTITY,
        "ports": [
            {"name": "routes", "containerPort": contract.PORT_OPERATOR_ROUTES},
            {"name": "http-status", "containerPort": contract.PORT_OPERATOR_STATUS},
        ],
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "http-status"},
            "periodSeconds": 2,
        },
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "http-status"},
            "periodSeconds": 10,
            "failureThreshold": 6,
        },
        "resources": {"requests": {"cpu": "100m", "memory": "96Mi"}},
        "securityContext": RESTRICTED,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return [
        _deployment(OPERATOR, "operator", replicas, {"containers": [container]}),
        _service(OPERATOR, "operator", contract.PORT_OPERATOR_ROUTES, "routes", routes_port),
    ]


def _gateway(replicas: int, gateway_port: int, routes_port: int) -> list[Manifest]:
    container = {
        "name": "gateway",
        "image": GATEWAY_IMAGE,
        "args": [
            f"--operator=127.0.0.1:{routes_port}",
            "--tls-dir=" + TLS_DIRECTORY,
            "--listen-address=$(POD_IP)",
            "--node-id=$(POD_NAME)",
            "--concurrency=1",
        ],
        "env": POD_IDENTITY,
        "ports": [
            {"name": "http", "containerPort": contract.PORT_GATEWAY},
            {"name": "http-status", "containerPort": contract.PORT_GATEWAY_STATUS},
        ],
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": "http-status"},
            "periodSeconds": 2,
        },
        "volumeMounts": [
            {"name": "tls", "mountPath": TLS_DIRECTORY, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
        "resources": {"requests": {"cpu": "200m", "memory": "128Mi"}},
        "securityContext": RESTRICTED,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    pod = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 40,
        "containers": [container],
        "volumes": [
            {"name": "tls", "secret": {"secretName": GATEWAY_SECRET}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    return [
        _deployment(GATEWAY, "gateway", replicas, pod),
        _service(GATEWAY, "gateway", contract.PORT_GATEWAY, "http", gateway_port),
    ]
