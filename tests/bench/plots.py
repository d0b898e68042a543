"""Draws what ``tests.bench.statistics --record DIRECTORY`` has simulated.

``python -m tests.bench.plots DIRECTORY docs/plots`` writes PNG files; needs ``pip install '.[bench]'``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from tests.bench.cells import (
    AGAINST_OTHERS,
    EQUALLY_FAST,
    HARM,
    HEADLINE,
    MARGINS,
    PROOFS,
    SLOWER,
    WIDE,
)
from tests.bench.deciders import ALPHA, BETA, DECIDERS
from tests.bench.intervals import exact_interval
from tests.bench.record import Record
from tests.bench.statistics import NEVER, limit

OURS, FIRST_LAYER, GREY = "#1b6ca8", "#e08214", "#888888"
COLOURS = ("#b2182b", "#e08214", "#7b3294", "#c2a5cf", "#a6761d", "#66a61e", OURS)
LEAST = 0.01  # percent: where 0 of some runs is drawn
STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 110}


def shares(seen: Mapping[str, np.ndarray[Any, Any]], allowed: float, title: str) -> Figure:
    """Wrong ends in percent by world, with intervals; rows are seconds of both layers and of the first."""
    figure = Figure(figsize=(7.2, 1.2 + 0.24 * len(seen)), layout="constrained")
    axes = figure.subplots()
    for place, rows in enumerate(seen.values()):
        alone, both = ((rows[:, column] != NEVER).sum() for column in (0, 1))
        low, high = exact_interval(int(both), len(rows))
        axes.plot([100 * max(low, LEAST / 100), 100 * high], [place, place], color=OURS, lw=2)
        axes.plot(100 * max(both / len(rows), LEAST / 100), place, "o", color=OURS, ms=5)
        axes.plot(100 * max(alone / len(rows), LEAST / 100), place, "x", color=FIRST_LAYER, ms=6)
    axes.axvline(100 * allowed, color=GREY, ls="--", lw=1)
    labels = [f"{cell}  ({len(rows):,} runs)" for cell, rows in seen.items()]
    axes.set_yticks(range(len(seen)), labels)
    axes.set_ylim(len(seen) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.set_xlim(LEAST, 100)
    axes.set_xticks([0.01, 0.1, 1, 10, 100], ["≤ .01", ".1", "1", "10", "100"])
    axes.set_xlabel(f"{title}, %\n(bars: 95 % intervals; dashed: {allowed:.0%})")
    handles = [
        mpl.lines.Line2D([], [], color=OURS, marker="o", lw=2, label="Kohort"),
        mpl.lines.Line2D(
            [], [], color=FIRST_LAYER, marker="x", lw=0, label="single requests alone"
        ),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False)
    return figure


def others(record: Record) -> Figure:
    """False rollbacks of everybody by world."""
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(DECIDERS)
    cells = [cell for cell in AGAINST_OTHERS if len(record.known("others", cell))]
    for index, (decider, colour) in enumerate(zip(DECIDERS, COLOURS, strict=True)):
        rows = [(record.known("others", cell)[:, index] != NEVER).mean() for cell in cells]
        places = np.arange(len(cells)) + (index - len(DECIDERS) / 2 + 0.5) * width
        axes.bar(places, np.maximum(0.1, 100 * np.array(rows)), width, color=colour, label=decider)
    axes.axhline(100 * ALPHA, color=GREY, ls="--", lw=1)
    axes.set_yscale("log")
    axes.set_ylim(0.1, 130)
    axes.set_yticks([0.1, 1, 10, 100], ["≤ .1", "1", "10", "100"])
    axes.set_xticks(range(len(cells)), [wrapped(cell) for cell in cells], fontsize=8)
    axes.set_ylabel("healthy canaries sent back, %")
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    return figure


def wrapped(cell: str) -> str:
    """The name in two lines."""
    words = cell.split()
    half = (len(words) + 1) // 2
    return " ".join(words[:half]) + "\n" + " ".join(words[half:])


def delays(record: Record) -> Figure:
    """How soon harm is seen: the share that is caught by a time, of failures and of durations."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    of_errors = {cell: limit(world) for cell, world in HARM.items()}
    of_latency = {c: np.nan if w.unlike else w.limit(ALPHA) for c, w in SLOWER.items()}
    _curves(left, record, "detection", of_errors, list(HARM)[:7])
    _curves(right, record, "slowness", of_latency, list(SLOWER))
    left.set_ylabel("harmful canaries sent back, %")
    left.set_title("failures", fontsize=9)
    right.set_title("durations", fontsize=9)
    return figure


def _curves(
    axes: Any, record: Record, table: str, limits: Mapping[str, float], cells: Sequence[str]
) -> None:
    for cell, colour in zip(cells, COLOURS, strict=False):
        rows = record.known(table, cell)
        if not len(rows):
            continue
        caught = np.sort(rows[:, 1][rows[:, 1] != NEVER])
        up = 100 * np.arange(1, len(caught) + 1) / len(rows)
        axes.step(caught, up, where="post", color=colour, lw=1.5, label=cell)
        if np.isfinite(limits[cell]):
            axes.plot(limits[cell], 2, "^", color=colour, ms=6, clip_on=False)
    axes.set_xscale("log")
    axes.set_xticks([5, 20, 60, 200, 600, 1800], ["5", "20", "60", "200", "600", "1800"])
    axes.minorticks_off()
    axes.set_ylim(0, 101)
    axes.set_xlabel("seconds, 50 req/s (triangles: limit of any test)")
    axes.legend(fontsize=7.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2))


def known(record: Record, table: str, cells: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    """The cells of which there are runs."""
    found = {cell: record.known(table, cell) for cell in cells}
    return {cell: rows for cell, rows in found.items() if len(rows)}


def main(directory: str, to: str) -> None:
    """Draws all."""
    mpl.rcParams.update(STYLE)
    record = Record(Path(directory))
    errors = known(record, "headline", list(HEADLINE)) | known(record, "wide", list(WIDE))
    proofs = known(record, "proofs", [f"{c} {m:g}" for c in PROOFS for m in MARGINS])
    named = {
        f"{cell}, margin {margin:.1%}": proofs[f"{cell} {margin:g}"]
        for cell in PROOFS
        for margin in MARGINS
        if f"{cell} {margin:g}" in proofs
    }
    slow = known(record, "latency", list(EQUALLY_FAST))
    figures = {
        "false-rollbacks": shares(errors, ALPHA, "healthy canaries sent back for errors"),
        "false-rollbacks-latency": shares(slow, ALPHA, "as fast, sent back for latency"),
        "false-promotions": shares(named, BETA, "worse by the margin, and proven not to be"),
        "others": others(record),
        "delays": delays(record),
    }
    Path(to).mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        # Without the time of drawing, so that the same figures give the same file.
        figure.savefig(Path(to) / f"{name}.png", metadata={"Software": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
