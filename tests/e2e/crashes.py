"""Five whole rollouts, each to be gone through with an operator that is ended at one point of it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from kohort_local.traffic import Account
from tests.e2e.ends import POINT, End
from tests.e2e.lane import CLIENTS, FEW, Lane

Kind = Literal["call", "push"]
STEPS = [{"weight": 50, "hold": "1s"}]
# Long enough for harm to show, also when nobody looks for some seconds of it.
PATIENT_STEPS = [{"weight": 50, "hold": "8s"}]


async def ask_for(lane: Lane, version: str, point: str) -> None:
    """Apply a version as a revision of its own."""
    steps = PATIENT_STEPS if version == "v3" else STEPS
    template = {
        "metadata": {"annotations": {POINT: point}},
        # Nobody may miss a pod by the time it is deleted; a second later it is gone.
        "spec": {"terminationGracePeriodSeconds": 1},
    }
    manifest = lane.model.manifest(version, template=template, keepWarm="0s", historyLimit=5)
    for cohort in manifest["spec"]["cohorts"]:
        cohort["steps"] = steps
    await lane.apply(manifest)


async def promote(lane: Lane, point: str) -> None:
    await ask_for(lane, "v2", point)


async def roll_back(lane: Lane, point: str) -> None:
    """v3 takes one image at a time: it is good for singles, and bad for batchers."""
    await ask_for(lane, "v3", point)


async def supersede(lane: Lane, point: str) -> None:
    await ask_for(lane, "v1", f"{point}-passed")

    async def half_way() -> bool:
        return bool((await lane.cohort("singles")).get("weight"))

    await lane.until(half_way, "the first of two has clients")
    await ask_for(lane, "v2", point)


async def undo(lane: Lane, point: str) -> None:
    await lane.annotate(f"undo id={point}")


async def make_anew(lane: Lane, point: str) -> None:
    """The very same revision again, while the garbage collector is after the former one's pods."""
    await lane.delete()
    await ask_for(lane, "v2", "constant")


@dataclass(frozen=True)
class Scenario:
    """A rollout and how it has to end. ``hops``: the most revisions in a row that a client may see."""

    act: Callable[[Lane, str], Awaitable[None]]
    ends: tuple[End, ...]
    start: tuple[tuple[str, str], ...] = (("v1", "first"),)
    hops: int = 2
    outage: bool = False  # the model itself is away for a while


def _both(file: str, role: str) -> tuple[tuple[str, str, str, str], ...]:
    return tuple((name, file, role, "Stable") for name in ("batchers", "singles"))


SCENARIOS: dict[str, Scenario] = {
    "promotion": Scenario(
        promote, (End(_both("v2", "this"), "True Promoted", (("this", 2),), 1),), (("v2", "first"),)
    ),
    "rollback of one cohort": Scenario(
        roll_back,
        (
            End(
                (("batchers", "v2", "same", "RolledBack"), ("singles", "v3", "this", "Stable")),
                "False RolledBack",
                (("other", 2), ("this", 2)),
                1,
            ),
        ),
        (("v2", "first"), ("v3", "second")),
        hops=3,
    ),
    "supersede": Scenario(
        supersede,
        (End(_both("v2", "this"), "True Promoted", (("this", 2),), 2),),
        (("v2", "first"),),
        hops=4,
    ),
    "undo": Scenario(
        undo,
        # An undo of an undo is back on what the spec asks for.
        tuple(
            End(_both("v2", "former"), ready, (("other", 2),), 0)
            for ready in ("False Undone", "True Promoted")
        ),
        (("v2", "first"), ("v2", "second")),
    ),
    "delete and re-creation": Scenario(
        make_anew,
        (End(_both("v2", "same"), "True Promoted", (("other", 2),), 0),),
        (("v2", "constant"),),
        outage=True,
    ),
}


@dataclass
class Run:
    """One rollout with at most one interruption.

    ``blown``: there was one. ``count``: calls or pushes of this rollout. ``seconds``: how long it took.
    """

    blown: bool
    count: int
    seconds: float
    problems: list[str] = field(default_factory=list)
    requests: int = 0
    lost: int = 0
    misrouted: int = 0


async def prepare(lane: Lane, scenario: Scenario) -> None:
    """Bring a lane to a scenario's start; every later run of it starts where the last one ended."""
    await lane.delete()
    for version, point in scenario.start:
        await ask_for(lane, version, point)
        async with lane.model.traffic(*CLIENTS):
            await lane.rested()


async def run(
    lane: Lane, scenario: Scenario, point: str, kind: Kind, at: int, *, last: bool = True
) -> Run:
    """Go through a rollout while clients call; the operator is ended at the ``at``-th call or push.

    It is over when nothing is left over, or, unless it is the ``last``, when nothing is under way.
    """
    before, began = await lane.rested(), time.monotonic()
    fuse = lane.calls if kind == "call" else lane.pushes
    restarts = lane.restarts
    over = lane.settled if last else lane.rested
    async with lane.bystander.traffic(*FEW[1:]) as beside:
        if scenario.outage:
            async with lane.model.traffic(*CLIENTS) as first:
                await _served(lane, first.account)
            fuse.set(at)
            await scenario.act(lane, point)
            await lane.rested()
            await lane.until(lane.ready, "it says that it is ready")
            async with lane.model.traffic(*CLIENTS) as second:
                after = await over()
                await _served(lane, second.account)
        else:
            async with lane.model.traffic(*FEW) as second:
                async with lane.model.traffic(*CLIENTS) as first:
                    await _served(lane, first.account)
                    fuse.set(at)
                    await scenario.act(lane, point)
                    await lane.rested()
                after = await over()
    done = Run(fuse.blown, fuse.count, time.monotonic() - began)
    fuse.set(0)
    ended = after.end(before, point)
    if ended not in scenario.ends:
        done.problems.append(f"ended as {ended}")
    if done.blown and lane.restarts != restarts + 1:
        done.problems.append(f"{lane.restarts - restarts} restarts")
    for account in (first.account, second.account, beside.account):
        done.requests += account.total
        done.lost += len(account.lost)
        done.misrouted += len(account.misrouted)
        done.problems += _noticed(account, scenario)
    return done


async def _served(lane: Lane, account: Account) -> None:
    total = account.total

    async def more() -> bool:
        return account.total > total + len(CLIENTS) * 5

    await lane.until(more, "clients are served")


def _noticed(account: Account, scenario: Scenario) -> list[str]:
    """What clients noticed that they must not."""
    found = [str(answer) for answer in (*account.lost, *account.misrouted)]
    found += [f"{c} saw {path}" for c, path in account.paths.items() if len(path) > scenario.hops]
    if refused := account.refused("singles"):
        found.append(f"{refused} requests of singles failed")
    if scenario.ends[0].cohorts[0][3] == "Stable" and (refused := account.refused("batchers")):
        found.append(f"{refused} requests of batchers failed")
    return found
