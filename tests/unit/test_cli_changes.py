"""The live view of a pipe: a line for each thing that changes."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from kohort.cli.cluster import ClusterError
from kohort.cli.watching import Scene, news, page, scenes, trouble
from kohort.view.changes import changes
from kohort.view.rollout import ModelView, Resource, model_view
from tests.unit.cli_samples import NOW, RESOURCES, pod, printed, view_of

SINGLES = 1  # the cohort of the sample that is being analyzed


def later(cohort: int = SINGLES, **changed: Any) -> ModelView:
    """The sample with some fields of one cohort's status changed."""
    resource = copy.deepcopy(RESOURCES["diverged"])
    resource["status"]["cohorts"][cohort].update(changed)
    return model_view(resource, (), NOW)


def test_a_watcher_first_hears_how_things_stand() -> None:
    assert changes(None, view_of("first")) == [
        "burger: Pending, the model of v1 cannot be found",
        "burger/everyone: Pending, 0 of 1 pods of v1 are ready: /models/burger/1/model.onnx does not "
        "exist: mount it or correct spec.model.uri",
        "burger v1: 0 of 1 pod ready",
        "burger v1: ModelNotFound: /models/burger/1/model.onnx does not exist: mount it or correct "
        "spec.model.uri",
    ]


def test_a_step_is_one_line() -> None:
    after = later(step=2, weight=50, message="held for 2 min more")
    assert changes(view_of("diverged"), after) == [
        "digits/singles: Analyzing v2 -> v3 50% step 3/3, held for 2 min more"
    ]


def test_what_a_cohort_says_for_itself_is_one_line() -> None:
    before, after = view_of("diverged"), later(message="held for 2 min more")
    told = [replace(v, message=f"singles: {v.cohorts[SINGLES].message}") for v in (before, after)]
    assert changes(*told) == [
        "digits/singles: Analyzing v2 -> v3 25% step 2/3, held for 2 min more"
    ]


def test_what_a_person_asked_for_is_a_line_and_its_decision_another() -> None:
    resource = copy.deepcopy(RESOURCES["commanded"])
    before = model_view(resource, (), NOW)
    status = resource["status"]
    status["command"] = {
        "id": "3",
        "line": "pause stepped by=anna id=3",
        "accepted": True,
        "message": "stepped is held (asked for by anna)",
    }
    held = {
        "action": "Held",
        "revision": "menu-ccc",
        "at": "2026-11-24T10:41:59Z",
        "message": "held where it is",
        "by": "anna",
        "why": "too early",
    }
    stepped = status["cohorts"][1]
    stepped |= {"held": True, "decisions": [held, *stepped["decisions"]]}
    assert changes(before, model_view(resource, (), NOW)) == [
        "menu: carried out: pause stepped, stepped is held (asked for by anna)",
        "menu/stepped: Held v3 by anna: too early, held where it is",
        "menu/stepped: Analyzing v2 -> v3 50% step 2/2, held, 50%: waits for a person: kubectl "
        "kohort promote menu stepped",
    ]


def test_figures_that_only_go_on_are_no_change() -> None:
    evidence = [{"metric": "errors", "canary": {"requests": 500, "failed": 13}}]
    message = view_of("diverged").cohorts[SINGLES].message.replace("402", "500").replace("11", "13")
    after = later(message=message, evidence=evidence)
    assert changes(view_of("diverged"), after) == []


def test_a_rollback_is_told_with_what_was_seen() -> None:
    seen = "90 of 402 canary requests failed against 9 of 3,611 of stable"
    decision = {
        "action": "RolledBack",
        "revision": "digits-ccc",
        "at": "2026-11-24T10:41:59Z",
        "message": seen,
    }
    after = later(
        phase="RolledBack",
        canary="",
        weight=0,
        rejected="digits-ccc",
        message="",
        evidence=[{"metric": "errors", "verdict": "Fail"}],
        decisions=[decision],
    )
    assert changes(view_of("diverged"), after) == [
        f"digits/singles: RolledBack v3, {seen}",
        "digits/singles: RolledBack v2",
        "digits/singles: errors Fail, 0/0 vs 0/0 failed",
    ]


def test_pods_are_told_when_they_come_change_and_go() -> None:
    quiet = view_of("moving")
    starting = view_of("moving", pod("fries-bbb-1", "fries-bbb", ready=False))
    crashed = view_of(
        "moving", pod("fries-bbb-1", "fries-bbb", False, restarts=1, waiting="CrashLoopBackOff")
    )
    ready = view_of("moving", pod("fries-bbb-1", "fries-bbb", restarts=1))
    told = [changes(*pair) for pair in ((quiet, starting), (starting, crashed), (crashed, ready))]
    assert told == [
        ["fries v2: pod fries-bbb-1 Running"],
        ["fries v2: pod fries-bbb-1 CrashLoopBackOff, 1 restart"],
        ["fries v2: pod fries-bbb-1 Ready, 1 restart"],
    ]
    assert changes(ready, quiet) == ["fries v2: pod fries-bbb-1 gone"]


def test_a_cohort_that_the_spec_drops_is_gone() -> None:
    resource = copy.deepcopy(RESOURCES["diverged"])
    del resource["status"]["cohorts"][2]
    after = model_view(resource, (), NOW)
    assert changes(view_of("diverged"), after) == ["digits/staff: gone"]


def test_lines_of_several_namespaces_carry_them() -> None:
    before = {("shop", "digits"): view_of("diverged")}
    assert news(before, {}, everywhere=True) == ["shop/digits was deleted"]
    assert news(before, {}, everywhere=False) == ["digits was deleted"]


def test_trouble_is_told_once_when_it_begins_and_once_when_it_is_over() -> None:
    fine, one, two = (
        Scene(),
        Scene(problems={"pods": "no answer"}),
        Scene(problems={"models": "refused", "pods": "no answer"}),
    )
    assert trouble(fine, one) == ["no answer. Trying again."]
    assert trouble(one, two) == []
    assert trouble(two, fine) == ["the cluster answers again"]


def test_a_watch_that_fails_leaves_what_was_seen_and_tells_the_problem() -> None:
    scene = Scene({"models": [RESOURCES["diverged"]]}, {"models": "no answer", "pods": "no answer"})
    text = printed(page(scene.views(NOW), scene.problems.values(), "digits", False), 80)
    assert text.startswith("digits  Analyzing")
    assert text.count("no answer") == 1


def test_a_scene_waits_until_every_watch_has_told_something() -> None:
    with contextlib.closing(
        scenes({"models": lambda: [[RESOURCES["diverged"]]], "pods": lambda: [[]]})
    ) as told:
        assert next(told).resources == {"models": [RESOURCES["diverged"]], "pods": []}


def test_a_watch_that_fails_is_tried_again() -> None:
    answers: Iterator[str | list[Resource]] = iter(["no answer", [RESOURCES["diverged"]]])

    def watched() -> list[list[Resource]]:
        answer = next(answers, [])
        if isinstance(answer, str):
            raise ClusterError(answer)
        return [answer]

    with contextlib.closing(scenes({"models": watched})) as told:
        first = next(told)
        assert (first.resources, first.problems) == ({}, {"models": "no answer"})
        second = next(scene for scene in told if not scene.problems)
        assert second.resources == {"models": [RESOURCES["diverged"]]}
