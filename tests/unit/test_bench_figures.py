"""What benches read out of an operator's metrics page."""

from __future__ import annotations

import bisect
import math

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from tests.bench.figures import NO_PAGE, parse, quantile

BOUNDS = (0.1, 1.0, 5.0)
SECONDS = st.lists(st.floats(0, 20), max_size=40)


@given(earlier=SECONDS, later=SECONDS, share=st.floats(0.01, 0.99))
def test_a_quantile_of_new_observations_is_in_the_bucket_of_the_true_one(
    earlier: list[float], later: list[float], share: float
) -> None:
    registry = CollectorRegistry()
    seen = Histogram("seen", "x", ("way",), buckets=BOUNDS, registry=registry)
    for value in earlier:
        seen.labels("a").observe(value)
    before = parse(generate_latest(registry).decode())
    for number, value in enumerate(later):
        seen.labels("ab"[number % 2]).observe(value)
    told = quantile(before, parse(generate_latest(registry).decode()), "seen", share)
    if not later:
        assert math.isnan(told)
        return
    true = sorted(later)[math.ceil(share * len(later)) - 1]
    bounds = (0.0, *BOUNDS)
    place = bisect.bisect_left(BOUNDS, true)
    assert bounds[place] <= told <= bounds[min(place + 1, len(BOUNDS))]


def test_a_page_with_nothing_has_no_quantile() -> None:
    assert math.isnan(quantile(NO_PAGE, NO_PAGE, "seen", 0.5))
