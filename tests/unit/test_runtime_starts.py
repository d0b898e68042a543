"""Which pods are asked how far they are, how often, and what of it is handed on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from kohort.contract import Start, TriedEngine
from kohort.observe.objects import Pod
from kohort.observe.starts import Started
from kohort.observe.store import Store
from kohort.plan.world import Problem
from kohort.route.table import ModelKey
from kohort.runtime.models import Models, convert_model
from kohort.runtime.starts import (
    FORGET_SECONDS,
    MOST_ASKED,
    PODS_ASKED,
    QUESTIONS,
    TELL_SECONDS,
    StartWatcher,
)

KEY = ModelKey("shop", "burger")
BUILDING = Start("Compiling", "building", 10)
DONE = Start(engines=(TriedEngine("OpenVINO", "1", "FP32", "Same", chosen=True),))


class Shop:
    """Models and pods, whoever asks them, and what a reconciler is told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.answers: dict[str, Start | None] = {}
        self.asked: list[str] = []
        self.woken = 0
        self.told: dict[ModelKey, Mapping[str, Started]] = {}
        self.models = Models(lambda _: None)
        self.pods: Store[Pod] = Store(lambda _: None)
        self.version = 0
        self.watcher = StartWatcher(
            models=self.models,
            pods=self.pods,
            ask=self.ask,
            reconciler=self,  # type: ignore[arg-type]
            wake=self.wake,
            clock=lambda: self.now,
        )

    async def ask(self, address: str) -> Start | None:
        self.asked.append(address)
        return self.answers.get(address)

    def wake(self, _: ModelKey, __: float) -> None:
        self.woken += 1

    def take_starts(self, key: ModelKey, started: Mapping[str, Started]) -> None:
        self.told[key] = started

    def model(self, name: str = "burger", engine: str = "Auto", **revision: Any) -> None:
        self.version += 1
        known = {"name": "v1", "number": 1, "uri": "u", "createdAt": "2026-01-01T00:00:00Z"}
        content: dict[str, Any] = {
            "metadata": {
                "namespace": "shop",
                "name": name,
                "uid": name,
                "resourceVersion": str(self.version),
            },
            "spec": {"model": {"uri": "file:///m.onnx"}, "engine": {"type": engine}},
            "status": {"desired": "v1", "revisions": [{**known, **revision}]},
        }
        self.models.put(convert_model(msgspec.json.decode(msgspec.json.encode(content))))

    def pod(self, name: str, model: str = "burger", **facts: Any) -> None:
        self.version += 1
        plain = {"ready": False, "deleting": False, "restarts": 0, "problem": None}
        pod = {**plain, "address": f"at-{name}", "revision": "v1", **facts}
        self.pods.put(
            Pod(namespace="shop", name=name, uid=name, model=model, version=self.version, **pod)
        )

    async def look(self) -> list[str]:
        """Whom one round asks."""
        self.asked = []
        await self.watcher.look()
        return sorted(self.asked)

    def doing(self) -> str:
        """What the model's revision is said to be doing."""
        started = self.told[KEY].get("v1", Started())
        return started.doing.message if started.doing else ""


SINCE = "2026-01-01T00:00:00Z"


async def test_nobody_is_asked_while_nothing_prepares() -> None:
    shop = Shop()
    shop.model(engine="ONNXRuntime")
    shop.pod("a")
    shop.pod("b", ready=True)
    assert await shop.look() == []


async def test_pods_that_are_awaited_are_asked_and_those_that_failed_or_go_are_not() -> None:
    shop = Shop()
    shop.model(engine="ONNXRuntime", preparingSince=SINCE)
    shop.pod("waits")
    shop.pod("ready", ready=True)
    shop.pod("goes", deleting=True)
    shop.pod("fails", problem=Problem("BuildFailed", "no"))
    shop.pod("other", revision="v0")
    shop.pod("nowhere", address="")
    assert await shop.look() == ["at-waits"]


async def test_progress_is_handed_on_at_once_when_a_stage_begins_and_then_now_and_again() -> None:
    shop = Shop()
    shop.model(preparingSince=SINCE)
    shop.pod("a")
    shop.answers["at-a"] = BUILDING
    await shop.look()
    assert (shop.woken, shop.doing()) == (1, "Compiling 10 %: building")
    for percent in (20, 30):
        shop.answers["at-a"] = Start("Compiling", "building", percent)
        shop.now += TELL_SECONDS * 0.6
        await shop.look()
    assert (shop.woken, shop.doing()) == (2, "Compiling 30 %: building")
    await shop.look()
    assert shop.woken == 2  # nothing is new


async def test_a_pod_that_answers_no_more_is_believed_for_a_while() -> None:
    shop = Shop()
    shop.model(preparingSince=SINCE)
    shop.pod("a")
    shop.answers["at-a"] = BUILDING
    await shop.look()
    shop.answers.clear()
    shop.now += FORGET_SECONDS - 1
    await shop.look()
    assert shop.doing() == "Compiling 10 %: building"
    shop.now += 2
    await shop.look()
    assert shop.doing() == ""


async def test_the_engines_are_asked_for_until_they_stand_in_status_and_not_for_ever() -> None:
    shop = Shop()
    shop.model()
    shop.pod("a", ready=True)
    shop.pod("b", ready=True)
    rounds = [await shop.look() for _ in range(QUESTIONS + 2)]
    assert rounds == [["at-a"]] * QUESTIONS + [[]] * 2  # another server is in it
    shop.pod("a", ready=True, deleting=True)
    shop.answers["at-b"] = DONE
    assert await shop.look() == ["at-b"]
    engines = shop.told[KEY]["v1"].engines
    assert engines is not None
    assert engines.tried[0].engine == "OpenVINO"
    shop.model(engines=msgspec.to_builtins(engines))
    assert await shop.look() == []
    assert shop.told[KEY] == {}


async def test_an_operator_that_begins_anew_asks_again() -> None:
    first, second = Shop(), Shop()
    for shop in (first, second):
        shop.model(preparingSince=SINCE)
        shop.pod("a")
        shop.answers["at-a"] = BUILDING
        await shop.look()
    assert first.told == second.told != {}


async def test_a_round_asks_few_pods_however_many_wait_and_each_has_its_turn() -> None:
    shop = Shop()
    for number in range(50):
        shop.model(f"m{number}", preparingSince=SINCE)
        for pod in range(6):
            shop.pod(f"m{number}-{pod}", model=f"m{number}")
    rounds = [await shop.look() for _ in range(4)]
    assert all(0 < len(asked) <= MOST_ASKED for asked in rounds)
    assert len(set().union(*rounds)) == 50 * PODS_ASKED
