"""The model that goes through the gates: asked once about the same samples, however many gates there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from kohort_server.engine.interface import Engine, Signature
from kohort_server.gates.answers import Answers
from kohort_server.gates.errors import GateError
from kohort_server.gates.samples import SLICE, Samples, ask, read_samples
from kohort_server.gates.spec import Dataset, File, Metamorphic, Missing, Picture

Fetch = Callable[[File], Path]
"""A verified file here; raises `GateError`."""


@dataclass(slots=True)
class Shared:
    """What does not depend on the model that is asked: files that were read, what stable says of them."""

    fetch: Fetch
    samples: dict[tuple[str, ...], Samples] = field(default_factory=dict)
    stable: dict[tuple[str, ...], Answers] = field(default_factory=dict)
    transformed: dict[tuple[str, ...], Samples] = field(default_factory=dict)


@dataclass(slots=True)
class Subject:
    """A model, maybe the stable one beside it, and what they have been asked."""

    engine: Engine
    shared: Shared
    stable: Engine | None = None
    asked: dict[tuple[str, ...], Answers] = field(default_factory=dict)

    def instead(self, engine: Engine) -> Subject:
        """Another model in its place, with the same golden data."""
        return replace(self, engine=engine, asked={})

    @property
    def signature(self) -> Signature:
        """Inputs and outputs of the model."""
        return self.engine.signature

    def samples(self, dataset: File, missing: bool = False, slice_name: str = SLICE) -> Samples:
        """Golden data, or other data of the same form; raises `GateError`."""
        key = (dataset.uri, dataset.digest, str(missing), slice_name)
        if key not in self.shared.samples:
            whole = self.engine.batch.kind == "none"
            path = self.shared.fetch(dataset)
            self.shared.samples[key] = read_samples(
                path, self.signature, whole, missing, slice_name
            )
        return self.shared.samples[key]

    def golden(self, dataset: Dataset) -> Samples:
        """The samples of a gate."""
        return self.samples(dataset, dataset.missing is Missing.ALLOW, dataset.slice)

    def answers(self, dataset: Dataset, output: str | None) -> Answers:
        """What the model says of the samples."""
        key = (dataset.uri, dataset.digest, output or "")
        if key not in self.asked:
            self.asked[key] = ask(self.engine, self.golden(dataset), output)
        return self.asked[key]

    def stable_answers(self, dataset: Dataset, output: str | None) -> Answers:
        """What the stable model says of them; raises `GateError` where it cannot be asked the same."""
        if self.stable is None:
            raise GateError("there is no stable model to compare with")
        key = (dataset.uri, dataset.digest, output or "")
        if key not in self.shared.stable:
            mine = {(spec.name, spec.datatype) for spec in self.signature.inputs}
            its = {(spec.name, spec.datatype) for spec in self.stable.signature.inputs}
            if mine != its:
                raise GateError(
                    f"the stable model takes {names(its)} and this one {names(mine)}, so that they cannot be "
                    "asked the same; leave compare out for this change"
                )
            self.shared.stable[key] = ask(self.stable, self.golden(dataset), output)
        return self.shared.stable[key]

    def after(
        self,
        gate: Metamorphic,
        dataset: Dataset,
        change: Callable[[Metamorphic, Samples, Signature, Picture | None], Samples],
    ) -> tuple[Samples, Answers]:
        """The samples after a transform, and what the model says of them."""
        amount = "" if gate.amount is None else str(gate.amount)
        columns = ",".join(map(str, gate.columns))
        key = (dataset.uri, dataset.digest, gate.transform, amount, gate.input, columns)
        if key not in self.shared.transformed:
            # One at a time: golden data may be large, and gates rarely share a transform.
            self.shared.transformed.clear()
            self.shared.transformed[key] = change(
                gate, self.golden(dataset), self.signature, dataset.picture
            )
        samples = self.shared.transformed[key]
        return samples, ask(self.engine, samples, gate.output)


def names(inputs: set[tuple[str, str]]) -> str:
    """Inputs in words."""
    return ", ".join(f"{name} ({datatype})" for name, datatype in sorted(inputs))
