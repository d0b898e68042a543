"""The local cluster starts, survives the loss of any part, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kohort_local import process
from kohort_local.cluster import Cluster, ClusterError

PARTS = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "local-0",
    "proxy",
]
IMAGES = {"shell": {"entrypoint": ["/bin/sh", "-c"]}}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "sleeper"},
    "spec": {"containers": [{"name": "main", "image": "shell", "args": ["sleep 1000"]}]},
}
PODS = "/api/v1/namespaces/default/pods"


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """What a condition says once it is true; fails when it never is."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition was never met"
        time.sleep(0.05)
    return value


def container(cluster: Cluster) -> dict[str, Any]:
    """The status of the sleeper's container."""
    pod = cluster.admin.get(f"{PODS}/sleeper") or {}
    return dict((pod.get("status", {}).get("containerStatuses") or [{}])[0])


def processes_of(directory: Path) -> list[str]:
    """Command lines of every process that was told of a directory or runs in it."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            place = str((entry / "cwd").readlink())
        except (OSError, ValueError):
            continue
        if str(directory) in command or place.startswith(str(directory)):
            found.append(command)
    return found


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of the test's own, with one pod that runs."""
    with Cluster(tmp_path / "own", images=IMAGES) as cluster:
        cluster.admin.create(PODS, POD)
        until(lambda: container(cluster).get("ready"))
        yield cluster


def test_nothing_runs_after_down(own: Cluster) -> None:
    own.down()
    assert processes_of(own.state_dir) == []
    assert own.status() == []


def test_every_part_may_be_killed_and_the_next_up_goes_on_with_the_same_objects(
    own: Cluster,
) -> None:
    for part in PARTS:
        own.kill(part)
        assert part not in [s.name for s in own.status() if s.process]
        own.up(bound=True)
        assert [s.name for s in own.status() if s.process] == PARTS
    assert own.admin.get(f"{PODS}/sleeper")


def test_a_node_that_was_killed_starts_its_pods_again_and_leaves_no_orphan(own: Cluster) -> None:
    (record,) = (own.state_dir / "nodes" / "local-0" / "pods").glob("*/*.process")
    before = process.read_record(record)
    assert before
    assert process.alive(before)
    own.kill("local-0")
    own.start("local-0")
    until(lambda: container(own).get("restartCount") == 1 and container(own)["ready"])
    assert not process.alive(before)


def test_two_clusters_run_side_by_side(own: Cluster, cluster: Cluster) -> None:
    assert own.network != cluster.network
    assert set(own.node_port_range).isdisjoint(cluster.node_port_range)


def test_up_after_a_kill_of_the_one_that_started_it_ends_what_is_left(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    script = (
        "import sys, pathlib; from kohort_local.cluster import Cluster\n"
        "Cluster(pathlib.Path(sys.argv[1])).up(bound=True)\n"
        "print('up', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(first)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as starter:
        assert starter.stdout
        assert starter.stdout.readline() == "up\n"
        starter.kill()
    assert processes_of(first)
    with Cluster(second):
        assert processes_of(first) == []
    assert processes_of(second) == []


def test_ctrl_c_stops_a_cluster_in_the_foreground(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path)}
    binaries = Path.home() / ".cache" / "kohort" / "bin"
    (tmp_path / ".cache" / "kohort").mkdir(parents=True)
    (tmp_path / ".cache" / "kohort" / "bin").symlink_to(binaries)
    with subprocess.Popen(
        [sys.executable, "-m", "kohort_local.main", "up", "--foreground"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        said = command.stderr
        assert said
        until(lambda: "Ctrl-C" in said.readline())
        assert processes_of(tmp_path / ".cache" / "kohort" / "cluster")
        command.send_signal(signal.SIGINT)
        assert command.wait(30) == 0
    assert processes_of(tmp_path / ".cache" / "kohort" / "cluster") == []


def test_a_part_that_is_not_there_is_told_with_those_that_are(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match="the parts are etcd, kube-apiserver"):
        cluster.stop("kubelet")


def test_every_port_is_below_the_ephemeral_ones_and_on_loopback(cluster: Cluster) -> None:
    ports = [status.port for status in cluster.status() if status.port]
    assert all(port < 32768 for port in ports)
    for port in ports:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass


def test_a_cluster_that_somebody_else_takes_over_no_longer_ends_with_its_starter(
    tmp_path: Path,
) -> None:
    cluster = Cluster(tmp_path / "kept")
    script = (
        "import sys, pathlib; from kohort_local.cluster import Cluster\n"
        "Cluster(pathlib.Path(sys.argv[1])).up(bound=True)"
    )
    subprocess.run([sys.executable, "-c", script, str(cluster.state_dir)], check=True)
    try:
        cluster.up()
        with Cluster(tmp_path / "other"):
            assert [s.name for s in cluster.status() if s.process] == PARTS
    finally:
        cluster.down()
    assert processes_of(cluster.state_dir) == []
