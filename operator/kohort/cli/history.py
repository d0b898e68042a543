"""``history``: which revisions there were, who ran them and why not any more, and who decided what."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from kohort.api.status import Decision, Status
from kohort.cli.options import add_command, connect
from kohort.cli.terminal import now, print_data, show, terminal
from kohort.view.rollout import Resource, read_status
from kohort.view.words import clean, clock, parse_time, uri_tail

KOHORT = "Kohort"  # who decides when no person does
_ENDED = {
    "RolledBack": "rolled back",
    "Aborted": "aborted",
    "Superseded": "given up",
}


@dataclass(frozen=True)
class Ended:
    """Why one cohort's clients have a revision no more."""

    cohort: str
    how: str
    at: str


@dataclass(frozen=True)
class Kept:
    """One revision. ``cohorts`` have it now; ``undo`` says that ``undo --to`` can bring it back."""

    label: str
    name: str
    uri: str
    created_at: str
    cohorts: tuple[str, ...]
    ended: tuple[Ended, ...]
    undo: bool


@dataclass(frozen=True)
class Entry:
    """One decision of a cohort; ``revision`` is a label such as v2."""

    at: str
    cohort: str
    action: str
    revision: str
    by: str
    why: str
    message: str


@dataclass(frozen=True)
class History:
    """Revisions by number, and decisions in the order of time."""

    name: str
    revisions: tuple[Kept, ...]
    decisions: tuple[Entry, ...]


def add_commands(commands: Any, shared: list[argparse.ArgumentParser]) -> None:
    """Adds ``history``."""
    parser = add_command(
        commands,
        shared,
        "history",
        _history,
        help="show revisions, and who decided what",
        description="The revisions on record: which cohorts have each of them, and why others have it no\n"
        "more. Then the decisions of all cohorts, oldest first, with who and why.",
        examples=("kubectl kohort history burger", "kubectl kohort history burger -o json"),
    )
    parser.add_argument("name", metavar="NAME", help="name of a ModelDeployment")
    parser.add_argument("-o", "--output", choices=["json", "yaml"], help="print it for programs")


def _history(options: argparse.Namespace) -> int:
    told = history(connect(options).get(options.name))
    if options.output:
        print_data(told, options.output)
    else:
        show(*pages(told, now(), terminal().width))
    return 0


def history(resource: Resource) -> History:
    """The history of a ModelDeployment."""
    status = read_status(resource)
    labels = {revision.name: f"v{revision.number}" for revision in status.revisions}
    entries = sorted(_entries(status, labels), key=lambda entry: entry.at)
    ended = list(_endings(entries))
    return History(
        name=clean(resource["metadata"]["name"]),
        revisions=tuple(
            Kept(
                label=labels[revision.name],
                name=clean(revision.name),
                uri=clean(revision.uri),
                created_at=revision.created_at,
                cohorts=tuple(clean(c.name) for c in status.cohorts if c.stable == revision.name),
                ended=tuple(end for label, end in ended if label == labels[revision.name]),
                undo=revision.name != status.desired,
            )
            for revision in sorted(status.revisions, key=lambda r: r.number)
        ),
        decisions=tuple(entries),
    )


def _entries(status: Status, labels: dict[str, str]) -> Iterator[Entry]:
    for cohort in status.cohorts:
        for decision in reversed(cohort.decisions):
            yield _entry(cohort.name, decision, labels)


def _entry(cohort: str, decision: Decision, labels: dict[str, str]) -> Entry:
    return Entry(
        at=decision.at,
        cohort=clean(cohort),
        action=clean(decision.action),
        revision=labels.get(decision.revision, clean(decision.revision)),
        by=clean(decision.by),
        why=clean(decision.why),
        message=clean(decision.message),
    )


def _endings(entries: list[Entry]) -> Iterator[tuple[str, Ended]]:
    """Revisions that cohorts left, as far as their decisions tell."""
    serving: dict[str, str] = {}
    for entry in entries:
        if entry.action in _ENDED:
            yield entry.revision, Ended(entry.cohort, _ENDED[entry.action], entry.at)
        if entry.action == "Promoted":
            former = serving.get(entry.cohort, entry.revision)
            if former != entry.revision:
                yield former, Ended(entry.cohort, f"replaced by {entry.revision}", entry.at)
            serving[entry.cohort] = entry.revision


def pages(told: History, at: datetime, width: int) -> list[RenderableType]:
    """A table of the revisions, how to go back, and a table of the decisions."""
    cohorts = {entry.cohort for entry in told.decisions}
    parts: list[RenderableType] = [_revisions(told, at, width)]
    if back := [revision.label for revision in told.revisions if revision.undo]:
        command = f"kubectl kohort undo {told.name} --to {back[-1]}"
        parts.append(Text(f"kept to go back to: {', '.join(back)}; as in {command}", "dim"))
    if told.decisions:
        parts += [Text(""), _decisions(told, at, len(cohorts))]
    return parts


def _revisions(told: History, at: datetime, width: int) -> Table:
    table = _table("REVISION", "CREATED", "COHORTS", "MODEL", "LEFT")
    for revision in told.revisions:
        table.add_row(
            Text(revision.label, "bold"),
            _time(revision.created_at, at),
            ", ".join(revision.cohorts),
            uri_tail(revision.uri, max(16, width // 4)),
            "; ".join(_ended(revision.ended, at)),
        )
    return table


def _ended(endings: tuple[Ended, ...], at: datetime) -> Iterator[str]:
    """Cohorts that left for the same reason at one time together."""
    together: dict[tuple[str, str], list[str]] = {}
    for ended in endings:
        together.setdefault((ended.how, _time(ended.at, at)), []).append(ended.cohort)
    for (how, time), cohorts in together.items():
        yield f"{', '.join(cohorts)}: {how} at {time}"


def _decisions(told: History, at: datetime, cohorts: int) -> Table:
    table = _table("WHEN", "COHORT", "DECISION", "BY", "WHY")
    together: dict[tuple[str, ...], list[str]] = {}
    for e in told.decisions:
        row = (_time(e.at, at), f"{e.action} {e.revision}", e.by or KOHORT, e.why or e.message)
        together.setdefault(row, []).append(e.cohort)
    for (time, decision, by, why), names in together.items():
        named = "all" if 1 < cohorts == len(names) else ", ".join(names)
        table.add_row(time, named, decision, Text(by, "dim" if by == KOHORT else "bold"), why)
    return table


def _table(*columns: str) -> Table:
    """The last column has what room is left, and wraps."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns[:-1]:
        table.add_column(column, overflow="fold")
    table.add_column(columns[-1], ratio=1)
    return table


def _time(time: str, at: datetime) -> str:
    parsed = parse_time(time)
    return clock(parsed, at) if parsed else clean(time)
