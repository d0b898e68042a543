"""Asks pods what they are doing, while a revision prepares, and then which engines they tried."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

from kohort.api.engine import Engine
from kohort.contract import Start
from kohort.observe.objects import Pod
from kohort.observe.starts import Started, doing, slowest, table
from kohort.observe.store import Store
from kohort.plan.world import Problem
from kohort.route.table import ModelKey
from kohort.runtime.models import Model, Models
from kohort.runtime.reconcile import Reconciler

SECONDS = 2.0
"""Between rounds of questions."""
PODS_ASKED = 4
"""Of one revision in a round: they are about equally far."""
MOST_ASKED = 64
"""Pods in a round, of all models; where there are more, each has its turn in another round."""
CONCURRENCY = 16
TELL_SECONDS = 5.0
"""Between two figures of one stage: each is written to the API server."""
QUESTIONS = 5
"""To a ready pod that tells of no engines: another server may be in it."""
MOST_SILENT = 10_000
"""Pods that are remembered for that; then all are asked again."""
FORGET_SECONDS = 30.0
"""How long a pod that answers no more is believed to go on with what it was doing."""

Ask = Callable[[str], Awaitable[Start | None]]


@dataclass
class _Memory:
    """What was heard of one model's pods, and what was told of it."""

    heard: dict[str, tuple[Start, float]] = field(default_factory=dict)  # by uid of the pod; when
    told: dict[str, Started] = field(default_factory=dict)  # by revision
    told_at: float = float("-inf")


class StartWatcher:
    """Asks only while pods are awaited, or while a pod that has built engines has not told of them.

    What it knows is in its memory alone: whoever leads next asks again.
    """

    def __init__(
        self,
        *,
        models: Models,
        pods: Store[Pod],
        ask: Ask,
        reconciler: Reconciler,
        wake: Callable[[ModelKey, float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._models = models
        self._pods = pods
        self._ask = ask
        self._reconciler = reconciler
        self._wake = wake
        self._clock = clock
        self._memory: dict[ModelKey, _Memory] = {}
        self._places = asyncio.Semaphore(CONCURRENCY)
        self._silent: dict[str, int] = {}  # questions in vain to ready pods, by uid
        self._rounds = 0

    async def run(self) -> None:
        """Asks until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(SECONDS)

    async def look(self) -> None:
        """One round of questions."""
        asked = [
            (model.key, pod)
            for model in self._models.busy
            if model.starting and (present := self._pods.of(model.key))
            for pod in _worth_asking(model, present)
            if self._silent.get(pod.uid, 0) < QUESTIONS
        ]
        known = {key for key, _ in asked}
        for key in self._memory.keys() - known:
            del self._memory[key]
            self._reconciler.take_starts(key, {})
        turns = max(1, -(-len(asked) // MOST_ASKED))
        self._rounds += 1
        mine = asked[self._rounds % turns :: turns]
        answers = await asyncio.gather(*(self._answer(pod) for _, pod in mine))
        if len(self._silent) > MOST_SILENT:
            self._silent.clear()
        for (key, pod), answer in zip(mine, answers, strict=True):
            if pod.ready and (answer is None or not answer.engines):
                self._silent[pod.uid] = self._silent.get(pod.uid, 0) + 1
            if answer is not None:
                heard = self._memory.setdefault(key, _Memory()).heard
                heard[pod.uid] = (answer, self._clock())
        by_model: dict[ModelKey, list[Pod]] = defaultdict(list)
        for key, pod in asked:
            by_model[key].append(pod)
        for key, pods in by_model.items():
            if key in self._memory:
                self._tell(key, self._memory[key], pods)

    async def _answer(self, pod: Pod) -> Start | None:
        async with self._places:
            return await self._ask(pod.address)

    def _tell(self, key: ModelKey, memory: _Memory, pods: list[Pod]) -> None:
        """Hands on what is new, figures of the same stage not too often."""
        now = self._clock()
        uids = {pod.uid for pod in pods}
        memory.heard = {
            uid: (start, at)
            for uid, (start, at) in memory.heard.items()
            if uid in uids and now - at < FORGET_SECONDS
        }
        starts: dict[str, list[Start]] = defaultdict(list)
        for pod in pods:
            if pod.uid in memory.heard:
                starts[pod.revision].append(memory.heard[pod.uid][0])
        told = {revision: _started(each) for revision, each in starts.items()}
        if told == memory.told:
            return
        if _gist(told) == _gist(memory.told) and now - memory.told_at < TELL_SECONDS:
            return
        memory.told, memory.told_at = told, now
        self._reconciler.take_starts(key, told)
        self._wake(key, 0.0)


def _worth_asking(model: Model, pods: Mapping[str, Pod]) -> Iterator[Pod]:
    """The pods that could tell something, a few of each revision."""
    preparing = {r.name for r in model.status.revisions if r.preparing_since}
    untold = {
        r.name
        for r in model.status.revisions
        if _builds(model) and r.name == model.status.desired and r.engines is None
    }
    asked: dict[tuple[str, bool], int] = defaultdict(int)
    for pod in sorted(pods.values(), key=lambda pod: pod.name):
        if pod.deleting or not pod.address:
            continue
        waits = pod.revision in preparing and not pod.ready and pod.problem is None
        if waits or (pod.revision in untold and pod.ready):
            asked[pod.revision, pod.ready] += 1
            if asked[pod.revision, pod.ready] <= (1 if pod.ready else PODS_ASKED):
                yield pod


def _builds(model: Model) -> bool:
    """Whether what the spec asks for is built, so that there is a table."""
    return model.spec is not None and model.spec.engine != Engine()


def _started(starts: list[Start]) -> Started:
    busy = slowest(starts)
    tables = (table(start) for start in starts)
    return Started(doing(busy) if busy else None, next(filter(None, tables), None))


def _gist(told: Mapping[str, Started]) -> dict[str, tuple[object, ...]]:
    """What is told at once when it changes."""

    def reason(problem: Problem | None) -> str:
        return problem.reason if problem else ""

    return {name: (reason(started.doing), started.engines) for name, started in told.items()}
