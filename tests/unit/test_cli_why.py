"""Why a cohort stands where it stands, in words; asserted as people read it."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import timedelta, timezone
from typing import Any

import pytest

from kohort.cli.tree import tree
from kohort.view.rollout import model_view
from kohort.view.why import why, why_cohort
from tests.unit.cli_samples import NOW, RESOURCES, printed, view_of

TOLD = {
    ("diverged", "batchers"): (
        "batchers went back from v3 to v2 at 10:41:07, 4.2 s after v3 got its first clients "
        "here: 38 of 38 canary requests failed against 0 of 702 of stable; chance under 1 in "
        "1,000,000,000. v3 is not tried again until the spec changes, or kubectl kohort retry "
        "digits batchers."
    ),
    ("diverged", "singles"): (
        "singles has 25% of its clients on v3 (step 2 of 3) since 10:41:30, 30 s ago; the "
        "others are on v2. On errors: 11 of 402 canary requests failed against 9 of 3,611 of "
        "stable; to show a doubled failure rate takes at least 2,120 more requests, 53 s at "
        "this traffic. The step is held for 2m, 1 min 30 s more. The last decision at 10:21:00:"
        " v2 was promoted."
    ),
    ("diverged", "staff"): (
        "staff is on v3, which the spec asks for. It was promoted at 10:40:10: its steps "
        "compared nothing."
    ),
    ("diverged", "everyone"): (
        "everyone stays on v2 and has not begun with v3. Waits for batchers, which went back to"
        " v2; apply another model, or take it out of after."
    ),
    ("commanded", "held"): (
        "held has 5% of its clients on v3 (step 1 of 2) since 10:39:30, 2 min 30 s ago; the others "
        "are on v2. On errors: 1 of 402 canary requests failed against 9 of 3,611 of stable. Held "
        "by hand since 10:40:00, until kubectl kohort resume menu held: it goes no further, but "
        "evidence of harm still sends it back. The last decision at 10:40:00: v3 was held: held "
        "where it is. Asked for by anna: incident 4711."
    ),
    ("commanded", "stepped"): (
        "stepped has 50% of its clients on v3 (step 2 of 2) since 10:41:30, 30 s ago; the others "
        "are on v2. Waits for a person: kubectl kohort promote menu stepped. The last decision at "
        "10:41:20: v3 was urged on: left step 1 of 2. Asked for by system:admin."
    ),
    ("commanded", "aborted"): (
        "aborted went back from v3 to v2 at 10:41:00: it was aborted by anna: wrong labels. v3 is "
        "not tried again until the spec changes, or kubectl kohort retry menu aborted."
    ),
    ("undone", "everyone"): (
        "everyone is on v1, which bob wants (on second thoughts) instead of v2, until the spec "
        "changes. It was promoted at 10:30:10: its steps compared nothing."
    ),
    ("first", "everyone"): (
        "everyone has no revision yet, so its clients get no answer. Pods are awaited since "
        "10:41:50, 10 s ago. 0 of 1 pods of v1 are ready: /models/burger/1/model.onnx does not "
        "exist: mount it or correct spec.model.uri."
    ),
    ("moving", "preparing"): (
        "preparing is on v1; none of its clients has v2 yet. Pods are awaited since 10:40:30, 1"
        " min 30 s ago. Before 5%: 1 of 2 pods of v2 are ready. Paused since 2026-11-23 "
        "22:00:00: it goes no further, but evidence of harm still sends it back."
    ),
    ("moving", "moved"): (
        "moved has 5% of its clients on v2 (step 1 of 1), or soon will: not every gateway has "
        "taken this weight yet. Waits for gateway kohort-gateway-0. Paused since 2026-11-23 "
        "22:00:00: it goes no further, but evidence of harm still sends it back."
    ),
    ("moving", "proving"): (
        "proving has 25% of its clients on v2 (step 2 of 2) since 10:00:00, 42 min ago; the "
        "others are on v1. On errors: counters cannot be used: kohort-gateway-0. The step "
        "lasts until v2 is proven to be not worse than the margin allows. Paused since "
        "2026-11-23 22:00:00: it goes no further, but evidence of harm still sends it back."
    ),
    ("moving", "promoting"): (
        "promoting passed every step and is being promoted from v1 to v2: pods for all of its "
        "clients first, then the clients. 1 of 2 pods of v2 are ready, awaited since 10:40:30, "
        "1 min 30 s ago. On errors: 9 of 9,000 canary requests failed against 8 of 9,100 of "
        "stable. Paused since 2026-11-23 22:00:00: it goes no further, but evidence of harm "
        "still sends it back. The last decision at 09:50:00: v3 was given up: the spec asks for"
        " v2."
    ),
}


@pytest.mark.parametrize(("sample", "cohort"), TOLD)
def test_each_place_of_a_cohort_is_told_in_plain_words(sample: str, cohort: str) -> None:
    view = view_of(sample)
    (paragraph,) = (why_cohort(c, view) for c in view.cohorts if c.name == cohort)
    assert paragraph == TOLD[sample, cohort]


def test_every_phase_of_a_cohort_is_among_the_told() -> None:
    told = {
        cohort.phase
        for sample, name in TOLD
        for cohort in view_of(sample).cohorts
        if cohort.name == name
    }
    assert {str(phase) for phase in told} == {
        *("Pending", "Waiting", "Preparing", "Analyzing", "Promoting", "Stable", "RolledBack")
    }


def test_there_is_a_paragraph_for_each_cohort_in_the_order_of_the_spec() -> None:
    first_words = [paragraph.split()[0] for paragraph in why(view_of("diverged"))]
    assert first_words == ["batchers", "singles", "staff", "everyone"]


def test_a_rollout_without_cohorts_points_at_the_operator() -> None:
    (paragraph,) = why(view_of("unseen"))
    assert "Kohort has not looked at it yet" in paragraph


def changed(sample: str, cohort: int, **changes: Any) -> str:
    """The paragraph of a sample's cohort with some fields of its status changed."""
    resource = copy.deepcopy(RESOURCES[sample])
    resource["status"]["cohorts"][cohort].update(changes)
    return why(model_view(resource, (), NOW))[cohort]


def test_a_rollback_whose_evidence_belongs_to_a_later_canary_tells_no_wrong_delay() -> None:
    later = [{"metric": "errors", "since": "2026-11-24T10:41:59Z"}]
    assert "after v3 got its first clients" not in changed("diverged", 0, evidence=later)


def test_a_step_that_is_held_by_counters_without_slots_says_so_and_what_a_person_can_do() -> None:
    told = "9 of 402 (0.0224) of the canary were bad; this holds the step and decides nothing"
    people = "kubectl kohort promote digits singles, or kubectl kohort abort digits singles"
    paragraph = changed(
        "diverged",
        1,
        message=f"25%: is accused, and waits for a person, or for evidence to end: {people}; {told}",
        evidence=[{"metric": "complaints", "undecided": True, "message": told}],
    )
    assert f"On complaints: {told}." in paragraph
    assert f"Is accused, and waits for a person, or for evidence to end: {people}." in paragraph


def test_a_rollback_without_a_record_is_told_from_the_evidence() -> None:
    told = changed("diverged", 0, decisions=[])
    assert told == (
        "batchers went back from v3 to v2. On errors: 38 of 38 canary requests failed against "
        "0 of 702 of stable; chance under 1 in 1,000,000,000. v3 is not tried again until the spec "
        "changes, or kubectl kohort retry digits batchers."
    )


def test_a_whole_rollout_that_is_held_says_how_it_goes_on() -> None:
    resource = copy.deepcopy(RESOURCES["diverged"])
    resource["status"] |= {"held": True, "pausedAt": "2026-11-24T10:41:50Z"}
    told = why(model_view(resource, (), NOW))[1]
    assert "Held by hand since 10:41:50, until kubectl kohort resume digits: it goes" in told
    assert "The step is held for" not in told


def test_figures_of_the_analysis_are_told_once() -> None:
    figures = "11 of 402 canary requests failed against 9 of 3,611 of stable"
    evidence = [{"metric": "errors", "message": figures}]
    told = changed("diverged", 1, evidence=evidence, message=f"held for 90 s more; {figures}")
    assert told.count(figures) == 1


def test_a_decision_of_another_day_carries_its_date() -> None:
    promoted = [{"action": "Promoted", "revision": "digits-ccc", "at": "2026-11-23T10:00:00Z"}]
    assert "promoted at 2026-11-23 10:00:00." in changed("diverged", 2, decisions=promoted)


def test_times_are_told_in_the_readers_zone() -> None:
    madrid = NOW.astimezone(timezone(timedelta(hours=1)))
    told = why(model_view(RESOURCES["diverged"], (), madrid))
    assert "at 11:41:07" in told[0]


def test_a_hold_that_is_over_is_not_told_as_lasting() -> None:
    told = changed("diverged", 1, stepStartedAt="2026-11-24T10:00:00Z")
    assert "The step's 2m are over." in told


def test_clients_that_nothing_serves_are_told_of() -> None:
    view = view_of("diverged")
    down = tuple(
        replace(r, ready=0, reason="OOMKilled", message="too little memory")
        if r.label == "v2"
        else r
        for r in view.revisions
    )
    told = why(replace(view, revisions=down))
    outage = "No pod of v2 is ready, so its clients get errors: OOMKilled: too little memory."
    assert [outage in paragraph for paragraph in told] == [True, True, False, True]


def compiling(stable: str, canary: str) -> dict[str, Any]:
    """A rollout whose new revision is being built."""
    progress = "Compiling 62 %, 3 min left: building OpenVINO"
    cohort = {"name": "all", "phase": "Compiling", "stable": stable, "canary": canary}
    cohort["message"] = f"before 5%: 0 of 1 pods of v2 are ready: {progress}"
    revisions: list[dict[str, Any]] = [
        {"name": f"m-{n}", "number": n, "uri": "file:///m", "createdAt": "2026-11-24T10:00:00Z"}
        for n in (1, 2)
    ]
    revisions[0].update(replicas=1, readyReplicas=1)
    told = {"reason": "Compiling", "message": progress, "replicas": 1}
    revisions[1].update(told, preparingSince="2026-11-24T10:40:00Z")
    return {
        "metadata": {"name": "m", "generation": 1},
        "status": {
            "observedGeneration": 1,
            "phase": "Compiling",
            "desired": "m-2",
            "cohorts": [cohort],
            "revisions": revisions,
        },
    }


def test_it_is_told_how_far_the_engines_of_a_canary_are() -> None:
    (paragraph,) = why(model_view(compiling("m-1", "m-2"), (), NOW))
    assert paragraph == (
        "all is on v1; none of its clients has v2 yet. Pods are awaited since 10:40:00, 2 min ago. "
        "Before 5%: 0 of 1 pods of v2 are ready: Compiling 62 %, 3 min left: building OpenVINO."
    )


def test_the_progress_of_a_first_revision_is_told_once() -> None:
    resource = compiling("", "")
    resource["status"]["cohorts"][0]["message"] = "something else"
    (paragraph,) = why(model_view(resource, (), NOW))
    assert paragraph.count("Compiling") == 1
    assert "Compiling 62 %, 3 min left: building OpenVINO." in paragraph


def test_the_tree_has_the_progress_below_the_revision() -> None:
    lines = printed(tree(model_view(compiling("m-1", "m-2"), (), NOW)), 80).splitlines()
    assert [
        line for line in lines if line.endswith("Compiling 62 %, 3 min left: building OpenVINO")
    ]
    assert lines[0].startswith("m  Compiling")


def test_who_is_held_back_for_how_long_and_what_harm_would_do() -> None:
    resource = copy.deepcopy(RESOURCES["diverged"])
    cohort = resource["status"]["cohorts"][1]
    cohort.update(phase="HoldingBack", weight=95, heldBack=cohort["canary"], message="")
    resource["spec"]["cohorts"][1]["holdback"] = {"weight": 5, "for": "24h"}
    told = why(model_view(resource, (), NOW))[1]
    assert (
        "singles is on v3, but for 5% of its clients, which are held back on v2 24h from " in told
    )
    assert "harm sends all of them back." in told
