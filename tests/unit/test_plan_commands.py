"""What people do to a rollout by hand, told as stories."""

from __future__ import annotations

import pytest
from msgspec import structs

from kohort.api.cohorts import HeaderMatch, Match, Pause
from kohort.api.command import Verb, parse_command
from kohort.api.status import CohortPhase
from tests.unit.plan_simulation import Cluster, Cohort, Step, condition, model, serving

SLOW = (Step(weight=10, hold="1h"), Step(weight=50, hold="1h"))
ACME = Match(headers=(HeaderMatch(name="x-org", value="acme"),))
PAIR = (
    Cohort(name="staff", steps=SLOW, match=(ACME,)),
    Cohort(name="everyone", steps=SLOW, after=("staff",)),
)


def say(cluster: Cluster, line: str) -> str:
    """Give a command and let the operator look at it; what it answered."""
    cluster.command = line
    cluster.decide()
    assert cluster.status.command is not None
    assert cluster.status.command.line == line
    return cluster.status.command.message


def accepted(cluster: Cluster) -> bool:
    assert cluster.status.command is not None
    return cluster.status.command.accepted


def rolling(**changes: object) -> Cluster:
    """v2 has its first clients, in the first cohort."""
    changes = {"cohorts": (Cohort(name="everyone", steps=SLOW),), **changes}
    cluster = serving(model(1, **changes))
    cluster.edit(model(2, **changes))
    first = cluster.spec.cohorts[0]
    cluster.until(lambda c: c.cohort(first.name).weight == first.steps[0].weight)
    cluster.tick()
    return cluster


def test_promote_goes_on_to_the_next_step_and_only_there() -> None:
    cluster = rolling()
    say(cluster, "promote by=ann why='looks well'")
    cluster.tick()
    cluster.tick()
    assert cluster.cohort().weight == 50
    for _ in range(20):
        cluster.tick()
    assert cluster.cohort().weight == 50
    (skipped,) = (d for d in cluster.cohort().decisions if d.action == "StepSkipped")
    assert (skipped.by, skipped.why) == ("ann", "looks well")
    assert skipped.message == "left step 1 of 2"


def test_promote_from_the_last_step_promotes() -> None:
    cluster = rolling()
    say(cluster, "promote id=1")
    cluster.tick()
    cluster.tick()
    say(cluster, "promote id=2")
    cluster.until(Cluster.finished, ticks=5)
    assert cluster.cohort().urged is None


def test_a_command_is_carried_out_once_however_often_it_is_seen() -> None:
    cluster = rolling()
    say(cluster, "promote id=1")
    for _ in range(30):
        cluster.tick()
    assert cluster.cohort().weight == 50
    assert len([e for e in cluster.events if e.reason == "CommandCarriedOut"]) == 1


def test_promote_all_skips_every_step_but_not_capacity() -> None:
    cluster = rolling(replicas=4)
    say(cluster, "promote everyone to=all")
    canary = cluster.cohort().canary
    assert cluster.pods[canary].wanted == 4
    assert cluster.cohort().weight == 10
    assert cluster.cohort().message == "before 100%: 1 of 4 pods of v2 are ready"
    cluster.until(Cluster.finished, ticks=4)


def test_promote_all_goes_on_though_the_canary_fails_because_a_person_said_so() -> None:
    cluster = rolling()
    cluster.bad.add(cluster.desired)
    say(cluster, "promote to=all")
    cluster.until(Cluster.finished, ticks=4)


def test_promote_moves_one_step_under_a_pause_of_the_spec() -> None:
    cluster = rolling()
    cluster.edit(structs.replace(cluster.spec, paused=True))
    cluster.tick()
    assert "paused with 10%" in cluster.cohort().message
    say(cluster, "promote")
    for _ in range(5):
        cluster.tick()
    assert cluster.cohort().weight == 50
    assert "paused with 50%" in cluster.cohort().message
    assert cluster.phase() == "Paused"


def test_promote_does_not_wait_for_the_cohorts_of_after() -> None:
    cluster = rolling(cohorts=PAIR)
    assert cluster.cohort("everyone").phase is CohortPhase.WAITING
    say(cluster, "promote everyone")
    cluster.until(lambda c: c.cohort("everyone").weight == 10, ticks=4)


def test_a_revision_that_went_back_is_promoted_when_a_person_says_so() -> None:
    cluster = rolling()
    cluster.bad.add(cluster.desired)
    cluster.until(lambda c: c.cohort().phase is CohortPhase.ROLLED_BACK)
    say(cluster, "promote to=all by=ann")
    cluster.until(Cluster.finished, ticks=5)
    assert condition(cluster.status, "Ready") == ("True", "Promoted")


def test_a_pause_step_waits_for_a_person_however_long() -> None:
    steps = (Step(weight=0, pause=Pause()), Step(weight=20, hold="5s"))
    cluster = serving(model(1, cohorts=(Cohort(name="everyone", steps=steps),)))
    cluster.edit(structs.replace(cluster.spec, model=model(2).model))
    cluster.decide()
    cluster.decide()
    assert cluster.phase() == "Progressing", "its pods are not there yet"
    for _ in range(2000):
        cluster.tick()
    cohort = cluster.cohort()
    assert (cohort.weight, cohort.canary) == (0, cluster.desired)
    assert cluster.pods[cluster.desired].ready == 1
    assert cohort.message.endswith("waits for a person: kubectl kohort promote burger everyone")
    assert cluster.phase() == "Paused"
    assert condition(cluster.status, "Reconciling") == ("True", "Paused")
    assert condition(cluster.status, "Stalled") is None
    say(cluster, "promote")
    cluster.until(Cluster.finished, ticks=10)


def test_no_step_begins_at_weight_zero_before_the_pods_are_there() -> None:
    steps = (Step(weight=0, hold="30s"), Step(weight=20, hold="5s"))
    cluster = serving(model(1, cohorts=(Cohort(name="everyone", steps=steps),)))
    cluster.edit(structs.replace(cluster.spec, model=model(2).model))
    for _ in range(20):
        cluster.pass_time(5)
        cluster.update_gateways()
        cluster.decide()
    assert cluster.cohort().step_started_at is None
    assert cluster.cohort().step == 0
    cluster.until(Cluster.finished)


def test_abort_goes_back_and_stays_there_until_retry() -> None:
    cluster = rolling()
    v2 = cluster.desired
    say(cluster, "abort by=ann why=smells")
    cohort = cluster.cohort()
    assert (cohort.canary, cohort.weight, cohort.rejected) == ("", 0, v2)
    assert cohort.decisions[0].action == "Aborted"
    assert condition(cluster.status, "Stalled") == ("True", "Aborted")
    for _ in range(50):
        cluster.tick()
    assert cluster.cohort().canary == ""
    assert cluster.phase() == "Degraded"
    salt = cohort.salt
    say(cluster, "retry")
    cluster.until(lambda c: c.cohort().weight == 10, ticks=5)
    assert cluster.cohort().salt != salt


def test_a_rollout_that_has_not_begun_is_aborted_too() -> None:
    cluster = rolling(cohorts=PAIR)
    say(cluster, "abort everyone")
    assert cluster.cohort("everyone").phase is CohortPhase.ROLLED_BACK
    assert cluster.cohort("everyone").decisions[0].revision == cluster.desired
    assert cluster.cohort("staff").weight == 10


def test_retry_after_harm_starts_from_the_first_step() -> None:
    cluster = rolling()
    cluster.bad.add(cluster.desired)
    cluster.until(lambda c: c.cohort().phase is CohortPhase.ROLLED_BACK)
    cluster.bad.clear()
    say(cluster, "retry everyone")
    cluster.until(lambda c: c.cohort().weight == 10, ticks=5)
    assert cluster.cohort().step == 0


def test_undo_serves_the_revision_before_without_steps() -> None:
    cluster = promoted()
    v2, v1 = cluster.desired, cluster.cohort().former
    say(cluster, "undo by=ann")
    cluster.until(lambda c: c.cohort().stable == v1, ticks=4)
    cluster.tick()
    assert cluster.status.desired == v1
    assert cluster.phase() == "Degraded"
    assert condition(cluster.status, "Ready") == ("False", "Undone")
    assert condition(cluster.status, "Stalled") == ("True", "Undone")
    for _ in range(100):
        cluster.tick()
    assert cluster.cohort().stable == v1
    assert v2 in cluster.records


def test_undo_in_the_middle_of_a_rollout_takes_clients_off_the_canary() -> None:
    cluster = rolling()
    v1 = cluster.cohort().stable
    say(cluster, "undo")
    assert cluster.cohort().weight == 0
    cluster.until(lambda c: c.cohort().canary == "", ticks=4)
    assert (cluster.cohort().stable, cluster.status.pinned) == (v1, v1)


def test_undo_moves_under_a_pause() -> None:
    cluster = promoted()
    v1 = cluster.cohort().former
    cluster.edit(structs.replace(cluster.spec, paused=True))
    cluster.tick()
    say(cluster, "undo")
    cluster.until(lambda c: c.cohort().stable == v1, ticks=4)


def test_another_spec_ends_an_undo() -> None:
    cluster = promoted()
    say(cluster, "undo")
    cluster.tick()
    cluster.edit(structs.replace(cluster.spec, model=model(3).model))
    cluster.tick()
    assert cluster.status.pinned == ""
    assert cluster.status.desired == cluster.desired


def test_undo_to_what_the_spec_asks_for_rolls_it_out_again_by_its_steps() -> None:
    cluster = promoted()
    v2 = cluster.desired
    say(cluster, "undo")
    cluster.until(lambda c: c.cohort().stable != v2, ticks=4)
    cluster.pass_time(3600)
    cluster.until(lambda c: v2 not in c.pods)
    say(cluster, "undo to=v2")
    cluster.tick()
    cluster.tick()
    assert (cluster.cohort().canary, cluster.cohort().weight) == (v2, 10)
    assert cluster.status.pinned == ""


def test_a_person_holds_one_cohort_and_lets_it_go_with_the_time_taken_out() -> None:
    cluster = rolling()
    say(cluster, "pause everyone")
    for _ in range(2000):
        cluster.tick()
    assert cluster.cohort().weight == 10
    assert cluster.phase() == "Paused"
    say(cluster, "resume everyone")
    cluster.tick()
    assert cluster.cohort().weight == 10
    for _ in range(60 * 60 // 5):
        cluster.tick()
    assert cluster.cohort().weight == 50


def test_harm_sends_a_held_cohort_back() -> None:
    cluster = rolling()
    say(cluster, "pause")
    cluster.bad.add(cluster.desired)
    cluster.until(lambda c: c.cohort().phase is CohortPhase.ROLLED_BACK, ticks=20)


def test_restart_wants_fresh_pods_and_moves_nobody() -> None:
    cluster = promoted()
    before = cluster.cohort()
    say(cluster, "restart")
    action = next(a for a in cluster.decide().actions if a.revision == cluster.desired)
    assert action.restarted_at == cluster.status.restarted_at != ""  # type: ignore[union-attr]
    assert (cluster.cohort().stable, cluster.cohort().canary) == (before.stable, "")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("promote", "it is on v2 already"),
        ("promote nobody", "there is no cohort nobody; there is: everyone"),
        ("abort", "there is no rollout of v2 to abort; undo goes back"),
        ("retry", "nothing has sent back v2"),
        ("undo to=v9", "no revision v9 is kept; there is: v1, v2"),
        ("resume", "nothing is held"),
        ("jump", '"jump" is no command'),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(line: str, told: str) -> None:
    cluster = promoted()
    before = cluster.status.cohorts
    assert told in say(cluster, line)
    assert not accepted(cluster)
    assert cluster.status.cohorts == before
    assert [e.reason for e in cluster.events] == ["CommandRefused"]


def test_a_pause_of_the_spec_is_not_lifted_by_hand() -> None:
    cluster = rolling()
    cluster.edit(structs.replace(cluster.spec, paused=True))
    cluster.tick()
    assert "paused: true" in say(cluster, "resume")


@pytest.mark.parametrize("verb", list(Verb))
def test_every_verb_answers_before_anything_serves(verb: Verb) -> None:
    cluster = Cluster(model(1))
    assert say(cluster, parse_command(verb.value).line())
    cluster.until(Cluster.finished) if verb is not Verb.PAUSE else None


def promoted() -> Cluster:
    """v2 has taken over from v1."""
    cluster = rolling()
    say(cluster, "promote to=all id=promoted")
    cluster.until(Cluster.finished)
    cluster.tick()
    cluster.command = ""
    cluster.events.clear()
    return cluster


def test_a_wait_for_a_person_is_a_pause_also_where_another_cohort_went_back() -> None:
    steps = (Step(weight=20, pause=Pause()),)
    cluster = rolling(
        cohorts=(
            Cohort(name="staff", steps=SLOW, match=(ACME,)),
            Cohort(name="everyone", steps=steps),
        )
    )
    say(cluster, "abort staff")
    for _ in range(5):
        cluster.tick()
    assert cluster.cohort("everyone").weight == 20
    assert cluster.phase() == "Paused"


def test_a_pause_of_all_is_lifted_whatever_the_cohorts_are_called_by_then() -> None:
    cluster = rolling()
    say(cluster, "pause")
    others = (Cohort(name="staff", match=(ACME,), steps=SLOW), Cohort(name="rest", steps=SLOW))
    cluster.edit(structs.replace(cluster.spec, cohorts=others))
    say(cluster, "resume")
    assert accepted(cluster)
    assert not cluster.status.held


def test_undo_goes_to_the_revision_before_also_where_a_cohort_never_took_the_newest() -> None:
    cluster = promoted()
    v2 = cluster.desired
    cohorts = (Cohort(name="staff", match=(ACME,), steps=SLOW), *cluster.spec.cohorts)
    cluster.edit(structs.replace(cluster.spec, cohorts=cohorts, model=model(3).model))
    cluster.decide()
    cluster.until(lambda c: c.cohort("staff").weight == 10)
    say(cluster, "abort staff")
    say(cluster, "promote everyone to=all")
    cluster.until(lambda c: c.cohort("everyone").stable == c.desired, ticks=10)
    say(cluster, "undo")
    cluster.until(lambda c: c.cohort("everyone").stable == v2, ticks=10)
    assert cluster.cohort("staff").stable == v2


def test_an_undo_to_a_revision_whose_record_is_lost_ends_and_says_so() -> None:
    cluster = promoted()
    v1 = cluster.cohort().former
    cluster.until(lambda c: v1 not in c.pods)
    say(cluster, "undo")
    del cluster.records[v1], cluster.pods[v1]
    cluster.tick()
    assert cluster.status.pinned == ""
    assert cluster.cohort().stable == cluster.desired
    assert "UndoLost" in [e.reason for e in cluster.events]
