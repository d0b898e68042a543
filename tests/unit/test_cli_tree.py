"""How a rollout looks: the view model and its rendering."""

from __future__ import annotations

import copy
from dataclasses import replace

from rich.cells import cell_len

from kohort.analysis.wording import pairs_message
from kohort.api.status import Tally
from kohort.cli.tree import ModelList, tree
from kohort.view.rollout import model_view, pod_view
from tests.unit.cli_samples import NOW, RESOURCES, pod, printed, view_of

PODS = (
    pod("digits-bbb-5d8f7c-x2x9q", "digits-bbb"),
    pod(
        "digits-bbb-5d8f7c-abcde", "digits-bbb", ready=False, restarts=3, waiting="CrashLoopBackOff"
    ),
    pod("digits-ccc-77f7c-zzzzz", "digits-ccc"),
)


def test_a_rollout_in_the_middle_is_told_whole_on_a_terminal_of_80_columns() -> None:
    assert printed(tree(view_of("diverged", *PODS)), 80) == DIVERGED_80


DIVERGED_80 = """\
digits  Analyzing  3/3 pods ready
v3 has 25% of singles; batchers went back to v2
├── batchers  RolledBack  v2       v3 rejected
│     errors  38/38 vs 0/702 failed (100% vs 0%)  Fail
│     v3 went back to v2: chance under 1 in 1,000,000,000
├── singles   Analyzing   v2 → v3  ██░░░░░░░░  25%  step 2/3
│     errors  11/402 vs 9/3,611 failed (2.7% vs 0.25%)  Insufficient
│     25%: holds until 10:43:30 UTC; to show a doubled failure rate takes at
│     least 2,120 more requests, 53 s at this traffic
├── staff     Stable      v3
├── everyone  Waiting     v2
│     waits for batchers, which went back to v2; apply another model, or take it
│     out of after
├── revision v3  ../3/model.onnx  1/1 ready  desired, stable, canary, rejected
│   └── ● digits-ccc-77f7c-zzzzz  Ready  0 restarts  1m
├── revision v2  file:///models/digits/2/model.onnx  2/2 ready  stable
│   ├── ○ digits-bbb-5d8f7c-abcde  CrashLoopBackOff  3 restarts  1m
│   └── ● digits-bbb-5d8f7c-x2x9q  Ready             0 restarts  1m
└── and 1 former revision without pods"""


def test_what_people_asked_for_is_shown_with_who_and_why() -> None:
    assert printed(tree(view_of("commanded")), 80) == COMMANDED_80


COMMANDED_80 = """\
menu  Analyzing  4/4 pods ready
waits for Kohort to promote stepped
├── held     Analyzing   v2 → v3  █░░░░░░░░░   5%  step 1/2  held
│     errors  1/402 vs 9/3,611 failed (0.25% vs 0.25%)  Insufficient
│     paused with 5% of clients on v3
│     Held at 10:40:00 by anna: incident 4711
├── stepped  Analyzing   v2 → v3  █████░░░░░  50%  step 2/2
│     50%: waits for a person: kubectl kohort promote menu stepped
│     StepSkipped at 10:41:20 by system:admin
├── aborted  RolledBack  v2       v3 rejected
│     v3 was aborted; on v2
│     Aborted at 10:41:00 by anna: wrong labels
├── done     Stable      v3
├── revision v3  ../menu/3.onnx  2/2 ready  desired, stable, canary, rejected
├── revision v2  file:///models/menu/2.onnx  2/2 ready  stable
└── and 1 former revision without pods"""


def test_a_command_that_was_refused_and_an_undo_stand_below_the_name() -> None:
    lines = printed(tree(view_of("undone")), 200).splitlines()
    assert lines[1:4] == [
        "v1 serves every client with 2 of 2 pods ready",
        "a person undid v2, which the spec asks for, and wants v1",
        "retry at 10:41:00: refused: nothing has sent back v1; there is nothing to retry",
    ]


def test_what_every_cohort_says_for_itself_is_not_said_twice() -> None:
    view = view_of("diverged", *PODS)
    told = "; ".join(f"{cohort.name}: {cohort.message}" for cohort in view.cohorts)
    assert printed(tree(replace(view, message=told)), 80) == DIVERGED_80.replace(
        "v3 has 25% of singles; batchers went back to v2\n", ""
    )


def test_a_first_revision_that_cannot_start_shows_its_problem() -> None:
    crashing = pod(
        "burger-aaa-1", "burger-aaa", ready=False, restarts=1, waiting="CrashLoopBackOff"
    )
    assert printed(tree(view_of("first", crashing)), 100) == FIRST_100


FIRST_100 = """\
burger  Pending  0/1 pods ready
the model of v1 cannot be found
├── everyone  Pending  no revision
│     0 of 1 pods of v1 are ready: /models/burger/1/model.onnx does not exist: mount it or correct
│     spec.model.uri
└── revision v1  file:///models/burger/1/model.onnx  0/1 ready  desired
      ModelNotFound: /models/burger/1/model.onnx does not exist: mount it or correct spec.model.uri
    └── ○ burger-aaa-1  CrashLoopBackOff  1 restart  1m"""


def test_preparing_moved_proving_and_promoting_cohorts_can_be_told_apart() -> None:
    assert printed(tree(view_of("moving")), 100) == MOVING_100


MOVING_100 = """\
fries  Paused  3/4 pods ready
paused by the spec
The operator has not taken in the latest spec yet.
├── preparing  Preparing  v1 → v2  ░░░░░░░░░░░░░░░░░░░░   0%  step 1/1
│     before 5%: 1 of 2 pods of v2 are ready
├── moved      Analyzing  v1 → v2  █░░░░░░░░░░░░░░░░░░░   5%  step 1/1
│     waits for gateway kohort-gateway-0
├── proving    Analyzing  v1 → v2  █████░░░░░░░░░░░░░░░  25%  step 2/2
│     errors  no request counted yet  MetricsError
│     paused with 25% of clients on v2
├── promoting  Promoting  v1 → v2  ████████████████████ 100%  step 1/1
│     errors  9/9,000 vs 8/9,100 failed (0.1% vs 0.088%)  Pass
├── revision v2  file:///models/fries/2.onnx  1/2 ready  desired, canary
└── revision v1  file:///models/fries/1.onnx  2/2 ready  stable"""


def test_what_became_of_mirrored_requests_is_told_once_and_in_words() -> None:
    seen = pairs_message(Tally(requests=200, failed=4), Tally(requests=200), different=12)
    resource = copy.deepcopy(RESOURCES["moving"])
    cohort = resource["status"]["cohorts"][0]
    cohort["message"] = f"0%: holds until 10:43:30 UTC; {seen}"
    cohort["evidence"] = [
        {"metric": "mirror", "message": seen, "canary": {"requests": 200, "failed": 4}}
    ]
    text = printed(tree(model_view(resource, (), NOW)), 200)
    assert "│     0%: holds until 10:43:30 UTC\n" in text
    assert (
        "│     mirror  of 200 mirrored requests 4 failed on the canary alone and 0 on stable alone; "
        "12 answers differ  Insufficient\n"
    ) in text


def test_a_rollout_that_no_operator_has_seen_says_so() -> None:
    text = printed(tree(view_of("unseen")), 80)
    assert "The operator has not taken in the latest spec yet." in text


def test_an_ascii_terminal_gets_ascii_only() -> None:
    for sample in ("diverged", "first", "moving"):
        printed(tree(view_of(sample, *PODS)), 80, encoding="ascii").encode("ascii")


def test_a_whole_uri_is_shown_where_there_is_room() -> None:
    uri = RESOURCES["diverged"]["status"]["revisions"][2]["uri"]
    assert uri in printed(tree(view_of("diverged")), 200)
    assert uri not in printed(tree(view_of("diverged")), 80)


def test_a_tree_is_as_narrow_as_asked_for_on_a_wide_console() -> None:
    lines = printed(tree(view_of("diverged", *PODS), width=60), 200).splitlines()
    assert max(map(cell_len, lines)) <= 60


def test_of_many_pods_those_that_are_not_ready_are_shown_first_and_the_rest_is_counted() -> None:
    pods = [pod(f"pod-{i:04}", "fries-bbb", ready=i != 900) for i in range(1000)]
    text = printed(tree(view_of("moving", *pods)), 80)
    assert "pod-0900" in text
    assert "and 992 more, all ready" in text


def test_escape_sequences_in_a_message_do_not_reach_the_terminal() -> None:
    resource = {**RESOURCES["first"]}
    resource["status"] = {**resource["status"], "message": "bad\x1b[2J\nthing\x07"}
    assert "bad[2J thing" in printed(tree(model_view(resource, (), NOW)), 80)


def test_the_list_has_a_line_for_each_rollout() -> None:
    views = [view_of(name) for name in RESOURCES if name not in ("commanded", "undone")]
    assert printed(ModelList(views, with_namespace=True), 110) == LIST_110


LIST_110 = """\
NAMESPACE  NAME    PHASE      STABLE  CANARY  WEIGHT        STEP     PODS  AGE  MESSAGE
shop       digits  Analyzing  v2,v3   v3      25%           2/3      3/3   1h   v3 has 25% of singles; batche…
shop       burger  Pending                                           0/1   10s  the model of v1 cannot be fou…
kitchen    fries   Paused     v1      v2      0%,5%,25%,..  1/1,2/2  3/4   4d   paused by the spec
shop       new     Pending                                           0/0"""


def test_a_narrow_list_leaves_out_messages_and_keeps_names_whole() -> None:
    text = printed(ModelList([view_of("diverged")], with_namespace=False), 80)
    assert text.splitlines()[0].split() == (
        ["NAME", "PHASE", "STABLE", "CANARY", "WEIGHT", "STEP", "PODS", "AGE"]
    )
    assert text.splitlines()[1].split()[:2] == ["digits", "Analyzing"]


def test_weights_of_many_cohorts_do_not_widen_the_list_without_end() -> None:
    view = view_of("moving")
    cohorts = tuple(replace(view.cohorts[0], weight=weight) for weight in range(1, 33))
    text = printed(ModelList([replace(view, cohorts=cohorts)], False), 200)
    assert "1%,2%,3%,.." in text


def test_a_pod_that_is_going_away_is_not_ready() -> None:
    leaving = pod("a", "r")
    leaving["metadata"]["deletionTimestamp"] = "2026-11-24T10:41:59Z"
    seen = pod_view(leaving)
    assert (seen.ready, seen.state) == (False, "Terminating")


def test_a_pod_that_fits_nowhere_says_unschedulable() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    seen = pod_view(
        {"metadata": {"name": "a"}, "status": {"phase": "Pending", "conditions": [condition]}}
    )
    assert (seen.ready, seen.state) == (False, "Unschedulable")


def test_a_failed_init_container_is_the_reason_a_pod_waits() -> None:
    failed = {"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}
    seen = pod_view({"metadata": {"name": "a"}, "status": {"initContainerStatuses": [failed]}})
    assert seen.state == "Error"
