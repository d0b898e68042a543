"""The parts of a local cluster and the command that starts each of them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from kohort_local import audit
from kohort_local.claim import Network
from kohort_local.pki import node_name

LOOPBACK = "127.0.0.1"
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


@dataclass(frozen=True)
class Layout:
    """Everything that the commands of a cluster's parts depend on."""

    state_dir: Path
    binaries: Path
    network: Network
    nodes: int
    back_off_cap: float  # seconds

    @property
    def pki(self) -> Path:
        return self.state_dir / "pki"

    @property
    def images(self) -> Path:
        return self.state_dir / "images.json"

    @property
    def server(self) -> str:
        """The API server's address."""
        return f"https://{LOOPBACK}:{self.network.api_server}"

    def node_dir(self, name: str) -> Path:
        """Where a node keeps its pods."""
        return self.state_dir / "nodes" / name

    def names(self) -> list[str]:
        """Every part, in the order in which they start. A node's part is called as the node is."""
        return [*CONTROL_PLANE, *(node_name(i) for i in range(self.nodes)), "proxy"]

    def command(self, part: str) -> list[str]:
        """The command that starts a part.

        Raises:
            KeyError: there is no such part.
        """
        commands = {
            "etcd": self._etcd,
            "kube-apiserver": self._api_server,
            "kube-controller-manager": self._controller_manager,
            "kube-scheduler": self._scheduler,
            "proxy": self._proxy,
        }
        for index in range(self.nodes):
            if part == node_name(index):
                return self._node(index)
        return commands[part]()

    def _etcd(self) -> list[str]:
        clients = f"http://{LOOPBACK}:{self.network.etcd_clients}"
        peers = f"http://{LOOPBACK}:{self.network.etcd_peers}"
        return [
            str(self.binaries / "etcd"),
            f"--data-dir={self.state_dir / 'etcd'}",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",  # what a power cut takes is made again by the next `up`
            "--log-level=warn",
        ]

    def _api_server(self) -> list[str]:
        pki, ports = self.pki, self.network.node_ports
        return [
            str(self.binaries / "kube-apiserver"),
            f"--etcd-servers=http://{LOOPBACK}:{self.network.etcd_clients}",
            f"--bind-address={LOOPBACK}",
            f"--advertise-address={LOOPBACK}",
            f"--secure-port={self.network.api_server}",
            "--endpoint-reconciler-type=none",  # an EndpointSlice refuses a loopback address
            f"--tls-cert-file={pki / 'kube-apiserver.crt'}",
            f"--tls-private-key-file={pki / 'kube-apiserver.key'}",
            f"--client-ca-file={pki / 'ca.crt'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
            f"--service-account-key-file={pki / 'service-accounts.pub'}",
            "--service-cluster-ip-range=10.96.0.0/16",
            f"--service-node-port-range={ports.start}-{ports.stop - 1}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--kubelet-client-certificate={pki / 'kubelet-client.crt'}",
            f"--kubelet-client-key={pki / 'kubelet-client.key'}",
            f"--kubelet-certificate-authority={pki / 'ca.crt'}",
            "--kubelet-preferred-address-types=InternalIP",
            "--profiling=false",
            *audit.flags(self.state_dir),
        ]

    def _client_of(self, name: str) -> list[str]:
        config = self.pki / f"{name}.kubeconfig"
        options = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
        return [f"--bind-address={LOOPBACK}", *(f"--{option}={config}" for option in options)]

    def _controller_manager(self) -> list[str]:
        pki = self.pki
        return [
            str(self.binaries / "kube-controller-manager"),
            *self._client_of("kube-controller-manager"),
            f"--secure-port={self.network.controller_manager}",
            "--leader-elect=false",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={pki / 'service-accounts.key'}",
            f"--root-ca-file={pki / 'ca.crt'}",
            f"--cluster-signing-cert-file={pki / 'ca.crt'}",
            f"--cluster-signing-key-file={pki / 'ca.key'}",
            # Nothing here provides volumes, and an endpoint refuses a loopback address.
            "--controllers=*,-persistentvolume-attach-detach-controller,"
            "-persistentvolume-binder-controller,-persistentvolume-expander-controller,"
            "-endpoints-controller,-endpointslice-controller,-endpointslice-mirroring-controller",
            "--horizontal-pod-autoscaler-sync-period=2s",  # nobody waits 15 s for a laptop
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        ]

    def _scheduler(self) -> list[str]:
        return [
            str(self.binaries / "kube-scheduler"),
            *self._client_of("kube-scheduler"),
            f"--secure-port={self.network.scheduler}",
            "--leader-elect=false",
        ]

    def _node(self, index: int) -> list[str]:
        name = node_name(index)
        return [
            *(sys.executable, "-m", "kohort_local.node"),
            f"--server={self.server}",
            f"--pki={self.pki}",
            f"--name={name}",
            f"--root={self.node_dir(name)}",
            f"--address={LOOPBACK}",
            f"--port={self.network.kubelet(index)}",
            f"--pod-prefix={self.network.pod_prefix(index)}",
            f"--images={self.images}",
            f"--back-off-cap={self.back_off_cap}",
        ]

    def _proxy(self) -> list[str]:
        return [
            *(sys.executable, "-m", "kohort_local.proxy"),
            f"--server={self.server}",
            f"--pki={self.pki}",
            f"--address={LOOPBACK}",
        ]
