"""kubectl, as people use it: the binary that this environment ships."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from kohort_local.program import run


class KubectlError(Exception):
    """kubectl said no; the message is what it printed."""


def program(name: str) -> str:
    """Path of a program of this Python environment, else of PATH; raises FileNotFoundError."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise FileNotFoundError(f"{name} is not installed: run `make demo` or `make test` once")
    return found


class Kubectl:
    """Runs kubectl against one cluster.

    Calls raise KubectlError with kubectl's own words when it fails.
    """

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    def __call__(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> str:
        """Standard output of ``kubectl ARGUMENTS``."""
        command = [program("kubectl"), *arguments]
        return run(command, self.environment, KubectlError, stdin=stdin, timeout=timeout)

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which kubectl and its plugins find this cluster."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": path}

    def apply(self, *manifests: dict[str, Any]) -> str:
        """Server-side apply, strictly: an unknown field is an error."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        return self(
            "apply",
            "--server-side",
            "--force-conflicts",
            "--validate=strict",
            "--filename=-",
            stdin=json.dumps(listed),
        )

    def get(self, *arguments: str) -> Any:
        """The object or list that ``kubectl get ARGUMENTS`` names."""
        return json.loads(self("get", *arguments, "--output=json"))
