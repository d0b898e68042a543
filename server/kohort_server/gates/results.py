"""What gates found."""

from __future__ import annotations

from enum import StrEnum

import msgspec

MAX_SUMMARY_BYTES = 4096  # of a container's termination message
LONGEST_TOLD = 160  # characters of a message there


class Outcome(StrEnum):
    """How a gate ends. Only `Passed` lets a model on."""

    PASSED = "Passed"
    FAILED = "Failed"
    INSUFFICIENT = "InsufficientSamples"
    INVALID = "Invalid"  # golden data, gate and model do not fit together

    @staticmethod
    def worst(outcomes: list[Outcome]) -> Outcome:
        """The one that a gate of several findings has."""
        return max(outcomes, key=list(Outcome).index)


class Finding(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What was found of all samples, or of one slice.

    ``bound``: what the true value is at least (at most, where less is better), with the gate's confidence.
    """

    outcome: Outcome
    message: str = ""
    slice: str = ""  # empty: all samples
    n: int = 0
    value: float | None = None
    bound: float | None = None
    threshold: float | None = None


class FailingSample(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A sample that a gate stumbled over; pictures are PNG files."""

    sample: int
    before: str
    after: str = ""
    expected: str = ""
    slice: str = ""
    picture: bytes = b""
    picture_after: bytes = b""
    input: str = ""  # what it is, where it is no picture
    input_after: str = ""


class MutantResult(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A broken model, and which gates noticed."""

    name: str
    killed_by: list[str]
    same_answers: bool = False  # as the model's own, to every sample: nothing was there to notice

    @property
    def survived(self) -> bool:
        """No gate noticed."""
        return not self.killed_by


class GateResult(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What one gate found; the first finding is that of all samples."""

    name: str
    kind: str
    findings: list[Finding]
    what: str = ""  # in words, what was asked
    golden: str = ""  # sha256:… of the golden data
    failing: list[FailingSample] = []
    failing_count: int = 0
    seconds: float = 0.0

    @property
    def outcome(self) -> Outcome:
        """The worst of the findings."""
        return Outcome.worst([finding.outcome for finding in self.findings])

    @property
    def passed(self) -> bool:
        """Whether the model may go on."""
        return self.outcome is Outcome.PASSED

    @property
    def telling(self) -> Finding:
        """The first of the worst findings: the one to read."""
        return next(finding for finding in self.findings if finding.outcome is self.outcome)


class GatesReport(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What all gates found of a model."""

    model: str
    model_digest: str
    engine: str
    gates: list[GateResult]
    stable: str = ""
    mutants: list[MutantResult] = []
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return all(gate.passed for gate in self.gates)

    @property
    def mutation_score(self) -> float | None:
        """The share of mutants that some gate noticed."""
        if not self.mutants:
            return None
        return sum(not mutant.survived for mutant in self.mutants) / len(self.mutants)


class Told(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A gate in a summary: numbers in all, words where they fit."""

    name: str
    outcome: Outcome
    passed: bool = False
    n: int = 0
    value: float | None = None
    lower_bound: float | None = None
    threshold: float | None = None
    slice: str = ""
    message: str = ""


class Summary(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a termination message holds of a report."""

    passed: bool
    gates: list[Told]
    left_out: int = (
        0  # gates that there was no room for, none of which is worse than those that are told
    )


def summary(report: GatesReport, most: int = MAX_SUMMARY_BYTES) -> bytes:
    """The report in so many bytes of JSON, what did not pass first."""
    order = sorted(report.gates, key=lambda gate: -list(Outcome).index(gate.outcome))
    told = [_told(gate) for gate in order]
    for words in (LONGEST_TOLD, 40, 0):
        short = [msgspec.structs.replace(one, message=one.message[:words]) for one in told]
        encoded = msgspec.json.encode(Summary(report.passed, short))
        if len(encoded) <= most:
            return encoded
    while short:
        short.pop()
        encoded = msgspec.json.encode(Summary(report.passed, short, len(told) - len(short)))
        if len(encoded) <= most:
            return encoded
    raise ValueError(f"{most} bytes hold no summary")


def _told(gate: GateResult) -> Told:
    finding = gate.telling
    return Told(
        gate.name,
        gate.outcome,
        gate.passed,
        finding.n,
        _rounded(finding.value),
        _rounded(finding.bound),
        _rounded(finding.threshold),
        finding.slice[:60],
        finding.message,
    )


def _rounded(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.6g}")
