"""Whatever a status says, a person gets to see it: rendering never fails."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from kohort.api.status import (
    CohortPhase,
    CohortStatus,
    CommandStatus,
    Decision,
    Evidence,
    Phase,
    RevisionStatus,
    Status,
    Tally,
    Verdict,
)
from kohort.cli.history import history, pages
from kohort.cli.tree import ModelList, tree
from kohort.contract import LABEL_REVISION
from kohort.view.changes import changes
from kohort.view.rollout import ViewError, model_view
from kohort.view.why import why
from kohort.view.words import clean
from tests.unit.cli_samples import NOW, pod, printed

texts = st.text(max_size=60)
times = st.one_of(
    st.datetimes().map(lambda t: t.isoformat() + "Z"), st.sampled_from(["", "yesterday"]), texts
)
revisions = st.sampled_from(["", "m-aaa", "m-bbb", "m-ccc", "unknown"])
counts = st.integers(0, 10**12)
tallies = st.builds(Tally, requests=counts, failed=counts)
evidences = st.builds(
    Evidence,
    metric=texts,
    verdict=st.sampled_from(Verdict),
    message=texts,
    canary=tallies,
    stable=tallies,
    since=st.none() | times,
)
decisions = st.builds(
    Decision,
    action=st.sampled_from(["Promoted", "RolledBack", "Superseded", "Aborted", "Undone", "Else"]),
    revision=revisions,
    at=times,
    message=texts,
    by=texts,
    why=texts,
)
cohorts = st.builds(
    CohortStatus,
    name=texts,
    phase=st.sampled_from(CohortPhase),
    message=texts,
    stable=revisions,
    canary=revisions,
    step=st.integers(0, 20),
    weight=st.integers(0, 100),
    step_started_at=st.none() | times,
    rejected=revisions,
    held=st.booleans(),
    paused_at=st.none() | times,
    evidence=st.lists(evidences, max_size=2, unique_by=lambda e: clean(e.metric)).map(tuple),
    decisions=st.lists(decisions, max_size=3).map(tuple),
)
revision_statuses = st.builds(
    RevisionStatus,
    name=revisions,
    number=st.integers(0, 10**6),
    uri=texts,
    created_at=times,
    replicas=st.integers(0, 1000),
    ready_replicas=st.integers(0, 1000),
    reason=texts,
    message=texts,
    preparing_since=st.none() | times,
)
commands = st.builds(
    CommandStatus,
    id=texts,
    line=texts | st.sampled_from(["pause staff by=anna", "promote to=all why='so be it'"]),
    at=st.none() | times,
    accepted=st.booleans(),
    message=texts,
)
statuses = st.builds(
    Status,
    observed_generation=st.integers(-1, 3),
    phase=st.sampled_from(Phase),
    message=texts,
    desired=revisions,
    replicas=st.integers(0, 1000),
    paused_at=st.none() | times,
    held=st.booleans(),
    pinned_over=revisions,
    command=st.none() | commands,
    cohorts=st.lists(cohorts, max_size=4, unique_by=lambda c: clean(c.name)).map(tuple),
    revisions=st.lists(
        revision_statuses, max_size=4, unique_by=(lambda r: r.name, lambda r: r.number)
    ).map(tuple),
)
pods = st.builds(
    pod,
    name=texts,
    revision=revisions,
    ready=st.booleans(),
    restarts=st.integers(0, 10**6),
    waiting=texts,
)


def some_pods(most: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Pods of different names."""
    return st.lists(pods, max_size=most, unique_by=lambda p: clean(p["metadata"]["name"]))


widths = st.integers(40, 220)


def resource_of(status: Status) -> dict[str, Any]:
    """The resource that carries a status; its cohorts have two steps each."""
    steps = [{"weight": 5, "hold": "1m"}, {"weight": 50, "until": "NonInferior"}]
    return {
        "metadata": {"name": "m", "namespace": "n", "generation": 2},
        "spec": {"cohorts": [{"name": c.name, "steps": steps} for c in status.cohorts]},
        "status": msgspec.to_builtins(status),
    }


@settings(deadline=None)
@given(statuses, some_pods(12), widths, st.sampled_from(["utf-8", "ascii"]))
def test_any_rollout_fits_any_terminal(
    status: Status, its_pods: list[dict[str, Any]], width: int, encoding: str
) -> None:
    view = model_view(resource_of(status), its_pods, NOW)
    lines = printed(tree(view), width, encoding).splitlines()
    assert max(map(cell_len, lines)) <= width
    assert lines[0].startswith("m  ")


@settings(deadline=None)
@given(st.lists(statuses, max_size=3), widths, st.booleans())
def test_any_list_of_rollouts_fits_any_terminal(
    some: list[Status], width: int, with_namespace: bool
) -> None:
    views = [model_view(resource_of(status), (), NOW) for status in some]
    lines = printed(ModelList(views, with_namespace), width).splitlines()
    assert max(map(cell_len, lines)) <= width


@settings(deadline=None)
@given(statuses, widths)
def test_any_history_fits_any_terminal_and_can_be_read_by_programs(
    status: Status, width: int
) -> None:
    told = history(resource_of(status))
    lines = [line for part in pages(told, NOW, width) for line in printed(part, width).splitlines()]
    assert max(map(cell_len, lines)) <= width
    assert msgspec.json.decode(msgspec.json.encode(told))["name"] == "m"
    assert len(told.decisions) == sum(len(c.decisions) for c in status.cohorts)


@settings(deadline=None)
@given(statuses)
def test_any_rollout_has_a_paragraph_of_one_line_for_each_cohort(status: Status) -> None:
    paragraphs = why(model_view(resource_of(status), (), NOW))
    assert len(paragraphs) == max(1, len(status.cohorts))
    for paragraph in paragraphs:
        assert paragraph.isprintable()


@settings(deadline=None)
@given(statuses, statuses, some_pods(3))
def test_any_change_is_told_in_lines_and_no_change_in_none(
    before: Status, after: Status, its_pods: list[dict[str, Any]]
) -> None:
    old = model_view(resource_of(before), its_pods, NOW)
    new = model_view(resource_of(after), (), NOW)
    assert all(line.isprintable() for line in changes(old, new))
    assert changes(new, new) == []
    assert changes(new, replace(new, now=NOW.replace(hour=23))) == []


def test_a_status_of_another_version_says_which_plugin_to_install() -> None:
    resource = {"metadata": {"name": "m"}, "status": {"phase": "Levitating"}}
    with pytest.raises(ViewError, match="install the kubectl-kohort of the operator's version"):
        model_view(resource, (), NOW)


def test_a_spec_of_a_newer_version_is_shown_without_its_steps() -> None:
    step = {"weight": 5, "mirror": True}
    resource = {
        "metadata": {"name": "m"},
        "spec": {"cohorts": [{"name": "all", "steps": [step]}]},
        "status": {
            "cohorts": [{"name": "all", "phase": "Analyzing", "stable": "a", "canary": "b"}]
        },
    }
    (cohort,) = model_view(resource, (), NOW).cohorts
    assert cohort.step_text == ""


def test_a_pod_without_a_known_revision_is_left_out() -> None:
    stray = pod("stray", "gone")
    stray["metadata"]["labels"] = {LABEL_REVISION: "gone"}
    view = model_view(resource_of(Status()), [stray], NOW)
    assert "stray" not in printed(tree(view), 80)
