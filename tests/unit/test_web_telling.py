"""What the page is told: whatever a status says, it is JSON, and in the words of ``kubectl kohort``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from hypothesis import given, settings

from kohort.api.status import Status
from kohort.view.rollout import facts_of, pod_view, view_of
from kohort.view.why import why_cohort
from kohort.web import telling
from kohort.web.seen import Seen
from tests.unit.cli_samples import NOW, RESOURCES
from tests.unit.test_cli_any_status import resource_of, some_pods, statuses


def strings(value: Any) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)


@settings(deadline=None)
@given(statuses, some_pods(6))
def test_any_rollout_is_told_on_one_line_without_control_characters(
    status: Status, pods: list[dict[str, Any]]
) -> None:
    facts = facts_of(resource_of(status))
    by_revision: dict[str, list[Any]] = {}
    for each in pods:
        revision = each["metadata"]["labels"]["kohort.dev/revision"]
        by_revision.setdefault(revision, []).append(pod_view(each))
    seen = Seen()
    seen.take(facts, NOW)
    view = view_of(facts, by_revision, NOW)
    content = msgspec.json.encode(telling.model(view, facts, seen.of("n", "m"), True))
    assert b"\n" not in content  # or a server-sent event would end there
    told = msgspec.json.decode(content)
    assert all(text.isprintable() for text in strings(told))
    assert [c["why"] for c in told["cohorts"]] == [why_cohort(c, view) for c in view.cohorts]
    assert all(len(c["weights"]) == 1 for c in told["cohorts"])
    listed = msgspec.json.decode(msgspec.json.encode(telling.row(facts, NOW)))
    assert all(text.isprintable() for text in strings(listed))


def told(sample: str) -> telling.ModelTold:
    facts = facts_of(RESOURCES[sample])
    seen = Seen()
    seen.take(facts, NOW)
    lines = seen.of(facts.namespace, facts.name)
    return telling.model(view_of(facts, {}, NOW), facts, lines, False)


def test_what_went_back_keeps_its_evidence_and_what_is_promoted_has_none() -> None:
    back, trying, done, waiting = told("diverged").cohorts
    assert [e.verdict for e in back.evidence] == ["Fail"]
    assert back.rejected == "v3"
    assert (trying.evidence[0].canary, trying.evidence[0].shares) == ("11/402", "2.7% vs 0.25%")
    assert done.evidence == waiting.evidence == ()
    assert back.decisions[0].when == "10:41:07"


def test_it_is_said_where_a_line_begins_and_why() -> None:
    _, trying, done, _ = told("diverged").cohorts
    assert trying.begins.startswith("The line begins at 10:41:30, when the step began")
    assert "first looked at" in done.begins


def test_the_list_has_the_columns_of_kubectl() -> None:
    row = telling.row(facts_of(RESOURCES["diverged"]), NOW)
    assert (row.stable, row.canary, row.weight, row.step) == ("v2,v3", "v3", "25%", "2/3")


def test_a_model_that_nobody_has_looked_at_says_so() -> None:
    (note, *_) = [n for n in told("unseen").notes if "not looked at it yet" in n.text]
    assert note.tone == "plain"
