"""Install Kohort's chart on a local cluster: operator and gateways as pods, with their own accounts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec.yaml

from kohort_local.helm import Helm, Values
from kohort_local.kubectl import Kubectl, KubectlError, program

NAMESPACE = "kohort-system"
OPERATOR = "kohort-operator"
GATEWAY = "kohort-gateway"
SERVER_IMAGE = f"kohort/server:{version('kohort')}"
READY_TIMEOUT = "90s"
TOKEN_DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount"


def images() -> dict[str, dict[str, list[str]]]:
    """Which program of this environment each of Kohort's images stands for."""
    return {
        f"kohort/{name}:{version('kohort')}": {"entrypoint": [program(f"kohort-{name}")]}
        for name in ("operator", "gateway", "server")
    }


def namespace(name: str = NAMESPACE) -> dict[str, Any]:
    """The namespace to install in; it takes pods of the level "restricted" and no others."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }


def local_values(
    *, gateway_port: int, routes_port: int, operators: int, gateways: int, scrape_interval: str
) -> Values:
    """Values of the chart for a cluster without DNS, whose Services are node ports on 127.0.0.1."""
    return {
        "listenAddress": "$(POD_IP)",  # pods share one network
        "operator": {
            "replicas": operators,
            "scrapeInterval": scrape_interval,
            "service": {"type": "NodePort", "nodePort": routes_port},
            # Told, for the local node puts mounts where arguments say.
            "extraArgs": [f"--service-account-dir={TOKEN_DIRECTORY}"],
        },
        "gateway": {
            "replicas": gateways,
            "concurrency": 1,
            "operatorAddress": f"127.0.0.1:{routes_port}",
            "service": {"type": "NodePort", "nodePort": gateway_port},
            "resources": {"requests": {"cpu": "200m", "memory": "128Mi"}},
        },
        "test": {"gatewayURL": f"http://127.0.0.1:{gateway_port}"},
    }


@dataclass(frozen=True)
class Installation:
    """A Kohort that is ready: where clients and people reach it."""

    kubectl: Kubectl
    gateway_url: str
    helm: Helm
    values: Values

    def url(self, namespace: str, name: str) -> str:
        """Base URL of a model through the gateway."""
        return f"{self.gateway_url}/{namespace}/{name}"


def install(
    kubeconfig: Path,
    node_ports: range,
    *,
    operators: int = 2,
    gateways: int = 2,
    scrape_interval: str = "1s",
    say: Callable[[str], None] = lambda line: None,
) -> Installation:
    """Install the chart and wait until it is ready.

    ``node_ports``: at least two free node ports. ``say`` is told the progress, a line at a time.

    Raises:
        BuildError: Helm could not be built.
        HelmError: the chart could not be installed.
        KubectlError: with what is not ready and why.
    """
    kubectl, helm = Kubectl(kubeconfig), Helm(say, kubeconfig)
    values = local_values(
        gateway_port=node_ports[0],
        routes_port=node_ports[1],
        operators=operators,
        gateways=gateways,
        scrape_interval=scrape_interval,
    )
    kubectl.apply(namespace())
    helm.upgrade(NAMESPACE, values)
    await_ready(kubectl)
    return Installation(kubectl, f"http://127.0.0.1:{node_ports[0]}", helm, values)


def await_ready(kubectl: Kubectl) -> None:
    """Return when operators and gateways are ready, all of them as last installed.

    Raises:
        KubectlError: with what is not ready and why.
    """
    for deployment in (OPERATOR, GATEWAY):
        _await_rollout(kubectl, deployment)


def _await_rollout(kubectl: Kubectl, deployment: str) -> None:
    try:
        kubectl(
            "--namespace",
            NAMESPACE,
            "rollout",
            "status",
            f"deployment/{deployment}",
            f"--timeout={READY_TIMEOUT}",
            timeout=120,
        )
    except KubectlError as error:
        pods = kubectl("--namespace", NAMESPACE, "get", "pods", "--output=wide")
        logs = kubectl("--namespace", NAMESPACE, "logs", f"deployment/{deployment}", "--tail=20")
        raise KubectlError(f"{deployment} is not ready: {error}\n{pods}\n{logs}") from error


def register(subparsers: Any) -> None:
    """Add ``kohort-local manifests``."""
    parser = subparsers.add_parser(
        "manifests",
        help="print the chart as plain YAML, for kubectl apply --server-side",
        description="The chart as plain YAML, with its namespace.",
    )
    parser.add_argument("--namespace", default=NAMESPACE, help=f"(default: {NAMESPACE})")
    parser.add_argument("--values", type=Path, help="file of values; see charts/kohort/values.yaml")
    parser.set_defaults(run=_print_manifests)


def _print_manifests(given: argparse.Namespace) -> int:
    helm = Helm(lambda line: print(line, file=sys.stderr))
    values = msgspec.yaml.decode(given.values.read_bytes()) if given.values else {}
    objects = [namespace(given.namespace), *helm.render(given.namespace, values)]
    print("---\n".join(msgspec.yaml.encode(found).decode() for found in objects), end="")
    return 0
