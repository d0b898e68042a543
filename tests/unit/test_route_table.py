"""What a model's routes are made of status and pods."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort.api.cohorts import Cohort, Step
from kohort.api.model import Model
from kohort.api.routing import Preview
from kohort.api.spec import Spec
from kohort.api.status import CohortStatus, Status
from kohort.route.table import (
    CohortRoute,
    HeaderMatch,
    ModelKey,
    RouteTable,
    foreseen,
    route_table,
    with_fallback,
)

KEY = ModelKey("shop", "burger")
TABLES = st.builds(
    RouteTable,
    st.just(KEY),
    st.just("x-client-id"),
    st.lists(
        st.builds(
            CohortRoute,
            name=st.sampled_from(["staff", "everyone"]),
            matches=st.just(()),
            stable=st.sampled_from(["v1", "v2"]),
            canary=st.sampled_from(["", "v3"]),
            weight=st.integers(0, 100),
            salt=st.just("salt"),
            preview=st.sampled_from(["", "v3"]),
        ),
        max_size=2,
    ).map(tuple),
)
SERVING = st.frozensets(st.sampled_from(["v1", "v2", "v3"]))


@given(TABLES, SERVING)
def test_no_client_is_sent_to_a_canary_without_pods_while_stable_has_one(
    table: RouteTable, serving: frozenset[str]
) -> None:
    for cohort in with_fallback(table, serving).cohorts:
        assert not cohort.weight or cohort.canary in serving or cohort.stable not in serving


@given(TABLES, SERVING)
def test_a_canary_with_pods_keeps_its_clients_and_every_cohort_keeps_its_slots(
    table: RouteTable, serving: frozenset[str]
) -> None:
    for before, after in zip(table.cohorts, with_fallback(table, serving).cohorts, strict=True):
        assert (after.stable, after.canary, after.salt) == (
            before.stable,
            before.canary,
            before.salt,
        )
        if before.canary in serving:
            assert after == before


def cohort(weight: int, step: int, canary: str = "v2") -> CohortStatus:
    return CohortStatus(name="everyone", stable="v1", canary=canary, weight=weight, step=step)


@pytest.mark.parametrize(
    ("weight", "step", "expected"),
    [(0, 0, 5), (5, 0, 50), (5, 1, 50), (50, 1, 100), (50, 2, 100), (100, 2, 100)],
)
def test_the_next_weight_of_a_rollout_is_foreseen(weight: int, step: int, expected: int) -> None:
    steps = (Step(weight=5, hold="1m"), Step(weight=50, hold="1m"))
    spec = Spec(model=Model(uri="file:///m"), cohorts=(Cohort(name="everyone", steps=steps),))
    status = Status(desired="v2", cohorts=(cohort(weight, step),))
    assert foreseen(spec, status).cohorts[0].weight == expected


def test_nothing_is_foreseen_of_a_canary_that_is_given_up_or_where_there_is_none() -> None:
    spec = Spec(model=Model(uri="file:///m"))
    for canary, desired in (("v2", "v3"), ("", "v1")):
        status = Status(desired=desired, cohorts=(cohort(0, 0, canary),))
        assert foreseen(spec, status) == status


@given(TABLES, SERVING)
def test_a_preview_never_leads_to_a_canary_without_pods(
    table: RouteTable, serving: frozenset[str]
) -> None:
    for cohort in with_fallback(table, serving).cohorts:
        assert not cohort.preview or cohort.canary in serving


def test_who_asks_for_a_preview_is_meant_for_the_canary_and_for_stable_outside_a_rollout() -> None:
    spec = Spec(model=Model(uri="file:///m"), preview=Preview(header="x-preview"))
    for canary in ("v2", ""):
        table = route_table(KEY, spec, Status(cohorts=(cohort(0, 0, canary),)))
        assert table is not None
        assert table.preview == HeaderMatch("x-preview", ())
        assert [c.preview for c in table.cohorts] == [canary]


def test_a_model_that_was_made_anew_has_other_routes_than_the_one_before() -> None:
    """A gateway that still has those of the one before must not be taken for one that has its own."""
    spec = Spec(model=Model(uri="file:///m"))
    status = Status(cohorts=(cohort(0, 0, ""),))
    first, second = (route_table(KEY, spec, status, life) for life in ("uid-1", "uid-2"))
    assert first is not None
    assert second is not None
    assert first.version != second.version
