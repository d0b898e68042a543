"""The metrics page: described in docs as it is, and small however many models there are."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from kohort.api.status import CohortPhase, CohortStatus, Evidence, Phase, Status
from kohort.kube import Server
from kohort.route.table import ModelKey
from kohort.runtime.metrics import Metrics
from kohort.runtime.model_metrics import COHORTS_TOLD, ModelCollector
from kohort.runtime.models import Model, Models
from kohort.runtime.operator import Operator
from kohort.runtime.settings import parse

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
SETTINGS = parse(["run", "--namespace=sys", "--server-image=image"])
LARGEST_PAGE = 200_000


def page(models: Models) -> str:
    registry = CollectorRegistry()
    registry.register(ModelCollector(models))
    return generate_latest(registry).decode()


def models(count: int, *, weight: int = 0) -> Models:
    """Models with long names, all in a rollout if their canary has a weight."""
    found = Models(lambda key: None)
    for number in range(count):
        cohort = CohortStatus(
            name="everyone-in-the-north-of-europe",
            stable="burger-1",
            canary="burger-2" if weight else "",
            weight=weight,
            phase=CohortPhase.ANALYZING if weight else CohortPhase.STABLE,
            evidence=(Evidence(),),
        )
        status = Status(phase=Phase.ANALYZING if weight else Phase.HEALTHY, cohorts=(cohort,))
        key = ModelKey("a-namespace-of-the-shop-team", f"model-of-something-{number:05}")
        found.put(Model(key, f"u{number}", 1, 1, False, None, status))
    return found


async def test_the_document_lists_every_metric_as_it_is() -> None:
    operator = Operator(SETTINGS, Server("http://127.0.0.1:1"))
    listed = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", DOCUMENT.read_text(), re.M)
    described = [
        (d.name, d.kind, ", ".join(f"`{label}`" for label in d.labels), d.text)
        for d in sorted(operator.metrics.catalogue, key=lambda d: d.name)
    ]
    assert listed == described


async def test_the_catalogue_lists_every_metric_that_is_there() -> None:
    operator = Operator(SETTINGS, Server("http://127.0.0.1:1"))
    families = re.findall(r"^# TYPE (\w+) (\w+)$", operator.metrics.text().decode(), re.M)
    own = {f for f in families if f[0].startswith("kohort_") and not f[0].endswith("_created")}
    assert own == {(d.name, d.kind) for d in operator.metrics.catalogue}


def test_counters_that_alerts_wait_for_are_told_before_anything_has_happened() -> None:
    told = Metrics().text().decode()
    rules = (DOCUMENT.parents[1] / "charts/kohort/templates/monitoring/rules.yaml").read_text()
    counters = re.findall(r"increase\((\w+?)\{.*?\}\[", rules.replace("{{", "<").replace("}}", ">"))
    assert len(counters) >= 5
    for counter in set(counters) - {"kohort_operator_route_acknowledgement_seconds_bucket"}:
        assert re.search(rf"^{counter}(\{{.*\}})? 0.0$", told, re.M), counter
    for labels in ('outcome="defect"', 'action="RolledBack",by="kohort"', 'why="unreachable"'):
        assert f"{{{labels}}} 0.0" in told


def test_models_and_cohorts_are_counted_by_phase() -> None:
    text = page(models(3, weight=5))
    assert 'kohort_operator_models{phase="Analyzing"} 3.0' in text
    assert 'kohort_operator_models{phase="Healthy"} 0.0' in text
    assert 'kohort_operator_cohorts{phase="Analyzing"} 3.0' in text
    assert 'kohort_operator_verdicts{verdict="Insufficient"} 3.0' in text
    assert "kohort_operator_rolling_cohorts 3.0" in text


def test_only_cohorts_in_a_rollout_have_lines_of_their_own() -> None:
    assert "model-of-something" not in page(models(3))
    labels = 'cohort="everyone-in-the-north-of-europe",model="model-of-something-00001"'
    assert f"kohort_operator_rollout_weight_percent{{{labels}" in page(models(3, weight=5))


def test_the_page_stays_small_when_five_thousand_models_roll_out_at_once() -> None:
    text = page(models(5000, weight=5))
    assert len(text) < LARGEST_PAGE
    assert text.count("\nkohort_operator_rollout_weight_percent{") == COHORTS_TOLD
    assert "kohort_operator_rolling_cohorts 5000.0" in text
