"""Install Kohort on a local cluster: operator and gateways as pods, with their own service accounts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kohort_local import manifests
from kohort_local.kubectl import Kubectl, KubectlError, program

READY_TIMEOUT = "90s"


def images() -> dict[str, dict[str, list[str]]]:
    """Which program of this environment each of Kohort's images stands for."""
    return {
        manifests.OPERATOR_IMAGE: {"entrypoint": [program("kohort-operator")]},
        manifests.GATEWAY_IMAGE: {"entrypoint": [program("kohort-gateway")]},
        manifests.SERVER_IMAGE: {"entrypoint": [program("kohort-server")]},
    }


@dataclass(frozen=True)
class Installation:
    """A Kohort that is ready: where clients and people reach it."""

    kubectl: Kubectl
    gateway_url: str

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
) -> Installation:
    """Apply everything and wait until it is ready.

    ``node_ports``: at least two free node ports. Raises KubectlError with what is not ready and why.
    """
    kubectl = Kubectl(kubeconfig)
    gateway_port, routes_port = node_ports[0], node_ports[1]
    wanted = manifests.installation(
        gateway_port=gateway_port,
        routes_port=routes_port,
        operators=operators,
        gateways=gateways,
        scrape_interval=scrape_interval,
    )
    kubectl.apply(*wanted[:2])  # what the others need to exist
    kubectl.apply(*wanted[2:])
    kubectl("wait", "--for=condition=Established", "crd", wanted[0]["metadata"]["name"])
    for deployment in (manifests.OPERATOR, manifests.GATEWAY):
        _await_rollout(kubectl, deployment)
    return Installation(kubectl, f"http://127.0.0.1:{gateway_port}")


def _await_rollout(kubectl: Kubectl, deployment: str) -> None:
    try:
        kubectl(
            "--namespace",
            manifests.NAMESPACE,
            "rollout",
            "status",
            f"deployment/{deployment}",
            f"--timeout={READY_TIMEOUT}",
            timeout=120,
        )
    except KubectlError as error:
        pods = kubectl("--namespace", manifests.NAMESPACE, "get", "pods", "--output=wide")
        logs = kubectl(
            "--namespace", manifests.NAMESPACE, "logs", f"deployment/{deployment}", "--tail=20"
        )
        raise KubectlError(f"{deployment} is not ready: {error}\n{pods}\n{logs}") from error
