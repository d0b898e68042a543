"""Samples that gates stumbled over, made fit to be shown: pictures, or what is in them; few of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kohort_server.engine.interface import Signature
from kohort_server.gates.answers import Answers
from kohort_server.gates.bounds import Rows
from kohort_server.gates.layout import layout_of
from kohort_server.gates.png import png
from kohort_server.gates.results import FailingSample
from kohort_server.gates.samples import Samples
from kohort_server.gates.spec import Picture

MOST_SHOWN = 12
LONGEST_INPUT = 200  # characters


class Exhibits:
    """The first of the samples, and how many there are."""

    def __init__(self) -> None:
        self.samples: list[FailingSample] = []
        self.count = 0

    def add(
        self,
        rows: Rows,
        signature: Signature,
        picture: Picture | None,
        samples: Samples,
        answers: Answers,
        after: tuple[Samples, Answers] | None = None,
    ) -> None:
        """Show these samples with the answers to them, before and after."""
        self.count += len(rows)
        for row in rows[: MOST_SHOWN - len(self.samples)].tolist():
            shown = picture_of(picture, signature, samples, row)
            other, answer = after if after is not None else (None, None)
            # A comparison of two models has the same samples on both sides.
            changed = other if other is not samples else None
            self.samples.append(
                FailingSample(
                    row,
                    answers.told(row),
                    answer.told(row) if answer is not None else "",
                    "" if samples.labels is None else label_told(samples.labels[row]),
                    "" if samples.slices is None else str(samples.slices[row]),
                    shown,
                    picture_of(picture, signature, changed, row) if changed else b"",
                    "" if shown else text_of(samples, row),
                    "" if shown or changed is None else text_of(changed, row),
                )
            )


def label_told(label: np.generic) -> str:
    """A label in words."""
    return f"{label.item():g}" if label.dtype.kind == "f" else str(label.item())


def picture_of(picture: Picture | None, signature: Signature, samples: Samples, row: int) -> bytes:
    """The sample as a PNG; empty where it is no picture."""
    if picture is None:
        return b""
    layout = layout_of(picture, signature, samples)
    return png(layout.pictures(samples.golden.inputs[layout.input][row : row + 1])[0])


def text_of(samples: Samples, row: int) -> str:
    """The sample's inputs in few words."""
    told = "; ".join(
        f"{name}: {values_told(array[row])}" for name, array in samples.golden.inputs.items()
    )
    return told if len(told) <= LONGEST_INPUT else f"{told[:LONGEST_INPUT]}…"


def values_told(values: NDArray[Any] | Any) -> str:
    """Values in a line."""
    flat = np.asarray(values).reshape(-1)[:32]
    if flat.dtype == object or flat.dtype.kind in "US":
        return ", ".join(
            t.decode(errors="replace") if isinstance(t, bytes) else str(t) for t in flat
        )
    return ", ".join(f"{value:.4g}" for value in flat.tolist())
