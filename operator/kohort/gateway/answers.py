"""Whether two revisions answered an inference alike: statuses, and the outputs' shapes and values.

Answers are those of the Open Inference Protocol, with outputs as JSON or as binary data behind it.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kohort.contract import Outcome, failed

RELATIVE, ABSOLUTE = 1e-2, 1e-3
"""How far numbers may lie apart and be close."""

_FLOATS = {"FP16": "e", "FP32": "f", "FP64": "d"}


@dataclass(frozen=True)
class Answer:
    """``status``: of HTTP, 0 for none. ``json_bytes``: length of the body's JSON, before binary data."""

    status: int
    body: bytes = b""
    json_bytes: int | None = None


@dataclass(frozen=True)
class _Output:
    kind: tuple[str, tuple[int, ...]]
    content: bytes | tuple[Any, ...]

    def floats(self) -> Sequence[float]:
        """The values of a floating-point output in row-major order; raises ValueError for no numbers."""
        if not isinstance(self.content, bytes):
            return [float("nan" if value is None else value) for value in self.content]
        letter = _FLOATS[self.kind[0]]
        count = len(self.content) // struct.calcsize(letter)
        return struct.unpack(f"<{count}{letter}", self.content)


def compared(stable: Answer, canary: Answer) -> Outcome:
    """What came of one request that both revisions answered."""
    match failed(stable.status), failed(canary.status):
        case True, True:
            return Outcome.BOTH_FAILED
        case True, False:
            return Outcome.STABLE_FAILED
        case False, True:
            return Outcome.CANARY_FAILED
    if stable.status != canary.status:
        return Outcome.DIFFERENT
    if stable.body == canary.body:
        return Outcome.SAME
    try:
        return _agreement(_outputs(stable), _outputs(canary))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error):
        return Outcome.DIFFERENT


def _agreement(stable: dict[str, _Output], canary: dict[str, _Output]) -> Outcome:
    if stable.keys() != canary.keys():
        return Outcome.DIFFERENT
    found = {_alike(output, canary[name]) for name, output in stable.items()}
    return next(
        o for o in (Outcome.DIFFERENT, Outcome.CLOSE, Outcome.SAME) if o in found | {Outcome.SAME}
    )


def _alike(one: _Output, other: _Output) -> Outcome:
    if one.kind != other.kind:
        return Outcome.DIFFERENT
    if one.content == other.content:
        return Outcome.SAME
    datatype, shape = one.kind
    if datatype not in _FLOATS:
        return Outcome.DIFFERENT
    left, right = one.floats(), other.floats()
    if len(left) != len(right):
        return Outcome.DIFFERENT
    if shape and shape[-1] > 1:
        alike = _tops(left, shape[-1]) == _tops(right, shape[-1])
    else:
        alike = all(map(_near, left, right))
    return Outcome.CLOSE if alike else Outcome.DIFFERENT


def _near(one: float, other: float) -> bool:
    both_nan = math.isnan(one) and math.isnan(other)
    return both_nan or math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def _tops(values: Sequence[float], width: int) -> list[int]:
    """The place of the greatest value in each row: what most clients make of scores."""
    rows = (values[start : start + width] for start in range(0, len(values), width))
    return [max(range(len(row)), key=row.__getitem__) for row in rows]


def _outputs(answer: Answer) -> dict[str, _Output]:
    """The outputs by name; raises what malformed ones make Python raise."""
    end = len(answer.body) if answer.json_bytes is None else answer.json_bytes
    position = end
    found = {}
    for told in json.loads(answer.body[:end])["outputs"]:
        size = told.get("parameters", {}).get("binary_data_size")
        content: bytes | tuple[Any, ...]
        if size is None:
            content = tuple(_flat(told["data"]))
        else:
            content = answer.body[position : position + size]
            position += size
        kind = str(told["datatype"]), tuple(map(int, told["shape"]))
        found[str(told["name"])] = _Output(kind, content)
    return found


def _flat(data: Any) -> Iterator[Any]:
    """Values of nested lists."""
    if isinstance(data, list):
        for inner in data:
            yield from _flat(inner)
    else:
        yield data
