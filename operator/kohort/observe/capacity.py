"""What pods and Deployments amount to: capacity by revision, and where clients can be sent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from kohort.contract import PORT_SERVER
from kohort.observe.objects import Deployment, Pod
from kohort.observe.starts import Started
from kohort.plan.world import Capacity, Problem
from kohort.route.table import Endpoint


def capacity(
    deployments: Mapping[str, Deployment],
    pods: Iterable[Pod],
    started: Mapping[str, Started] | None = None,
) -> dict[str, Capacity]:
    """Capacity by revision, for revisions with a Deployment that is not being deleted.

    ``started``: what pods have told of their start, by revision.
    """
    by_revision: dict[str, list[Pod]] = defaultdict(list)
    for pod in pods:
        by_revision[pod.revision].append(pod)
    return {
        name: _capacity(deployment, by_revision[name], (started or {}).get(name) or Started())
        for name, deployment in deployments.items()
        if not deployment.deleting
    }


def _capacity(deployment: Deployment, pods: list[Pod], started: Started) -> Capacity:
    ready = sum(pod.ready and not pod.deleting for pod in pods)
    problem = _problem(deployment, pods)
    if ready < deployment.wanted and pods:
        problem = problem or started.doing
    return Capacity(deployment.wanted, ready, len(pods), problem, started.engines)


def endpoints(pods: Iterable[Pod], revisions: Iterable[str]) -> dict[str, tuple[Endpoint, ...]]:
    """Where the ready pods of these revisions listen; a revision without any has none.

    Where all of them are on their way out, those that still answer until gateways have other routes;
    where none is ready, those that are cut off, and may well answer; at last those that are slow, as all
    are on a node that has too much to do: each is better than nothing.
    """
    found: dict[str, list[list[Endpoint]]] = {name: [[], [], [], []] for name in revisions}
    for pod in pods:
        if pod.revision in found and (pod.ready or pod.cut_off or pod.slow):
            choice = 3 if pod.slow else 2 if pod.cut_off else 1 if pod.deleting else 0
            found[pod.revision][choice].append(Endpoint(pod.address, PORT_SERVER))
    return {name: tuple(sorted(next(filter(None, lists), ()))) for name, lists in found.items()}


def serving(pods: Iterable[Pod]) -> frozenset[str]:
    """Revisions with a ready pod that stays."""
    return frozenset(pod.revision for pod in pods if pod.ready and not pod.deleting)


def _problem(deployment: Deployment, pods: Iterable[Pod]) -> Problem | None:
    """The problem to tell: always the same one of several, so that status does not flap."""
    problems = [(p.problem.reason, p.name, p.problem) for p in pods if p.problem]
    return min(problems)[2] if problems else deployment.problem
