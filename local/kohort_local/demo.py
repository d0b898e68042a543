"""The demo: a true story on real data, watched live; it fails if the end is not as told."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kubernetes import client, config
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from kohort.cli.tree import tree
from kohort.contract import API_VERSION, LABEL_MODEL, PLURAL
from kohort.view.changes import changes
from kohort.view.rollout import ModelView, model_view
from kohort_local import story
from kohort_local.cluster import Cluster
from kohort_local.install import Installation, images, install
from kohort_local.models import train
from kohort_local.places import state_directory
from kohort_local.traffic import Account, Outcome, Traffic

CHAPTER_TIMEOUT = 120.0
LOOK_EVERY = 0.2


def register(subparsers: Any) -> None:
    """Add ``kohort-local demo``."""
    parser = subparsers.add_parser(
        "demo",
        help="tell the demo's story on a local cluster, and check its end",
        description="Three models of handwritten digits, two kinds of clients, and a model that fails one.",
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave cluster and model running at the end"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Tell the story; 0 when its end is as told, 1 otherwise."""
    console = Console()
    started = time.monotonic()

    def say(text: str) -> None:
        at = f"[dim]{time.monotonic() - started:6.1f} s[/]"
        # A pipe has no width: an event is a line there.
        console.print(f"{at}  {text}", highlight=False, soft_wrap=not console.is_terminal)

    directory = state_directory("demo")
    cluster = Cluster(directory, images=images(), say=say)
    try:
        say("starting a Kubernetes control plane on this machine")
        cluster.down()  # what an earlier one has kept
        cluster.up(bound=not arguments.keep)
        say("cluster ready; installing two operators and two gateways")
        installation = install(cluster.kubeconfig, cluster.node_port_range, say=say)
        say("Kohort ready; training three models of handwritten digits")
        paths, digits = train(directory / "models")
        screen = Screen(console, say)
        told = asyncio.run(_tell(installation, paths, digits, screen))
        code = _conclude(installation, told, console)
        if arguments.keep:
            url = installation.url(story.NAMESPACE, story.NAME)
            console.print(f"\nCall it: curl {url}/v2/models/{story.NAME}", highlight=False)
        return code
    finally:
        if arguments.keep:
            console.print(f"Still running. export KUBECONFIG={cluster.kubeconfig}")
            console.print("Stop it with: kohort-local down --name demo")
        else:
            cluster.down()


@dataclass
class Told:
    """How it came out."""

    account: Account
    resource: dict[str, Any]
    rolled_back_after: float | None = None  # seconds from the first refused request to the last


@dataclass
class Screen:
    """Where the story is shown: live on a terminal, a line per event elsewhere."""

    console: Console
    say: Callable[[str], None]
    chapter: str = ""
    before: ModelView | None = None

    @contextlib.contextmanager
    def live(self) -> Any:
        """A live display for as long as the story is told, on a terminal."""
        if not self.console.is_terminal:
            yield None
            return
        with Live(console=self.console, refresh_per_second=8, transient=True) as display:
            yield display

    def begin(self, chapter: str) -> None:
        """A new chapter."""
        self.chapter = chapter
        self.say(f"[bold]{chapter}[/]")

    def show(
        self,
        display: Live | None,
        resource: dict[str, Any],
        pods: list[dict[str, Any]],
        account: Account,
    ) -> None:
        """Redraw, or tell what changed."""
        view = model_view(resource, pods, datetime.now().astimezone())
        if display:
            versions = story.version_of(resource.get("status", {}))
            display.update(
                Group(
                    Panel(self.chapter, border_style="cyan"),
                    tree(view, self.console.width),
                    Text(),
                    account_table(account, versions),
                )
            )
            return
        for line in changes(self.before, view):
            self.say(escape(line))
        self.before = view


class Watcher:
    """Reads the rollout as anybody with kubectl could."""

    def __init__(self, kubeconfig: Path) -> None:
        api = config.new_client_from_config(str(kubeconfig))
        self._custom = client.CustomObjectsApi(api)
        self._api = api

    def resource(self) -> dict[str, Any]:
        """The ModelDeployment."""
        group, version = API_VERSION.split("/")
        found: dict[str, Any] = self._custom.get_namespaced_custom_object(
            group, version, story.NAMESPACE, PLURAL, story.NAME, _request_timeout=10
        )
        return found

    def pods(self) -> list[dict[str, Any]]:
        """Its pods."""
        listed = client.CoreV1Api(self._api).list_namespaced_pod(
            story.NAMESPACE, label_selector=f"{LABEL_MODEL}={story.NAME}", _request_timeout=10
        )
        found: list[dict[str, Any]] = self._api.sanitize_for_serialization(listed)["items"]
        return found


async def _tell(
    installation: Installation, paths: dict[str, Path], digits: Any, screen: Screen
) -> Told:
    kubectl = installation.kubectl
    watcher = Watcher(kubectl.kubeconfig)
    account = Account()

    async def look(display: Live | None) -> dict[str, Any]:
        resource = await asyncio.to_thread(watcher.resource)
        pods = await asyncio.to_thread(watcher.pods)
        screen.show(display, resource, pods, account)
        return resource

    async def until(display: Live | None, wanted: dict[str, str]) -> dict[str, Any]:
        end = time.monotonic() + CHAPTER_TIMEOUT
        while True:
            resource = await look(display)
            if story.settled(resource.get("status", {}), wanted):
                return resource
            if time.monotonic() > end:
                raise TimeoutError(
                    f"after {CHAPTER_TIMEOUT:.0f} s the cohorts are not at {wanted}; "
                    f"status: {resource.get('status', {}).get('message')}"
                )
            await asyncio.sleep(LOOK_EVERY)

    with screen.live() as display:
        screen.begin(story.CHAPTERS["v1"])
        await asyncio.to_thread(kubectl.apply, story.deployment(paths["v1"]))
        await until(display, {story.SINGLES: "v1", story.BATCHERS: "v1"})
        async with _clients(installation, digits, account):
            for version, wanted in story.ENDS.items():
                await asyncio.sleep(2)
                screen.begin(story.CHAPTERS[version])
                await asyncio.to_thread(kubectl.apply, story.deployment(paths[version]))
                await until(display, wanted)
            await asyncio.sleep(2)
        resource = await look(display)
    return Told(account, resource, _time_to_rollback(account, resource))


@contextlib.asynccontextmanager
async def _clients(
    installation: Installation, digits: Any, account: Account
) -> AsyncIterator[None]:
    traffic = Traffic(
        installation.gateway_url, story.NAMESPACE, story.NAME, story.GROUPS, digits, account=account
    )
    async with traffic:
        yield


def _time_to_rollback(account: Account, resource: dict[str, Any]) -> float | None:
    versions = story.version_of(resource["status"])
    for (cohort, revision), first in account.first_refused.items():
        if cohort == story.BATCHERS and versions.get(revision) == "v3":
            return account.last_refused[cohort, revision] - first
    return None


def _conclude(installation: Installation, told: Told, console: Console) -> int:
    versions = story.version_of(told.resource["status"])
    console.print("\n[bold]$ kubectl get mdep[/]")
    console.print(
        installation.kubectl("get", "mdep"), markup=False, highlight=False, soft_wrap=True, end=""
    )
    console.print("\n[bold]$ kubectl kohort why digits[/]")
    console.print(installation.kubectl("kohort", "why", story.NAME), highlight=False, end="")
    console.print("\n[bold]The clients' own account of every request[/]")
    console.print(account_table(told.account, versions))
    if told.rolled_back_after is not None:
        console.print(
            f"The batchers' last failure came {told.rolled_back_after:.1f} s after their first; "
            f"{told.account.refused(story.BATCHERS)} of {told.account.total} requests failed, all of them "
            "batchers' own on v3.",
            highlight=False,
        )
    faults = story.faults(told.account, versions, told.resource["status"])
    for fault in faults:
        console.print(f"[bold red]not as told:[/] {fault}", highlight=False)
    if not faults:
        console.print(
            f"[bold green]As told:[/] {told.account.total} requests, none lost, none misrouted.",
            highlight=False,
        )
    return 1 if faults else 0


def account_table(account: Account, versions: dict[str, str]) -> RenderableType:
    """Requests by cohort, revision and outcome, with how many images were told right."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("cohort", "revision", "answered", "refused", "lost", "images told right"):
        table.add_column(title, justify="left" if title in ("cohort", "revision") else "right")
    places = {(c, r) for c, r, _ in account.counts}
    for cohort, revision in sorted(places, key=lambda p: (p[0], versions.get(p[1], "?"))):
        images = account.images[cohort, revision]
        right = f"{account.correct[cohort, revision] / images:.1%} of {images:,}" if images else "-"
        row = [account.counts[cohort, revision, outcome] for outcome in Outcome]
        style = "red" if row[1] or row[2] else ""
        label = versions.get(revision, revision) or "none"
        table.add_row(cohort, label, *(f"{n:,}" for n in row), right, style=style)
    return table
