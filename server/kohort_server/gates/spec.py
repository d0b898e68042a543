"""The gates of a model as YAML says them; what is unknown or contradicts itself is refused with its place."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated

import msgspec
import yaml
from msgspec import Meta, field

from kohort_server.gates.bounds import Interval
from kohort_server.gates.errors import GateError
from kohort_server.gates.metrics import MetricName
from kohort_server.gates.quantities import Amount, Share, read_number
from kohort_server.gates.transforms import CHANGES, Family, TransformName

MAX_SPEC_BYTES = 1 << 20
MAX_GATES = 32
MAX_LIST = 256


class Part(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Any part of a spec."""


Name = Annotated[str, Meta(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
Text = Annotated[str, Meta(min_length=1, max_length=2048)]
Column = Annotated[int, Meta(ge=0, lt=1 << 20)]
Columns = Annotated[tuple[Column, ...], Meta(max_length=MAX_LIST)]
Numbers = Annotated[tuple[float, ...], Meta(min_length=1, max_length=64)]
Confidence = Share


class File(Part, frozen=True):
    """A file somewhere."""

    uri: Text
    digest: Annotated[str, Meta(pattern=r"^(sha256:[0-9a-f]{64})?$")] = ""


class Missing(StrEnum):
    """What NaN in inputs is."""

    REFUSE = "Refuse"
    ALLOW = "Allow"


class Order(StrEnum):
    """Where the channels of a picture are."""

    FIRST = "First"  # NCHW
    LAST = "Last"  # NHWC


class Picture(Part, frozen=True):
    """How an input holds a picture. A value is (x - mean) / std of an x within the range.

    ``height`` and ``width`` may be left out where the input has four dimensions; one of two is flat.
    """

    range: tuple[float, float]
    input: str = ""
    height: Annotated[int, Meta(ge=0, le=1 << 14)] = 0
    width: Annotated[int, Meta(ge=0, le=1 << 14)] = 0
    channels: Order = Order.FIRST
    mean: Numbers = (0.0,)
    std: Numbers = (1.0,)

    def __post_init__(self) -> None:
        _finite(*self.range, *self.mean, *self.std)
        if not self.range[0] < self.range[1]:
            raise ValueError("range must be of a smaller and a larger number: black and white")
        if min(self.std) <= 0:
            raise ValueError("std must be above 0")
        if (self.height == 0) != (self.width == 0):
            raise ValueError("give height and width, or neither")


class Dataset(File, frozen=True):
    """Golden data, an .npz file: an array per input, ``labels``, and what tells slices apart."""

    missing: Missing = Missing.REFUSE
    slice: Text = "slice"
    picture: Picture | None = None


class Contract(Part, frozen=True):
    """A metric that is at least, or at most, so much, with a confidence."""

    metric: MetricName
    at_least: Share | None = None
    at_most: Amount | None = None  # of RMSE
    confidence: Confidence = Share(0.95)
    interval: Interval = Interval.EXACT
    positive: int | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        _sure(self.confidence, self.at_least)
        if self.metric is MetricName.RMSE:
            if self.at_most is None or self.at_least is not None:
                raise ValueError("RMSE is better when it is less: give atMost, and no atLeast")
        elif self.at_least is None or self.at_most is not None:
            raise ValueError(
                f"{self.metric} is better when it is more: give atLeast, and no atMost"
            )


class Compare(Part, frozen=True):
    """Not worse than the stable revision on the same samples.

    Without ``margin``: not shown to be worse. With it: shown to be worse by less than that.
    """

    metric: MetricName = MetricName.ACCURACY
    margin: Amount | None = None
    confidence: Confidence = Share(0.95)
    positive: int | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        _sure(self.confidence)
        if self.margin is not None and self.margin <= 0:
            raise ValueError(
                "margin must be above 0; leave it out to ask for no sign of being worse"
            )


class RelationName(StrEnum):
    """What must hold between the answers before and after a transform."""

    SAME_TOP1 = "SameTop1"
    CLOSE_SCORES = "CloseScores"
    MONOTONE = "Monotone"
    ABSTAINS = "Abstains"


class Direction(StrEnum):
    """Where answers may go."""

    INCREASING = "Increasing"
    DECREASING = "Decreasing"


class Metamorphic(Part, frozen=True):
    """A transform of inputs, and what must hold of the answers in a share of the samples."""

    transform: TransformName
    relation: RelationName
    at_least: Share
    amount: Amount | None = None
    input: str = ""
    columns: Columns = ()  # of a table; none: all of them
    tolerance: Amount | None = None  # CloseScores: of any score or number
    direction: Direction | None = None  # Monotone
    score: int | None = None  # Monotone: of which class; without: the number
    below: Share | None = None  # Abstains: the largest score
    abstain_class: int | None = None  # Abstains: the class that says so
    confidence: Confidence = Share(0.95)
    interval: Interval = Interval.EXACT
    output: str | None = None

    def __post_init__(self) -> None:
        _sure(self.confidence, self.at_least)
        change = CHANGES[self.transform]
        if self.columns and change.family is not Family.TABLE:
            raise ValueError(f"columns are for tables, and {self.transform} is not for them")
        if self.amount is not None or change.needs:
            change.check(self.amount)
        wanted = {
            RelationName.CLOSE_SCORES: {"tolerance"},
            RelationName.MONOTONE: {"direction"},
        }.get(self.relation, set())
        for name in ("tolerance", "direction"):
            if (getattr(self, name) is not None) != (name in wanted):
                verb = "needs" if name in wanted else "takes no"
                raise ValueError(f"{self.relation} {verb} {name}")
        if self.score is not None and self.relation is not RelationName.MONOTONE:
            raise ValueError(f"{self.relation} takes no score")
        abstains = self.relation is RelationName.ABSTAINS
        given = (self.below is not None) + (self.abstain_class is not None)
        if given != abstains:
            what = (
                "needs below or abstainClass" if abstains else "takes no below and no abstainClass"
            )
            raise ValueError(f"{self.relation} {what}")


class Range(Part, frozen=True):
    """What values of an input may be."""

    input: Text
    columns: Columns = ()  # none: all of them
    min: float | None = None
    max: float | None = None
    values: Annotated[tuple[float, ...], Meta(max_length=MAX_LIST)] = ()
    missing: Share = Share(0.0)  # at most

    def __post_init__(self) -> None:
        _finite(*(edge for edge in (self.min, self.max) if edge is not None), *self.values)


class Classes(Part, frozen=True):
    """How labels are spread."""

    number: Annotated[int, Meta(ge=2, le=1 << 20)]
    share_at_least: Share = Share(0.0)  # of each class


class Duplicates(Part, frozen=True):
    """Samples whose inputs are the same as others', byte for byte."""

    at_most: Share = Share(0.0)
    training: File | None = None  # others are these; without: of the golden data itself


class DriftTest(StrEnum):
    """How two sets of values are compared."""

    KS = "KS"  # Kolmogorov and Smirnov, of numbers
    PSI = "PSI"  # population stability index, of numbers
    CHI_SQUARED = "ChiSquared"  # of values that are names of something


class Drift(Part, frozen=True):
    """Whether the golden data is of the same kind as other data, such as what clients send."""

    reference: File
    test: DriftTest
    input: str = ""
    columns: Columns = ()
    at_most: Amount | None = None  # PSI
    false_alarm: Share | None = None  # KS, ChiSquared: chance of failing where nothing drifts

    def __post_init__(self) -> None:
        if (self.test is DriftTest.PSI) != (self.at_most is not None):
            raise ValueError("give atMost for PSI (0.2 is usual), and for nothing else")
        if (self.test is DriftTest.PSI) == (self.false_alarm is not None):
            raise ValueError("give falseAlarm for KS and ChiSquared (1% is usual), and not for PSI")


class Data(Part, frozen=True):
    """Checks of the golden data itself; types, shapes and counts are checked in any case."""

    ranges: Annotated[tuple[Range, ...], Meta(max_length=MAX_LIST)] = ()
    classes: Classes | None = None
    duplicates: Duplicates | None = None
    drift: Annotated[tuple[Drift, ...], Meta(max_length=16)] = ()


class Mutation(Part, frozen=True):
    """How many broken models the other gates notice."""

    at_least: Share
    models: Annotated[tuple[File, ...], Meta(max_length=8)] = ()  # more of them: old versions


class Slices(StrEnum):
    """Whether a gate must hold in each slice too."""

    NONE = "None"
    EACH = "Each"


KINDS = ("contract", "compare", "data", "metamorphic", "mutation")


class Gate(Part, frozen=True):
    """One gate: a name, golden data, and one of the kinds."""

    name: Name
    dataset: Dataset | None = None
    slices: Slices = Slices.NONE
    distinct_classes: Annotated[int, Meta(ge=1, le=1 << 20)] = 2
    contract: Contract | None = None
    compare: Compare | None = None
    data: Data | None = None
    metamorphic: Metamorphic | None = None
    mutation: Mutation | None = None

    def __post_init__(self) -> None:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(
                f"gate {self.name!r} has {' and '.join(given) or 'no kind'}; give one of {', '.join(KINDS)}"
            )
        if (self.dataset is None) != (self.mutation is not None):
            what = (
                "takes no dataset: it uses the other gates'" if self.mutation else "needs a dataset"
            )
            raise ValueError(f"gate {self.name!r} {what}")
        if self.slices is Slices.EACH and (self.mutation or self.data):
            raise ValueError(
                f"gate {self.name!r}: slices are for contract, compare and metamorphic"
            )

    @property
    def kind(self) -> str:
        """Which one it is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)


class EngineSpec(Part, frozen=True):
    """What runs the models, as in a ModelDeployment."""

    type: Text = "ONNXRuntime"
    precision: Text = "FP32"


class Spec(Part, frozen=True):
    """Which model goes through which gates. ``stable``: what compare compares it with."""

    model: File
    gates: Annotated[tuple[Gate, ...], Meta(min_length=1, max_length=MAX_GATES)]
    stable: File | None = None
    engine: EngineSpec = field(default_factory=EngineSpec)

    def __post_init__(self) -> None:
        names = [gate.name for gate in self.gates]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two gates are called {twice.pop()!r}; give each its own name")
        kinds = [gate.kind for gate in self.gates]
        if "compare" in kinds and self.stable is None:
            raise ValueError("compare needs stable: the model to compare with")
        others = set(kinds) - {"mutation", "data"}
        if kinds.count("mutation") > 1 or ("mutation" in kinds and not others):
            raise ValueError("give at most one mutation gate, beside others that ask the model")


def _finite(*numbers: float) -> None:
    if not all(map(math.isfinite, numbers)):
        raise ValueError("numbers must be finite: no .nan and no .inf")


def _sure(confidence: float, share: float | None = None) -> None:
    if not 0.5 < confidence < 1:
        raise ValueError("confidence must be above 50% and below 100%")
    if share == 1:
        raise ValueError(
            "no number of samples shows that nothing is ever wrong: atLeast must be below 100%"
        )


def parse(text: bytes) -> Spec:
    """A spec from YAML; raises `GateError` with the place of what is wrong."""
    if len(text) > MAX_SPEC_BYTES:
        raise GateError(f"the spec has {len(text)} bytes, more than {MAX_SPEC_BYTES}")
    try:
        # A few lines of aliases can stand for more than any memory holds.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise GateError("the spec has aliases (*name); write out what they stand for")
        told = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise GateError(f"the spec is not YAML: {' '.join(str(error).split())[:300]}") from error
    try:
        return msgspec.convert(told, Spec, dec_hook=read_number)
    except (msgspec.ValidationError, RecursionError) as error:
        raise GateError(f"the spec: {error}") from error
