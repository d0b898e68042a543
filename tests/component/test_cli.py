"""``kubectl kohort`` against a real API server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client, config, watch
from msgspec import yaml

from kohort.contract import GROUP, PLURAL
from kohort_local.cluster import Cluster
from tests.unit.cli_samples import RESOURCES

NAMESPACE = "kubectl-plugin"
CRD = Path(__file__).parents[2] / "crds" / f"{GROUP}_{PLURAL}.yaml"
PLACE = (GROUP, "v1alpha1", NAMESPACE, PLURAL)
COMMAND = [sys.executable, "-m", "kohort.cli.main", "-n", NAMESPACE]


@pytest.fixture(scope="module")
def models(cluster: Cluster) -> Iterator[client.CustomObjectsApi]:
    """The API of custom objects, with the resource known and a namespace for it."""
    api = config.new_client_from_config(str(cluster.kubeconfig))
    extensions = client.ApiextensionsV1Api(api)
    definition = yaml.decode(CRD.read_bytes())
    with contextlib.suppress(client.ApiException):  # another test has brought it
        extensions.create_custom_resource_definition(definition)
    name = definition["metadata"]["name"]
    events = watch.Watch().stream(
        extensions.list_custom_resource_definition,
        field_selector=f"metadata.name={name}",
        timeout_seconds=30,
    )
    for event in events:
        conditions = event["object"].status.conditions or []
        if any(c.type == "Established" and c.status == "True" for c in conditions):
            break
    core = client.CoreV1Api(api)
    core.create_namespace({"metadata": {"name": NAMESPACE}})
    yield client.CustomObjectsApi(api)
    core.delete_namespace(NAMESPACE)


@pytest.fixture
def digits(models: client.CustomObjectsApi) -> Iterator[str]:
    """The sample rollout in the cluster; its name."""
    body = {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "digits"},
        "spec": {"model": {"uri": "file:///models/digits/3/model.onnx"}},
    }
    models.create_namespaced_custom_object(*PLACE, body)
    status = {**RESOURCES["diverged"]["status"], "observedGeneration": 1}
    models.patch_namespaced_custom_object_status(*PLACE, "digits", {"status": status})
    yield "digits"
    with contextlib.suppress(client.ApiException):  # the test has deleted it
        models.delete_namespaced_custom_object(*PLACE, "digits")


def environment(cluster: Cluster) -> dict[str, str]:
    """As a person has it whose kubeconfig is that of the cluster."""
    return {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}


def kohort(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What the plugin answers."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(cluster),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_rollout_is_shown_as_a_tree_a_line_and_as_it_is(cluster: Cluster, digits: str) -> None:
    assert kohort(cluster, "get", digits).stdout.startswith("digits  Analyzing  3/3 pods ready")
    assert kohort(cluster, "get").stdout.splitlines()[1].split()[:2] == ["digits", "Analyzing"]
    as_json = json.loads(kohort(cluster, "get", digits, "-o", "json").stdout)
    as_yaml = yaml.decode(kohort(cluster, "get", "-o", "yaml").stdout)
    assert as_json["status"]["cohorts"][0]["name"] == "batchers"
    assert as_yaml["items"] == [as_json]


def test_why_tells_a_paragraph_for_the_cohort_asked_for(cluster: Cluster, digits: str) -> None:
    told = kohort(cluster, "why", digits, "batchers")
    assert told.returncode == 0
    assert told.stdout.startswith("batchers went back from v3 to v2 at ")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ["get", "digit"],
            f'error: no model deployment "digit" in {NAMESPACE}; there is: digits\n',
        ),
        (["why", "digits", "single"], 'error: no cohort "single" in digits; there is: singles\n'),
    ],
)
def test_what_is_not_there_is_answered_with_what_is_similar(
    cluster: Cluster, digits: str, arguments: list[str], error: str
) -> None:
    answer = kohort(cluster, *arguments)
    assert (answer.returncode, answer.stdout, answer.stderr) == (1, "", error)


def test_a_watch_in_a_pipe_tells_each_change_and_ends_when_the_rollout_is_deleted(
    cluster: Cluster, digits: str, models: client.CustomObjectsApi
) -> None:
    command = [*COMMAND, "get", digits, "-w"]
    with subprocess.Popen(
        command, env=environment(cluster), stdout=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout
        assert "digits: Analyzing" in watching.stdout.readline()
        healthy = {"status": {"phase": "Healthy"}}
        models.patch_namespaced_custom_object_status(*PLACE, digits, healthy)
        assert any("digits: Healthy" in line for line in watching.stdout)
        models.delete_namespaced_custom_object(*PLACE, digits)
        assert watching.stdout.read().endswith("digits was deleted\n")
    assert watching.returncode == 0


def test_ctrl_c_ends_a_watch_without_a_word(cluster: Cluster, digits: str) -> None:
    command = [*COMMAND, "get", digits, "-w"]
    with subprocess.Popen(
        command,
        env=environment(cluster),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as watching:
        assert watching.stdout
        assert watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        assert watching.communicate()[1] == ""
    assert watching.returncode == 130
