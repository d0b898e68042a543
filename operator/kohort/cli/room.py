"""Whether the GPUs that a rollout needs are free now, as far as a person may see that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from kohort.api.spec import GPU
from kohort.cli.cluster import Cluster, ForbiddenError
from kohort.contract import LABEL_GPU_PRODUCT
from kohort.view.rollout import Resource
from kohort.view.words import plural


def room_told(cluster: Cluster, gpu: GPU | None) -> str:
    """For how many more pods there are GPUs, in words; or why that is not known. Empty without GPUs."""
    if gpu is None:
        return ""
    if gpu.claim_template:
        return "what claims can get is not looked at"
    try:
        more = pods_that_fit(cluster.nodes(), cluster.all_pods(), gpu)
    except ForbiddenError:
        return "whether they are is not known: you may not list nodes and the pods on them"
    return f"now there are enough for {plural(more, 'more pod')}"


def pods_that_fit(nodes: Iterable[Resource], pods: Iterable[Resource], gpu: GPU) -> int:
    """Pods of ``gpu.count`` GPUs each that the nodes have free, each pod on one node.

    What a node can allocate, less what the pods that it has ask for. Only GPUs are looked at: not CPUs,
    taints or quotas.
    """
    used: Counter[str] = Counter()
    for pod in pods:
        used[pod["spec"].get("nodeName", "")] += _asked(pod, gpu.resource)
    return sum(
        max(0, _allocatable(node, gpu) - used[node["metadata"]["name"]]) // gpu.count
        for node in nodes
    )


def _allocatable(node: Resource, gpu: GPU) -> int:
    """GPUs of the wanted kind on a node that takes pods."""
    product = node["metadata"].get("labels", {}).get(LABEL_GPU_PRODUCT)
    if node.get("spec", {}).get("unschedulable") or (gpu.products and product not in gpu.products):
        return 0
    return int(node.get("status", {}).get("allocatable", {}).get(gpu.resource, 0))


def _asked(pod: Resource, resource: str) -> int:
    """What a pod holds: its containers' together, or the greediest init container's."""
    if pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0

    def limits(containers: Iterable[Resource]) -> list[int]:
        return [int(c.get("resources", {}).get("limits", {}).get(resource, 0)) for c in containers]

    spec = pod["spec"]
    together = sum(limits(spec.get("containers", ())))
    return max([together, *limits(spec.get("initContainers", ()))])
