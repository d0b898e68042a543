"""Why pods do not become ready, out of what Kubernetes says about them."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

from kohort.contract import parse_failure
from kohort.observe.wire import ContainerStatus, DeploymentStatus, PodStatus, Terminated
from kohort.plan.world import Problem

LONGEST_MESSAGE = 900

_IMAGE_REASONS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
}
_CONFIG_REASONS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
# A name ends with a letter or digit; the full stop after it is the sentence's.
_EXTENDED_RESOURCE = re.compile(r"Insufficient ([a-z0-9.-]+/[A-Za-z0-9._-]*[A-Za-z0-9])")
LONGEST_OUTPUT = 300
SIGNAL_EXIT = 128


def pod_problem(name: str, status: PodStatus) -> Problem | None:
    """The problem of a pod that is not ready; None while it is simply not ready yet."""
    for container in (*status.init_container_statuses, *status.container_statuses):
        for look in (_image, _configuration, _told, _crash):
            problem = look(name, container)
            if problem:
                return problem
    return next(_scheduling(status), None)


def deployment_problem(status: DeploymentStatus) -> Problem | None:
    """Why a Deployment's pods are refused by the API server, if they are."""
    for condition in status.conditions:
        if condition.type != "ReplicaFailure" or condition.status != "True":
            continue
        if "exceeded quota" in condition.message:
            return _problem(
                "QuotaExceeded", f"{condition.message}; raise the quota or lower replicas"
            )
        return _problem("PodsRefused", f"pods are refused: {condition.message}; check template")
    return None


def _image(pod: str, container: ContainerStatus) -> Problem | None:
    waiting = container.state.waiting
    if waiting is None or waiting.reason not in _IMAGE_REASONS:
        return None
    return _problem(
        "ErrImagePull",
        f"image {container.image or '(unknown)'} of container {container.name} cannot be pulled;"
        " check its name and imagePullSecrets",
    )


def _configuration(pod: str, container: ContainerStatus) -> Problem | None:
    waiting = container.state.waiting
    if waiting is None or waiting.reason not in _CONFIG_REASONS:
        return None
    return _problem(waiting.reason, f"container {container.name}: {waiting.message}")


def _ends(container: ContainerStatus) -> tuple[Terminated, ...]:
    ends = (container.state.terminated, container.last_state.terminated)
    return tuple(end for end in ends if end is not None)


def _told(pod: str, container: ContainerStatus) -> Problem | None:
    for end in _ends(container):
        failure = parse_failure(end.message)
        if failure:
            return _problem(failure.reason.value, failure.message)
    return None


def _crash(pod: str, container: ContainerStatus) -> Problem | None:
    ends = [end for end in _ends(container) if end.exit_code or end.signal]
    if not ends:
        return None
    end = ends[0]
    if end.reason == "OOMKilled":
        return _problem(
            "OOMKilled",
            f"container {container.name} used more memory than its limit;"
            " raise resources.limits.memory in template",
        )
    output = _last_words(end.message)
    said = f"; its last words: {output}" if output else ""
    return _problem(
        "CrashLoopBackOff",
        f"container {container.name} {_ending(end)}{said};"
        f" see kubectl logs {pod} -c {container.name} --previous",
    )


def _ending(end: Terminated) -> str:
    """How a container ended; runtimes tell of a signal as 128 more than its number."""
    number = end.signal or end.exit_code - SIGNAL_EXIT
    try:
        return f"was killed by {signal.Signals(number).name}"
    except ValueError:
        return f"exited with code {end.exit_code}"


def _last_words(message: str) -> str:
    """The end of what a container said, in whole words."""
    words = " ".join(message.split())
    if len(words) <= LONGEST_OUTPUT:
        return words
    return "… " + words[-LONGEST_OUTPUT:].partition(" ")[2]


def _scheduling(status: PodStatus) -> Iterator[Problem]:
    for condition in status.conditions:
        if condition.type != "PodScheduled" or condition.reason != "Unschedulable":
            continue
        resource = _EXTENDED_RESOURCE.search(condition.message)
        if resource:
            yield _problem(
                "WaitingForGPU",
                f"no node has enough {resource[1]} free: {condition.message}",
            )
        else:
            yield _problem("Unschedulable", f"no node takes the pod: {condition.message}")


def _problem(reason: str, message: str) -> Problem:
    return Problem(reason, message[:LONGEST_MESSAGE])
