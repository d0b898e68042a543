"""How many pods a load takes, and how few pods are shared out."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort.plan.load import FEW, HEADROOM, Part, apportion, pods_needed, pods_of_few

REPLICAS = st.integers(1, 1000)
WEIGHTS = st.integers(0, 100)
PARTS = st.lists(st.builds(Part, st.none() | st.integers(1, 100), WEIGHTS), min_size=1, max_size=6)
LOADS = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 10_000), min_size=1)


@pytest.mark.parametrize(
    ("replicas", "weight", "pods"),
    [
        (1, 1, 1),
        (4, 5, 1),
        (4, 25, 1),
        (4, 26, 2),
        (4, 50, 2),
        (10, 91, 10),
        (4, 100, 4),
        (4, 0, 1),
    ],
)
def test_a_weight_of_an_unknown_share_needs_its_share_of_the_pods_rounded_up(
    replicas: int, weight: int, pods: int
) -> None:
    assert pods_needed(replicas, [Part(None, weight)], None) == pods
    assert pods_needed(replicas, [Part(100, weight)], 100) == pods


@pytest.mark.parametrize(
    ("parts", "whole", "pods"),
    [
        ([Part(2, 100)], 100, 2),  # 2% of the requests, of which each may cost double
        ([Part(2, 100), Part(98, 5)], 100, 6),
        ([Part(2, 100), Part(98, 5)], 120, 6),  # shares that have grown, each at its own time
        ([Part(2, 100), Part(None, 5)], None, 40),
        ([Part(10, 50), Part(90, 50)], 100, 20),
        ([Part(2, 100)], 4, 40),  # half of the requests since the cohort with the others has gone
    ],
)
def test_known_shares_need_fewer_pods_than_the_greatest_weight(
    parts: list[Part], whole: int | None, pods: int
) -> None:
    assert pods_needed(40, parts, whole) == pods


@given(REPLICAS, PARTS)
def test_pods_are_enough_for_the_clients_and_no_more_than_the_greatest_weight_needs(
    replicas: int, parts: list[Part]
) -> None:
    whole = sum(p.share or 0 for p in parts) if all(p.share for p in parts) else None
    pods = pods_needed(replicas, parts, whole)
    bound = max(1, math.ceil(Fraction(replicas * max(p.weight for p in parts), 100)))
    assert 1 <= pods <= bound
    if whole is not None:
        load = sum(Fraction((p.share or 0) * p.weight, 100 * min(100, whole)) for p in parts)
        assert pods >= min(bound, replicas * load * HEADROOM)
    else:
        assert pods == bound


@given(REPLICAS, PARTS, st.data())
def test_more_clients_or_replicas_never_need_fewer_pods(
    replicas: int, parts: list[Part], data: st.DataObject
) -> None:
    raised = [
        Part(
            p.share and data.draw(st.integers(p.share, 100)),
            data.draw(st.integers(p.weight, 100)),
        )
        for p in parts
    ]
    more = replicas + data.draw(st.integers(0, 10))
    whole = 100 if all(p.share for p in parts) else None
    assert pods_needed(more, raised, whole) >= pods_needed(replicas, parts, whole)


@given(REPLICAS, LOADS)
def test_what_is_shared_out_is_all_there_is_and_leaves_nobody_without(
    total: int, loads: dict[str, int]
) -> None:
    pods = apportion(total, loads)
    assert sum(pods.values()) == max(total, len(loads))
    assert min(pods.values()) >= 1


@given(REPLICAS, LOADS)
def test_who_has_a_greater_load_gets_no_fewer_pods(total: int, loads: dict[str, int]) -> None:
    pods = apportion(total, loads)
    for one in loads:
        for other in loads:
            assert loads[one] <= loads[other] or pods[one] >= pods[other]


@given(REPLICAS, LOADS)
def test_where_nothing_moves_every_pod_is_shared_out(replicas: int, loads: dict[str, int]) -> None:
    assert pods_of_few(replicas, loads, loads) == apportion(replicas, loads)


@given(st.integers(2, 200), WEIGHTS, WEIGHTS)
def test_pods_that_move_are_few_and_never_more_than_there_are(
    replicas: int, now: int, then: int
) -> None:
    pods = pods_of_few(replicas, {"old": 100 - now, "new": now}, {"old": 100 - then, "new": then})
    assert sum(pods.values()) == replicas
    for name, weight in (("old", 100 - now), ("new", now)):
        short = Fraction(replicas * weight, 100) - pods.get(name, 0)
        assert short < max(1, replicas // FEW) + 1
        assert pods.get(name, 0) >= bool(weight)


@given(st.integers(2, 200), st.integers(0, 99), st.data())
def test_moving_pods_and_clients_by_turns_gets_there(
    replicas: int, now: int, data: st.DataObject
) -> None:
    then = data.draw(st.integers(now + 1, 100))
    for _ in range(2 * replicas):
        pods = pods_of_few(
            replicas, {"old": 100 - now, "new": now}, {"old": 100 - then, "new": then}
        )["new"]
        others = int(now < 100)
        now = max(
            w
            for w in range(now, then + 1)
            if w == now or pods >= min(math.ceil(Fraction(replicas * w, 100)), replicas - others)
        )
        if now == then:
            return
    raise AssertionError(f"stuck at {now}% on the way to {then}%")
