"""People's verbs on real parts, each given as one plain ``kubectl annotate``, with clients calling."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.e2e.world import SINGLES, Model, in_thread, nobody_noticed

LONG = [{"weight": 20, "hold": "1h"}, {"weight": 60, "hold": "1h"}]
ONE = [{"name": "singles", "steps": LONG}]


def say(model: Model, line: str) -> None:
    """Give a command as anybody can."""
    model.kubectl(
        *("annotate", "--overwrite", "-n", model.namespace, f"mdep/{model.name}"),
        f"kohort.dev/command={line}",
    )


def answer(model: Model, line: str) -> dict[str, Any]:
    """What became of a command; empty while it waits."""
    told = model.status.get("command", {})
    return dict(told) if told.get("line") == line else {}


async def carried_out(model: Model, line: str) -> str:
    say(model, line)
    await in_thread(f"{line} is answered", lambda: answer(model, line))
    told = answer(model, line)
    assert told.get("accepted"), told
    return str(told["message"])


async def test_a_person_takes_a_rollout_through_its_steps_and_back_and_no_client_notices(
    model: Model,
) -> None:
    model.apply("v1", cohorts=ONE)
    await in_thread("v1 serves", partial(model.serves, singles="v1"))
    async with model.traffic(SINGLES) as traffic:
        await in_thread("clients are served", lambda: traffic.account.total > 50)
        model.apply("v2", cohorts=ONE, paused=True)
        await in_thread("it is paused", lambda: model.status.get("phase") == "Paused")
        await carried_out(model, "promote by=ann why='first step' id=1")
        await in_thread("first step", lambda: model.cohort("singles").get("weight") == 20)
        await carried_out(model, "promote singles to=next id=2")
        await in_thread("second step", lambda: model.cohort("singles").get("weight") == 60)
        await carried_out(model, "promote to=all id=3")
        await in_thread("v2 serves", partial(model.serves, singles="v2"))
        await carried_out(model, "undo by=ann why='on second thoughts'")
        await in_thread("v1 serves", partial(model.serves, singles="v1"))
    nobody_noticed(traffic.account)
    assert not traffic.account.refused("singles")
    assert model.condition("Ready")["reason"] == "Undone"
    by_ann = [(d["action"], d["why"]) for d in model.cohort("singles")["decisions"] if "by" in d]
    assert by_ann == [("Undone", "on second thoughts"), ("StepSkipped", "first step")]


async def test_an_aborted_rollout_stays_back_until_it_is_tried_again(model: Model) -> None:
    model.apply("v1", cohorts=ONE)
    await in_thread("v1 serves", partial(model.serves, singles="v1"))
    async with model.traffic(SINGLES) as traffic:
        model.apply("v2", cohorts=ONE)
        await in_thread("v2 is tried", lambda: model.cohort("singles").get("weight") == 20)
        await carried_out(model, "abort")
        assert model.cohort("singles")["phase"] == "RolledBack"
        assert model.condition("Stalled")["reason"] == "Aborted"
        await carried_out(model, "retry")
        await in_thread("v2 is tried", lambda: model.cohort("singles").get("weight") == 20)
    nobody_noticed(traffic.account)


async def test_restart_replaces_every_pod_and_no_client_notices(model: Model) -> None:
    async with model.served("v1") as traffic:
        before = set(model.pods())
        await carried_out(model, "restart")
        await in_thread("all pods are new", lambda: model.pods() and not before & set(model.pods()))
    nobody_noticed(traffic.account)


async def test_a_command_that_does_not_fit_is_refused_with_what_would(model: Model) -> None:
    model.apply("v1")
    await in_thread("v1 serves", partial(model.serves, singles="v1", batchers="v1"))
    say(model, "promote nobody")
    await in_thread("it is answered", lambda: answer(model, "promote nobody"))
    told = answer(model, "promote nobody")
    assert not told.get("accepted")
    assert told["message"] == "there is no cohort nobody; there is: batchers, singles"
