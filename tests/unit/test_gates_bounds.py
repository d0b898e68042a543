"""How many samples prove what, and that bounds are those of the books."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from kohort_server.gates.bounds import (
    Interval,
    NoBoundError,
    Rows,
    bootstrap_lower,
    exact_lower,
    exact_upper,
    samples_needed,
    wilson_lower,
)
from kohort_server.gates.distributions import (
    beta_quantile,
    beta_share,
    binomial_at_least,
    chi_squared_beyond,
    holm,
    kolmogorov_beyond,
)

CONFIDENCES = st.sampled_from([0.8, 0.9, 0.95, 0.99, 0.999])
COUNTS = st.tuples(st.integers(1, 5000), st.floats(0, 1)).map(lambda p: (round(p[0] * p[1]), p[0]))


@pytest.mark.parametrize(("observed", "needed"), [(0.96, 1286), (0.97, 322), (0.98, 143)])
def test_95_percent_at_95_percent_needs_as_many_samples_as_wilson_says(
    observed: float, needed: int
) -> None:
    assert samples_needed(Interval.WILSON, observed, 0.95, 0.95) == needed
    assert wilson_lower(observed * needed, needed, 0.95) >= 0.95
    assert wilson_lower(observed * (needed - 1), needed - 1, 0.95) < 0.95


@pytest.mark.parametrize(("observed", "needed"), [(0.97, 343), (0.98, 157), (1.0, 59)])
def test_an_exact_bound_needs_some_more(observed: float, needed: int) -> None:
    assert samples_needed(Interval.EXACT, observed, 0.95, 0.95) == needed
    for count, enough in ((needed - 1, False), (needed, True)):
        hits = observed * count
        assert (stats.beta.ppf(0.05, hits, count - hits + 1) >= 0.95) is np.bool_(enough)


def test_no_number_of_samples_shows_what_is_not_so() -> None:
    for interval in Interval:
        assert samples_needed(interval, 0.95, 0.95, 0.95) is None
        assert samples_needed(interval, 0.5, 0.95, 0.95) is None


@given(st.floats(0.01, 1), st.floats(0.01, 0.99), CONFIDENCES, st.sampled_from(Interval))
def test_the_number_needed_is_the_first_that_is_enough(
    observed: float, wanted: float, confidence: float, interval: Interval
) -> None:
    if observed - wanted < 0.005:
        return
    needed = samples_needed(interval, observed, wanted, confidence)
    bound = wilson_lower if interval is Interval.WILSON else exact_lower
    assert needed is not None
    assert bound(observed * needed, needed, confidence) >= wanted - 1e-9
    if needed > 1:
        before = bound(observed * (needed - 1), needed - 1, confidence)
        assert before < wanted + 1e-9


@given(COUNTS, CONFIDENCES)
def test_exact_bounds_are_scipys(counts: tuple[int, int], confidence: float) -> None:
    hits, count = counts
    told = stats.binomtest(hits, count, alternative="greater").proportion_ci(confidence)
    assert exact_lower(hits, count, confidence) == pytest.approx(told.low, abs=1e-10)
    told = stats.binomtest(hits, count, alternative="less").proportion_ci(confidence)
    assert exact_upper(hits, count, confidence) == pytest.approx(told.high, abs=1e-10)


@given(COUNTS, CONFIDENCES)
def test_wilsons_bounds_are_scipys(counts: tuple[int, int], confidence: float) -> None:
    hits, count = counts
    told = stats.binomtest(hits, count, alternative="greater").proportion_ci(confidence, "wilson")
    assert wilson_lower(hits, count, confidence) == pytest.approx(told.low, abs=1e-10)


@settings(max_examples=30)
@given(st.integers(1, 60), st.floats(0.001, 0.999), CONFIDENCES)
def test_an_exact_bound_lies_above_the_truth_no_more_often_than_was_said(
    count: int, truth: float, confidence: float
) -> None:
    chances = stats.binom.pmf(np.arange(count + 1), count, truth)
    above = [exact_lower(hits, count, confidence) > truth for hits in range(count + 1)]
    assert chances[above].sum() <= 1 - confidence + 1e-9


def test_wilsons_bound_lies_above_the_truth_more_often_than_was_said_in_places() -> None:
    chances = stats.binom.pmf(np.arange(41), 40, 0.98)
    above = [wilson_lower(hits, 40, 0.95) > 0.98 for hits in range(41)]
    exact = [exact_lower(hits, 40, 0.95) > 0.98 for hits in range(41)]
    assert chances[exact].sum() <= 0.05
    worst = max(
        stats.binom.pmf(np.arange(41), 40, truth)[
            [wilson_lower(hits, 40, 0.95) > truth for hits in range(41)]
        ].sum()
        for truth in np.linspace(0.5, 0.999, 200)
    )
    assert worst > 0.05
    assert chances[above].sum() <= worst


@given(st.floats(0, 1), st.floats(0.5, 5000), st.floats(0.5, 5000))
def test_the_beta_distribution_is_scipys(x: float, a: float, b: float) -> None:
    assert beta_share(x, a, b) == pytest.approx(float(special.betainc(a, b, x)), abs=1e-10)


@given(st.floats(0.001, 0.999), st.floats(0.5, 500), st.floats(0.5, 500))
def test_a_quantile_of_it_is_where_the_share_is_reached(share: float, a: float, b: float) -> None:
    assert beta_share(beta_quantile(share, a, b), a, b) == pytest.approx(share, abs=1e-9)


@given(st.integers(0, 400), st.integers(0, 400), st.floats(0.01, 0.99))
def test_binomial_tails_are_scipys(hits: int, count: int, chance: float) -> None:
    expected = stats.binom.sf(hits - 1, count, chance)
    assert binomial_at_least(hits, count, chance) == pytest.approx(expected, abs=1e-10)


@given(st.floats(0, 5000), st.integers(1, 2000))
def test_chi_squareds_tail_is_scipys(value: float, degrees: int) -> None:
    expected = float(stats.chi2.sf(value, degrees))
    assert chi_squared_beyond(value, degrees) == pytest.approx(expected, abs=1e-9)


@given(st.floats(0, 6))
def test_kolmogorovs_tail_is_scipys(value: float) -> None:
    assert kolmogorov_beyond(value) == pytest.approx(float(special.kolmogorov(value)), abs=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holms_p_values_grow_by_at_most_their_number_and_keep_their_order(
    chances: list[float],
) -> None:
    adjusted = holm(chances)
    assert (adjusted >= np.array(chances) - 1e-12).all()
    assert (adjusted <= np.minimum(1, np.array(chances) * len(chances)) + 1e-12).all()
    assert min(adjusted) == pytest.approx(min(1, min(chances) * len(chances)))
    order = np.argsort(chances)
    assert (np.diff(adjusted[order]) >= 0).all()


def test_a_bootstraps_bound_of_a_mean_is_about_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).normal(10, 3, 2000)

    def mean(rows: Rows) -> float:
        return float(values[rows].mean())

    bound = bootstrap_lower(mean, len(values), 0.95)
    expected = values.mean() - 1.645 * values.std() / math.sqrt(len(values))
    assert bound == pytest.approx(expected, abs=0.02)
    assert bound == bootstrap_lower(mean, len(values), 0.95)


def test_samples_that_are_all_alike_say_nothing_about_others() -> None:
    with pytest.raises(NoBoundError, match="same value"):
        bootstrap_lower(lambda rows: 1.0, 50, 0.95)
    with pytest.raises(NoBoundError, match="more samples"):
        bootstrap_lower(lambda rows: math.nan, 50, 0.95)
