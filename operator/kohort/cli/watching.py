"""Following a rollout as it changes: a live view on a terminal, a line per change in a pipe."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from kohort.cli.changes import changes
from kohort.cli.cluster import Cluster, ClusterError
from kohort.cli.tree import ModelList, tree
from kohort.cli.view import ModelView, Resource, model_view
from kohort.cli.words import clock, stopped

TICK_SECONDS = 1.0  # ages go on even if nothing happens
LONGEST_WAIT_SECONDS = 4.0

Watched = Callable[[], Iterable[list[Resource]]]


@dataclass
class Scene:
    """The last that each watch has told; ``problems`` are those of the watches that fail just now."""

    resources: Mapping[str, list[Resource]] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether there is certainly no rollout left to show."""
        return self.resources.get("models") == []

    def views(self, now: datetime) -> list[ModelView]:
        """All rollouts, by namespace and name."""
        pods = self.resources.get("pods", [])
        views = [model_view(resource, pods, now) for resource in self.resources.get("models", [])]
        return sorted(views, key=lambda view: (view.namespace, view.name))


def scenes(watches: Mapping[str, Watched]) -> Iterator[Scene]:
    """A scene after every change and at every tick, without end, once every watch has told something."""
    told: queue.SimpleQueue[tuple[str, list[Resource] | str]] = queue.SimpleQueue()
    for name, watched in watches.items():
        threading.Thread(target=_follow, args=(name, watched, told), daemon=True).start()
    scene = Scene()
    while True:
        try:
            name, news = told.get(timeout=TICK_SECONDS)
        except queue.Empty:
            pass
        else:
            problems = {n: p for n, p in scene.problems.items() if n != name}
            if isinstance(news, str):
                scene = Scene(scene.resources, {**problems, name: news})
            else:
                scene = Scene({**scene.resources, name: news}, problems)
        if scene.resources.keys() | scene.problems.keys() == watches.keys():
            yield scene


def _follow(
    name: str, watched: Watched, told: queue.SimpleQueue[tuple[str, list[Resource] | str]]
) -> None:
    """Watches for ever; after a failure again, with growing pauses."""
    pause, wait = 1.0, threading.Event()
    while True:
        try:
            for resources in watched():
                told.put((name, resources))
                pause = 1.0
        except ClusterError as error:
            told.put((name, str(error)))
            wait.wait(pause)
            pause = min(LONGEST_WAIT_SECONDS, 2 * pause)


def follow(cluster: Cluster, name: str | None, everywhere: bool, console: Console) -> int:
    """Shows the rollouts until interrupted, or until the one with this name is deleted."""
    watches: dict[str, Watched] = {"models": lambda: cluster.watch_models(name, everywhere)}
    if name:
        watches["pods"] = lambda: cluster.watch_pods(name)
    if console.is_terminal:
        return _live(scenes(watches), name, everywhere, console)
    return _piped(scenes(watches), name, everywhere)


def _live(all_scenes: Iterable[Scene], name: str | None, everywhere: bool, console: Console) -> int:
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for scene in all_scenes:
            views = scene.views(_now())
            if name and scene.empty:
                live.stop()
                console.print(f"{name} was deleted", highlight=False)
                break
            live.update(page(views, scene.problems.values(), name, everywhere), refresh=True)
    return 0


def _piped(all_scenes: Iterable[Scene], name: str | None, everywhere: bool) -> int:
    before = Scene()
    seen: dict[tuple[str, str], ModelView] = {}
    for scene in all_scenes:
        views = {(view.namespace, view.name): view for view in scene.views(_now())}
        for line in [*trouble(before, scene), *news(seen, views, everywhere)]:
            print(f"{clock(_now(), _now())} {line}", flush=True)
        if name and scene.empty:
            break
        before, seen = scene, views
    return 0


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
