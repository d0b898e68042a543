"""``view``: the web view on this machine alone, seen with the person's own credentials."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from kohort.cli.cluster import Cluster
from kohort.cli.options import add_command, connect
from kohort.cli.terminal import now
from kohort.cli.watching import Scene, Watched, scenes
from kohort.contract import LABEL_MODEL, LABEL_REVISION
from kohort.view.rollout import Facts, PodView, Resource, ViewError, facts_of, pod_view
from kohort.web.gate import Refused, Wish
from kohort.web.seen import Seen
from kohort.web.server import ViewServer
from kohort.web.source import Feed

ADDRESS = "127.0.0.1"
HOSTS = frozenset({ADDRESS, "localhost"})
Name = tuple[str, str]


class WatchedModels:
    """What the watches of one person have told last."""

    def __init__(self, feed: Feed, seen: Seen) -> None:
        self._feed, self._seen = feed, seen
        self._facts: dict[Name, Facts] = {}
        self._pods: dict[Name, list[Resource]] = {}
        self._problems: list[str] = []

    def names(self, namespace: str) -> Iterator[Name]:
        """Namespaces and names of the models of a namespace; of all when it is empty."""
        return (name for name in self._facts if namespace in ("", name[0]))

    def model(self, namespace: str, name: str) -> Facts | None:
        """One of them."""
        return self._facts.get((namespace, name))

    def pods(self, namespace: str, name: str) -> Mapping[str, list[PodView]]:
        """A model's pods, by the name of their revision."""
        found: dict[str, list[PodView]] = {}
        for pod in self._pods.get((namespace, name), ()):
            revision = pod["metadata"]["labels"].get(LABEL_REVISION, "")
            found.setdefault(revision, []).append(pod_view(pod))
        return found

    def problems(self) -> list[str]:
        """Why the watches fail just now, and which models cannot be read."""
        return self._problems

    def take(self, scene: Scene, at: datetime) -> None:
        """Takes in all that the watches see at ``at``, and wakes whoever looks at what is new."""
        problems = list(dict.fromkeys(scene.problems.values()))
        facts: dict[Name, Facts] = {}
        for resource in scene.resources.get("models", ()):
            try:
                told = facts_of(resource)
            except ViewError as error:
                problems.append(str(error))
            else:
                facts[told.namespace, told.name] = told
        pods: dict[Name, list[Resource]] = {}
        for pod in scene.resources.get("pods", ()):
            metadata = pod["metadata"]
            model = metadata.get("labels", {}).get(LABEL_MODEL, "")
            pods.setdefault((metadata.get("namespace", ""), model), []).append(pod)
        changed = {
            name
            for name in {*facts, *self._facts}
            if facts.get(name) != self._facts.get(name) or pods.get(name) != self._pods.get(name)
        }
        if problems != self._problems:
            changed |= facts.keys()
        self._facts, self._pods, self._problems = facts, pods, problems
        for each in facts.values():
            self._seen.take(each, at)
        self._seen.keep(facts)
        for namespace, name in changed:
            self._feed.changed(namespace, name)


class KeyGate:
    """Lets in whoever has the key: the API server has judged already what the watches may see."""

    def __init__(self, key: str, namespace: str) -> None:
        """``namespace``: the one that is watched, all when it is empty."""
        self._key = key
        self._namespace = namespace

    async def user(self, token: str) -> str:
        """Whoever started the program."""
        if not secrets.compare_digest(token.encode(), self._key.encode()):
            raise Refused(401, "Open the address that kubectl kohort view has printed.")
        return "you"

    async def allows(self, token: str, wish: Wish) -> bool:
        """Whatever is watched."""
        await self.user(token)
        if self._namespace not in ("", wish.namespace):
            what = f"kubectl kohort view watches namespace {self._namespace} alone"
            raise Refused(403, f"{what}: start it with -A to see others.")
        return True


def add_commands(commands: Any, shared: list[argparse.ArgumentParser]) -> None:
    """Adds ``view``."""
    parser = add_command(
        commands,
        shared,
        "view",
        _view,
        help="show rollouts live in a browser",
        description="Serves the web view on 127.0.0.1 until Ctrl-C, and prints its address. The page shows\n"
        "what you may get and list yourself, and can change nothing; nothing has to be installed\n"
        "in the cluster for it. Whoever has the address sees what you see: keep it to yourself.",
        examples=("kubectl kohort view", "kubectl kohort view burger", "kubectl kohort view -A"),
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="begin with this ModelDeployment")
    parser.add_argument(
        "-A", "--all-namespaces", action="store_true", help="show those of all namespaces"
    )
    parser.add_argument(
        "--port", type=int, default=0, help="port of 127.0.0.1 to listen on (default: a free one)"
    )


def _view(options: argparse.Namespace) -> int:
    if not 0 <= options.port < 65536:
        options.usage_error("--port is a number from 1 to 65535")
    cluster = connect(options)
    everywhere = options.all_namespaces
    if options.name:
        cluster.get(options.name)  # says at once, with names that are like it, that there is none
    else:
        cluster.list_models(everywhere)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_serve(cluster, options.name, everywhere, options.port))
    return 0


async def _serve(cluster: Cluster, name: str | None, everywhere: bool, port: int) -> None:
    namespace = "" if everywhere else cluster.namespace
    key, feed, seen = secrets.token_urlsafe(32), Feed(), Seen()
    source = WatchedModels(feed, seen)
    filled = asyncio.Event()
    loop = asyncio.get_running_loop()

    def take(scene: Scene) -> None:
        source.take(scene, now())
        filled.set()

    def watch() -> None:
        watches: dict[str, Watched] = {
            "models": lambda: cluster.watch_models(None, everywhere),
            "pods": lambda: cluster.watch_pods(None, everywhere),
        }
        with contextlib.suppress(RuntimeError):  # the loop has ended
            for scene in scenes(watches):
                loop.call_soon_threadsafe(take, scene)

    threading.Thread(target=watch, daemon=True).start()
    await filled.wait()
    server = ViewServer(source, KeyGate(key, namespace), feed, seen, hosts=HOSTS, now=now)
    listening = await server.start(ADDRESS, port)
    print(address(listening, key, cluster.namespace if name else namespace, name), flush=True)
    print("Open it in a browser on this machine; Ctrl-C ends it.", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await server.stop()


def address(port: int, key: str, namespace: str, name: str | None) -> str:
    """What to open. The key is in the part that browsers keep to themselves."""
    to = f"/{quote(namespace, safe='')}/{quote(name, safe='')}" if name else "/"
    if namespace and not name:
        to += f"?{urlencode({'namespace': namespace})}"
    return f"http://{ADDRESS}:{port}/#{urlencode({'key': key, 'to': to})}"
