"""``kubectl kohort VERB`` against a real API server and a real operator."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kohort_local.cluster import Cluster
from tests.component.operator_parts import (
    OperatorProcess,
    eventually,
    install,
    make_model,
    operator,
)

CRD = Path(__file__).parents[2] / "crds" / "kohort.dev_modeldeployments.yaml"
Kubectl = Callable[..., str]
NAME = "told"


@pytest.fixture(scope="module", autouse=True)
def running(
    cluster: Cluster, kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """An operator with the permissions of an installation."""
    directory = tmp_path_factory.mktemp("commands")
    server = shutil.which("kohort-server", path=str(Path(sys.executable).parent))
    cluster.add_images({"kohort/server": {"entrypoint": [str(server)]}})
    account = install(kubectl, CRD, cluster.kubeconfig, directory / "operator.kubeconfig")
    with operator(account, "commands", directory / "operator.log") as process:
        yield process


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """URIs of two models."""
    directory = tmp_path_factory.mktemp("models")
    return [make_model(directory / f"{factor}.onnx", factor).as_uri() for factor in (2.0, 3.0)]


def apply(kubectl: Kubectl, uri: str) -> None:
    body = {
        "apiVersion": "kohort.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": NAME, "namespace": "default"},
        "spec": {"model": {"uri": uri}},
    }
    kubectl("apply", "-f", "-", stdin=msgspec.json.encode(body).decode())


def cohort(kubectl: Kubectl) -> dict[str, Any]:
    """The state of the only cohort; empty while there is none."""
    status = json.loads(kubectl("get", "mdep", NAME, "-o", "json"))["status"]
    return dict(status.get("cohorts", [{}])[0])


@pytest.fixture
def rolling(kubectl: Kubectl, versions: list[str]) -> Iterator[str]:
    """A model whose second version is about to be tried; no gateway is there to send it clients."""
    apply(kubectl, versions[0])
    eventually(lambda: cohort(kubectl).get("stable"), "the first version serves")
    apply(kubectl, versions[1])
    eventually(lambda: cohort(kubectl).get("canary"), "the second version is tried")
    yield NAME
    kubectl("delete", "mdep", NAME, "--wait")
    eventually(lambda: NAME not in kubectl("get", "pods", "-o", "name"), "its pods are gone")


def kohort(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What the plugin answers."""
    return subprocess.run(
        [sys.executable, "-m", "kohort.cli.main", "-n", "default", *arguments],
        env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )


def done(cluster: Cluster, *arguments: str) -> str:
    """What the plugin says to a command that is carried out."""
    answer = kohort(cluster, *arguments)
    assert (answer.returncode, answer.stderr) == (0, "")
    return answer.stdout


def refused(cluster: Cluster, *arguments: str) -> str:
    """What the plugin says to a command that is not."""
    answer = kohort(cluster, *arguments)
    assert (answer.returncode, answer.stdout) == (1, "")
    return answer.stderr


def test_a_person_takes_a_rollout_in_hand_and_it_stands_in_its_history(
    cluster: Cluster, kubectl: Kubectl, rolling: str
) -> None:
    me = json.loads(kubectl("auth", "whoami", "-o", "json"))["status"]["userInfo"]["username"]
    told = done(cluster, "pause", rolling, "everyone", "--why", "it's too early")
    assert told.startswith(f"everyone is held (asked for by {me}).\n  everyone: Preparing v1 -> v2")
    assert cohort(kubectl)["held"] is True
    assert "  held" in done(cluster, "get", rolling)
    assert "Held by hand since" in done(cluster, "why", rolling)

    assert "it is held already" in refused(cluster, "pause", rolling, "everyone")
    done(cluster, "resume", rolling, "everyone")
    done(cluster, "promote", rolling, "--full")
    assert cohort(kubectl)["urged"] == "All"
    done(cluster, "abort", rolling, "--why", "wrong labels")
    assert cohort(kubectl)["phase"] == "RolledBack"
    assert "v2 rejected" in done(cluster, "get", rolling)
    done(cluster, "retry", rolling)
    assert not cohort(kubectl).get("rejected")
    done(cluster, "undo", rolling, "--to", "v1")
    done(cluster, "restart", rolling)

    history = json.loads(done(cluster, "history", rolling, "-o", "json"))
    by_me = [(d["action"], d["why"]) for d in history["decisions"] if d["by"] == me]
    assert by_me == [
        ("Held", "it's too early"),
        ("Released", ""),
        ("StepSkipped", ""),
        ("Aborted", "wrong labels"),
        ("Retried", ""),
        ("Undone", ""),
    ]
    assert [r["label"] for r in history["revisions"] if r["undo"]] == ["v2"]


def test_a_command_that_does_not_fit_is_refused_with_what_would(
    cluster: Cluster, rolling: str
) -> None:
    told = refused(cluster, "promote", rolling, "nobody")
    assert told == (
        "error: Kohort refuses to promote: there is no cohort nobody; there is: everyone\n"
    )
    assert "there is: v1, v2" in refused(cluster, "undo", rolling, "--to", "v9")
    assert "a command has at most 1024 characters" in refused(
        cluster, "pause", rolling, "--why", "x" * 2000
    )


def test_two_people_at_once_are_both_heard(cluster: Cluster, rolling: str) -> None:
    command = [sys.executable, "-m", "kohort.cli.main", "-n", "default"]
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
    each = [
        subprocess.Popen(
            [*command, "pause", rolling, *where],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for where in ([], ["everyone"])
    ]
    ends = [(*process.communicate(timeout=90), process.returncode) for process in each]
    assert sorted(code for *_, code in ends) == [0, 1]  # the later one holds what is held
    assert all("held" in out + err for out, err, _ in ends)
