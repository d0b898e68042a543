"""The Gateway API on the tests' cluster."""

from __future__ import annotations

from kohort_local.gateway_api import GROUP, KINDS, crds
from tests.conftest import Kubectl


def install_crds(kubectl: Kubectl) -> None:
    """The official CRDs, established."""
    for path in crds(print):
        kubectl("apply", "--server-side", "-f", str(path))
    names = [f"crd/{kind}.{GROUP}" for kind in KINDS]
    kubectl("wait", "--for=condition=Established", *names)
