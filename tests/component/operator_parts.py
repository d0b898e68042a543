"""Operators as processes, with the very permissions that an installation gives them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import msgspec.yaml
import onnx
from onnx import TensorProto, helper

from kohort.act import permissions

Kubectl = Callable[..., str]
NAMESPACE = "kohort-system"
PATIENCE = 60.0
T = TypeVar("T")
# Short, so that a leader that is gone is soon replaced.
LEASE = ("--lease-duration=3s", "--lease-deadline=2s", "--lease-retry=500ms")
PATIENT_LEASE = ("--lease-duration=60s", "--lease-deadline=50s", "--lease-retry=500ms")


def free_port() -> int:
    """A port below the ephemeral range that nobody listens on."""
    while True:
        port = random.randint(10000, 30000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def eventually(look: Callable[[], T], what: str) -> T:
    """The first truthy value of ``look``."""
    until = time.monotonic() + PATIENCE
    value = look()
    while not value:
        if time.monotonic() > until:
            raise AssertionError(f"never happened: {what}; last seen: {value!r}")
        time.sleep(0.1)
        value = look()
    return value


def make_model(path: Path, factor: float = 2.0) -> Path:
    """An ONNX model that multiplies rows of four numbers."""
    shape = ["rows", 4]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "multiply",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [helper.make_tensor("factor", TensorProto.FLOAT, [1], [factor])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
    return path


def install(
    kubectl: Kubectl, crd: Path, admin: Path, target: Path, more: Sequence[permissions.Rule] = ()
) -> Path:
    """The CRD, the operator's service account and roles; returns a kubeconfig of that account.

    ``more``: rules for what it is asked to do by flags.
    """
    name = "kohort-operator"
    subject = {"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}
    rbac = "rbac.authorization.k8s.io"

    def role(kind: str, rules: object, **metadata: str) -> dict[str, Any]:
        return {
            "apiVersion": f"{rbac}/v1",
            "kind": kind,
            "metadata": {"name": name, **metadata},
            "rules": rules,
        }

    def binding(kind: str, **metadata: str) -> dict[str, Any]:
        return {
            "apiVersion": f"{rbac}/v1",
            "kind": f"{kind}Binding",
            "metadata": {"name": name, **metadata},
            "roleRef": {"apiGroup": rbac, "kind": kind, "name": name},
            "subjects": [subject],
        }

    items = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": name, "namespace": NAMESPACE},
        },
        role("ClusterRole", [*permissions.CLUSTER_RULES, *more]),
        binding("ClusterRole"),
        role("Role", permissions.NAMESPACE_RULES, namespace=NAMESPACE),
        binding("Role", namespace=NAMESPACE),
    ]
    kubectl("apply", "--server-side", "-f", str(crd))
    for item in items:
        kubectl("apply", "--server-side", "-f", "-", stdin=msgspec.json.encode(item).decode())
    config = msgspec.yaml.decode(admin.read_bytes())
    token = kubectl("create", "token", name, "-n", NAMESPACE).strip()
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    target.write_bytes(msgspec.yaml.encode(config))
    return target


class OperatorProcess:
    """One operator; its output goes to ``log``."""

    def __init__(
        self, kubeconfig: Path, identity: str, log: Path, flags: Sequence[str] = LEASE
    ) -> None:
        self.identity = identity
        self.log = log
        self.status_port = free_port()
        program = Path(sys.executable).with_name("kohort-operator")
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    str(program),
                    "run",
                    f"--namespace={NAMESPACE}",
                    f"--identity={identity}",
                    f"--kubeconfig={kubeconfig}",
                    "--server-image=kohort/server",
                    "--listen-address=127.0.0.1",
                    f"--routes-port={free_port()}",
                    f"--status-port={self.status_port}",
                    *flags,
                ],
                stdout=output,
                stderr=output,
            )

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of an answer of the status server; 0 while there is none."""
        return asyncio.run(_get(self.status_port, path))

    def leads(self) -> bool:
        """Whether this operator decides."""
        return bool(re.search(r"^kohort_operator_leader 1", self.get("/metrics")[1], re.MULTILINE))

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends the process; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(20)


async def _get(port: int, path: str) -> tuple[int, str]:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return 0, ""
    writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]) if head else 0, body


@contextlib.contextmanager
def operator(
    kubeconfig: Path, identity: str, log: Path, flags: Sequence[str] = LEASE
) -> Iterator[OperatorProcess]:
    """An operator that is ready, and ended afterwards."""
    running = OperatorProcess(kubeconfig, identity, log, flags)
    try:
        eventually(lambda: running.get("/readyz")[0] == 200, f"{identity} ready; see {log}")
        yield running
    finally:
        running.end(signal.SIGKILL)
