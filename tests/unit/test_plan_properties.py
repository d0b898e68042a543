"""What must always hold, whatever happens in the middle of a rollout: random worlds drive the planner."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from kohort.api.cohorts import Holdback, Pause
from kohort.api.command import Command, Verb
from kohort.api.spec import GPU, GPUCapacity, OnFailure, Spec
from kohort.api.status import CohortPhase
from kohort.plan.outcome import EnsureDeployment
from kohort.plan.world import Problem
from tests.unit.plan_invariants import INVARIANTS, swaps
from tests.unit.plan_simulation import Cluster, Cohort, Step, Until, model

STEPS = st.sampled_from(
    [
        (Step(weight=100),),
        (Step(weight=5, hold="10s"), Step(weight=50, hold="10s")),
        (Step(weight=10), Step(weight=10, hold="5s"), Step(weight=100, hold="5s")),
        (Step(weight=25, until=Until.NON_INFERIOR), Step(weight=60)),
        (Step(weight=0, pause=Pause()), Step(weight=30, hold="5s")),
        (Step(weight=0, hold="5s"), Step(weight=20, hold="5s"), Step(weight=20, pause=Pause())),
    ]
)
HOLDBACKS = st.sampled_from(
    [None, None, Holdback(weight=5, time="10s"), Holdback(weight=20, time="1h")]
)
VERSIONS = st.integers(1, 4)


@st.composite
def cohort_lists(draw: st.DrawFn) -> tuple[Cohort, ...]:
    """One to three cohorts; ``after`` names only earlier ones, so that every rollout can end."""
    names = draw(st.sampled_from([("all",), ("a", "all"), ("b", "a", "all"), ("a", "rest")]))
    cohorts: list[Cohort] = []
    for name in names:
        earlier = [c.name for c in cohorts]
        after = draw(st.lists(st.sampled_from(earlier), unique=True)) if earlier else []
        steps, holdback = draw(STEPS), draw(HOLDBACKS)
        few = holdback if steps[-1].weight <= 80 else None
        cohorts.append(Cohort(name=name, after=tuple(after), steps=steps, holdback=few))
    return tuple(cohorts)


SPECS = st.builds(
    lambda version, **changes: model(version, **changes),
    VERSIONS,
    replicas=st.integers(1, 5),
    cohorts=cohort_lists(),
    on_failure=st.sampled_from(list(OnFailure)),
    keep_warm=st.sampled_from(["5s", "30s"]),
    history_limit=st.integers(1, 4),
    gpu=st.sampled_from([None, GPU(capacity=GPUCapacity.SWAP)]),
)
COMMANDS = st.builds(
    Command,
    verb=st.sampled_from(list(Verb)),
    cohort=st.sampled_from(["", "", "all", "a"]),
    to=st.sampled_from(["", "next", "all", "v1", "v2"]),
    by=st.just("ann"),
)


def without_waits(spec: Spec) -> Spec:
    """The spec with holds where it asked for proofs or people, which need not come."""

    def held(step: Step) -> Step:
        waits = step.until is not None or step.pause is not None
        return Step(weight=step.weight, hold="10s") if waits else step

    cohorts = (
        structs.replace(c, steps=tuple(map(held, c.steps)), holdback=None) for c in spec.cohorts
    )
    return structs.replace(spec, cohorts=tuple(cohorts))


def at_rest(cluster: Cluster) -> bool:
    """Whether every cohort has arrived, is back, or waits for one that is back, and pods are used."""
    status = cluster.status
    rejected = any(c.rejected == status.desired for c in status.cohorts)
    ends = {CohortPhase.STABLE, CohortPhase.ROLLED_BACK} | (
        {CohortPhase.WAITING} if rejected else set()
    )
    return (
        status.observed_generation == cluster.generation
        and all(c.phase in ends for c in status.cohorts)
        and cluster.decide().status == status
        and set(cluster.pods) == {c.stable for c in status.cohorts}
        and all(p.ready == p.wanted for p in cluster.pods.values())
    )


class AnyRollout(RuleBasedStateMachine):
    """Edits, pauses, slow and dying pods, slow gateways, lost counters and killed operators, in any order."""

    @initialize(spec=SPECS)
    def begin(self, spec: Spec) -> None:
        self.cluster = Cluster(spec, checks=list(INVARIANTS))
        self.seen = self.cluster.world()

    @rule()
    def the_operator_decides(self) -> None:
        self.cluster.decide()

    @rule()
    def a_cache_is_filled(self) -> None:
        self.seen = self.cluster.world()

    @rule()
    def the_operator_decides_with_a_cache_that_is_behind(self) -> None:
        self.cluster.decide(pods_seen=self.seen)

    @rule(done=st.integers(0, 2))
    def the_operator_dies_between_its_actions(self, done: int) -> None:
        self.cluster.decide(actions_done=done)

    @rule(seconds=st.sampled_from([0.001, 1, 5, 10, 700]))
    def time_passes(self, seconds: float) -> None:
        self.cluster.pass_time(seconds)

    @rule(times=st.integers(1, 8))
    def all_goes_well_for_a_while(self, times: int) -> None:
        for _ in range(times):
            self.cluster.tick()

    @rule(spec=SPECS)
    def somebody_applies_another_spec(self, spec: Spec) -> None:
        self.cluster.edit(structs.replace(spec, paused=self.cluster.spec.paused))

    @rule(version=VERSIONS)
    def somebody_applies_another_model(self, version: int) -> None:
        self.cluster.edit(structs.replace(self.cluster.spec, model=model(version).model))

    @rule(replicas=st.integers(1, 5))
    def somebody_scales(self, replicas: int) -> None:
        self.cluster.edit(structs.replace(self.cluster.spec, replicas=replicas))

    @rule()
    def somebody_pauses_or_resumes(self) -> None:
        self.cluster.edit(structs.replace(self.cluster.spec, paused=not self.cluster.spec.paused))

    @rule(command=COMMANDS, number=st.integers(1, 3))
    def somebody_gives_a_command(self, command: Command, number: int) -> None:
        self.cluster.command = structs.replace(command, id=str(number)).line()

    @rule()
    def the_wanted_revision_is_bad(self) -> None:
        self.cluster.bad.add(self.cluster.desired)

    @rule()
    def all_pods_that_can_become_ready(self) -> None:
        self.cluster.start_pods()

    @precondition(lambda self: self.cluster.pods)
    @rule(data=st.data())
    def a_pod_becomes_ready(self, data: st.DataObject) -> None:
        pods = self.cluster.pods[data.draw(st.sampled_from(sorted(self.cluster.pods)))]
        if pods.ready < pods.wanted:
            self.cluster.start_pod(pods)

    @precondition(lambda self: self.cluster.pods)
    @rule(data=st.data(), sick=st.booleans())
    def pods_die(self, data: st.DataObject, sick: bool) -> None:
        pods = self.cluster.pods[data.draw(st.sampled_from(sorted(self.cluster.pods)))]
        pods.ready = 0
        pods.problem = Problem("CrashLoopBackOff", "it exits: read its log") if sick else None

    @precondition(lambda self: self.cluster.pods)
    @rule(data=st.data())
    def somebody_deletes_a_deployment(self, data: st.DataObject) -> None:
        del self.cluster.pods[data.draw(st.sampled_from(sorted(self.cluster.pods)))]

    @rule(name=st.sampled_from(["gateway-a", "gateway-b"]))
    def a_gateway_takes_the_routes(self, name: str) -> None:
        if name in self.cluster.gateways:
            self.cluster.gateways[name] = self.cluster.table()

    @rule(name=st.sampled_from(["gateway-a", "gateway-b"]))
    def a_gateway_comes_or_goes(self, name: str) -> None:
        if self.cluster.gateways.pop(name, self) is self:
            self.cluster.gateways[name] = None
            self.cluster.counters.pop(name, None)

    @rule(gpus=st.sampled_from([None, 1, 2, 5]))
    def gpus_get_scarce_or_plenty(self, gpus: int | None) -> None:
        self.cluster.gpus = gpus

    @rule(requests=st.sampled_from([1, 40, 400]))
    def clients_send_requests(self, requests: int) -> None:
        self.cluster.serve(requests)

    @rule(unreachable=st.sampled_from([(), ("gateway-a",)]))
    def counters_are_read(self, unreachable: tuple[str, ...]) -> None:
        self.cluster.read_counters(unreachable=unreachable)

    @invariant()
    def a_cohort_has_clients_on_a_canary_only_beside_a_stable_revision(self) -> None:
        for cohort in self.cluster.status.cohorts if hasattr(self, "cluster") else ():
            assert bool(cohort.canary) >= bool(cohort.weight)
            assert bool(cohort.stable) >= bool(cohort.canary)

    def teardown(self) -> None:
        """When events stop, every cohort arrives or is back, and what nobody uses is gone."""
        if not hasattr(self, "cluster"):
            return
        cluster = self.cluster
        cluster.edit(structs.replace(without_waits(cluster.spec), paused=False))
        cluster.command = "resume id=at-last"
        cluster.decide()
        for cohort in cluster.status.cohorts:
            cluster.command = f"resume {cohort.name} id={cohort.name}"
            cluster.decide()
        for pods in cluster.pods.values():
            pods.problem = None
        cluster.gateways.setdefault("gateway-a", None)
        if not swaps(cluster.spec):
            cluster.gpus = None
        else:
            cluster.gpus = max(cluster.spec.replicas, 3)
        cluster.until(at_rest, ticks=200)
        settled = cluster.status
        cluster.now += timedelta(days=1)
        outcome = cluster.decide()
        assert outcome.status == settled
        assert outcome.wake_after is None
        assert all(isinstance(a, EnsureDeployment) for a in outcome.actions)


AnyRollout.TestCase.settings = settings(
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow],
)
TestAnyRollout = AnyRollout.TestCase
