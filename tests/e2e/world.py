"""What end-to-end tests see and do: a model under test, its clients, and ways to break things."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kohort_local.install import NAMESPACE
from kohort_local.kubectl import Kubectl
from kohort_local.models import Digits
from kohort_local.traffic import Account, Clients, Traffic

SINGLES = Clients("singles", {"x-app": "scanner"}, count=40, rows=1, period=0.5)
BATCHERS = Clients("batchers", {"x-app": "archive"}, count=40, rows=16, period=0.5)

QUICK = [{"weight": 20, "hold": "2s"}, {"weight": 60, "hold": "2s"}]


def until(what: str, condition: Callable[[], Any], timeout: float = 90) -> Any:
    """The first true value of ``condition()``; fails with ``what`` when there is none in time."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.1)
    model = getattr(getattr(condition, "func", None), "__self__", None)
    told = ""
    if isinstance(model, Model):
        cohorts = {c["name"]: c.get("message") for c in model.status.get("cohorts", [])}
        told = f"; {model.name} says: {model.status.get('message')}; {cohorts}; {model.pods()}"
    pytest.fail(f"after {timeout:.0f} s still not true: {what}{told}")


async def in_thread(what: str, condition: Callable[[], Any], within: float = 90) -> None:
    """Await a condition while clients go on in this thread."""
    await asyncio.to_thread(until, what, condition, within)


@dataclass
class Model:
    """A ModelDeployment under test."""

    kubectl: Kubectl
    gateway_url: str
    name: str
    versions: dict[str, Path]
    digits: Digits
    namespace: str = "default"

    def manifest(self, version: str, **spec: Any) -> dict[str, Any]:
        """The ModelDeployment serving ``version``, with two cohorts unless ``spec`` says otherwise."""
        return {
            "apiVersion": "kohort.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "model": {"uri": f"file://{self.versions[version]}"},
                "replicas": 2,
                "cohorts": [
                    {
                        "name": "batchers",
                        "match": [{"headers": [{"name": "x-app", "value": "archive"}]}],
                        "steps": QUICK,
                    },
                    {"name": "singles", "steps": QUICK},
                ],
                **spec,
            },
        }

    def apply(self, version: str, **spec: Any) -> None:
        """Ask for ``version``."""
        self.kubectl.apply(self.manifest(version, **spec))

    @property
    def status(self) -> dict[str, Any]:
        """What Kohort says now."""
        found: dict[str, Any] = self.kubectl.get("mdep", self.name, "-n", self.namespace)
        return dict(found.get("status", {}))

    def cohort(self, name: str) -> dict[str, Any]:
        """One cohort's status; empty while there is none."""
        return next((c for c in self.status.get("cohorts", []) if c["name"] == name), {})

    def condition(self, kind: str) -> dict[str, Any]:
        """One condition; empty when absent."""
        return next((c for c in self.status.get("conditions", []) if c["type"] == kind), {})

    def decided(self) -> dict[str, list[str]]:
        """The decisions on each cohort, newest first."""
        cohorts = self.status["cohorts"]
        return {c["name"]: [d["action"] for d in c.get("decisions", [])] for c in cohorts}

    def records(self) -> int:
        """How many revisions are on record."""
        label = f"kohort.dev/model={self.name}"
        found = self.kubectl.get("controllerrevisions", "-n", self.namespace, "-l", label)
        return len(found["items"])

    def serves(self, **versions: str) -> bool:
        """Whether each cohort has ended on the version given for it, with nothing under way."""
        status = self.status
        file_of = {r["name"]: Path(r["uri"]).stem for r in status.get("revisions", [])}
        cohorts = {c["name"]: c for c in status.get("cohorts", [])}
        return all(
            file_of.get(cohorts.get(name, {}).get("stable", "")) == version
            and cohorts[name]["phase"] in ("Stable", "RolledBack")
            for name, version in versions.items()
        )

    def traffic(self, *groups: Clients) -> Traffic:
        """Steady clients of both cohorts, or of ``groups``."""
        chosen = list(groups or (SINGLES, BATCHERS))
        return Traffic(self.gateway_url, self.namespace, self.name, chosen, self.digits)

    @asynccontextmanager
    async def served(self, version: str, **spec: Any) -> AsyncIterator[Traffic]:
        """``version`` serves both cohorts, and their clients call it."""
        self.apply(version, **spec)
        arrived = partial(self.serves, singles=version, batchers=version)
        await in_thread(f"{version} serves both", arrived)
        async with self.traffic() as traffic:
            await in_thread("clients are served", lambda: traffic.account.total > 50)
            yield traffic

    def pods(self) -> dict[str, str]:
        """Pod name by uid."""
        found = self.kubectl.get(
            "pods", "-n", self.namespace, "-l", f"kohort.dev/model={self.name}"
        )
        return {p["metadata"]["uid"]: p["metadata"]["name"] for p in found["items"]}


def nobody_noticed(account: Account) -> None:
    """No request was lost or misrouted, and there were some."""
    assert account.total > 0
    times = [answer.at for answer in account.lost] or [0.0]
    span = f"within {max(times) - min(times):.1f} s"
    told = f"{len(account.lost)} of {account.total} lost {span}: {account.lost[:3]}"
    assert not account.lost, told
    assert not account.misrouted, f"misrouted: {account.misrouted[:3]}"


def processes_of(*fragments: str) -> list[int]:
    """Pids of processes whose command line has all of ``fragments``."""
    found = []
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit() or int(directory.name) == os.getpid():
            continue
        try:
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if all(fragment in command for fragment in fragments):
            found.append(int(directory.name))
    return found


def pod_names(kubectl: Kubectl, component: str) -> list[str]:
    """Names of the running pods of Kohort's own ``component``."""
    found = kubectl.get("pods", "-n", NAMESPACE, "-l", f"app.kubernetes.io/component={component}")
    return [
        p["metadata"]["name"] for p in found["items"] if "deletionTimestamp" not in p["metadata"]
    ]


def pids_of_pod(component: str, pod: str) -> list[int]:
    """Processes of a pod of Kohort's own: the one that was started, and its children."""
    started = processes_of(f"kohort-{component}", pod)
    children = [
        int(child)
        for pid in started
        for task in Path(f"/proc/{pid}/task").glob("*/children")
        for child in task.read_text().split()
    ]
    return [*children, *started]


def kill_processes(kubectl: Kubectl, component: str) -> int:
    """SIGKILL every process of a component at once; returns how many there were."""
    return sum(
        kill(pid) for name in pod_names(kubectl, component) for pid in pids_of_pod(component, name)
    )


def kill(pid: int) -> bool:
    """SIGKILL; False when it was gone already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
