"""How a plan reads: what differs, what each cohort will do and when, and what that needs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import msgspec
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kohort.api.analysis import MetricName
from kohort.api.cohorts import Until
from kohort.api.spec import Spec
from kohort.api.status import Status
from kohort.cli.differences import Difference, differences
from kohort.cli.foresight import PROVEN, Foresight
from kohort.cli.proofs import least_requests, traffic
from kohort.plan.revisions import revision_data
from kohort.view.words import duration, plural


def report(
    ahead: Foresight, before: Spec | None, status: Status, known: bool, room: str = ""
) -> Iterator[RenderableType]:
    """The plan of one ModelDeployment. ``before``, ``status``: what is there; ``known``: whether it
    really is, or stands for a revision before of which nothing is known. ``room``: whether GPUs are
    free, in words."""
    yield Text(f"{ahead.name}: {_headline(ahead, before, status, known)}", "bold")
    if before is not None and known and status.desired:
        yield from _differences(before, ahead.asked)
    if not ahead.moves:
        return
    yield _sequence(ahead)
    yield from map(_sentence, _notes(ahead, status, room))


def _headline(ahead: Foresight, before: Spec | None, status: Status, known: bool) -> str:
    label = ahead.label(ahead.status.desired)
    if before is None or not status.desired:
        return f"{label} is its first revision and serves as soon as its pods are ready"
    if not known:
        return "how a new revision of it would roll out; nothing is known of the one before"
    if ahead.status.desired == status.desired:
        if before == ahead.asked:
            return "nothing changes"
        rest = "; what is under way goes on" if ahead.moves else ""
        return f"no new revision, no pod restarts{rest}"
    if any(r.name == ahead.status.desired for r in status.revisions):
        return f"back to {label}, which is on record"
    return f"a new revision, {label}"


def _differences(before: Spec, after: Spec) -> Iterator[RenderableType]:
    ours, theirs = revision_data(before), revision_data(after)
    makes = list(differences(ours, theirs, "spec"))
    every = differences(msgspec.to_builtins(before), msgspec.to_builtins(after), "spec")
    others = [d for d in every if not d.path.startswith(tuple(f"spec.{key}" for key in ours))]
    yield from _listed("because of", makes)
    yield from _listed("besides, without a new revision" if makes else "changed", others)


def _listed(title: str, found: list[Difference]) -> Iterator[RenderableType]:
    if found:
        yield Text(f"{title}:")
        yield from (Padding(Text(str(each)), (0, 0, 0, 2), expand=False) for each in found)


def _sequence(ahead: Foresight) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("AFTER", no_wrap=True)
    table.add_column("COHORT", overflow="fold")
    table.add_column("WHAT", ratio=1)
    for move in ahead.moves:
        table.add_row(_time(move.after, move.open), move.cohort, move.what)
    return table


def _time(after: timedelta, more: bool) -> str:
    return duration(round(after.total_seconds())) + (" +" if more else "")


def _notes(ahead: Foresight, status: Status, room: str) -> Iterator[str]:
    now, most = sum(r.replicas for r in status.revisions), sum(ahead.most_pods.values())
    if ahead.stuck:
        yield f"it comes no further than this: {ahead.stuck}"
    elif any(move.open for move in ahead.moves):
        yield (
            f"takes {_time(ahead.taken, False)}, and in addition (+) the time of proofs and people; "
            "pods have to start as well"
        )
    else:
        steps = f"{_time(ahead.taken, False)} if all goes well, and " if ahead.taken else ""
        yield f"takes {steps}the time in which pods start"
    yield from _proofs(ahead, status)
    yield f"pods: {now} now, {most} at most, {ahead.spec.replicas} in the end"
    yield from _gpus(ahead, most - now, room)
    held = [c.name for c in status.cohorts if c.held]
    if ahead.asked.paused:
        yield "the spec says paused: true, which holds all of this until it is taken out"
    elif status.held or held:
        yield f"a person holds {', '.join(held) if held else 'all of it'}: until resume, it stays where it is"


def _proofs(ahead: Foresight, status: Status) -> Iterator[str]:
    """What proofs take that are still to come, in requests and at the traffic that was last seen."""
    rolling = {move.cohort for move in ahead.moves if PROVEN in move.what}
    rates = {c.name: traffic(c) for c in status.cohorts}
    analysis = ahead.spec.analysis
    for cohort in ahead.spec.cohorts if rolling and MetricName.ERRORS in analysis.goals else ():
        for step in cohort.steps:
            if (
                cohort.name in rolling
                and step.until is Until.NON_INFERIOR
                and 0 < step.weight < 100
            ):
                least = least_requests(step.weight, analysis)
                step_told = f"the proof of {cohort.name} at {step.weight}%"
                told = f"{step_told} takes at least {least:,} of its requests"
                rate = rates.get(cohort.name, 0.0)
                time = f", {duration(least / rate)} at the traffic last seen" if rate else ""
                yield f"{told} if none fails{time}"


def _gpus(ahead: Foresight, more: int, room: str) -> Iterator[str]:
    gpu = ahead.spec.gpu
    if gpu is None or more <= 0:
        return
    pods, now = plural(more, "more pod"), f"; {room}" if room else ""
    if gpu.claim_template:
        yield f"GPUs: {pods} each need a claim of {gpu.claim_template}{now}"
        return
    kind = f" of {' or '.join(gpu.products)}" if gpu.products else ""
    yield f"GPUs: {more * gpu.count} x {gpu.resource}{kind} have to be free for {pods}{now}"


def _sentence(text: str) -> Text:
    return Text(text[0].upper() + text[1:] + ".")
