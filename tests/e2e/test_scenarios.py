"""Scenarios that a rollout controller has to survive and that no other end-to-end test shows."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tests.e2e.test_people import carried_out
from tests.e2e.world import BATCHERS, Model, in_thread, nobody_noticed


async def test_a_good_version_escapes_bad_ones_stacked_on_each_other(
    model: Model, tmp_path: Path
) -> None:
    """Two that cannot start and one that harms its clients, each over the other in the middle."""
    async with model.served("v1") as traffic:
        for number in range(2):
            model.apply("v1", model={"uri": f"file://{tmp_path}/none-{number}.onnx"})
            await in_thread(
                "it is told", lambda: "ModelNotFound" in str(model.status.get("revisions"))
            )
        model.apply("v3")
        third = partial(model.serves, singles="v3", batchers="v1")
        await in_thread("batchers go back", third)
        model.apply("v2")
        await in_thread("v2 serves both", partial(model.serves, singles="v2", batchers="v2"))
    nobody_noticed(traffic.account)
    assert not traffic.account.refused("singles")
    assert traffic.account.refused(BATCHERS.cohort) > 0


async def test_replicas_that_change_together_with_the_model_and_in_the_middle_cost_no_request(
    model: Model,
) -> None:
    async with model.served("v1") as traffic:
        model.apply("v2", replicas=3)
        await in_thread("v2 has clients", lambda: model.cohort("singles").get("weight", 0) > 0)
        model.apply("v2", replicas=1)
        await in_thread("v2 serves both", partial(model.serves, singles="v2", batchers="v2"))
        await in_thread("v2 has one pod", lambda: pods_of_desired(model) == (1, 1))
    nobody_noticed(traffic.account)
    revisions = model.kubectl.get("controllerrevisions", "-l", f"kohort.dev/model={model.name}")
    assert len(revisions["items"]) == 2, "replicas made a revision"


async def test_an_abort_while_the_canary_has_no_pods_ends_the_rollout(
    model: Model, tmp_path: Path
) -> None:
    model.apply("v1")
    await in_thread("v1 serves both", partial(model.serves, singles="v1", batchers="v1"))
    async with model.traffic() as traffic:
        await in_thread("clients are served", lambda: traffic.account.total > 50)
        model.apply("v1", model={"uri": f"file://{tmp_path}/none.onnx"})
        await in_thread("it is tried", lambda: model.cohort("singles").get("canary"))
        await carried_out(model, "abort")
        await in_thread("it is back", partial(model.serves, singles="v1", batchers="v1"))
        model.apply("v2")
        await in_thread("v2 serves both", partial(model.serves, singles="v2", batchers="v2"))
    nobody_noticed(traffic.account)


def pods_of_desired(model: Model) -> tuple[int, int]:
    """Wanted and ready pods of the revision that the spec asks for; the former one stays warm beside."""
    status = model.status
    revision = next(r for r in status["revisions"] if r["name"] == status["desired"])
    return revision.get("replicas", 0), revision.get("readyReplicas", 0)
