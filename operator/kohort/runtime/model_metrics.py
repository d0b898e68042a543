"""Where models are, for Prometheus: sums over all of them, and single cohorts only while they roll out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kohort.api.status import CohortPhase, CohortStatus, Phase, Verdict
from kohort.route.table import ModelKey
from kohort.runtime.caches import Caches
from kohort.runtime.metrics import PREFIX, Described
from kohort.runtime.models import Models

# Two lines each of about 120 bytes: with all of them the page is still below 200 KB.
COHORTS_TOLD = 400
_EACH = ("namespace", "model", "cohort")

MODELS = Described(f"{PREFIX}models", "gauge", ("phase",), "ModelDeployments by phase")
COHORTS = Described(f"{PREFIX}cohorts", "gauge", ("phase",), "Cohorts by phase")
VERDICTS = Described(
    f"{PREFIX}verdicts", "gauge", ("verdict",), "What the evidence says of cohorts in a rollout"
)
ROLLING = Described(f"{PREFIX}rolling_cohorts", "gauge", (), "Cohorts that have a canary")
WEIGHT = Described(
    f"{PREFIX}rollout_weight_percent",
    "gauge",
    _EACH,
    f"Share of a cohort's clients on its canary, of the first {COHORTS_TOLD} cohorts in a rollout",
)
STEP = Described(
    f"{PREFIX}rollout_step",
    "gauge",
    _EACH,
    f"Step that a cohort is on, from 0, of the first {COHORTS_TOLD} cohorts in a rollout",
)
DESCRIBED = (MODELS, COHORTS, VERDICTS, ROLLING, WEIGHT, STEP)


class ModelCollector(Collector):
    """Reads the cache of models whenever it is asked."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """The families of DESCRIBED, in that order."""
        models, cohorts, verdicts = Counter[str](), Counter[str](), Counter[str]()
        rolling: list[tuple[ModelKey, CohortStatus]] = []
        for model in self._models:
            models[model.status.phase] += 1
            for cohort in model.status.cohorts:
                cohorts[cohort.phase] += 1
                if cohort.canary:
                    rolling.append((model.key, cohort))
                    verdicts.update(e.verdict for e in cohort.evidence if not e.watched)
        yield _counted(MODELS, models, Phase)
        yield _counted(COHORTS, cohorts, CohortPhase)
        yield _counted(VERDICTS, verdicts, Verdict)
        yield GaugeMetricFamily(ROLLING.name, ROLLING.text, value=len(rolling))
        weight, step = (GaugeMetricFamily(d.name, d.text, labels=_EACH) for d in (WEIGHT, STEP))
        for key, cohort in islice(sorted(rolling, key=_place), COHORTS_TOLD):
            labels = (key.namespace, key.name, cohort.name)
            weight.add_metric(labels, cohort.weight)
            step.add_metric(labels, cohort.step)
        yield from (weight, step)


WATCH_AGE = Described(
    f"{PREFIX}watch_age_seconds",
    "gauge",
    ("resource",),
    "Since the API server last said anything to an informer; bookmarks come every minute",
)


class WatchCollector(Collector):
    """Reads how long ago informers heard of the API server."""

    def __init__(self, caches: Caches) -> None:
        self._caches = caches

    def collect(self) -> Iterator[Metric]:
        """WATCH_AGE."""
        family = GaugeMetricFamily(WATCH_AGE.name, WATCH_AGE.text, labels=WATCH_AGE.labels)
        for resource, age in self._caches.watch_ages().items():
            family.add_metric((resource,), age)
        yield family


def _place(entry: tuple[ModelKey, CohortStatus]) -> tuple[str, str, str]:
    key, cohort = entry
    return key.namespace, key.name, cohort.name


def _counted(described: Described, counts: Counter[str], values: Iterable[str]) -> Metric:
    """One sample for each of the known values, also for those that nothing has."""
    family = GaugeMetricFamily(described.name, described.text, labels=described.labels)
    for value in values:
        family.add_metric((str(value),), counts[value])
    return family
