"""How fast a rollout begins: from `kubectl apply` to the first answer of the new revision.

    python -m tests.bench.rollout

A local cluster of its own; the model is a file on this machine, so nothing is downloaded.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from kohort_local.cluster import Cluster
from kohort_local.install import Installation, images, install
from kohort_local.models import Digits, train
from kohort_local.traffic import Clients, Traffic

ROUNDS = 7
NAME = "bench"
CLIENTS = [Clients("everyone", {}, count=50, rows=1, period=0.25)]


def manifest(model: Path) -> dict[str, Any]:
    """A model whose canary gets half of the clients in its only step."""
    return {
        "apiVersion": "kohort.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": NAME, "namespace": "default"},
        "spec": {
            "model": {"uri": f"file://{model}"},
            "cohorts": [{"name": "everyone", "steps": [{"weight": 50, "hold": "1s"}]}],
        },
    }


async def measure(
    installation: Installation, models: list[Path], digits: Digits
) -> list[tuple[float, float]]:
    """Seconds from the start of ``kubectl apply``, and from its end, to the first canary answer."""
    kubectl = installation.kubectl
    taken = []
    await asyncio.to_thread(kubectl.apply, manifest(models[0]))
    await asyncio.to_thread(
        kubectl, "wait", "--for=condition=Ready", f"mdep/{NAME}", "--timeout=60s"
    )
    traffic = Traffic(installation.gateway_url, "default", NAME, CLIENTS, digits)
    async with traffic:
        await asyncio.sleep(1)
        for model in models[1:]:
            known = set(traffic.account.first_answer)
            began = time.monotonic()
            await asyncio.to_thread(kubectl.apply, manifest(model))
            applied = time.monotonic()
            while not (new := set(traffic.account.first_answer) - known):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            first = traffic.account.first_answer[new.pop()]
            taken.append((first - began, first - applied))
            await asyncio.to_thread(
                kubectl, "wait", "--for=condition=Ready", f"mdep/{NAME}", "--timeout=60s"
            )
    if traffic.account.lost or traffic.account.misrouted:
        raise SystemExit(f"requests were lost: {traffic.account.lost[:3]}")
    return taken


def main() -> None:
    """Measure and print a table."""
    with tempfile.TemporaryDirectory() as directory:
        paths, digits = train(Path(directory) / "models")
        models = []
        for number in range(ROUNDS + 1):  # equal models of different names are different revisions
            models.append(Path(directory) / f"model-{number}.onnx")
            models[-1].write_bytes(paths["v2"].read_bytes())
        with Cluster(Path(directory) / "cluster", images=images()) as cluster:
            installation = install(cluster.kubeconfig, cluster.node_port_range)
            taken = asyncio.run(measure(installation, models, digits))
    print("| to the first canary answer | min | median | max |")
    print("|---|---|---|---|")
    for title, column in (("from the start of kubectl apply", 0), ("from its end", 1)):
        values = [pair[column] for pair in taken]
        figures = (min(values), statistics.median(values), max(values))
        print(f"| {title} | {' | '.join(f'{v:.2f} s' for v in figures)} |")


if __name__ == "__main__":
    main()
