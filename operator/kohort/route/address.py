"""Where clients find a model at a gateway: by path, or by host name."""

from __future__ import annotations

from kohort.contract import PROTOCOL_SEGMENT
from kohort.route.table import ModelKey

CLUSTER_DOMAIN = "cluster.local"


def path_prefix(key: ModelKey) -> str | None:
    """``/NAMESPACE/NAME``, or None for a namespace whose paths would be taken for calls by host."""
    return None if key.namespace == PROTOCOL_SEGMENT else f"/{key.namespace}/{key.name}"


def hosts(key: ModelKey) -> tuple[str, ...]:
    """Host names of a model, without port; none for a name with dots, which could be another's."""
    if "." in key.name:
        return ()
    host = f"{key.name}.{key.namespace}"
    return host, f"{host}.svc", f"{host}.svc.{CLUSTER_DOMAIN}"
