"""The chance of a false rollback is spent once, however often a revision is tried."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort.analysis.budget import attempt_share, check_share
from kohort.api.analysis import Analysis
from kohort.api.quantity import share
from kohort.api.status import CohortPhase
from tests.unit.plan_simulation import Cluster, model, serving


@given(st.integers(1, 1000), st.integers(1, 256))
def test_all_checks_of_all_attempts_spend_no_more_than_there_is(attempts: int, checks: int) -> None:
    spent = sum(checks * check_share(checks, attempt) for attempt in range(1, attempts + 1))
    assert spent <= 1
    assert spent >= 1 - 1 / attempts


def test_each_attempt_has_less_than_the_one_before() -> None:
    shares = [attempt_share(attempt) for attempt in range(1, 50)]
    assert all(later < earlier for earlier, later in pairwise(shares))


def test_a_revision_that_is_tried_again_has_to_be_accused_by_more() -> None:
    cluster = serving(model(1))
    cluster.edit(model(2))
    cluster.bad.add(cluster.desired)
    for attempt in (1, 2, 3):
        cluster.until(lambda c: c.cohort().phase is CohortPhase.ROLLED_BACK)
        assert (cluster.cohort().tried, cluster.cohort().attempt) == (cluster.desired, attempt)
        cluster.command = f'retry id="{attempt}"'
        cluster.tick()
    cluster.edit(model(3))
    cluster.until(Cluster.finished)
    assert (cluster.cohort().tried, cluster.cohort().attempt) == (cluster.desired, 1)


def test_two_metrics_of_one_cohort_share_the_chance() -> None:
    assert share(Analysis().false_rollback) * check_share(2, 1) == pytest.approx(0.00375)
