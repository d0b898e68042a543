"""How rare a sum of scores is among all ways to choose: counted exactly, not drawn by chance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence


def tail_share(scores: Sequence[int], chosen: int, at_least: int) -> float:
    """The share of all subsets of ``chosen`` scores whose sum is ``at_least`` that much.

    ``scores``: integers that are not negative. The p-value of a permutation test whose statistic is
    the chosen ones' sum: exact, whatever the scores are, and the same wherever it is computed.

    Counts by dynamic programming over the scores. The number of subsets of each size and sum is one
    field of a long integer, so that one shift and one addition move all sums at once. The two commonest
    scores need no such step for each of their slots: how many ways there are to take some of them is a
    binomial coefficient, and of what the last one makes, only one size is of interest.
    """
    if at_least <= 0:
        return 1.0
    subsets = math.comb(len(scores), chosen)
    field = subsets.bit_length()
    (last, last_count), (first, first_count), *others = [*Counter(scores).most_common(), (0, 0)]
    taken = first_count
    by_size = [math.comb(taken, size) << (first * size * field) for size in range(chosen + 1)]
    # Ascending, so that sums stay short as long as can be.
    for score in sorted(score for score, count in others for _ in range(count)):
        taken += 1
        # Sizes that can no longer grow to ``chosen`` are not carried on.
        smallest = max(1, chosen - (len(scores) - taken))
        shift = score * field
        for size in range(min(chosen, taken), smallest - 1, -1):
            by_size[size] += by_size[size - 1] << shift
    counts = 0
    for size in range(min(chosen, last_count) + 1):
        ways = math.comb(last_count, size) * by_size[chosen - size]
        counts += ways << (last * size * field)
    return _sum_of_fields(counts >> (at_least * field), field) / subsets


def _sum_of_fields(number: int, field: int) -> int:
    """Halves a long integer until one field is left: a field holds the sum of all of them."""
    fields = -(-number.bit_length() // field)
    while fields > 1:
        half = -(-fields // 2)
        number = (number >> (half * field)) + (number & ((1 << (half * field)) - 1))
        fields = half
    return number
