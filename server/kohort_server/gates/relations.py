"""What must hold between a model's answers before and after a transform, sample by sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kohort_server.gates.answers import Answers
from kohort_server.gates.errors import GateError
from kohort_server.gates.spec import Direction, Metamorphic, RelationName

Held = NDArray[np.bool_]
ROUNDING = 1e-6


def holds(gate: Metamorphic, before: Answers, after: Answers) -> Held:
    """Of which samples the gate's relation holds: bool [n]."""
    match gate.relation:
        case RelationName.SAME_TOP1:
            same: Held = before.top() == after.top()
            return same
        case RelationName.CLOSE_SCORES:
            assert gate.tolerance is not None
            return close_scores(before, after, gate.tolerance)
        case RelationName.MONOTONE:
            assert gate.direction is not None
            return monotone(before, after, gate.direction, gate.score)
        case RelationName.ABSTAINS:
            return abstains(after, gate.below, gate.abstain_class)


def close_scores(before: Answers, after: Answers, tolerance: float) -> Held:
    """No score, or the number, differs by more than the tolerance."""
    if before.values is not None and after.values is not None:
        near: Held = np.abs(before.values - after.values) <= tolerance
        return near
    away = np.abs(before.score_table() - after.score_table())
    close: Held = away.max(axis=1) <= tolerance
    return close


def monotone(before: Answers, after: Answers, direction: Direction, score: int | None) -> Held:
    """The number, or one class's score, does not go the other way (by more than rounding)."""
    if score is None:
        was, became = before.numbers(), after.numbers()
    else:
        table = before.score_table()
        if not 0 <= score < table.shape[1]:
            raise GateError(
                f"there are {table.shape[1]} scores, from 0 on; there is no score {score}"
            )
        was, became = table[:, score], after.score_table()[:, score]
    slack = ROUNDING * np.maximum(1.0, np.abs(was))
    held: Held = became >= was - slack
    if direction is Direction.DECREASING:
        held = became <= was + slack
    return held


def abstains(after: Answers, below: float | None, abstain_class: int | None) -> Held:
    """The model says that it does not know: by a class for that, or by no score that is high."""
    if abstain_class is not None:
        says_so: Held = after.top() == abstain_class
        return says_so
    assert below is not None
    unsure: Held = after.confidence() < below
    return unsure
