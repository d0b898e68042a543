"""The engines that were tried for a model, which of them is taken, and why."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kohort.contract import FailureReason, Start, TriedEngine
from kohort_server.errors import StartFailure
from kohort_server.gates.parity import Report

# Another engine than the first must be faster by this share: what is measured differs from run to run.
USEFUL_GAIN = 0.05


class Candidate(msgspec.Struct, frozen=True, rename="camel"):
    """One engine that was tried: what it is, whether its answers are right, and how fast they come."""

    engine: str
    version: str
    precision: str  # asked for
    effective_precision: str = ""  # that it really works in
    build_seconds: float = 0.0  # 0.0 where it was found in the cache
    batch_seconds: dict[str, float] = msgspec.field(default_factory=dict)  # rows, seconds per run
    max_rows: int = 0  # the largest useful batch
    rows_per_second: float = 0.0  # at that batch
    size: int = 0  # bytes of what was built
    parity: Report | None = None
    problem: str = ""  # why it cannot be taken
    fallback: bool = False  # in the place of one that cannot be had

    @property
    def max_error(self) -> float:
        """The largest of its outputs' errors."""
        outputs = self.parity.outputs if self.parity is not None else {}
        return max((told.max_error for told in outputs.values()), default=0.0)

    @property
    def name(self) -> str:
        """The engine in words."""
        return f"{self.engine} {self.version} {self.effective_precision or self.precision}"


class Selection(msgspec.Struct, frozen=True, rename="camel"):
    """What was tried for a model on a machine, and which one is taken; None where none passed."""

    model: str  # digest of the ONNX model
    machine: str
    threads: int
    candidates: list[Candidate]
    chosen: int | None
    choice: str = ""  # why that one

    def taken(self) -> Candidate:
        """The candidate that is taken; raises `StartFailure` with why each cannot be."""
        if self.chosen is not None:
            return self.candidates[self.chosen]
        unequal = [one for one in self.candidates if one.parity and not one.parity.passed]
        told = "; ".join(f"{one.name}: {one.problem}" for one in unequal or self.candidates)
        if unequal:
            raise StartFailure(
                FailureReason.PARITY_FAILED,
                f"no engine gives the model's own answers: {told}; use --engine ONNXRuntime or a higher "
                "precision",
            )
        raise StartFailure(FailureReason.BUILD_FAILED, f"no engine can be built: {told}")


def fastest(tried: Sequence[Candidate]) -> int | None:
    """The number of the candidate to take: the first that is right, or one that is faster by enough."""
    chosen: int | None = None
    for number, one in enumerate(tried):
        if one.parity is None or not one.parity.passed:
            continue
        if chosen is None or one.rows_per_second > tried[chosen].rows_per_second * (
            1 + USEFUL_GAIN
        ):
            chosen = number
    return chosen


def why_chosen(tried: Sequence[Candidate], chosen: int) -> str:
    """Why that one of the candidates is taken, in a sentence."""
    taken = tried[chosen]
    others = [one for one in tried if one is not taken]
    right = [one for one in others if one.parity is not None and one.parity.passed]
    if not others:
        return "it was asked for, and gives the model's own answers"
    if taken.fallback:
        return f"{others[0].name} cannot be had, and falling back to onnxruntime is allowed"
    if not right:
        return "the only one that runs and gives the model's own answers"
    next_best = max(right, key=lambda one: one.rows_per_second)
    gain = taken.rows_per_second / next_best.rows_per_second - 1
    if gain < 0:
        return (
            f"{next_best.name} is only {-gain / (1 + gain):.1%} faster: less than {USEFUL_GAIN:.0%} is not "
            "worth a change"
        )
    faster = f"{gain:.0%} faster than" if gain < 1 else f"{1 + gain:.1f} times as fast as"
    return f"the fastest with the model's own answers: {faster} {next_best.name}"


def told(selection: Selection) -> Start:
    """What the operator is told of it."""
    return Start(
        engines=tuple(
            tried(one, chosen=number == selection.chosen)
            for number, one in enumerate(selection.candidates)
        ),
        choice=selection.choice,
        machine=selection.machine,
    )


def tried(one: Candidate, *, chosen: bool) -> TriedEngine:
    """A candidate in round figures."""
    parity = "" if one.parity is None else "Same" if one.parity.passed else "Differs"
    return TriedEngine(
        engine=one.engine,
        version=one.version,
        precision=one.effective_precision or one.precision,
        parity=parity,
        max_error=one.max_error,
        micros=round(next(iter(one.batch_seconds.values()), 0.0) * 1e6),
        best_rows=one.max_rows,
        rows_per_second=round(one.rows_per_second),
        size=one.size,
        build_millis=round(one.build_seconds * 1000),
        problem=one.problem,
        chosen=chosen,
    )


def selection_table(selection: Selection) -> str:
    """The engines that were tried, and which is chosen."""
    lines = [
        f"{'engine':<24} {'precision':<10} {'parity':<8} {'max error':>9} {'µs at 1':>9} {'rows per s':>11} "
        f"{'build s':>8}"
    ]
    for number, one in enumerate(selection.candidates):
        engine = f"{one.engine:<24} {one.effective_precision or one.precision:<10}"
        if one.parity is None:
            lines.append(f"{engine} {one.problem}")
            continue
        first = next(iter(one.batch_seconds.values())) * 1e6
        lines.append(
            f"{engine} {'same' if one.parity.passed else 'differs':<8} {one.max_error:9.1e} {first:9,.0f} "
            f"{one.rows_per_second:11,.0f} {one.build_seconds:8.2f}"
            f"{'  ← chosen' if number == selection.chosen else ''}"
        )
        if one.problem:
            lines.append(f"  {one.problem}")
    if selection.choice:
        lines.append(f"chosen: {selection.choice}")
    return "\n".join(lines) + "\n"
