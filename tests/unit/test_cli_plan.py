"""``kubectl kohort plan``: what an edited file would do, told by the operator's own planner."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs, yaml

from kohort.analysis import mirroring
from kohort.analysis.reading import Count, Reading, Slots, SlotTotals
from kohort.analysis.sequential import Rates, Trial, advance, begin
from kohort.api.analysis import Analysis, Metric, MetricName
from kohort.api.cohorts import Cohort, Holdback, Pause, Step, Until
from kohort.api.model import Model
from kohort.api.spec import Spec
from kohort.api.status import CohortStatus, Evidence, Tally, Verdict
from kohort.cli.foresight import Foresight, released, serving
from kohort.cli.main import main
from kohort.cli.previewing import report
from kohort.cli.proofs import least_requests, traffic
from kohort.contract import SLOTS
from kohort.plan.revisions import revision_name
from tests.unit.cli_samples import printed
from tests.unit.plan_simulation import Cluster

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 24, 10, 42, tzinfo=UTC)
STAFF = {
    "name": "staff",
    "match": [{"headers": [{"name": "x-org", "value": "acme"}]}],
    "steps": [{"weight": 50, "hold": "5m"}],
}
ARCHIVE = {
    "name": "archive",
    "match": [{"headers": [{"name": "x-app", "value": "archive"}]}],
    "after": ["staff"],
    "steps": [{"weight": 5, "until": "NonInferior"}, {"weight": 50, "hold": "1h"}],
}
EVERYONE = {"name": "everyone", "after": ["staff"], "steps": [{"weight": 5, "hold": "1m"}]}
COHORTS = [STAFF, ARCHIVE, EVERYONE]

Plan = Callable[..., tuple[int, str, str]]


def manifest(version: int, name: str = "burger", **spec: Any) -> dict[str, Any]:
    """A ModelDeployment of three cohorts."""
    model = {"uri": f"file:///models/{version}.onnx"}
    return {
        "apiVersion": "kohort.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {"model": model, "replicas": 4, "cohorts": COHORTS, **spec},
    }


@pytest.fixture
def plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Plan:
    """Plans offline; gives exit code, standard output and errors."""

    def run(
        edited: dict[str, Any], former: dict[str, Any] | None = None, *flags: str
    ) -> tuple[int, str, str]:
        files = {"edited.yaml": edited, **({"former.yaml": former} if former else {})}
        for name, content in files.items():
            (tmp_path / name).write_bytes(yaml.encode(content))
        arguments = ["plan", "--offline", "-f", str(tmp_path / "edited.yaml"), *flags]
        code = main([*arguments, *(["--from", str(tmp_path / "former.yaml")] if former else [])])
        out, err = capsys.readouterr()
        return code, "\n".join(line.rstrip() for line in out.splitlines()), err

    return run


def test_a_new_model_is_a_new_revision_and_each_cohort_its_own_rollout(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    gpu = {"count": 2, "products": ["NVIDIA-L4"]}
    code, out, err = plan(manifest(8, gpu=gpu, replicas=5), manifest(7, gpu=gpu))
    assert (code, err) == (0, "")
    assert out == NEW_MODEL_80


NEW_MODEL_80 = """\
burger: a new revision, v2
because of:
  spec.model.uri: file:///models/7.onnx -> file:///models/8.onnx
besides, without a new revision:
  spec.replicas: 4 -> 5
AFTER        COHORT    WHAT
0 s          staff     starts from v1 to v2
0 s          staff     50% for 5m
5 min        staff     v2 serves all of it
5 min        archive   starts from v1 to v2
5 min        everyone  starts from v1 to v2
5 min        archive   5% until NonInferior is proven
5 min        everyone  5% for 1m
5 min +      archive   50% for 1h
6 min        everyone  v2 serves all of it
1 h 5 min +  archive   v2 serves all of it
Takes 1 h 5 min, and in addition (+) the time of proofs and people; pods have to
start as well.
The proof of archive at 5% takes at least 8,540 of its requests if none fails.
Pods: 4 now, 10 at most, 5 in the end.
GPUs: 12 x nvidia.com/gpu of NVIDIA-L4 have to be free for 6 more pods."""


def test_the_documented_plan_is_what_is_printed(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    former = yaml.decode((ROOT / "examples" / "cohorts.yaml").read_bytes())
    edited = copy.deepcopy(former)
    edited["spec"]["model"]["uri"] = former["spec"]["model"]["uri"].replace("/3/", "/4/")
    edited["spec"]["replicas"] = 3
    _, out, _ = plan(edited, former)
    assert f"{out}\n" in (ROOT / "docs" / "kubectl.md").read_text()


def test_a_proof_is_told_in_time_where_traffic_was_seen() -> None:
    former, spec = of_steps(Step(weight=5, until=Until.NON_INFERIOR))
    status = serving("m", former, NOW).status
    seen = Evidence(
        stable=Tally(requests=1_000), since="2026-11-24T10:00:00Z", updated="2026-11-24T10:00:10Z"
    )
    cohorts = tuple(structs.replace(c, evidence=(seen,)) for c in status.cohorts)
    status = structs.replace(status, cohorts=cohorts)
    next_one = Foresight("m", spec, status, NOW, 2)
    next_one.run()
    told = [printed(part, 200) for part in report(next_one, former, status, known=True)]
    assert (
        "The proof of everyone at 5% takes at least 8,540 of its requests if none fails, 1 min 25 s at the "
        "traffic last seen." in told
    )


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        ({"replicas": 8}, "spec.replicas: 4 -> 8"),
        ({"analysis": {"falseRollback": "2%"}}, "spec.analysis.falseRollback: 1% -> 2%"),
        ({"paused": True}, "spec.paused: (default) -> true"),
        (
            {"cohorts": [STAFF, ARCHIVE, {**EVERYONE, "steps": [{"weight": 9, "hold": "1m"}]}]},
            "spec.cohorts[everyone].steps[0].weight: 5 -> 9",
        ),
        ({"cohorts": [STAFF, EVERYONE]}, "spec.cohorts[archive]: "),
    ],
)
def test_what_decides_no_answer_makes_no_revision_and_moves_no_client(
    plan: Plan, edit: dict[str, Any], told: str
) -> None:
    code, out, _ = plan(manifest(7, **edit), manifest(7), "--exit-code")
    assert code == 0
    assert out.startswith("burger: no new revision, no pod restarts\nchanged:\n")
    assert told in out
    assert "COHORT" not in out


def test_the_same_file_changes_nothing(plan: Plan) -> None:
    assert plan(manifest(7), manifest(7), "--exit-code") == (0, "burger: nothing changes", "")


@pytest.mark.parametrize(("flags", "code"), [((), 0), (("--exit-code",), 2)])
def test_a_rollout_is_an_exit_code_of_its_own_where_that_is_wanted(
    plan: Plan, flags: tuple[str, ...], code: int
) -> None:
    assert plan(manifest(8), manifest(7), *flags)[0] == code


def test_a_file_that_would_be_refused_is_told_with_its_lines(plan: Plan) -> None:
    code, out, err = plan(manifest(8, replicas=0), manifest(7), "--exit-code")
    assert (code, out) == (1, "")
    assert "this would be refused:" in err
    assert "spec.replicas: should be greater than or equal to 1" in err


def test_without_anything_to_compare_with_a_new_revision_of_it_is_told(plan: Plan) -> None:
    code, out, _ = plan(manifest(8))
    assert code == 0
    assert out.startswith("burger: how a new revision of it would roll out; nothing is known of")
    assert "because of" not in out
    assert "v2 serves all of it" in out


def test_what_the_former_file_has_not_is_a_first_revision(plan: Plan) -> None:
    _, out, _ = plan(manifest(8), manifest(7, name="fries"))
    assert out.startswith("burger: v1 is its first revision and serves as soon as its pods are")
    assert "Pods: 0 now, 4 at most, 4 in the end." in out


def test_a_pause_of_the_spec_is_told_beside_what_it_holds(plan: Plan) -> None:
    _, out, _ = plan(manifest(8, paused=True), manifest(7))
    assert "v2 serves all of it" in out
    assert "paused: true, which holds all of this until it is taken out" in out


def test_a_name_that_the_file_has_not_is_answered_with_those_it_has(plan: Plan) -> None:
    code, _, err = plan(manifest(8), None, "burgr")
    assert code == 1
    assert 'no ModelDeployment "burgr"' in err
    assert "there is: burger" in err


def ahead(former: Spec, spec: Spec) -> Foresight:
    """The rollout of a spec where another one serves."""
    found = Foresight("m", spec, serving("m", former, NOW).status, NOW, 2)
    found.run()
    return found


def of_steps(*steps: Step) -> tuple[Spec, Spec]:
    """Two revisions of a model of one cohort."""
    cohorts = (Cohort(name="everyone", steps=steps),)
    first, second = (Model(uri=f"file:///{n}") for n in (1, 2))
    return Spec(model=first, cohorts=cohorts), Spec(model=second, cohorts=cohorts)


def test_a_step_that_waits_for_a_person_is_gone_on_from_and_marked() -> None:
    found = ahead(
        *of_steps(Step(weight=0, pause=Pause()), Step(weight=5), Step(weight=5, hold="1m"))
    )
    assert [(m.what, m.after.total_seconds(), m.open) for m in found.moves] == [
        ("starts from v1 to v2", 0, False),
        ("0% until a person promotes", 0, False),
        ("5%", 0, True),
        ("5% for 1m", 0, True),
        ("v2 serves all of it", 60, True),
    ]
    assert found.finished


def test_those_who_are_held_back_are_told_with_their_time() -> None:
    holdback = Holdback(weight=5, time="24h")
    cohorts = (Cohort(name="everyone", steps=(Step(weight=50, hold="1m"),), holdback=holdback),)
    found = ahead(*(structs.replace(spec, cohorts=cohorts) for spec in of_steps(Step(weight=5))))
    assert [(m.what, m.after.total_seconds()) for m in found.moves] == [
        ("starts from v1 to v2", 0),
        ("50% for 1m", 0),
        ("95% for 24h; the others are held back", 60),
        ("v2 serves all of it", 60 + 24 * 3600),
    ]


def test_back_to_a_revision_that_is_warm_takes_no_steps() -> None:
    former, spec = of_steps(Step(weight=5, hold="1h"))
    back = Foresight("m", former, ahead(former, spec).status, NOW, 3)
    back.run()
    assert [m.what for m in back.moves] == ["starts from v2 to v1", "v1 serves all of it"]


@given(st.integers(4, 96), st.sampled_from(["0.5%", "1%", "5%"]))
def test_no_proof_comes_before_the_requests_that_are_told_and_one_comes_after(
    weight: int, margin: str
) -> None:
    metric = Metric(name=MetricName.ERRORS, margin=margin)
    least = least_requests(weight, Analysis(metrics=(metric,)))
    trial, rates = Trial("new", "old", "salt"), Rates(alpha=0.01, beta=0.05)

    def reading(at: float, requests: int) -> Reading:
        canary = requests * weight // 100
        counts = {"new": Count(canary, 0), "old": Count(requests - canary, 0)}
        slots = SlotTotals("counter", Slots((requests // SLOTS,) * SLOTS, (0,) * SLOTS))
        return Reading(at, {"gateway": counts}, slots=slots)

    def verdict(requests: int) -> Verdict:
        begun = begin(metric, reading(1, 0), trial, weight, NOW)
        return advance(begun, reading(2, requests), trial, metric, rates, NOW).verdict

    assert verdict(least - 1) is Verdict.INSUFFICIENT
    assert verdict(20 * least) is Verdict.PASS


def test_traffic_is_that_of_the_newest_analysis() -> None:
    evidence = Evidence(
        canary=Tally(requests=100),
        stable=Tally(requests=1_900),
        since="2026-11-24T10:00:00Z",
        updated="2026-11-24T10:00:20Z",
    )
    assert traffic(CohortStatus(name="staff", evidence=(evidence,))) == 100
    assert traffic(CohortStatus(name="staff")) == 0
    mirror = structs.replace(evidence, metric=mirroring.METRIC)
    assert traffic(CohortStatus(name="staff", evidence=(mirror,))) == 0
    assert traffic(CohortStatus(name="staff", evidence=(Evidence(),))) == 0


steps = st.lists(
    st.builds(
        lambda weight, wait: Step(weight=weight, **wait),
        st.integers(4, 96),
        st.sampled_from(
            [{}, {"hold": "1s"}, {"hold": "1h"}, {"until": Until.NON_INFERIOR}, {"pause": Pause()}]
        ),
    ),
    min_size=1,
    max_size=4,
).map(lambda listed: tuple(sorted(listed, key=lambda step: step.weight)))
cohorts = st.lists(steps, min_size=1, max_size=4).flatmap(
    lambda listed: st.tuples(
        *(
            st.builds(
                Cohort,
                name=st.just(f"c{i}"),
                steps=st.just(each),
                after=st.sampled_from([(), *((f"c{j}",) for j in range(i))]),
            )
            for i, each in enumerate(listed)
        )
    )
)


@settings(deadline=None)
@given(cohorts, st.integers(1, 9))
def test_every_rollout_that_goes_well_is_foreseen_to_its_end(
    its_cohorts: tuple[Cohort, ...], replicas: int
) -> None:
    former = Spec(model=Model(uri="file:///1"), cohorts=its_cohorts, replicas=replicas)
    spec = structs.replace(former, model=Model(uri="file:///2"))
    found = ahead(former, spec)
    assert found.finished
    assert found.stuck == ""
    for cohort in its_cohorts:
        moves = [m.what for m in found.moves if m.cohort == cohort.name]
        assert len(moves) == 1 + len(cohort.steps) + 1
        assert moves[-1] == "v2 serves all of it"
    assert [m.after for m in found.moves] == sorted(m.after for m in found.moves)
    assert found.pods[revision_name("m", spec)] == replicas
    assert sum(found.most_pods.values()) <= 2 * replicas


@settings(deadline=None)
@given(cohorts, st.integers(0, 60), st.booleans())
def test_from_wherever_a_rollout_stands_the_next_one_is_foreseen_to_its_end(
    its_cohorts: tuple[Cohort, ...], ticks: int, held: bool
) -> None:
    world = Cluster(Spec(model=Model(uri="file:///1"), cohorts=its_cohorts, replicas=2))
    world.until(Cluster.finished)
    world.edit(structs.replace(world.spec, model=Model(uri="file:///2")))
    for _ in range(ticks):
        world.tick()
    if held:
        world.command = "pause id=1"
        world.decide()
    third = structs.replace(world.spec, model=Model(uri="file:///3"))
    found = Foresight("burger", third, released(world.status), world.now, 3)
    found.run()
    assert found.finished
    last = {move.cohort: move.what for move in found.moves}
    ends = f"{found.label(revision_name('burger', third))} serves all of it"
    assert last == {cohort.name: ends for cohort in its_cohorts}
