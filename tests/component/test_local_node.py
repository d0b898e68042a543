"""The local node runs pods as a kubelet does: seen from outside, through a real API server."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from kohort_local.cluster import Cluster

Kubectl = Callable[..., str]
Pod = dict[str, Any]
SERVE = """
import http.server, os, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.strip("/")
        self.send_response(200 if not path or os.path.exists(path) else 503)
        self.send_header("content-length", str(len(os.environ["HOSTNAME"])))
        self.end_headers()
        self.wfile.write(os.environ["HOSTNAME"].encode())
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
http.server.ThreadingHTTPServer((os.environ["IP"], 8080), Handler).serve_forever()
"""
IP = {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """What a condition says once it is true; fails when it never is."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition was never met"
        time.sleep(0.05)
    return value


@pytest.fixture(name="namespace")
def own_namespace(cluster: Cluster, kubectl: Kubectl) -> Iterator[str]:
    """A namespace of the test's own, gone afterwards."""
    name = f"test-{uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    until(lambda: cluster.admin.get(f"/api/v1/namespaces/{name}/serviceaccounts/default"))
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


class Pods:
    """Makes pods in one namespace and asks for them."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self.kubectl = kubectl
        self.namespace = namespace

    def create(self, name: str, container: Pod | None = None, **spec: Any) -> None:
        containers = [{"name": "main", "image": "shell", **(container or {})}]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"containers": containers, "terminationGracePeriodSeconds": 5} | spec,
        }
        self.apply(pod)

    def apply(self, manifest: dict[str, Any]) -> None:
        self.kubectl("apply", "-n", self.namespace, "-f", "-", stdin=json.dumps(manifest))

    def get(self, name: str) -> Pod:
        found: Pod = json.loads(self.kubectl("get", "pod", name, "-n", self.namespace, "-ojson"))
        return found

    def wait(self, name: str, condition: str, seconds: int = 30) -> None:
        self.kubectl(
            *("wait", f"--for={condition}", f"pod/{name}", "-n", self.namespace),
            f"--timeout={seconds}s",
        )

    def logs(self, *arguments: str) -> str:
        return self.kubectl("logs", "-n", self.namespace, *arguments)

    def container(self, name: str) -> dict[str, Any]:
        statuses = self.get(name).get("status", {}).get("containerStatuses") or [{"state": {}}]
        return dict(statuses[0])


@pytest.fixture
def pods(kubectl: Kubectl, namespace: str) -> Pods:
    return Pods(kubectl, namespace)


def test_a_pod_is_ready_once_its_readiness_probe_is_answered(pods: Pods) -> None:
    probe = {"httpGet": {"path": "/", "port": "http"}}
    ports = [{"name": "http", "containerPort": 8080}]
    serving = {"image": "python", "args": ["-c", SERVE], "env": [IP], "ports": ports}
    pods.create("web", serving | {"readinessProbe": probe})
    pods.wait("web", "condition=Ready")
    status = pods.get("web")["status"]
    assert status["phase"] == "Running"
    assert status["podIP"].startswith("127.")
    assert status["containerStatuses"][0]["restartCount"] == 0


def test_readiness_follows_the_probe_down_and_up_again(pods: Pods) -> None:
    serving = {"image": "python", "args": ["-c", SERVE], "env": [IP]}
    serving["volumeMounts"] = [{"name": "share", "mountPath": "/share"}]
    serving["workingDir"] = "/share"
    ready = {"httpGet": {"path": "/well", "port": 8080}, "periodSeconds": 1, "failureThreshold": 1}
    switch = {
        "name": "switch",
        "image": "shell",
        "args": [
            "touch /share/well; sleep 2; rm /share/well; sleep 3; touch /share/well; sleep 60"
        ],
        "volumeMounts": serving["volumeMounts"],
    }
    main = {"name": "main", **serving, "readinessProbe": ready}
    volumes = [{"name": "share", "emptyDir": {}}]
    pods.create("fickle", containers=[main, switch], volumes=volumes)
    pods.wait("fickle", "condition=Ready")
    pods.wait("fickle", "condition=Ready=False")
    pods.wait("fickle", "condition=Ready")


def test_a_container_that_fails_its_liveness_probe_is_restarted(pods: Pods) -> None:
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    pods.create("sick", {"args": ["exec sleep 60"], "livenessProbe": probe})
    until(lambda: pods.container("sick").get("restartCount", 0) >= 1)
    assert pods.container("sick")["lastState"]["terminated"]["exitCode"] == 143


def test_other_probes_wait_for_the_startup_probe(pods: Pods) -> None:
    startup = {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 30}
    late = f"import time; time.sleep(2)\n{SERVE}"
    liveness = {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 1}
    container = {"image": "python", "args": ["-c", late], "env": [IP]}
    pods.create("late", container | {"startupProbe": startup, "livenessProbe": liveness})
    pods.wait("late", "condition=Ready")
    assert pods.container("late")["restartCount"] == 0


def test_init_containers_run_in_order_and_before_the_others(pods: Pods) -> None:
    mounts = [{"name": "work", "mountPath": "/data"}]
    first, second, main = (
        {"name": name, "image": "shell", "args": [script], "volumeMounts": mounts}
        for name, script in (
            ("first", "echo 1 >> /data/order"),
            ("second", "echo 2 >> /data/order"),
            ("main", "echo 3 >> /data/order; cat /data/order"),
        )
    )
    pods.create(
        "ordered",
        containers=[main],
        initContainers=[first, second],
        volumes=[{"name": "work", "emptyDir": {}}],
        restartPolicy="Never",
    )
    pods.wait("ordered", "jsonpath={.status.phase}=Succeeded")
    assert pods.logs("ordered", "-c", "main").split() == ["1", "2", "3"]


def test_the_others_never_start_when_an_init_container_fails_for_good(pods: Pods) -> None:
    failing = {"name": "failing", "image": "shell", "args": ["exit 4"]}
    pods.create("failed", {"args": ["true"]}, initContainers=[failing], restartPolicy="Never")
    pods.wait("failed", "jsonpath={.status.phase}=Failed")
    status = pods.get("failed")["status"]
    assert status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 4
    assert "waiting" in status["containerStatuses"][0]["state"]


def test_a_sidecar_runs_beside_the_others_and_ends_after_them(pods: Pods) -> None:
    beside = {
        "name": "beside",
        "image": "shell",
        "args": ["exec sleep 1000"],
        "restartPolicy": "Always",
    }
    pods.create("pair", {"args": ["true"]}, initContainers=[beside], restartPolicy="Never")
    pods.wait("pair", "jsonpath={.status.phase}=Succeeded")
    ended = until(
        lambda: pods.get("pair")["status"]["initContainerStatuses"][0]["state"].get("terminated")
    )
    assert ended["exitCode"] == 143


def test_a_container_that_keeps_crashing_is_backed_off_and_tells_its_last_words(
    pods: Pods,
) -> None:
    words = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    pods.create("crash", {"args": ["echo cannot go on; exit 3"], **words})
    until(lambda: pods.container("crash").get("restartCount", 0) >= 2)
    waiting = until(lambda: pods.container("crash")["state"].get("waiting"))
    assert waiting["reason"] == "CrashLoopBackOff"
    last = pods.container("crash")["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (3, "Error")
    assert last["message"] == "cannot go on\n"
    assert pods.logs("crash", "--previous") == "cannot go on\n"


def test_a_container_may_write_its_own_termination_message(pods: Pods) -> None:
    pods.create("told", {"args": ["echo -n done > /dev/termination-log"]}, restartPolicy="Never")
    pods.wait("told", "jsonpath={.status.phase}=Succeeded")
    assert pods.container("told")["state"]["terminated"]["message"] == "done"


def test_an_unknown_image_is_told_as_a_pull_error(pods: Pods, cluster: Cluster) -> None:
    pods.create("unknown", {"image": "nowhere", "args": ["sleep 60"]})
    waiting = until(lambda: pods.container("unknown")["state"].get("waiting"))
    until(lambda: "Image" in pods.container("unknown")["state"]["waiting"]["reason"])
    cluster.add_images({"nowhere": {"entrypoint": ["/bin/sh", "-c"]}})
    pods.wait("unknown", "condition=Ready")
    assert waiting


def test_logs_can_be_followed_to_the_end(pods: Pods) -> None:
    script = "for i in 1 2 3; do echo line $i; sleep .3; done"
    pods.create("talk", {"args": [script]}, restartPolicy="Never")
    until(lambda: pods.container("talk")["state"].keys() & {"running", "terminated"})
    assert pods.logs("talk", "--follow") == "line 1\nline 2\nline 3\n"
    assert pods.logs("talk", "--tail=1") == "line 3\n"


def test_a_pod_that_is_deleted_runs_its_hook_and_then_ends_itself(
    pods: Pods, tmp_path: Any
) -> None:
    said = tmp_path / "said"
    script = f"trap 'echo term >> {said}; exit 0' TERM; while :; do sleep .1; done"
    hook = {"preStop": {"exec": {"command": ["/bin/sh", "-c", f"echo hook >> {said}"]}}}
    pods.create("polite", {"args": [script], "lifecycle": hook})
    pods.wait("polite", "condition=Ready")
    pods.kubectl("delete", "pod", "polite", "-n", pods.namespace)
    assert said.read_text().split() == ["hook", "term"]


def test_a_pod_that_does_not_end_is_killed_when_its_grace_is_over(
    pods: Pods, tmp_path: Any
) -> None:
    pid = tmp_path / "pid"
    script = f"trap '' TERM; echo $$$$ > {pid}; while :; do sleep .1; done"
    pods.create("stubborn", {"args": [script]}, terminationGracePeriodSeconds=1)
    until(pid.exists)
    pods.kubectl("delete", "pod", "stubborn", "-n", pods.namespace)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_variables_come_from_all_their_sources(pods: Pods) -> None:
    data = {"stringData": {"word": "secret"}}
    pods.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, **data})
    data = {"data": {"KEY": "config"}}
    pods.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, **data})
    container = {
        "args": ['echo "$A $P_KEY $(NAME) $CPU"'],
        "resources": {"limits": {"cpu": "1500m"}},
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "c"}}],
        "env": [
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "word"}}},
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        ],
    }
    pods.create("told", container, restartPolicy="Never")
    pods.wait("told", "jsonpath={.status.phase}=Succeeded")
    assert pods.logs("told").strip() == "secret config told 2"


def test_a_changed_secret_arrives_in_a_running_pod(pods: Pods) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
    pods.apply(secret | {"stringData": {"key": "before"}})
    pods.create(
        "reader",
        {
            "args": [
                "cat /etc/s/key; until grep -q after /etc/s/key; do sleep .1; done; cat /etc/s/key"
            ],
            "volumeMounts": [{"name": "s", "mountPath": "/etc/s"}],
        },
        volumes=[{"name": "s", "secret": {"secretName": "s"}}],
        restartPolicy="Never",
    )
    pods.wait("reader", "condition=Ready")
    pods.apply(secret | {"stringData": {"key": "after"}})
    pods.wait("reader", "jsonpath={.status.phase}=Succeeded")
    assert pods.logs("reader") == "beforeafter"


def test_the_api_server_accepts_a_pods_token(pods: Pods) -> None:
    ask = """
import os, ssl, sys, urllib.request
account = sys.argv[1]
url = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
request = urllib.request.Request(
    url + "/apis/authentication.k8s.io/v1/selfsubjectreviews", method="POST",
    headers={"Authorization": "Bearer " + open(account + "/token").read(),
             "Content-Type": "application/json"},
    data=b'{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}')
tls = ssl.create_default_context(cafile=account + "/ca.crt")
print(urllib.request.urlopen(request, context=tls).read().decode())
"""
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    pods.create("caller", {"image": "python", "args": ["-c", ask, account]}, restartPolicy="Never")
    pods.wait("caller", "jsonpath={.status.phase}=Succeeded")
    user = json.loads(pods.logs("caller"))["status"]["userInfo"]["username"]
    assert user == f"system:serviceaccount:{pods.namespace}:default"


def test_no_more_pods_are_scheduled_than_there_are_gpus(pods: Pods, cluster: Cluster) -> None:
    gpu = {"args": ["sleep 60"], "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    cluster.set_gpus(1)
    pods.create("one", gpu)
    pods.wait("one", "condition=Ready")
    pods.create("two", gpu)
    pods.wait("two", "condition=PodScheduled=False")
    cluster.set_gpus(2)
    pods.wait("two", "condition=Ready")
    cluster.set_gpus(0)
