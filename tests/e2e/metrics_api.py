"""The figures that an autoscaler acts on, as test tells them: metrics APIs behind the real API server.

Simulated are the figures alone. They reach the real HorizontalPodAutoscaler controller by the way that a
metrics server's or KEDA's do: an APIService, and the API server as its proxy.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from kohort_local.cluster import Cluster
from kohort_local.kubectl import Kubectl

RESOURCE, EXTERNAL = "metrics.k8s.io", "external.metrics.k8s.io"
VERSION = "v1beta1"


@dataclass
class Load:
    """What all pods of a model have to do together; each ready one does an equal part of it.

    ``queue``: of an external metric, in units. ``cpu``: of the pods' own, in thousandths of a core.
    ``asked``: how often an autoscaler has looked.
    """

    queue: int = 0
    cpu: int = 0
    asked: int = field(default=0, init=False)


class _Handler(BaseHTTPRequestHandler):
    cluster: Cluster
    load: Load

    def do_GET(self) -> None:
        path = urlsplit(self.path)
        match path.path.strip("/").split("/"):
            case ["apis", group, _]:
                body = self._resources(group)
            case ["apis", group, _, "namespaces", namespace, "pods"] if group == RESOURCE:
                body = self._pods(namespace, parse_qs(path.query)["labelSelector"][0])
            case ["apis", group, _, "namespaces", _, metric] if group == EXTERNAL:
                body = self._external(metric)
            case _:
                self.send_error(404)
                return
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _resources(self, group: str) -> dict[str, Any]:
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{group}/{VERSION}",
            "resources": [],
        }

    def _external(self, metric: str) -> dict[str, Any]:
        self.load.asked += 1
        value = {
            "metricName": metric,
            "metricLabels": {},
            "timestamp": _now(),
            "value": str(self.load.queue),
        }
        return _list(EXTERNAL, "ExternalMetricValueList", [value])

    def _pods(self, namespace: str, selector: str) -> dict[str, Any]:
        self.load.asked += 1
        path = f"/api/v1/namespaces/{namespace}/pods?labelSelector={quote(selector)}"
        found = (self.cluster.admin.get(path) or {"items": []})["items"]
        ready = [p["metadata"] for p in found if _ready(p)]
        return _list(
            RESOURCE,
            "PodMetricsList",
            [
                {
                    "metadata": {"name": pod["name"], "namespace": namespace},
                    "timestamp": _now(),
                    "window": "1s",
                    "containers": [
                        {"name": "server", "usage": {"cpu": f"{self.load.cpu // len(ready)}m"}}
                    ],
                }
                for pod in ready
            ],
        )

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _ready(pod: dict[str, Any]) -> bool:
    conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _list(group: str, kind: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"kind": kind, "apiVersion": f"{group}/{VERSION}", "metadata": {}, "items": items}


@contextmanager
def metrics_api(cluster: Cluster, kubectl: Kubectl) -> Iterator[Load]:
    """Both metrics APIs with a load that may be changed at any time."""
    load = Load()
    handler = type("Handler", (_Handler,), {"cluster": cluster, "load": load})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pki = cluster.state_dir / "pki"
    context.load_cert_chain(pki / "kube-apiserver.crt", pki / "kube-apiserver.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "metrics", "namespace": "default"},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    }
    registrations = [
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": f"{VERSION}.{group}"},
            "spec": {
                "group": group,
                "version": VERSION,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "insecureSkipTLSVerify": True,
                "service": {
                    "name": "metrics",
                    "namespace": "default",
                    "port": server.server_address[1],
                },
            },
        }
        for group in (RESOURCE, EXTERNAL)
    ]
    try:
        kubectl.apply(service, *registrations)
        for registration in registrations:
            name = registration["metadata"]["name"]  # type: ignore[index]
            kubectl("wait", "--for=condition=Available", "apiservice", name, "--timeout=60s")
        yield load
    finally:
        for registration in registrations:
            name = registration["metadata"]["name"]  # type: ignore[index]
            kubectl("delete", "apiservice", name, "--ignore-not-found")
        server.shutdown()
        server.server_close()
        thread.join()
