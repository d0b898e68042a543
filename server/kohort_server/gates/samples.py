"""Golden data: inputs by name, what is right about them, and which slice each sample is of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kohort_server.digest import digest_of
from kohort_server.engine.interface import Engine, Signature
from kohort_server.errors import StartFailure
from kohort_server.gates.answers import Answers, answers_of
from kohort_server.gates.bounds import Rows
from kohort_server.gates.errors import GateError
from kohort_server.gates.golden import UNREADABLE, Golden, read

LABELS = "labels"
SLICE = "slice"
MAX_SLICES = 64
MAX_SAMPLES = 1_000_000
BATCH = 64


@dataclass(frozen=True, slots=True)
class Samples:
    """``labels``: of any plain type, [n]; ``slices``: names, [n]; each may be missing."""

    golden: Golden
    labels: NDArray[Any] | None = None
    slices: NDArray[np.str_] | None = None
    digest: str = ""  # sha256:… of the file

    def __len__(self) -> int:
        return self.golden.samples

    @property
    def source(self) -> str:
        """The file's name."""
        return self.golden.source

    def labelled(self) -> NDArray[Any]:
        """The labels; raises `GateError` without any."""
        if self.labels is None:
            raise GateError(f'{self.source} has no array "{LABELS}", which this gate needs')
        return self.labels

    def with_input(self, name: str, array: NDArray[Any]) -> Samples:
        """The same samples with other values of one input."""
        return replace(
            self, golden=replace(self.golden, inputs={**self.golden.inputs, name: array})
        )

    def rows_by_slice(self) -> dict[str, Rows]:
        """The numbers of each slice's samples; raises `GateError` without slices."""
        if self.slices is None:
            raise GateError(
                f'{self.source} has no array "{SLICE}" to tell slices by; add one, or leave out slices'
            )
        return {str(name): np.flatnonzero(self.slices == name) for name in np.unique(self.slices)}


def read_samples(
    path: Path, signature: Signature, whole: bool, missing: bool = False, slice_name: str = SLICE
) -> Samples:
    """Samples from an .npz file: an array per input, ``labels``, and names of slices; nothing is unpickled.

    ``missing``: NaN is a value of inputs like others. Raises `GateError` for what does not fit the model.
    """
    try:
        golden = read(path, signature, whole)
    except StartFailure as failed:
        raise GateError(str(failed)) from failed
    if golden.samples > MAX_SAMPLES:
        raise GateError(f"{path.name} has {golden.samples} samples, more than {MAX_SAMPLES}")
    for name, array in golden.inputs.items():
        if array.dtype.kind == "f" and not missing:
            flawed = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
            if flawed.any():
                raise GateError(
                    f'{path.name} has NaN or infinity in "{name}" of {flawed.sum()} samples (first: '
                    f"{flawed.argmax()}); remove them, or set missing: Allow where the model takes them"
                )
    labels = _labels(path, golden.samples)
    slices = _slices(path, golden.samples, slice_name)
    return Samples(golden, labels, slices, digest_of(path))


def _plain(path: Path, name: str, samples: int) -> NDArray[Any] | None:
    """One more array of the file, flat; None where there is none."""
    try:
        with np.load(path, allow_pickle=False) as file:
            array: NDArray[Any] | None = file[name] if name in file.files else None
    except UNREADABLE as error:
        raise GateError(
            f'{path.name}: "{name}" is not a plain array of numpy ({error}); save it as numbers or text'
        ) from error
    if array is None:
        return None
    if array.shape not in ((samples,), (samples, 1)):
        raise GateError(
            f'{path.name} has {samples} samples, and "{name}" has the shape {list(array.shape)}; give each '
            "sample one"
        )
    return array.reshape(samples)


def _labels(path: Path, samples: int) -> NDArray[Any] | None:
    labels = _plain(path, LABELS, samples)
    if labels is None:
        return None
    if labels.dtype.kind in "US":
        raise GateError(
            f"{path.name} has text as labels (such as {str(labels[0])!r}); give class numbers: 0 for the "
            "model's first score, and so on"
        )
    if labels.dtype.kind not in "biuf":
        raise GateError(f"{path.name} has {labels.dtype} as labels; give class numbers, or numbers")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        row = int(np.isfinite(labels).argmin())
        raise GateError(f"{path.name}: the label of sample {row} is NaN or infinite; remove it")
    return labels


def _slices(path: Path, samples: int, name: str) -> NDArray[np.str_] | None:
    slices = _plain(path, name, samples)
    if slices is None:
        if name != SLICE:
            raise GateError(f'{path.name} has no array "{name}" to tell slices by')
        return None
    if slices.dtype.kind not in "USbiu":
        raise GateError(f'{path.name}: "{name}" is {slices.dtype}; name slices by text or numbers')
    # Bytes are text too; what is no ASCII in them is told by its number.
    named = (
        np.char.decode(slices, "ascii", "backslashreplace") if slices.dtype.kind == "S" else slices
    ).astype(np.str_)
    if len(np.unique(named)) > MAX_SLICES:
        raise GateError(
            f'{path.name}: "{name}" tells {len(np.unique(named))} slices apart, more '
            f"than {MAX_SLICES}; use coarser ones"
        )
    return named


def ask(engine: Engine, samples: Samples, output: str | None = None) -> Answers:
    """A model's answers to all samples; raises `GateError` where they are of no use."""
    golden = samples.golden
    size = {"dynamic": BATCH, "fixed": engine.batch.size, "none": 1}[engine.batch.kind]
    parts: dict[str, list[NDArray[Any]]] = {}
    done = 0
    try:
        for rows, inputs in golden.batches((size,)):
            wanted = min(size, golden.samples - done)
            for name, array in engine.run(inputs).items():
                kept = array[None] if golden.whole else array
                if kept.shape[:1] != (len(rows),):
                    raise GateError(
                        f'the output "{name}" has the shape {list(kept.shape)} for {len(rows)} samples; '
                        "gates need an answer per sample"
                    )
                parts.setdefault(name, []).append(kept[:wanted])
            done += wanted
    except GateError:
        raise
    except Exception as error:  # whatever an engine raises
        told = " ".join(str(error).split())[:400]
        raise GateError(f"the model fails on {samples.source}: {told}") from error
    return answers_of({name: np.concatenate(arrays) for name, arrays in parts.items()}, output)
