"""What Kohort makes so that clients find a model: Services and routes, as plain values."""

from __future__ import annotations

from kohort.act.manifests import Owner, labels, metadata, selector
from kohort.act.merge import Json
from kohort.contract import LABEL_MANAGED_BY, LABEL_MODEL, MANAGED_BY
from kohort.route.gateway_api.routes import API_VERSION, PORT_GRPC, PORT_HTTP, Rendered


def name_service(owner: Owner, gateway: str) -> Json:
    """The Service that makes ``http://NAME.NAMESPACE`` lead to a gateway.

    ``gateway``: DNS name of the gateway's own Service.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(owner, owner.name, _labels(owner)),
        "spec": {"type": "ExternalName", "externalName": gateway},
    }


def revision_service(owner: Owner, revision: str) -> Json:
    """The Service of a revision's ready pods, for routes to point at."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(owner, revision, labels(owner, revision)),
        "spec": {
            "type": "ClusterIP",
            "selector": selector(owner, revision),
            "ports": [
                _port("http", PORT_HTTP, "http"),
                _port("grpc", PORT_GRPC, "kubernetes.io/h2c"),
            ],
        },
    }


def route(owner: Owner, rendered: Rendered) -> Json:
    """An HTTPRoute or GRPCRoute of a model."""
    return {
        "apiVersion": API_VERSION,
        "kind": rendered.kind.kind,
        "metadata": metadata(owner, owner.name, _labels(owner)),
        "spec": rendered.spec,
    }


def _labels(owner: Owner) -> dict[str, str]:
    return {LABEL_MODEL: owner.name, LABEL_MANAGED_BY: MANAGED_BY}


def _port(name: str, port: int, protocol: str) -> Json:
    """A port that leads to the pods' one port, and what gateways are to speak there."""
    return {
        "name": name,
        "port": port,
        "protocol": "TCP",
        "targetPort": "http",
        "appProtocol": protocol,
    }
