"""Node ports lead to ready pods, and a connection outlives the readiness of its pod."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kohort_local.cluster import Cluster

Kubectl = Callable[..., str]
# Says the name of its pod to whoever connects, then echoes; ends when it is told to.
ECHO = """
import os, signal, socket, sys, threading
def serve(connection):
    connection.sendall(os.environ["HOSTNAME"].encode() + b"\\n")
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.close()
listener = socket.create_server((os.environ["IP"], 8080))
while True:
    threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()
"""


def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """What a condition says once it is true; fails when it never is."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition was never met"
        time.sleep(0.05)
    return value


@pytest.fixture(name="port", scope="module")
def echo_service(cluster: Cluster, kubectl: Kubectl) -> Iterator[int]:
    """Two pods that echo behind a node port."""
    port = cluster.node_port_range.start + 7
    container = {
        "name": "echo",
        "image": "python",
        "args": ["-c", ECHO],
        "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "ports": [{"name": "echo", "containerPort": 8080}],
        "readinessProbe": {"tcpSocket": {"port": "echo"}},
        # What comes in while its clients finish.
        "lifecycle": {"preStop": {"sleep": {"seconds": 60}}},
    }
    labels = {"app": "echo"}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "echo"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 90},
            },
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "echo"},
        "spec": {
            "type": "NodePort",
            "selector": labels,
            "ports": [{"port": 80, "targetPort": "echo", "nodePort": port}],
        },
    }
    for manifest in (deployment, service):
        kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    kubectl("wait", "--for=condition=Available", "deployment/echo", "--timeout=30s")
    until(lambda: greeted(port))
    yield port
    kubectl("delete", "deployment/echo", "service/echo", "--wait=false")
    kubectl("delete", "pods", "-l", "app=echo", "--force", "--grace-period=0")


def connect(port: int) -> tuple[socket.socket, str]:
    """A connection through the node port, and the name of the pod that it leads to."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    return connection, connection.makefile().readline().strip()


def greeted(port: int) -> str:
    """The pod that a new connection leads to; empty if there is none."""
    try:
        connection, name = connect(port)
    except OSError:
        return ""
    connection.close()
    return name


def cuts_off(port: int) -> bool:
    """Whether a connection is accepted and then closed without an answer."""
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    except ConnectionRefusedError:
        return False
    with connection:
        try:
            return connection.recv(1) == b""
        except ConnectionResetError:
            return True


def test_new_connections_are_spread_over_the_ready_pods(port: int) -> None:
    assert len({greeted(port) for _ in range(40)}) == 2


def test_what_a_client_sends_at_once_and_its_end_arrive(port: int) -> None:
    for size in (1, 3_000_000):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            reader = connection.makefile("rb")
            reader.readline()
            sent = b"x" * size
            connection.sendall(b"y")
            assert reader.read(1) == b"y"
            send_and_end(connection, sent, reader)


def send_and_end(connection: socket.socket, sent: bytes, reader: Any) -> None:
    """Send everything, say that it is all, and read it back to its end."""

    def send() -> None:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)

    sending = threading.Thread(target=send)
    sending.start()
    assert reader.read() == sent
    sending.join()


def test_a_connection_goes_on_while_its_pod_ends_and_new_ones_go_elsewhere(
    port: int, kubectl: Kubectl
) -> None:
    connection, name = connect(port)
    kubectl("delete", "pod", name, "--wait=false")
    until(lambda: name not in {greeted(port) for _ in range(20)})
    connection.sendall(b"still here\n")
    assert connection.recv(100) == b"still here\n"
    connection.close()


def test_a_port_without_a_ready_pod_cuts_connections_off(
    cluster: Cluster, kubectl: Kubectl
) -> None:
    port = cluster.node_port_range.start + 8
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "nobody"},
        "spec": {
            "type": "NodePort",
            "selector": {"app": "nobody"},
            "ports": [{"port": 80, "nodePort": port}],
        },
    }
    kubectl("apply", "-f", "-", stdin=json.dumps(service))
    until(lambda: cuts_off(port))
    kubectl("delete", "service", "nobody")
