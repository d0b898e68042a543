"""What is known of one container of a pod, and how its status is told."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

from kohort_local.client import Object
from kohort_local.node.clock import now
from kohort_local.node.environment import Launch
from kohort_local.node.logfile import termination_message
from kohort_local.node.run import Run


class Container:
    """A container: what is to run, and how its runs went."""

    def __init__(self, spec: Object, directory: Path, previous: Object | None) -> None:
        """`previous` is its status as the API has it when the node starts again."""
        self.spec = spec
        self.name = str(spec["name"])
        self.lock = asyncio.Lock()  # held while it starts, so that an end waits for the start
        self.run: Run | None = None
        self.launch: Launch | None = None
        self.ready = False
        self.started = False
        self.has_started = asyncio.Event()  # as far as its startup probe is concerned
        self.state: Object = {"waiting": {"reason": "PodInitializing"}}
        self.last_state: Object = {}
        self.restarts = 0
        self.container_id = ""
        self.earlier_exit: int | None = None  # of a run under an earlier node
        self._started_at = ""
        self._directory = directory
        if previous and previous.get("containerID"):
            self._take_over(previous)

    def _take_over(self, previous: Object) -> None:
        self.restarts = int(previous.get("restartCount", 0))
        self.container_id = str(previous["containerID"])
        state = previous.get("state", {})
        if running := state.get("running"):
            killed = {
                "exitCode": 137,
                "reason": "Error",
                "message": "the node was started again and ended what an earlier one ran",
                "startedAt": running.get("startedAt"),
                "finishedAt": now(),
                "containerID": self.container_id,
            }
            self.last_state = {"terminated": killed}
        elif "terminated" in state:
            self.last_state = {"terminated": state["terminated"]}
        else:
            self.last_state = previous.get("lastState", {})
        ended = self.last_state.get("terminated")
        self.earlier_exit = int(ended["exitCode"]) if ended else None

    @property
    def sidecar(self) -> bool:
        """Whether it is an init container that goes on beside the others."""
        return self.spec.get("restartPolicy") == "Always"

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self.run is not None and self.run.running

    def log_file(self, restarts: int) -> Path:
        """The log of the run after so many restarts."""
        return self._directory / f"{self.name}.{restarts}.log"

    @property
    def message_file(self) -> Path:
        """What its `terminationMessagePath` stands for."""
        return self._directory / f"{self.name}.termination-log"

    @property
    def record(self) -> Path:
        """Tells a later node of its process."""
        return self._directory / f"{self.name}.process"

    def begin_run(self) -> None:
        """It is about to be started, again if it ran before."""
        if self.container_id:
            self.restarts += 1
        self.log_file(self.restarts - 2).unlink(missing_ok=True)  # the previous one is kept
        self.message_file.unlink(missing_ok=True)

    def running_now(self, run: Run) -> None:
        """Its process runs."""
        self.run = run
        self.container_id = f"process://{uuid.uuid4().hex}"
        self._started_at = now()
        self.state = {"running": {"startedAt": self._started_at}}
        if "startupProbe" not in self.spec:
            self.started_up()

    def started_up(self) -> None:
        """Its startup probe has been answered well."""
        self.started = True
        self.ready = "readinessProbe" not in self.spec
        self.has_started.set()

    def wait(self, reason: str, message: str = "") -> None:
        """It does not run and waits for something."""
        if "terminated" in self.state:
            self.last_state = self.state
        self.state = {"waiting": {"reason": reason, "message": message}}

    def ended(self, code: int) -> None:
        """Its process has ended with this code; -N is signal N."""
        exit_code = code if code >= 0 else 128 - code
        terminated = {
            "exitCode": exit_code,
            "reason": "Completed" if exit_code == 0 else "Error",
            "startedAt": self._started_at,
            "finishedAt": now(),
            "containerID": self.container_id,
        }
        if code < 0:
            terminated["signal"] = -code
        policy = self.spec.get("terminationMessagePolicy", "File")
        log_file = self.log_file(self.restarts)
        if told := termination_message(self.message_file, log_file, policy, exit_code):
            terminated["message"] = told
        self.state = {"terminated": terminated}
        self.ready = self.started = False

    def finished_before(self) -> None:
        """It need not run again: an earlier node has seen its end."""
        self.state, self.last_state = self.last_state, {}
        self.ready = self.earlier_exit == 0

    def status(self) -> Object:
        """Its ContainerStatus."""
        image = self.spec["image"]
        return {
            "name": self.name,
            "image": image,
            "imageID": f"process://{image}" if self.container_id else "",
            "containerID": self.container_id,
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
            "state": self.state,
            "lastState": self.last_state,
        }
