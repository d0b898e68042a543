"""Whether one model is worse than another on the same samples."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kohort_server.gates.bounds import Rows
from kohort_server.gates.paired import (
    bootstrap_worse,
    mcnemar_worse,
    share_difference_lower,
    sign_flip_worse,
)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemars_test_is_the_binomial_one_of_those_that_changed(better: int, worse: int) -> None:
    expected = 1.0
    if better + worse:
        expected = stats.binomtest(worse, better + worse, alternative="greater").pvalue
    assert mcnemar_worse(better, worse) == pytest.approx(expected)


@given(st.lists(st.integers(-5, 5), max_size=9))
def test_few_differences_are_flipped_in_all_ways(numbers: list[int]) -> None:
    differences = np.array(numbers, float)
    ways = list(product([1, -1], repeat=len(numbers)))
    seen = differences.sum()
    expected = np.mean([float((differences * way).sum()) <= seen for way in ways])
    assert sign_flip_worse(differences) == pytest.approx(expected)


@settings(max_examples=20)
@given(st.integers(15, 40), st.integers(0, 1000))
def test_ones_that_are_flipped_at_random_say_what_mcnemars_test_says(n: int, seed: int) -> None:
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], n)
    exact = mcnemar_worse(int((signs > 0).sum()), int((signs < 0).sum()))
    assert sign_flip_worse(signs) == pytest.approx(exact, abs=0.015)


def test_samples_without_a_difference_accuse_nobody() -> None:
    assert sign_flip_worse(np.zeros(100)) == 1.0
    assert mcnemar_worse(0, 0) == 1.0


@given(st.integers(1, 400), st.floats(0, 0.5), st.floats(0, 0.5), st.integers(0, 100))
def test_the_bound_of_a_difference_is_below_it(
    count: int, better_share: float, worse_share: float, seed: int
) -> None:
    better = int(count * better_share)
    worse = int(count * worse_share)
    bound = share_difference_lower(better, worse, count, 0.95)
    assert -1 <= bound <= (better - worse) / count


def test_the_bound_of_a_difference_lies_above_the_truth_in_few_draws() -> None:
    random = np.random.default_rng(3)
    draws = random.multinomial(300, [0.05, 0.07, 0.88], 600)
    above = [share_difference_lower(int(b), int(w), 300, 0.95) > -0.02 for b, w, _ in draws]
    assert np.mean(above) <= 0.05  # about 0.01: the bound is cautious


def test_a_difference_that_every_draw_shows_is_shown() -> None:
    worse = np.r_[np.full(30, -1.0), np.full(70, 0.0)]

    def difference(rows: Rows) -> float:
        return float(worse[rows].mean())

    assert bootstrap_worse(difference, 100) < 0.001
    assert bootstrap_worse(lambda rows: -difference(rows), 100) > 0.99
