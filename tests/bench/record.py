"""What was simulated so far: one line of numbers for each run, by table and cell.

A simulation that was stopped goes on where it was. A record is of one version of the code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import numpy.typing as npt

CHUNK = 50
Row = tuple[float, ...]
Measure = Callable[[range], Iterable[Row]]
"""What is noted of the runs of these numbers."""


class Record:
    """A directory with a file of rows for each cell. ``processes``: how many simulate side by side."""

    def __init__(self, directory: Path, processes: int = 1) -> None:
        self._directory = directory
        self._processes = processes

    def rows(self, table: str, cell: str, measure: Measure, count: int) -> npt.NDArray[np.float64]:
        """At least ``count`` runs of a cell by run, those that are missing simulated now."""
        path = self._path(table, cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        known = path.read_text().splitlines() if path.exists() else []
        missing = [range(first, first + CHUNK) for first in range(len(known), max(count, 1), CHUNK)]
        with path.open("a") as file:
            for rows in self._simulated(measure, missing):
                lines = [" ".join(f"{number:g}" for number in row) for row in rows]
                known += lines
                file.write("".join(f"{line}\n" for line in lines))
                file.flush()
        return np.array([line.split() for line in known], float)

    def known(self, table: str, cell: str) -> npt.NDArray[np.float64]:
        """The runs of a cell that there are; empty without any."""
        path = self._path(table, cell)
        lines = path.read_text().splitlines() if path.exists() else []
        return np.array([line.split() for line in lines], float)

    def _path(self, table: str, cell: str) -> Path:
        return self._directory / table / (re.sub(r"\W+", "-", cell.lower()) + ".txt")

    def _simulated(self, measure: Measure, chunks: list[range]) -> Iterator[list[Row]]:
        work = partial(_listed, measure)
        if self._processes == 1 or len(chunks) == 1:
            yield from map(work, chunks)
            return
        with Pool(min(self._processes, len(chunks))) as pool:
            yield from pool.imap(work, chunks)


def _listed(measure: Measure, chunk: range) -> list[Row]:
    return list(measure(chunk))
