"""What there is of a model that was rolled out, and how its rollout ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

POINT = "example.com/point"
"""The annotation that makes each rollout's revision one of its own."""

Json = dict[str, Any]


@dataclass(frozen=True)
class End:
    """How a rollout ended, in words that are the same for every repetition of it.

    ``cohorts``: name, file of the model, which revision that is (``same`` as before, of ``this``
    rollout, ``passed`` over, or a ``former``), phase. ``deployments``: of stable revisions, which one
    and how many pods.
    """

    cohorts: tuple[tuple[str, str, str, str], ...]
    ready: str
    deployments: tuple[tuple[str, int], ...]
    new_records: int


@dataclass
class View:
    """What the API server tells of a lane's model."""

    model: Json
    deployments: list[Json]
    pods: list[Json]
    records: list[Json]

    @property
    def status(self) -> Json:
        return dict(self.model.get("status") or {})

    @property
    def cohorts(self) -> dict[str, Json]:
        return {c["name"]: c for c in self.status.get("cohorts", [])}

    def stable(self) -> dict[str, str]:
        """Stable revision by cohort."""
        return {name: c.get("stable", "") for name, c in self.cohorts.items()}

    def record_names(self) -> set[str]:
        return {r["metadata"]["name"] for r in self.records}

    def under_way(self) -> str:
        """What is still to be decided or to take effect for clients; empty when nothing is."""
        status, meta = self.status, self.model["metadata"]
        line = meta.get("annotations", {}).get("kohort.dev/command", "")
        if status.get("observedGeneration") != meta["generation"]:
            return "the spec was not seen"
        if line and status.get("command", {}).get("line") != line:
            return "the command was not carried out"
        for cohort in self.cohorts.values():
            if cohort["phase"] not in ("Stable", "RolledBack") or cohort.get("canary"):
                return f"{cohort['name']} is {cohort['phase']}: {cohort.get('message')}"
        return ""

    def left_over(self) -> str:
        """What is there besides the stable revisions and their ready pods; empty when nothing is."""
        wanted = set(self.stable().values())
        found = {d["metadata"]["name"] for d in self.deployments}
        if found != wanted:
            return f"Deployments {sorted(found)} instead of {sorted(wanted)}"
        strangers = [o for o in (*self.deployments, *self.pods) if not self._belongs(o)]
        if strangers:
            return f"left over: {[o['metadata']['name'] for o in strangers]}"
        pods = sum(d["spec"]["replicas"] for d in self.deployments)
        if len(self.pods) != pods:
            return f"{len(self.pods)} pods instead of {pods}"
        ready = sum(d.get("status", {}).get("readyReplicas", 0) for d in self.deployments)
        return "" if ready == pods else f"{ready} of {pods} pods are ready"

    def _belongs(self, item: Json) -> bool:
        meta = item["metadata"]
        if "deletionTimestamp" in meta:
            return False
        owners = [o["uid"] for o in meta.get("ownerReferences", []) if o["kind"] != "ReplicaSet"]
        return not owners or owners == [self.model["metadata"]["uid"]]

    def end(self, before: View, point: str) -> End:
        """This end of a rollout that began at ``before``."""
        serving = [d for d in self.deployments if d["metadata"]["name"] in self.stable().values()]
        points = {
            d["metadata"]["name"]: d["spec"]["template"]["metadata"]
            .get("annotations", {})
            .get(POINT, "")
            for d in serving
        }
        files = {r["name"]: Path(r["uri"]).stem for r in self.status["revisions"]}
        was = before.stable()

        def role(cohort: str, revision: str) -> str:
            if was.get(cohort) == revision:
                return "same"
            told = points.get(revision, "")
            return {point: "this", f"{point}-passed": "passed"}.get(told, "former")

        ready = next(c for c in self.status["conditions"] if c["type"] == "Ready")
        return End(
            cohorts=tuple(
                (name, files[c["stable"]], role(name, c["stable"]), c["phase"])
                for name, c in sorted(self.cohorts.items())
            ),
            ready=f"{ready['status']} {ready['reason']}",
            deployments=tuple(
                sorted(
                    (
                        (points[d["metadata"]["name"]] == point and "this") or "other",
                        d["spec"]["replicas"],
                    )
                    for d in serving
                )
            ),
            new_records=len(self.record_names() - before.record_names()),
        )
