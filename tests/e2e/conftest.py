"""A whole Kohort on a real control plane, shared by the end-to-end tests of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kohort_local.cluster import Cluster
from kohort_local.install import Installation, images, install
from kohort_local.models import Digits, train
from tests.e2e.world import Model
from tests.recorded_calls import AUDITED, record


@pytest.fixture(scope="session")
def e2e_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane of its own, so that these tests may stop parts of it."""
    directory = tmp_path_factory.mktemp("e2e")
    with Cluster(directory, images=images(), back_off_cap=1.0, audited=AUDITED) as cluster:
        yield cluster
        record(cluster)


@pytest.fixture(scope="session")
def installation(e2e_cluster: Cluster) -> Installation:
    """Two operators and two gateways, ready."""
    return install(e2e_cluster.kubeconfig, e2e_cluster.node_port_range)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], Digits]:
    """Models v1, v2, v3 of the demo; v3 takes one image at a time."""
    return train(tmp_path_factory.mktemp("models"))


@pytest.fixture
def model(
    request: pytest.FixtureRequest,
    installation: Installation,
    trained: tuple[dict[str, Path], Digits],
) -> Iterator[Model]:
    """A ModelDeployment's name that no other test uses; deleted at the end."""
    name = "m" + "".join(c for c in request.node.name if c.isalnum()).lower()[-30:]
    paths, digits = trained
    made = Model(installation.kubectl, installation.gateway_url, name, paths, digits)
    yield made
    made.kubectl("delete", "mdep", name, "-n", made.namespace, "--ignore-not-found")
