"""Helm, built from its Go module, and the chart of this checkout."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from kohort_local.program import run
from kohort_local.tools import Tools

VERSION = "4.2.4"
HELM = Tools(
    module=Path(__file__).parent,
    packages={"helm": "helm.sh/helm/v4/cmd/helm"},
    flags=(
        "-trimpath",
        "-ldflags",
        f"-s -w -X helm.sh/helm/v4/internal/version.version=v{VERSION}",
    ),
    takes="takes about 2 minutes",
)
CHART = Path(__file__).parents[3] / "charts" / "kohort"
RELEASE = "kohort"
HOOK = "helm.sh/hook"

Values = Mapping[str, Any]


class HelmError(Exception):
    """Helm said no; the message is what it printed."""


class Helm:
    """Runs Helm with the chart of this checkout; calls raise HelmError in Helm's own words."""

    def __init__(self, say: Callable[[str], None], kubeconfig: Path | None = None) -> None:
        """Builds Helm if that has not been done yet; without a cluster it can only render.

        Raises:
            BuildError: Helm could not be built.
        """
        self._program = HELM.ensure(say) / "helm"
        self._kubeconfig = kubeconfig

    def __call__(self, *arguments: str, stdin: str | None = None, timeout: float = 180) -> str:
        """Standard output of ``helm ARGUMENTS``."""
        cluster = {"KUBECONFIG": str(self._kubeconfig)} if self._kubeconfig else {}
        command, environment = [str(self._program), *arguments], {**os.environ, **cluster}
        return run(command, environment, HelmError, stdin=stdin, timeout=timeout)

    def upgrade(self, namespace: str, values: Values, *options: str) -> str:
        """Installs the chart, or upgrades what is installed; what Helm prints."""
        return self(
            *("upgrade", "--install", RELEASE, str(CHART), f"--namespace={namespace}"),
            *("--values=-", *options),
            stdin=json.dumps(values),
        )

    def render(self, namespace: str, values: Values, *options: str) -> list[dict[str, Any]]:
        """What the chart consists of with these values, tests apart, as objects."""
        return self._template(namespace, values, "--skip-tests", *options)

    def render_tests(self, namespace: str, values: Values) -> list[dict[str, Any]]:
        """What `helm test` runs, as objects."""
        found = self._template(namespace, values)
        return [one for one in found if HOOK in one["metadata"].get("annotations", {})]

    def _template(self, namespace: str, values: Values, *options: str) -> list[dict[str, Any]]:
        text = self(
            *("template", RELEASE, str(CHART), f"--namespace={namespace}"),
            *("--values=-", *options),
            stdin=json.dumps(values),
        )
        return [found for found in yaml.load_all(text, yaml.CSafeLoader) if found]
