"""Transforms of inputs by name: of pictures, tables and texts, with what their amount means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kohort_server.gates import pictures
from kohort_server.gates.errors import GateError
from kohort_server.gates.pictures import Transform


class Family(Enum):
    """What an input is taken for."""

    PICTURE = "pictures"
    TABLE = "tables"
    TEXT = "texts"


class TransformName(StrEnum):
    """What is done to inputs."""

    GRAYSCALE = "Grayscale"
    BLACK = "Black"
    INVERT = "Invert"
    BRIGHTNESS = "Brightness"
    CONTRAST = "Contrast"
    BLUR = "Blur"
    JPEG = "JPEG"
    NOISE = "Noise"
    ROTATE = "Rotate"
    FLIP_HORIZONTAL = "FlipHorizontal"
    FLIP_VERTICAL = "FlipVertical"
    CROP = "Crop"
    OCCLUDE = "Occlude"
    CHANNEL_ORDER = "ChannelOrder"
    SCALE = "Scale"
    SHIFT = "Shift"
    SHUFFLE = "Shuffle"
    BLANK = "Blank"
    UPPER_CASE = "UpperCase"
    LOWER_CASE = "LowerCase"
    TYPOS = "Typos"
    WHITESPACE = "Whitespace"


@dataclass(frozen=True, slots=True)
class Change:
    """A transform. ``usual``: its amount when none is given; None where it takes none."""

    family: Family
    of: Callable[..., Any]
    usual: float | None = None
    least: float = 0.0
    most: float = 0.0
    needs: bool = False  # an amount: none is usual

    def check(self, amount: float | None) -> None:
        """Raise `ValueError` for an amount that this transform does not take."""
        if self.usual is None and not self.needs:
            raise ValueError("this transform takes no amount")
        if amount is None:
            raise ValueError("this transform needs an amount")
        if not self.least <= amount <= self.most:
            raise ValueError(f"amount must be from {self.least:g} to {self.most:g}")


# Tables: float or integer [n, columns]; columns are those that it is done to.
Table = NDArray[Any]


def scale(table: Table, columns: Sequence[int], amount: float, seed: int) -> Table:
    """Times the amount."""
    return _with(table, columns, table[:, columns] * amount)


def shift(table: Table, columns: Sequence[int], amount: float, seed: int) -> Table:
    """Plus the amount."""
    return _with(table, columns, table[:, columns] + amount)


def shuffle(table: Table, columns: Sequence[int], amount: float, seed: int) -> Table:
    """Each column's values change samples: what it says of a sample is lost, and how it is spread stays."""
    random = np.random.default_rng(seed)
    return _with(table, columns, random.permuted(table[:, columns], axis=0))


def blank(table: Table, columns: Sequence[int], amount: float, seed: int) -> Table:
    """Missing: NaN."""
    if table.dtype.kind != "f":
        raise GateError(
            f"Blank makes NaN, which {table.dtype} does not have; use another transform"
        )
    return _with(table, columns, np.full((len(table), len(columns)), np.nan))


def _with(table: Table, columns: Sequence[int], values: NDArray[Any]) -> Table:
    changed = table.copy()
    if table.dtype.kind in "iu":
        limits = np.iinfo(table.dtype)
        values = np.clip(np.round(values), limits.min, limits.max)
    changed[:, columns] = values
    return changed


def upper_case(text: str, amount: float, random: np.random.Generator) -> str:
    """In capitals."""
    return text.upper()


def lower_case(text: str, amount: float, random: np.random.Generator) -> str:
    """In small letters."""
    return text.lower()


def typos(text: str, amount: float, random: np.random.Generator) -> str:
    """So many pairs of neighbouring letters change places, as fingers do."""
    letters = list(text)
    for _ in range(int(amount)):
        places = [
            at
            for at in range(len(letters) - 1)
            if letters[at] != letters[at + 1]
            and letters[at].isalpha()
            and letters[at + 1].isalpha()
        ]
        if not places:
            break
        at = places[int(random.integers(len(places)))]
        letters[at], letters[at + 1] = letters[at + 1], letters[at]
    return "".join(letters)


def whitespace(text: str, amount: float, random: np.random.Generator) -> str:
    """Two spaces for one, and one before and after."""
    return f" {text.replace(' ', '  ')} "


def _picture(
    of: Transform, usual: float | None = None, least: float = 0.0, most: float = 0.0
) -> Change:
    return Change(Family.PICTURE, of, usual, least, most)


CHANGES = {
    TransformName.GRAYSCALE: _picture(pictures.grayscale),
    TransformName.BLACK: _picture(pictures.black),
    TransformName.INVERT: _picture(pictures.invert),
    TransformName.BRIGHTNESS: _picture(pictures.brightness, 0.2, -1, 1),
    TransformName.CONTRAST: _picture(pictures.contrast, 0.5, 0, 10),
    TransformName.BLUR: _picture(pictures.blur, 1.0, 0.1, 50),
    TransformName.JPEG: _picture(pictures.jpeg, 50.0, 1, 100),
    TransformName.NOISE: _picture(pictures.noise, 0.05, 0, 1),
    TransformName.ROTATE: _picture(pictures.rotate, 10.0, -360, 360),
    TransformName.FLIP_HORIZONTAL: _picture(pictures.flip_horizontal),
    TransformName.FLIP_VERTICAL: _picture(pictures.flip_vertical),
    TransformName.CROP: _picture(pictures.crop, 0.1, 0, 0.9),
    TransformName.OCCLUDE: _picture(pictures.occlude, 0.25, 0, 1),
    TransformName.CHANNEL_ORDER: _picture(pictures.channel_order),
    TransformName.SCALE: Change(Family.TABLE, scale, None, -1e12, 1e12, needs=True),
    TransformName.SHIFT: Change(Family.TABLE, shift, None, -1e12, 1e12, needs=True),
    TransformName.SHUFFLE: Change(Family.TABLE, shuffle),
    TransformName.BLANK: Change(Family.TABLE, blank),
    TransformName.UPPER_CASE: Change(Family.TEXT, upper_case),
    TransformName.LOWER_CASE: Change(Family.TEXT, lower_case),
    TransformName.TYPOS: Change(Family.TEXT, typos, 1.0, 1, 100),
    TransformName.WHITESPACE: Change(Family.TEXT, whitespace),
}
