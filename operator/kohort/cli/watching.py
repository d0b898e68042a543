"""Following a rollout as it changes: a live view on a terminal, a line per change in a pipe."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from kohort.cli.cluster import Cluster, ClusterError
from kohort.cli.tree import ModelList, tree
from kohort.view.changes import changes
from kohort.view.rollout import ModelView, Resource, model_view
from kohort.view.words import clock, stopped

TICK_SECONDS = 1.0  # ages go on even if nothing happens
SHORTEST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 4.0

Watched = Callable[[], Iterable[list[Resource]]]
Told: TypeAlias = "queue.SimpleQueue[tuple[str, list[Resource] | str]]"
"""What watches say: their name, and all they see now or the problem they have."""


@dataclass(frozen=True)
class Scene:
    """The last that each watch has told; ``problems`` are those of the watches that fail just now."""

    resources: Mapping[str, list[Resource]] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)

    def after(self, name: str, told: list[Resource] | str) -> Scene:
        """The scene once a watch has told what it sees, or its problem."""
        problems = {n: problem for n, problem in self.problems.items() if n != name}
        if isinstance(told, str):
            return Scene(self.resources, {**problems, name: told})
        return Scene({**self.resources, name: told}, problems)

    @property
    def empty(self) -> bool:
        """Whether there is certainly no rollout left to show."""
        return self.resources.get("models") == []

    def views(self, now: datetime) -> list[ModelView]:
        """All rollouts, by namespace and name."""
        pods = self.resources.get("pods", [])
        views = [model_view(resource, pods, now) for resource in self.resources.get("models", [])]
        return sorted(views, key=lambda view: (view.namespace, view.name))


def scenes(watches: Mapping[str, Watched]) -> Generator[Scene, None, None]:
    """A scene after every change and at every tick, without end, once every watch has told something."""
    told: Told = queue.SimpleQueue()
    over = threading.Event()
    for name, watched in watches.items():
        threading.Thread(target=_follow, args=(name, watched, told, over), daemon=True).start()
    scene = Scene()
    try:
        while True:
            with contextlib.suppress(queue.Empty):
                scene = scene.after(*told.get(timeout=TICK_SECONDS))
            if scene.resources.keys() | scene.problems.keys() == watches.keys():
                yield scene
    finally:
        over.set()


def _follow(name: str, watched: Watched, told: Told, over: threading.Event) -> None:
    """Watches again and again, with pauses that grow as long as it fails."""
    pause = SHORTEST_WAIT_SECONDS
    while not over.is_set():
        try:
            for resources in watched():
                told.put((name, resources))
                pause = SHORTEST_WAIT_SECONDS
        except ClusterError as error:
            told.put((name, str(error)))
            pause = min(LONGEST_WAIT_SECONDS, 2 * pause)
        over.wait(pause)


def follow(cluster: Cluster, name: str | None, everywhere: bool, console: Console) -> None:
    """Shows the rollouts until interrupted, or until the one with this name is deleted."""
    watches: dict[str, Watched] = {"models": lambda: cluster.watch_models(name, everywhere)}
    if name:
        watches["pods"] = lambda: cluster.watch_pods(name)
    with contextlib.closing(scenes(watches)) as all_scenes:
        if console.is_terminal:
            _live(all_scenes, name, everywhere, console)
        else:
            _piped(all_scenes, name, everywhere)


def _live(
    all_scenes: Iterable[Scene], name: str | None, everywhere: bool, console: Console
) -> None:
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for scene in all_scenes:
            views = scene.views(_now())
            if name and scene.empty:
                live.stop()
                console.print(f"{name} was deleted", highlight=False)
                break
            live.update(page(views, scene.problems.values(), name, everywhere), refresh=True)


def _piped(all_scenes: Iterable[Scene], name: str | None, everywhere: bool) -> None:
    before = Scene()
    seen: dict[tuple[str, str], ModelView] = {}
    for scene in all_scenes:
        views = {(view.namespace, view.name): view for view in scene.views(_now())}
        for line in [*trouble(before, scene), *news(seen, views, everywhere)]:
            print(f"{clock(_now(), _now())} {line}", flush=True)
        if name and scene.empty:
            break
        before, seen = scene, views


def news(
    before: Mapping[tuple[str, str], ModelView],
    after: Mapping[tuple[str, str], ModelView],
    everywhere: bool,
) -> list[str]:
    """A line per change of any rollout, with the namespace where there may be several."""
    lines = []
    for key, view in after.items():
        lines += [(key, line) for line in changes(before.get(key), view)]
    lines += [(key, f"{key[1]} was deleted") for key in sorted(before.keys() - after.keys())]
    return [f"{namespace}/{line}" if everywhere else line for (namespace, _), line in lines]


def trouble(before: Scene, after: Scene) -> list[str]:
    """The first of the problems that begin together, and that they are over."""
    if after.problems and not before.problems:
        return [f"{stopped(next(iter(after.problems.values())))} Trying again."]
    return ["the cluster answers again"] if before.problems and not after.problems else []


def page(
    views: list[ModelView], problems: Iterable[str], name: str | None, everywhere: bool
) -> RenderableType:
    """What a terminal shows: a tree of the one named, else the list; problems of watching below."""
    shown = [tree(view) for view in views] if name else [ModelList(views, everywhere)]
    return Group(*shown, *(Text(problem, "yellow") for problem in dict.fromkeys(problems)))


def _now() -> datetime:
    return datetime.now().astimezone()
