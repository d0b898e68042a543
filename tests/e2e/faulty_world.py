"""A whole Kohort whose operator reaches the API server through a proxy that breaks things."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec.yaml

from kohort.kube import from_kubeconfig
from kohort_local.cluster import Cluster
from kohort_local.install import NAMESPACE, OPERATOR, Installation, images, install
from tests.component.faulty_proxy import Faults, FaultyProxy

THROTTLED = Faults(calls_per_second=5)
SHORT_WATCHES = Faults(watch_seconds=1)
GONE = Faults(watch_seconds=1, watch_error=410)

DEPLOYMENT = f"deployment/{OPERATOR}"


@contextmanager
def faulty_world(directory: Path) -> Iterator[tuple[Cluster, Installation, FaultyProxy]]:
    """A cluster of its own, with one operator and one gateway."""
    with Cluster(directory / "cluster", images=images(), back_off_cap=1.0) as cluster:
        installation = install(cluster.kubeconfig, cluster.node_port_range, operators=1, gateways=1)
        with FaultyProxy(from_kubeconfig(cluster.kubeconfig)) as proxy:
            path = directory / "faulty.kubeconfig"
            _redirect(installation, proxy, path)
            yield cluster, installation, proxy


def _redirect(installation: Installation, proxy: FaultyProxy, path: Path) -> None:
    """Lets the operator reach the API server through the proxy, with its own account as before."""
    kubectl, namespace = installation.kubectl, NAMESPACE
    config = msgspec.yaml.decode(kubectl.kubeconfig.read_bytes())
    token = kubectl("create", "token", OPERATOR, "-n", namespace).strip()
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    config["clusters"][0]["cluster"] = {"server": proxy.url}
    path.write_bytes(msgspec.yaml.encode(config))
    argument = msgspec.json.encode(
        [
            {
                "op": "add",
                "path": "/spec/template/spec/containers/0/args/-",
                "value": f"--kubeconfig={path}",
            }
        ]
    ).decode()
    kubectl("patch", DEPLOYMENT, "-n", namespace, "--type=json", "-p", argument)
    kubectl("rollout", "status", DEPLOYMENT, "-n", namespace, "--timeout=60s")
