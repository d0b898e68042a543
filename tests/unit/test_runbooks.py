"""Whoever is woken finds what to do: a section for each alert, and for each reason of a condition."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kohort.api.status import Phase
from kohort.contract import FailureReason, Stage
from kohort.plan.world import WAITING_FOR_GPU

ROOT = Path(__file__).parents[2]
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text()
RULES = (ROOT / "charts/kohort/templates/monitoring/rules.yaml").read_text()
OPERATOR = ROOT / "operator" / "kohort"
REASON = re.compile(r"[A-Z]+[a-z]+[A-Za-z]*")
# Phases that Ready is never false for, or that nothing is called after in a condition.
NO_REASONS = {Phase.HEALTHY}
# Where reasons are given, and words of that shape there that are none.
SOURCES: dict[str, set[str]] = {
    "plan/conditions.py": {
        *("Accepted", "Available", "Ready", "Reconciling", "Recorded", "Stalled", "True", "False"),
    },
    "plan/addressing.py": {"Sticky", "Compared", "RoutesAccepted", "NameResolves"},
    "observe/problems.py": {
        # what Kubernetes says, which is told in other words
        *("ErrImageNeverPull", "ImageInspectError", "ImagePullBackOff", "InvalidImageName"),
        *("RegistryUnavailable", "ReplicaFailure", "PodScheduled", "Insufficient", "True"),
    },
}


def sections(part: str) -> dict[str, str]:
    """Text of each section of one part of the page, by its heading."""
    text = re.split(rf"^# {part}$", RUNBOOKS, flags=re.M)[1]
    text = re.split(r"^# ", text, flags=re.M)[0]
    found = re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", text, re.M | re.S)
    assert len(dict(found)) == len(found), "a section is there twice"
    return dict(found)


def alerts() -> list[str]:
    return re.findall(r"- alert: (\w+)", RULES)


def words(source: str) -> Iterator[str]:
    """Every text of one file that has the shape of a reason."""
    for node in ast.walk(ast.parse((OPERATOR / source).read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if REASON.fullmatch(node.value):
                yield node.value
        elif isinstance(node, ast.Attribute) and node.attr == "WAITING_FOR_GPU":
            yield WAITING_FOR_GPU


def given_elsewhere() -> Iterator[str]:
    """Reasons that are given by name: to a Problem or a Condition, anywhere in the operator."""
    for path in OPERATOR.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            first = node.args[:1] if node.func.id == "Problem" else []
            named = [k.value for k in node.keywords if k.arg == "reason"]
            for given in [*first, *(named if node.func.id == "Condition" else [])]:
                is_text = isinstance(given, ast.Constant) and "cli" not in path.parts
                if is_text and isinstance(given, ast.Constant):
                    yield str(given.value)


def reasons() -> set[str]:
    told = {word for source, others in SOURCES.items() for word in set(words(source)) - others}
    enumerated = {*FailureReason, *Stage, *(set(Phase) - NO_REASONS)}
    # Accepted is a type of condition and, of routes, a reason.
    return told | {str(e) for e in enumerated} | {*given_elsewhere(), "Accepted"}


def test_every_alert_has_a_section_that_says_what_to_do() -> None:
    found = sections("Alerts")
    assert sorted(found) == sorted(alerts())
    for name, text in found.items():
        for heading in ("**Means**", "**Clients**", "**Look**", "**Do**"):
            assert heading in text, f"{name} has no {heading}"


def test_every_alert_leads_to_its_own_section() -> None:
    linked = re.findall(r'include "kohort.runbook" \(list \$ "(\w+)"\)', RULES)
    assert linked == alerts()


def test_every_reason_of_a_condition_has_a_section() -> None:
    found = reasons()
    assert len(found) > 40
    assert sorted(sections("Reasons of conditions")) == sorted(found)


@pytest.mark.parametrize("source", SOURCES)
def test_words_that_are_no_reasons_are_still_there(source: str) -> None:
    gone = SOURCES[source] - set(words(source))
    assert gone == set(), "take it from the list"
