"""Other projects' CRDs on the tests' cluster."""

from __future__ import annotations

from kohort_local.definitions import Definitions
from kohort_local.gateway_api import GATEWAY_API
from tests.conftest import Kubectl


def install_crds(kubectl: Kubectl, definitions: Definitions = GATEWAY_API) -> None:
    """The official CRDs, established."""
    for path in definitions.crds(print):
        kubectl("apply", "--server-side", "-f", str(path))
    kubectl("wait", "--for=condition=Established", *definitions.names())
