"""Grafana's boards: every query of every panel has an answer while a real rollout is under way."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

from kohort.contract import MIRROR_COUNTERS_PATH, PORT_GATEWAY_STATUS, PORT_OPERATOR_STATUS
from kohort_local.install import NAMESPACE, Installation
from tests.component.prometheus_parts import RealPrometheus, prometheus
from tests.e2e.world import Model

BOARDS = Path(__file__).parents[2] / "charts" / "kohort" / "files" / "dashboards"
# As the chart's PodMonitors scrape: the paths, and the labels of a pod.
SCRAPED = {
    "operator": (PORT_OPERATOR_STATUS, ("/metrics",)),
    "gateway": (PORT_GATEWAY_STATUS, ("/stats/prometheus", MIRROR_COUNTERS_PATH)),
}
SLOW = [
    {"weight": 0, "mirror": {"percent": 100}, "hold": "8s"},
    {"weight": 50, "hold": "120s"},
]
COHORTS = [
    {
        "name": "batchers",
        "match": [{"headers": [{"name": "x-app", "value": "archive"}]}],
        "steps": SLOW,
    },
    {"name": "singles", "steps": SLOW},
]


def jobs(installation: Installation) -> Iterator[dict[str, Any]]:
    for component, (port, paths) in SCRAPED.items():
        label = f"app.kubernetes.io/component={component}"
        pods = installation.kubectl.get("pods", "-n", NAMESPACE, "-l", label)["items"]
        for path in paths:
            yield {
                "job_name": f"{component}{path}",
                "metrics_path": path,
                "static_configs": [
                    {
                        "targets": [f"{pod['status']['podIP']}:{port}"],
                        "labels": {"namespace": NAMESPACE, "pod": pod["metadata"]["name"]},
                    }
                    for pod in pods
                ],
            }


def chosen(expression: str, model: Model) -> str:
    """A query as Grafana asks it when somebody has chosen this model."""
    values = {
        "$__rate_interval": "8s",
        "$installation": NAMESPACE,
        "$namespace": model.namespace,
        "$model": model.name,
        "$cohort": ".*",
    }
    for name, value in values.items():
        expression = expression.replace(name, value)
    assert "$" not in re.sub(r'"\$1"|\$"', "", expression), expression
    return expression


def queries(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Every query of a board, by where it is."""
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert found
            yield variable["name"], f"count by ({found[2]}) ({found[1]})"
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield f"{panel['title']}, {target['refId']}", target["expr"]


async def ask(session: aiohttp.ClientSession, source: RealPrometheus, query: str) -> list[Any]:
    """The samples that are numbers."""
    data = {"query": query}
    async with session.post(f"{source.url}/api/v1/query", data=data) as answer:
        told = await answer.json()
    assert told["status"] == "success", told
    assert not told.get("warnings"), told
    return [r for r in told["data"]["result"] if r["value"][1] != "NaN"]


async def test_every_panel_of_every_board_has_data_in_a_rollout(
    model: Model, installation: Installation, tmp_path: Path
) -> None:
    boards = {path.stem: json.loads(path.read_text()) for path in sorted(BOARDS.glob("*.json"))}
    assert boards.keys() == {"fleet", "rollout"}
    by_revision = query_of(boards["rollout"], "Requests by revision")
    scraped = list(await asyncio.to_thread(lambda: [*jobs(installation)]))
    async with (
        prometheus(tmp_path, *scraped) as source,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
        model.served("v1", cohorts=COHORTS),
    ):
        model.apply("v2", cohorts=COHORTS)
        answered: set[str] = set()  # a mirrored step is over before others begin
        missing: set[str] = set()
        shown: set[tuple[str, str]] = set()
        for _ in range(90):
            missing = set()
            for name, board in boards.items():
                for place, query in queries(board):
                    found = await ask(session, source, chosen(query, model))
                    if found:
                        answered.add(f"{name}: {place}")
                    if query == by_revision:
                        shown = {(r["metric"]["cohort"], r["metric"]["revision"]) for r in found}
                    missing.add(f"{name}: {place}")
            missing -= answered
            if not missing and len(shown) == 4:
                break
            await asyncio.sleep(1)
        assert missing == set()
    assert {cohort for cohort, _ in shown} == {"batchers", "singles"}
    assert len({revision for _, revision in shown}) == 2


def query_of(board: dict[str, Any], title: str) -> str:
    panel = next(p for p in board["panels"] if p["title"] == title)
    return str(panel["targets"][0]["expr"])
