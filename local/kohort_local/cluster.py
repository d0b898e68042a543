"""A local cluster: its parts started, watched, stopped, and found again after a kill -9."""

from __future__ import annotations

import fcntl
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from kohort_local import audit, binaries, claim, pki, process
from kohort_local.admin import AdminClient
from kohort_local.claim import Network
from kohort_local.parts import CONTROL_PLANE, Layout
from kohort_local.process import Process

_START_TIMEOUT = 90.0  # seconds; a laden machine takes several times the usual 8
_POLL_SECONDS = 0.05
_STOP_GRACE = 5.0  # an API server waits far longer for its watchers to leave
Image = Mapping[str, Any]
"""What an image runs: ``{"entrypoint": [...], "env": {...}}``."""


class ClusterError(RuntimeError):
    """The cluster cannot do what was asked; the message says what to do."""


class _State(msgspec.Struct):
    """What a later call must know; written once everything that it names exists."""

    block: int
    nodes: int
    back_off_cap: float
    bound: bool


@dataclass(frozen=True)
class PartStatus:
    """One part as it is now; `process` is None when it does not run."""

    name: str
    process: Process | None
    resident_bytes: int
    port: int | None


def end_processes(state_dir: Path) -> None:
    """Kill every process that the files of a cluster tell of: its parts and its pods'."""
    parts = [process.read_record(path) for path in (state_dir / "run").glob("*.json")]
    # The nodes first, or they would start again what is killed under them.
    process.stop([part for part in parts if part], grace=0)
    pods = [process.read_record(path) for path in (state_dir / "nodes").glob("*/pods/*/*.process")]
    process.stop([pod for pod in pods if pod], grace=0)


class Cluster:
    """A Kubernetes cluster in a directory.

    As a context manager it is up inside and gone afterwards; when this process is killed, the next
    cluster that starts on this machine ends it. With `up` alone it stays until `down`.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        images: Mapping[str, Image] | None = None,
        gpus: int = 0,
        nodes: int = 1,
        back_off_cap: float = 10.0,
        audited: Sequence[str] = (),
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Nothing is started yet.

        Args:
            state_dir: Everything that the cluster writes is in here.
            images: What each image runs.
            gpus: `nvidia.com/gpu` that each node offers.
            nodes: How many nodes.
            back_off_cap: The longest pause in seconds before a crashing container starts again.
            audited: Users whose calls to the API server are logged: see audit.events.
            say: Is told the progress, a line at a time.
        """
        self.state_dir = state_dir.absolute()
        self._images = dict(images or {})
        self._gpus = gpus
        self._nodes = nodes
        self._back_off_cap = back_off_cap
        self._audited = audited
        self._say = say

    def __enter__(self) -> Self:
        self.up(bound=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.state_dir / "pki" / "admin.kubeconfig"

    @property
    def network(self) -> Network:
        """The ports and addresses that the cluster has claimed."""
        return Network(self._require_state().block)

    @property
    def node_port_range(self) -> range:
        """Ports that a Service of type NodePort may have here."""
        return self.network.node_ports

    @property
    def admin(self) -> AdminClient:
        """A client of the API server that may do everything."""
        return AdminClient(f"https://127.0.0.1:{self.network.api_server}", self.state_dir / "pki")

    def up(self, *, bound: bool = False) -> None:
        """Start what does not run yet, and return when pods can be scheduled.

        A cluster of which anything still runs goes on with its objects; otherwise it starts empty.

        Args:
            bound: The cluster is to end with this process.

        Raises:
            ClusterError: a part exited or did not become ready in time.
            BuildError: the programs could not be built.
        """
        programs = binaries.CONTROL_PLANE.ensure(self._say)
        started = time.monotonic()
        with self._locked():
            state = self._read_state()
            if state is None or not any(self._running(part) for part in self._names(state)):
                state = self._make_new(bound)
            self._hold(state, process.current(), bound)
            layout = self._layout(state, programs)
            self._write_images()
            for name in layout.names():
                if not self._running(name) and name in CONTROL_PLANE[:2]:
                    self._start(layout, name)
            self._await("kube-apiserver", self._ready)
            self._say(f"API server ready after {time.monotonic() - started:.1f} s")
            self._grant_proxy()
            for name in layout.names():
                if not self._running(name):
                    self._start(layout, name)
            self._await("kube-controller-manager", self._has_default_account)
            for index in range(state.nodes):
                name = pki.node_name(index)
                self._await(name, partial(self._node_ready, name))
            if not bound and (etcd := self._running("etcd")):
                self._hold(state, etcd, bound)
        self._say(f"cluster ready after {time.monotonic() - started:.1f} s")

    def down(self) -> None:
        """End every process of the cluster and remove its files but for the logs."""
        if not self.state_dir.exists():
            return
        with self._locked():
            self._clean()

    def status(self) -> list[PartStatus]:
        """Every part, running or not; none when the cluster is down."""
        state = self._read_state()
        if state is None:
            return []
        network = Network(state.block)
        ports = {
            "etcd": network.etcd_clients,
            "kube-apiserver": network.api_server,
            "kube-controller-manager": network.controller_manager,
            "kube-scheduler": network.scheduler,
        } | {pki.node_name(i): network.kubelet(i) for i in range(state.nodes)}
        found = []
        for name in self._names(state):
            part = self._running(name)
            size = process.resident_bytes(part) if part else 0
            found.append(PartStatus(name, part, size, ports.get(name)))
        return found

    def condition(self, part: str) -> str:
        """What a running part says of itself: a node whether it is ready, the API server too."""
        if part == "kube-apiserver":
            return "ready" if self._ready() else "not ready"
        if part.startswith("local-"):
            return "ready" if self._node_ready(part) else "not ready"
        return "running"

    def log(self, part: str) -> Path:
        """The file with a part's output."""
        return self.state_dir / "logs" / f"{part}.log"

    def start(self, part: str) -> None:
        """Start a part that was stopped; returns when the API server is ready again.

        With the API server its clients of the control plane start anew. Elsewhere they have lost
        their leases and are started by their kubelet; here they hold none, and would wait for up
        to a minute after some failed attempts to reconnect.
        """
        state = self._require_state()
        with self._locked():
            if self._running(part):
                return
            layout = self._layout(state, binaries.CONTROL_PLANE.directory)
            self._start(layout, part)
            if part in CONTROL_PLANE[:2] and self._running("kube-apiserver"):
                self._await("kube-apiserver", self._ready)
                for name in CONTROL_PLANE[2:]:
                    if running := self._running(name):
                        process.stop([running], grace=0)
                        self._start(layout, name)

    def stop(self, part: str) -> None:
        """End a part as a shutdown would; after 5 s it is killed."""
        self._end(part, grace=_STOP_GRACE)

    def kill(self, part: str) -> None:
        """End a part as a crash would."""
        self._end(part, grace=0)

    def restart(self, part: str) -> None:
        """Stop a part and start it again."""
        self.stop(part)
        self.start(part)

    def set_gpus(self, count: int) -> None:
        """Let every node offer so many `nvidia.com/gpu`; returns when the nodes say so."""
        state = self._require_state()
        for index in range(state.nodes):
            name = pki.node_name(index)
            self._write_gpus(name, count)
            self._await(name, partial(self._offers, name, count))

    def add_images(self, images: Mapping[str, Image]) -> None:
        """Let nodes know what these images run, besides those they know already."""
        self._images |= images
        self._write_images()

    def wait_for_signal(self) -> None:
        """Wait for Ctrl-C or a request to terminate, telling of every part that exits."""
        wanted = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
        try:
            gone: set[str] = set()
            while signal.sigtimedwait(wanted, 1.0) is None:
                now_gone = {s.name for s in self.status() if s.process is None}
                for name in sorted(now_gone - gone):
                    self._say(f"{name} has exited; its output is in {self.log(name)}")
                gone = now_gone
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _names(self, state: _State) -> list[str]:
        return self._layout(state, binaries.CONTROL_PLANE.directory).names()

    def _layout(self, state: _State, programs: Path) -> Layout:
        return Layout(
            self.state_dir, programs, Network(state.block), state.nodes, state.back_off_cap
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.state_dir.mkdir(parents=True, exist_ok=True)
        with (self.state_dir / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @property
    def _state_file(self) -> Path:
        return self.state_dir / "cluster.json"

    def _read_state(self) -> _State | None:
        try:
            return msgspec.json.decode(self._state_file.read_bytes(), type=_State)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def _require_state(self) -> _State:
        state = self._read_state()
        if state is None:
            raise ClusterError(
                f"no cluster runs in {self.state_dir}; start one with `kohort-local up`"
            )
        return state

    def _make_new(self, bound: bool) -> _State:
        self._clean()
        network = claim.take(self.state_dir, bound=bound, clean=end_processes)
        for name in ("run", "logs"):
            (self.state_dir / name).mkdir(exist_ok=True)
        state = _State(network.block, self._nodes, self._back_off_cap, bound)
        if self._audited:
            audit.write_policy(self.state_dir, self._audited)
        server = f"https://127.0.0.1:{network.api_server}"
        pki.write(self.state_dir / "pki", server, f"kohort-{self.state_dir.name}", state.nodes)
        for index in range(state.nodes):
            self._write_gpus(pki.node_name(index), self._gpus)
        self._write_state(state)
        return state

    def _write_state(self, state: _State) -> None:
        process.replace_file(self._state_file, msgspec.json.encode(state))

    def _hold(self, state: _State, holder: Process, bound: bool) -> None:
        """Keep the claim for as long as `holder` lives; if bound, the cluster ends with it."""
        state.bound = bound
        self._write_state(state)
        claim.hand_over(Network(state.block), holder, bound=bound)

    def _clean(self) -> None:
        end_processes(self.state_dir)
        state = self._read_state()
        if state:
            claim.release(Network(state.block), self.state_dir)
        for name in ("etcd", "pki", "nodes", "run"):
            shutil.rmtree(self.state_dir / name, ignore_errors=True)
        policy = audit.policy_file(self.state_dir)
        for path in (self._state_file, self.state_dir / "images.json", policy):
            path.unlink(missing_ok=True)

    def _record(self, part: str) -> Path:
        return self.state_dir / "run" / f"{part}.json"

    def _running(self, part: str) -> Process | None:
        found = process.read_record(self._record(part))
        return found if found and process.alive(found) else None

    def _start(self, layout: Layout, part: str) -> None:
        try:
            command = layout.command(part)
        except KeyError:
            raise ClusterError(
                f"no part {part}; the parts are {', '.join(layout.names())}"
            ) from None
        started = process.spawn(command, self.log(part), self.state_dir)
        process.write_record(self._record(part), started)
        state = self._require_state()
        if part == "etcd" and not state.bound:
            claim.hand_over(layout.network, started, bound=False)

    def _end(self, part: str, grace: float) -> None:
        state = self._require_state()
        if part not in self._names(state):
            raise ClusterError(f"no part {part}; the parts are {', '.join(self._names(state))}")
        with self._locked():
            if running := self._running(part):
                process.stop([running], grace)

    def _await(self, part: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while not condition():
            if not self._running(part):
                raise ClusterError(
                    f"{part} exited; the end of {self.log(part)}:\n{self._tail(part)}"
                )
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"{part} was not ready after {_START_TIMEOUT:.0f} s; "
                    f"the end of {self.log(part)}:\n{self._tail(part)}"
                )
            time.sleep(_POLL_SECONDS)

    def _tail(self, part: str) -> str:
        lines = self.log(part).read_text(errors="replace").splitlines()
        return "\n".join(lines[-10:])

    def _ready(self) -> bool:
        return self.admin.ready()

    def _has_default_account(self) -> bool:
        return self.admin.get("/api/v1/namespaces/default/serviceaccounts/default") is not None

    def _node_ready(self, name: str) -> bool:
        node = self.admin.get(f"/api/v1/nodes/{name}")
        if node is None:
            return False
        conditions = {c["type"]: c["status"] for c in node["status"].get("conditions", [])}
        return conditions.get("Ready") == "True" and not node["spec"].get("taints")

    def _offers(self, name: str, gpus: int) -> bool:
        node = self.admin.get(f"/api/v1/nodes/{name}") or {"status": {}}
        return int(node["status"].get("allocatable", {}).get("nvidia.com/gpu", 0)) == gpus

    def _grant_proxy(self) -> None:
        """Let the proxy read what it forwards to, and nothing else."""
        role = "kohort-local-proxy"
        rule = {"apiGroups": [""], "resources": ["pods", "services"]}
        group = "rbac.authorization.k8s.io"
        self.admin.create(
            f"/apis/{group}/v1/clusterroles",
            {"metadata": {"name": role}, "rules": [rule | {"verbs": ["list", "watch"]}]},
        )
        self.admin.create(
            f"/apis/{group}/v1/clusterrolebindings",
            {
                "metadata": {"name": role},
                "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
                "subjects": [{"apiGroup": group, "kind": "User", "name": role}],
            },
        )

    def _write_gpus(self, node: str, count: int) -> None:
        directory = self.state_dir / "nodes" / node
        directory.mkdir(parents=True, exist_ok=True)
        process.replace_file(directory / "gpus", f"{count}\n".encode())

    def _write_images(self) -> None:
        path = self.state_dir / "images.json"
        known = msgspec.json.decode(path.read_bytes()) if path.exists() else {}
        process.replace_file(path, msgspec.json.encode(known | self._images))
