"""Why pods do not become ready, out of what Kubernetes says about them."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

from kohort.contract import LABEL_GPU_PRODUCT, parse_failure
from kohort.observe.wire import (
    ContainerStatus,
    DeploymentStatus,
    PodObject,
    PodSpec,
    PodStatus,
    Terminated,
)
from kohort.plan.world import WAITING_FOR_GPU, Problem

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
_OTHER_NODES = "didn't match Pod's node affinity"
LONGEST_OUTPUT = 300
SIGNAL_EXIT = 128


def pod_problem(pod: PodObject) -> Problem | None:
    """The problem of a pod that is not ready; None while it is simply not ready yet."""
    name, status = pod.metadata.name, pod.status
    for container in (*status.init_container_statuses, *status.container_statuses):
        for look in (_image, _configuration, _told, _crash):
            problem = look(name, container)
            if problem:
                return problem
    return next(_scheduling(pod.spec, status), None)


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


def _scheduling(spec: PodSpec, status: PodStatus) -> Iterator[Problem]:
    for condition in status.conditions:
        if condition.type != "PodScheduled" or condition.reason != "Unschedulable":
            continue
        # Whom the scheduler could evict tells nobody what is missing.
        verdict = condition.message.partition(" preemption: ")[0]
        missing = _missing_devices(spec, verdict)
        if missing:
            yield _problem(WAITING_FOR_GPU, f"{missing}: {verdict}")
        else:
            yield _problem("Unschedulable", f"no node takes the pod: {verdict}")


def _missing_devices(spec: PodSpec, verdict: str) -> str:
    """Which devices no node has for a pod; empty when it lacks something else."""
    terms = spec.affinity.node_affinity.required.node_selector_terms
    products = [
        product
        for term in terms
        for requirement in term.match_expressions
        if requirement.key == LABEL_GPU_PRODUCT
        for product in requirement.values
    ]
    one_of = f" of product {' or '.join(products)}" if products else ""
    lacking = _EXTENDED_RESOURCE.search(verdict)
    if lacking:
        limits = [c.resources.limits.get(lacking[1], 0) for c in spec.containers]
        return f"no node has {sum(map(int, limits))} {lacking[1]} free{one_of}"
    if products and _OTHER_NODES in verdict and "Insufficient" not in verdict:
        return f"no node has a GPU{one_of}"
    templates = [c.resource_claim_template_name for c in spec.resource_claims]
    if any(templates) and "claim" in verdict:
        return f"no node has the devices of claim template {', '.join(filter(None, templates))}"
    return ""


def _problem(reason: str, message: str) -> Problem:
    return Problem(reason, message[:LONGEST_MESSAGE])
