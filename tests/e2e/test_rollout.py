"""The main job: one model, rolled out cohort by cohort, on real parts."""

from __future__ import annotations

import asyncio
from functools import partial

from kohort_local.install import Installation
from tests.e2e.world import (
    BATCHERS,
    QUICK,
    SINGLES,
    Model,
    in_thread,
    kill_processes,
    nobody_noticed,
    until,
)


async def test_a_better_model_is_promoted_in_every_cohort_and_no_client_notices(
    model: Model,
) -> None:
    async with model.served("v1") as traffic:
        model.apply("v2")
        await in_thread("v2 serves both", partial(model.serves, singles="v2", batchers="v2"))
    nobody_noticed(traffic.account)
    assert not traffic.account.refused("singles")
    assert not traffic.account.refused("batchers")
    assert all(len(path) <= 2 for path in traffic.account.paths.values()), "a client went back"


async def test_a_cohort_whose_clients_fail_goes_back_alone(model: Model) -> None:
    async with model.served("v2") as traffic:
        model.apply("v3")
        await in_thread("each has its own", partial(model.serves, singles="v3", batchers="v2"))
    nobody_noticed(traffic.account)
    assert not traffic.account.refused("singles")
    third = model.cohort("singles")["stable"]
    refused = traffic.account.refused("batchers", third)
    assert 0 < refused == traffic.account.refused("batchers")
    batchers = model.cohort("batchers")
    assert batchers["phase"] == "RolledBack"
    assert batchers["rejected"] == third
    assert batchers["decisions"][0]["action"] == "RolledBack"
    assert model.condition("Ready")["status"] == "False"
    assert model.condition("Available")["status"] == "True"


async def test_a_revision_that_fails_mirrored_requests_goes_back_before_it_has_a_client(
    model: Model, installation: Installation
) -> None:
    """Also when every operator is killed while requests are mirrored."""
    steps = [{"weight": 0, "mirror": {"percent": 100}, "hold": "2s"}, *QUICK]
    cohorts = [{**cohort, "steps": steps} for cohort in model.manifest("v2")["spec"]["cohorts"]]
    async with model.served("v2", cohorts=cohorts) as traffic:
        model.apply("v3", cohorts=cohorts)
        await in_thread("requests are mirrored", lambda: model.cohort("batchers").get("canary"))
        assert await asyncio.to_thread(kill_processes, installation.kubectl, "operator")
        await in_thread("each has its own", partial(model.serves, singles="v3", batchers="v2"))
    nobody_noticed(traffic.account)
    assert not traffic.account.refused("singles")
    assert not traffic.account.refused("batchers")
    batchers = model.cohort("batchers")
    assert batchers["rejected"] == model.cohort("singles")["stable"]
    (seen,) = batchers["evidence"]
    assert (seen["metric"], seen["verdict"]) == ("mirror", "Fail")
    assert seen["canary"]["failed"] > 0
    metrics = [e["metric"] for e in model.cohort("singles")["evidence"]]
    assert metrics == ["errors", "latency", "mirror"]


async def test_a_few_clients_are_held_back_and_harm_that_only_shows_then_sends_its_cohort_back(
    model: Model,
) -> None:
    def kept(version: str) -> list[dict[str, object]]:
        steps = [{"weight": 0, "hold": "1s"}]
        holdback = {"weight": 50, "for": "8s"}
        listed = model.manifest(version)["spec"]["cohorts"]
        return [{**cohort, "steps": steps, "holdback": holdback} for cohort in listed]

    async with model.served("v1", cohorts=kept("v1")) as traffic:
        model.apply("v2", cohorts=kept("v2"))
        await in_thread(
            "v2 counts as promoted", lambda: model.condition("Ready").get("reason") == "HoldingBack"
        )
        assert model.condition("Ready")["status"] == "True"
        assert model.cohort("singles")["weight"] == 50
        await in_thread("v2 serves both", partial(model.serves, singles="v2", batchers="v2"))
        assert not traffic.account.refused("batchers")
        model.apply("v3", cohorts=kept("v3"))
        await in_thread("each has its own", partial(model.serves, singles="v3", batchers="v2"))
    nobody_noticed(traffic.account)
    assert not traffic.account.refused("singles")
    assert model.cohort("batchers")["decisions"][0]["action"] == "RolledBack"


async def test_a_wait_right_after_an_apply_is_over_when_the_new_model_serves(model: Model) -> None:
    """Nobody has seen the new spec yet when the wait begins: the former one's Ready must not end it."""
    wait = ("wait", "--for=condition=Ready", f"mdep/{model.name}", "--timeout=50s")
    model.apply("v1")
    model.kubectl(*wait)
    assert model.serves(singles="v1", batchers="v1")
    async with model.traffic():
        model.apply("v2")
        await asyncio.to_thread(model.kubectl, *wait)
        assert model.serves(singles="v2", batchers="v2")


async def test_promotion_restarts_no_pod(model: Model) -> None:
    async with model.served("v1") as traffic:
        model.apply("v2")
        await in_thread("v2 has clients", lambda: model.cohort("singles").get("weight", 0) >= 60)
        canary = model.cohort("singles")["canary"]
        before = {uid for uid, name in model.pods().items() if name.startswith(canary)}
        await in_thread("v2 serves both", partial(model.serves, singles="v2", batchers="v2"))
    after = {uid for uid, name in model.pods().items() if name.startswith(canary)}
    assert before
    assert before <= after
    nobody_noticed(traffic.account)


async def test_a_cohort_waits_for_those_it_comes_after(model: Model) -> None:
    def cohorts() -> list[dict[str, object]]:
        listed: list[dict[str, object]] = model.manifest("v1")["spec"]["cohorts"]
        return [listed[0], {**listed[1], "after": ["batchers"]}]

    async with model.served("v1", cohorts=cohorts()) as traffic:
        model.apply("v2", cohorts=cohorts())
        await in_thread("batchers try v2", lambda: model.cohort("batchers").get("weight", 0) > 0)
        assert model.cohort("singles")["phase"] == "Waiting"
        await in_thread("v2 serves both", partial(model.serves, singles="v2", batchers="v2"))
    account = traffic.account
    second = model.cohort("singles")["stable"]
    assert account.first_answer["batchers", second] < account.first_answer["singles", second]
    nobody_noticed(account)


async def test_without_canary_traffic_nothing_is_promoted_and_status_says_what_is_missing(
    model: Model,
) -> None:
    model.apply("v1")
    until("v1 serves both", partial(model.serves, singles="v1", batchers="v1"))
    model.apply("v2")
    until("v2 is tried", lambda: model.cohort("singles").get("weight") == 20)
    until("its hold is over", lambda: "request" in model.cohort("singles").get("message", ""))
    await asyncio.sleep(3)  # longer than the hold: time alone must not promote
    assert model.cohort("singles")["weight"] == 20
    async with model.traffic(SINGLES, BATCHERS) as traffic:
        await in_thread("v2 serves both", partial(model.serves, singles="v2", batchers="v2"))
    nobody_noticed(traffic.account)


def test_columns_name_the_revisions_people_know(model: Model, installation: Installation) -> None:
    model.apply("v1")
    until("v1 serves", partial(model.serves, singles="v1", batchers="v1"))
    until("ready", lambda: model.condition("Ready").get("status") == "True")
    header, row = installation.kubectl("get", "mdep", model.name).splitlines()
    assert header.split() == ["NAME", "READY", "PHASE", "STABLE", "CANARY", "WEIGHT", "STEP", "AGE"]
    assert row.split()[1:4] == ["True", "Healthy", "v1"]
    installation.kubectl("wait", "--for=condition=Ready", f"mdep/{model.name}", "--timeout=10s")
