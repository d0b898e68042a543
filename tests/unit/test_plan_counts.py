"""What counters in Prometheus do to a rollout: they decide beside what gateways count, and never blindly."""

from __future__ import annotations

from msgspec import structs

from kohort.analysis.reading import Reading, Sample, Series
from kohort.api.analysis import Analysis, Metric, MetricName, Role
from kohort.api.cohorts import Cohort, Step, Until
from kohort.api.prometheus import Counts
from kohort.api.spec import Spec
from kohort.api.status import CohortPhase
from tests.unit.plan_simulation import Cluster, model, serving

COUNTS = Counts(total="total", good="good")
NAME = "everyone/conversions"


def spec(version: int, step: Step, **metric: object) -> Spec:
    """A rollout in one step, judged by errors and conversions."""
    conversions = structs.replace(Metric(name="conversions", counts=COUNTS), **metric)
    analysis = Analysis(metrics=(Metric(name=MetricName.ERRORS), conversions))
    cohorts = (Cohort(name="everyone", steps=(step,)),)
    return model(version, cohorts=cohorts, analysis=analysis)


class Counted:
    """A rollout whose clients convert as they are told, 100 of the canary and 300 of stable at a time."""

    def __init__(self, step: Step, **metric: object) -> None:
        self.cluster = serving(spec(1, step, **metric))
        self.cluster.edit(spec(2, step, **metric))
        self.cluster.until(lambda c: c.cohort().step_started_at is not None)
        self.traffic: tuple[int, ...] = ()
        self.totals = {"canary": [0, 0], "stable": [0, 0]}

    def tick(self, share: float | None = 0.1, canary: float | None = None, error: str = "") -> str:
        """Five seconds later; without a share Prometheus tells nothing. What is said of the cohort."""
        cluster = self.cluster
        cluster.pass_time(5)
        cluster.start_pods()
        cluster.update_gateways()
        cluster.serve(*self.traffic)
        cluster.read_counters()
        cohort, at = cluster.cohort(), cluster.now.timestamp()
        if error:
            cluster.unread[NAME] = Reading(at, {}, errors=(error,), sampled=True)
        elif share is not None:
            shares = {"canary": share if canary is None else canary, "stable": share}
            for arm, visits in (("canary", 100), ("stable", 300)):
                self.totals[arm][0] += visits
                self.totals[arm][1] += round(visits * shares[arm])
            series = {
                Series(revision, events, ""): Sample(self.totals[arm][events], at)
                for arm, revision in (("canary", cohort.canary), ("stable", cohort.stable))
                for events in (False, True)
            }
            cluster.unread[NAME] = Reading(at, {}, series=series, sampled=True)
        cluster.decide()
        return cluster.cohort().message


def ticked(world: Counted, times: int, **told: object) -> list[str]:
    return [world.tick(**told) for _ in range(times)]  # type: ignore[arg-type]


HOLD = Step(weight=25, hold="30s")


def test_fewer_conversions_of_which_nobody_tells_slots_hold_the_step_for_a_person() -> None:
    world = Counted(HOLD)
    told = ticked(world, 60, canary=0.01)
    assert (world.cluster.cohort().weight, world.cluster.cohort().canary != "") == (25, True)
    assert "25%: is accused, and waits for a person, or for evidence to end" in told[-1]
    assert "kubectl kohort promote burger everyone, or kubectl kohort abort" in told[-1]
    assert " of the canary were good against " in told[-1]
    held = [event for event in world.cluster.events if event.reason == "Held"]
    assert len(held) == 1


def test_a_person_may_lead_an_accused_canary_on() -> None:
    world = Counted(HOLD)
    ticked(world, 60, canary=0.01)
    world.cluster.command = "promote everyone id=1"
    world.tick(canary=0.01)
    assert world.cluster.cohort().weight != 25


def test_an_accusation_holds_steps_that_wait_for_a_proof_or_pass_too() -> None:
    for until in Until:
        hold = "10s" if until is Until.PASS else None
        world = Counted(Step(weight=25, hold=hold, until=until))
        world.traffic = (40,)
        told = ticked(world, 60, canary=0.01)
        assert "is accused, and waits for a person" in told[-1]


def test_a_canary_that_converts_as_well_is_promoted() -> None:
    world = Counted(HOLD)
    ticked(world, 12)
    assert world.cluster.cohort().weight != 25
    world.cluster.until(Cluster.finished)


def test_a_prometheus_that_says_nothing_at_all_holds_a_step() -> None:
    world = Counted(HOLD)
    told = ticked(world, 30, share=None)
    assert world.cluster.cohort().weight == 25
    assert told[-1] == "25%: no request of the canary or stable was seen yet"


def test_an_error_freezes_the_step_says_why_and_is_over_when_it_is_over() -> None:
    world = Counted(HOLD)
    ticked(world, 3)
    told = ticked(world, 30, error="Prometheus at p answered 503")
    assert world.cluster.cohort().weight == 25
    assert "Prometheus at p answered 503" in told[-1]
    ticked(world, 3)
    assert world.cluster.cohort().weight in (0, 100)
    assert world.cluster.cohort().phase is not CohortPhase.ROLLED_BACK


def test_a_goal_is_waited_for_beside_errors_that_nobody_made_one() -> None:
    step = Step(weight=25, until=Until.NON_INFERIOR)
    world = Counted(step, role=Role.GOAL, margin="5%")
    told = world.tick()
    assert told.startswith("25%: proof at 0%: ")
    for _ in range(200):
        if not world.cluster.cohort().canary or world.cluster.cohort().weight != 25:
            break
        world.tick()
    world.cluster.until(Cluster.finished)


def test_a_goal_that_is_added_in_the_middle_of_a_step_is_waited_for_before_it_is_read() -> None:
    world = Counted(Step(weight=25, until=Until.NON_INFERIOR))
    cluster = world.cluster
    orders = Metric(name="orders", role=Role.GOAL, margin="5%", counts=COUNTS)
    metrics = (*cluster.spec.analysis.metrics, orders)
    cluster.edit(structs.replace(cluster.spec, analysis=Analysis(metrics=metrics)))
    cluster.decide()
    assert (cluster.cohort().weight, cluster.cohort().step) == (25, 0)
    assert cluster.cohort().message == "25%: orders was not read yet"


def test_clients_of_a_metric_without_slots_are_those_that_gateways_count() -> None:
    world = Counted(Step(weight=25, hold="5s"), min_clients=64)
    world.traffic = (20,)
    told = ticked(world, 3)
    assert any("conversions waits for clients: " in message for message in told)
