"""The line of weights: what status told and what was seen, and nothing made up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kohort.api.status import CohortStatus, RevisionStatus, Status
from kohort.view.rollout import Facts
from kohort.web.seen import MOST_POINTS, Line, Seen

START = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
names = st.sampled_from(["", "a", "b"])
cohorts = st.builds(
    CohortStatus, name=st.just("all"), stable=names, canary=names, weight=st.integers(0, 100)
)


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


@given(st.lists(st.tuples(cohorts, st.floats(0, 100)), min_size=1, max_size=300))
def test_points_tell_of_changes_alone_in_the_order_of_time(
    looks: list[tuple[CohortStatus, float]],
) -> None:
    line, now = Line(), 0.0
    for cohort, pause in looks:
        now += pause
        line = line.after(cohort, {"a": "v1", "b": "v2"}, at(now))
    assert 1 <= len(line.points) <= MOST_POINTS
    assert not line.recorded
    for earlier, later in pairwise(line.points):
        assert earlier.at <= later.at
        assert (earlier.stable, earlier.canary, earlier.weight) != (
            later.stable,
            later.canary,
            later.weight,
        )
    last = looks[-1][0]
    assert line.points[-1].weight == (last.weight if last.canary else 0)
    assert line.points[-1].canary == {"": "", "a": "v1", "b": "v2"}[last.canary]


def test_a_line_begins_where_status_says_that_the_step_began() -> None:
    cohort = CohortStatus(
        name="all", stable="a", canary="b", weight=5, step_started_at="2026-11-24T09:59:00Z"
    )
    line = Line().after(cohort, {}, START)
    assert line.recorded
    assert line.points[0].at == START.timestamp() - 60


def test_a_step_that_is_said_to_begin_later_begins_now() -> None:
    cohort = CohortStatus(
        name="all", stable="a", canary="b", weight=5, step_started_at="2026-11-24T10:01:00Z"
    )
    line = Line().after(cohort, {}, START)
    assert not line.recorded
    assert line.points[0].at == START.timestamp()


def test_the_recorded_begin_is_forgotten_with_its_point() -> None:
    cohort = CohortStatus(
        name="all", stable="a", canary="b", weight=0, step_started_at="2026-11-24T09:59:00Z"
    )
    line = Line()
    for second in range(MOST_POINTS + 1):
        line = line.after(
            CohortStatus(
                name="all",
                stable="a",
                canary="b",
                weight=second % 2,
                step_started_at=cohort.step_started_at,
            ),
            {},
            at(second),
        )
    assert len(line.points) == MOST_POINTS
    assert not line.recorded


def facts(name: str, *cohorts: str) -> Facts:
    return Facts(
        namespace="shop",
        name=name,
        generation=1,
        status=Status(
            cohorts=tuple(CohortStatus(name=c, stable="a") for c in cohorts),
            revisions=(RevisionStatus(name="a", number=1, uri="u", created_at=""),),
        ),
        stages={},
    )


def test_nothing_is_kept_of_models_and_cohorts_that_are_gone() -> None:
    seen = Seen()
    seen.take(facts("burger", "one", "two"), START)
    seen.take(facts("pizza", "one"), START)
    assert seen.of("shop", "burger").keys() == {"one", "two"}
    seen.take(facts("burger", "two"), at(1))
    assert seen.of("shop", "burger").keys() == {"two"}
    assert seen.of("shop", "burger")["two"].points[0].stable == "v1"
    seen.keep([("shop", "pizza")])
    assert seen.of("shop", "burger") == {}
    seen.forget("shop", "pizza")
    assert seen.of("shop", "pizza") == {}
