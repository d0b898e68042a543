"""The Gateway API: the standard channel."""

from __future__ import annotations

from pathlib import Path

from kohort_local.definitions import Definitions

GATEWAY_API = Definitions(
    directory=Path(__file__).parent,
    module="sigs.k8s.io/gateway-api",
    folder="config/crd/standard",
    group="gateway.networking.k8s.io",
    kinds=("gatewayclasses", "gateways", "httproutes", "grpcroutes", "referencegrants"),
)
