"""A gateway's counters, understood: who answered whom, how, and how fast."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from kohort.analysis.reading import Arms, Count
from kohort.contract import (
    LABEL_ARM,
    LABEL_CODE,
    LABEL_COHORT,
    METRIC_REQUESTS,
    TOOK_MS,
    failed,
    failed_grpc,
)
from kohort.route.table import ModelKey, Target

SERIES_REMEMBERED = 1 << 17
"""Series of which it is known what they count; to read a name takes longer than to read its number."""


class Cell(NamedTuple):
    """Requests that are counted together.

    ``slot``: None outside a rollout. ``took``: index in ``TOOK_MS``; None for those that failed.
    ``fell_back``: these failed by finding no pod of the revision alive, and its fallback answered them.
    """

    revision: str
    slot: int | None
    took: int | None
    fell_back: bool = False


Cohort = tuple[ModelKey, str]
Cells = Mapping[Cell, int]

_LINE = re.compile(rb"^" + METRIC_REQUESTS.encode() + rb"\{([^}]*)\} ([0-9]+)$", re.MULTILINE)
_LABEL = re.compile(rb'([a-z_]+)="([^"]*)"')
_CLASSES = {str(milliseconds): index for index, milliseconds in enumerate(TOOK_MS)}


def arm(name: str) -> tuple[ModelKey, Target] | None:
    """Model and target of a cluster; None for a request that had none."""
    namespace, _, rest = name.partition("/")
    model, _, target = rest.partition("/")
    return (ModelKey(namespace, model), Target(*target.split("/", 1))) if target else None


def parse(text: bytes) -> dict[Cohort, dict[Cell, int]]:
    """Requests by cohort and cell, of one gateway's counters in Prometheus's format.

    Counters of requests that reached no model's routes are passed over. A client that went away before
    its answer (code 0) is a failure: a model that hangs is seen by nothing else, and clients that leave
    for reasons of their own leave both arms alike.
    """
    counts: dict[Cohort, dict[Cell, int]] = {}
    last: Cohort | None = None
    cells: dict[Cell, int] = {}
    for labels, value in _LINE.findall(text):
        found = _series(labels)
        if found is None:
            continue
        cohort, cell = found
        if cohort is not last:  # series of one cohort stand together mostly
            cells, last = counts.setdefault(cohort, {}), cohort
        cells[cell] = cells.get(cell, 0) + int(value)
    return counts


@lru_cache(SERIES_REMEMBERED)
def _series(labels: bytes) -> tuple[Cohort, Cell] | None:
    """Whose requests a series counts; None where they are no model's."""
    told = {name.decode(): value.decode() for name, value in _LABEL.findall(labels)}
    return _counted(told.get(LABEL_ARM, ""), told.get(LABEL_COHORT, ""), told.get(LABEL_CODE, "0"))


@lru_cache(SERIES_REMEMBERED)
def series_of(arm_name: str, cohort: str, code: str) -> tuple[Cohort, Cell] | None:
    """Whose requests a series with these labels counts; None where they are no model's."""
    return _counted(arm_name, cohort, code)


def _counted(arm_name: str, cohort: str, code: str) -> tuple[Cohort, Cell] | None:
    found = arm(arm_name)
    if found is None:
        return None
    key, target = found
    http, grpc, _, took, number, by = (*code.split("/"), "", "", "", "", "")[:6]
    slot = int(number) if number.isdigit() else None
    bad = failed(int(http) if http.isdigit() else 0) or (grpc.isdigit() and failed_grpc(int(grpc)))
    fell_back = not bad and bool(target.fallback) and by == target.fallback
    took_class = None if bad or fell_back else _CLASSES.get(took, 0)
    return _cohort(key, cohort), Cell(target.revision, slot, took_class, fell_back)


@lru_cache(SERIES_REMEMBERED)
def _cohort(key: ModelKey, name: str) -> Cohort:
    """The same object for the same cohort, so that it is quickly known again."""
    return key, name


def arms(cells: Cells) -> Arms:
    """Requests and failures by revision."""
    counts: dict[str, list[int]] = {}
    for cell, number in cells.items():
        count = counts.setdefault(cell.revision, [0, 0])
        count[0] += number
        count[1] += number if cell.took is None else 0
    return {revision: Count(*count) for revision, count in counts.items()}
