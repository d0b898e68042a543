"""Gates and what they found, in words."""

from __future__ import annotations

from kohort_server.gates.metrics import MetricName
from kohort_server.gates.results import Finding
from kohort_server.gates.spec import Compare, Contract, Gate, Metamorphic, RelationName, Slices


def described(gate: Gate) -> str:
    """What a gate asks for."""
    each = ", in each slice too" if gate.slices is Slices.EACH else ""
    if gate.contract is not None:
        return contract_told(gate.contract) + each
    if gate.compare is not None:
        return compare_told(gate.compare) + each
    if gate.metamorphic is not None:
        return metamorphic_told(gate.metamorphic) + each
    if gate.mutation is not None:
        return f"the other gates notice at least {percent(gate.mutation.at_least)} of the broken models"
    return "the golden data is as it should be"


def percent(share: float | None) -> str:
    """A share in words."""
    return f"{(share or 0.0) * 100:.6g}%"


def contract_told(gate: Contract) -> str:
    """What a contract asks for."""
    of = f" of class {gate.positive}" if gate.positive is not None else ""
    if gate.metric is MetricName.RMSE:
        limit = f"at most {gate.at_most:.6g}"
    else:
        limit = f"at least {percent(gate.at_least)}"
    return f"{gate.metric}{of} {limit}, {percent(gate.confidence)} sure"


def compare_told(gate: Compare) -> str:
    """What a comparison asks for."""
    of = f" of class {gate.positive}" if gate.positive is not None else ""
    if gate.margin is None:
        sure = f"{percent(gate.confidence)} sure"
        return f"{gate.metric}{of} shows no sign of being worse than stable's, {sure}"
    margin = f"{gate.margin:.4g}, {percent(gate.confidence)} sure"
    return f"{gate.metric}{of} is worse than stable's by less than {margin}"


RELATIONS = {
    RelationName.SAME_TOP1: "the class stays the same",
    RelationName.CLOSE_SCORES: "no score changes by more than {tolerance:.4g}",
    RelationName.MONOTONE: "the answer goes no other way than {direction}",
    RelationName.ABSTAINS: "the model does not claim to know",
}


def metamorphic_told(gate: Metamorphic) -> str:
    """What a transform should do."""
    amount = "" if gate.amount is None else f" {gate.amount:.4g}"
    relation = RELATIONS[gate.relation].format(
        tolerance=gate.tolerance or 0.0, direction=(gate.direction or "").lower()
    )
    return (
        f"after {gate.transform}{amount} {relation} in at least {percent(gate.at_least)} of the samples, "
        f"{percent(gate.confidence)} sure"
    )


def numbers_told(finding: Finding) -> str:
    """The numbers of a finding in a line."""
    parts = [f"n {finding.n:,}"] if finding.n else []
    for name, value in (
        ("value", finding.value),
        ("bound", finding.bound),
        ("threshold", finding.threshold),
    ):
        if value is not None:
            parts.append(f"{name} {value:.4f}")
    return ", ".join(parts)
