"""What a model's routes are made of status and pods."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kohort.route.table import CohortRoute, ModelKey, RouteTable, with_fallback

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
