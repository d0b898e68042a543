"""What the demo asks for and what must come of it; told apart from how it is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kohort_local.traffic import Account, Clients

NAMESPACE = "default"
NAME = "digits"
SINGLES, BATCHERS = "singles", "batchers"

GROUPS = [
    Clients(SINGLES, {"x-app": "scanner"}, count=120, rows=1, period=1.2),
    Clients(BATCHERS, {"x-app": "archive"}, count=120, rows=16, period=1.2),
]


CHAPTERS = {
    "v1": "v1 serves: a small model that saw sixty images",
    "v2": "v2 is better, for everybody: both cohorts should promote it",
    "v3": "v3 is better still, but was exported with a batch size of one: batchers send sixteen",
}
ENDS = {
    "v2": {SINGLES: "v2", BATCHERS: "v2"},
    "v3": {SINGLES: "v3", BATCHERS: "v2"},
}


def deployment(model: Path) -> dict[str, Any]:
    """The ModelDeployment of the demo, serving ``model``."""
    steps = [{"weight": 10, "hold": "8s"}, {"weight": 50, "hold": "8s"}]
    return {
        "apiVersion": "kohort.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "model": {"uri": f"file://{model}"},
            "replicas": 2,
            "cohorts": [
                {
                    "name": BATCHERS,
                    "match": [{"headers": [{"name": "x-app", "value": "archive"}]}],
                    "steps": steps,
                },
                {"name": SINGLES, "steps": steps},
            ],
        },
    }


def stables(status: dict[str, Any]) -> dict[str, str]:
    """Version of each cohort's stable revision, ``{"singles": "v2", …}``."""
    number = {r["name"]: f"v{r['number']}" for r in status.get("revisions", [])}
    return {c["name"]: number.get(c.get("stable", ""), "") for c in status.get("cohorts", [])}


def version_of(status: dict[str, Any]) -> dict[str, str]:
    """Revision name → version, for the account."""
    return {r["name"]: f"v{r['number']}" for r in status.get("revisions", [])}


def settled(status: dict[str, Any], wanted: dict[str, str]) -> bool:
    """Whether every cohort has ended where it should, with nothing under way."""
    return stables(status) == wanted and all(
        c["phase"] in ("Stable", "RolledBack") for c in status["cohorts"]
    )


def faults(account: Account, versions: dict[str, str], status: dict[str, Any]) -> list[str]:
    """Everything that is not as the story tells it; empty when all is well."""
    told = []
    if stables(status) != ENDS["v3"]:
        told.append(
            f"stable revisions are {stables(status)}, not v3 for singles and v2 for batchers"
        )
    if account.lost:
        told.append(f"{len(account.lost)} requests were lost, the first: {account.lost[0]}")
    if account.misrouted:
        told.append(f"{len(account.misrouted)} were misrouted, the first: {account.misrouted[0]}")
    if account.refused(SINGLES):
        told.append(f"{account.refused(SINGLES)} requests of singles were refused")
    third = next((name for name, version in versions.items() if version == "v3"), "")
    if account.refused(BATCHERS) != account.refused(BATCHERS, third):
        told.append("requests of batchers were refused by another revision than v3")
    if not account.refused(BATCHERS, third):
        told.append("no request of batchers met v3: the story was not put to the test")
    for client, path in account.paths.items():
        seen = [versions.get(revision, revision) for revision in path]
        whole = ["v1", "v2", "v3", "v2"] if client.startswith(BATCHERS) else ["v1", "v2", "v3"]
        if seen != whole[: len(seen)]:
            told.append(f"client {client} was moved to and fro: {' → '.join(seen)}")
    return told
