"""Checks of golden data itself: ranges, missing values, classes, duplicates, drift."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kohort_server.gates.distributions import holm
from kohort_server.gates.drift import chi_squared_chance, ks_chance, psi
from kohort_server.gates.errors import GateError
from kohort_server.gates.metrics import whole
from kohort_server.gates.results import Finding, Outcome
from kohort_server.gates.samples import Samples
from kohort_server.gates.spec import Classes, Data, Drift, DriftTest, Duplicates, File, Range

LEAST_VALUES = 20  # of either side, for a test of drift to say anything
ReadReference = Callable[[File], Samples]


def check(data: Data, samples: Samples, reference: ReadReference) -> list[Finding]:
    """What each check finds; raises `GateError` for one that does not fit the data."""
    findings = [
        Finding(Outcome.PASSED, "names, types, shapes and counts fit the model", n=len(samples))
    ]
    findings += [check_range(wanted, samples) for wanted in data.ranges]
    if data.classes:
        findings.append(check_classes(data.classes, samples))
    if data.duplicates:
        findings.append(check_duplicates(data.duplicates, samples, reference))
    for drift in data.drift:
        findings.extend(check_drift(drift, samples, reference(drift.reference)))
    return findings


def columns_of(
    samples: Samples, name: str, columns: tuple[int, ...]
) -> dict[str, NDArray[np.float64]]:
    """The values of columns by what they are called; of an input that is no table, all of them."""
    if name not in samples.golden.inputs:
        known = ", ".join(samples.golden.inputs)
        raise GateError(f'{samples.source} has no input "{name}"; it has: {known}')
    array = samples.golden.inputs[name]
    if array.dtype.kind not in "biuf":
        raise GateError(f'"{name}" is text, and this check is of numbers')
    table = array.reshape(len(array), -1).astype(np.float64)
    if columns and max(columns) >= table.shape[1]:
        raise GateError(f'"{name}" has {table.shape[1]} columns, from 0 on; not {max(columns)}')
    if not columns:
        return {name: table}
    return {f"{name}[{column}]": table[:, [column]] for column in columns}


def check_range(wanted: Range, samples: Samples) -> Finding:
    """Whether values are within bounds, among those that are allowed, and not missing too often."""
    for what, table in columns_of(samples, wanted.input, wanted.columns).items():
        absent = np.isnan(table)
        share = float(absent.mean())
        if share > wanted.missing:
            return Finding(
                Outcome.FAILED,
                f"{what}: {share:.2%} of the values are missing, {wanted.missing:.2%} may be",
                n=len(samples),
                value=share,
                threshold=float(wanted.missing),
            )
        outside = np.zeros(table.shape, bool)
        if wanted.min is not None:
            outside |= table < wanted.min
        if wanted.max is not None:
            outside |= table > wanted.max
        if wanted.values:
            outside |= ~absent & ~np.isin(table, wanted.values)
        if outside.any():
            row, column = (int(at) for at in np.argwhere(outside)[0])
            return Finding(
                Outcome.FAILED,
                f"{what}: {outside.any(axis=1).sum()} samples have values that are not allowed, such as "
                f"{table[row, column]:g} in sample {row}",
                n=len(samples),
            )
    return Finding(Outcome.PASSED, f"{wanted.input}: values as allowed", n=len(samples))


def check_classes(wanted: Classes, samples: Samples) -> Finding:
    """Whether labels have every class, and enough of each."""
    labels = whole(samples.labelled())
    if labels.min() < 0 or labels.max() >= wanted.number:
        odd = int(labels.min() if labels.min() < 0 else labels.max())
        what = f"the label {odd} is none of the classes 0 to {wanted.number - 1}"
        return Finding(Outcome.FAILED, what, n=len(samples))
    shares = np.bincount(labels, minlength=wanted.number) / len(labels)
    rarest = int(shares.argmin())
    told = f"class {rarest} is the rarest: {shares[rarest]:.2%} of the samples"
    failed = shares[rarest] == 0 or shares[rarest] < wanted.share_at_least
    return Finding(
        Outcome.FAILED if failed else Outcome.PASSED,
        told + (f", {wanted.share_at_least:.2%} are wanted" if failed else ""),
        n=len(samples),
        value=float(shares[rarest]),
        threshold=float(wanted.share_at_least),
    )


def fingerprints(samples: Samples) -> Iterator[bytes]:
    """Of each sample's inputs: the same for the same values."""
    arrays = [samples.golden.inputs[name] for name in sorted(samples.golden.inputs)]
    for row in range(len(samples)):
        told = hashlib.blake2b(digest_size=16)
        for array in arrays:
            told.update(_bytes(array[row]))
            told.update(b"\0")
        yield told.digest()


def _bytes(values: NDArray[Any]) -> bytes:
    if np.asarray(values).dtype == object:
        texts = np.asarray(values).reshape(-1).tolist()
        return b"\0".join(t if isinstance(t, bytes) else str(t).encode() for t in texts)
    return np.ascontiguousarray(values).tobytes()


def check_duplicates(wanted: Duplicates, samples: Samples, reference: ReadReference) -> Finding:
    """How many samples are among the training data, or come twice."""
    told = list(fingerprints(samples))
    if wanted.training is not None:
        others = reference(wanted.training)
        known = set(fingerprints(others))
        twice = [row for row, one in enumerate(told) if one in known]
        what = f"are in {others.source} too, which the model was trained on"
    else:
        first: dict[bytes, int] = {}
        twice = [row for row, one in enumerate(told) if first.setdefault(one, row) != row]
        what = "come a second time"
    share = len(twice) / len(samples)
    failed = share > wanted.at_most
    message = f"{len(twice)} of {len(samples)} samples {what}"
    return Finding(
        Outcome.FAILED if failed else Outcome.PASSED,
        message + (f", such as sample {twice[0]}" if failed else ""),
        n=len(samples),
        value=share,
        threshold=float(wanted.at_most),
    )


def check_drift(drift: Drift, samples: Samples, others: Samples) -> list[Finding]:
    """Whether the data is of the same kind as the reference, in each column.

    Of KS and chi-squared the chance of any false alarm over all columns is at most what was said (Holm).
    """
    name = drift.input or next(iter(samples.golden.inputs))
    if not drift.input and len(samples.golden.inputs) > 1:
        raise GateError(f"the model has several inputs; say which one drifts: {name}, …")
    pairs = {}
    for what, table in columns_of(samples, name, drift.columns).items():
        other = columns_of(others, name, drift.columns)[what]
        for column in range(table.shape[1]):
            called = what if table.shape[1] == 1 else f"{what}[{column}]"
            left, right = (one[np.isfinite(one)] for one in (table[:, column], other[:, column]))
            if min(len(left), len(right)) < LEAST_VALUES:
                raise GateError(
                    f"{called}: {len(left)} values and {len(right)} of the reference are too few to tell; "
                    f"give at least {LEAST_VALUES} of each"
                )
            pairs[called] = left, right
    if drift.test is DriftTest.PSI:
        assert drift.at_most is not None
        found = {called: psi(*pair) for called, pair in pairs.items()}
        worst = max(found, key=lambda called: found[called])
        failed, limit = found[worst] > drift.at_most, float(drift.at_most)
        told = f"stability index {found[worst]:.3g}"
    else:
        assert drift.false_alarm is not None
        one = ks_chance if drift.test is DriftTest.KS else chi_squared_chance
        chances = holm([one(*pair) for pair in pairs.values()])
        found = dict(zip(pairs, map(float, chances), strict=True))
        worst = min(found, key=lambda called: found[called])
        failed, limit = found[worst] <= drift.false_alarm, float(drift.false_alarm)
        told = f"so much by chance in {found[worst]:.2g} of cases"
    return [
        Finding(
            Outcome.FAILED if failed else Outcome.PASSED,
            f"{worst} differs most from {others.source} by {drift.test}: {told}",
            n=len(samples),
            value=found[worst],
            threshold=limit,
        )
    ]
