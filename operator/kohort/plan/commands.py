"""What people ask for by hand: carried out once, put on record, and overruled by nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from msgspec import structs

from kohort.analysis.timestamps import to_time
from kohort.api.command import ALL, Command, CommandError, Verb, command_id, parse_command
from kohort.api.spec import OnFailure
from kohort.api.status import CohortPhase, CohortStatus, CommandStatus, Status, Urged
from kohort.plan.context import Context, Draft, cut, decided, label, normal, warning
from kohort.plan.revisions import asked_for


def obey(context: Context, draft: Draft) -> Draft:
    """Carry out a command that is not the newest one known, or say why not."""
    line = context.world.command
    name = command_id(line)
    known = draft.status.command
    if not name or (known is not None and known.id == name):
        return draft
    accepted = False
    try:
        command = parse_command(line)
        draft, told = _VERBS[command.verb](_Asked(context, draft, command))
        accepted = True
        told += f" (asked for by {command.by})" if command.by else ""
        event = normal("CommandCarriedOut", told)
    except CommandError as error:
        told = str(error)
        event = warning("CommandRefused", f"{told}: {line}")
    answer = CommandStatus(
        id=name,
        line=cut(line),
        at=to_time(context.now),
        accepted=accepted,
        message=cut(told),
    )
    return draft.with_status(command=answer).telling(event)


@dataclass(frozen=True)
class _Asked:
    """A command beside what it is about."""

    context: Context
    draft: Draft
    command: Command

    @property
    def status(self) -> Status:
        return self.draft.status

    @property
    def time(self) -> str:
        return to_time(self.context.now)

    def label(self, revision: str) -> str:
        return label(self.status, revision)

    def cohorts(self) -> tuple[CohortStatus, ...]:
        """The cohorts that are meant."""
        known = {c.name: c for c in self.status.cohorts}
        names = [c.name for c in self.context.spec.cohorts if c.name in known]
        if not self.command.cohort:
            return tuple(known[name] for name in names)
        if self.command.cohort not in names:
            raise CommandError(
                f"there is no cohort {self.command.cohort}; there is: {', '.join(names)}"
            )
        return (known[self.command.cohort],)

    def on_record(
        self, cohort: CohortStatus, action: str, revision: str, told: str
    ) -> CohortStatus:
        """The cohort with a decision of the person who asked."""
        command = self.command
        return decided(cohort, action, revision, self.time, told, command.by, command.why)

    def changed(self, *cohorts: CohortStatus) -> Draft:
        """The draft with these cohorts in the place of their namesakes."""
        new = {c.name: c for c in cohorts}
        return self.draft.with_status(
            cohorts=tuple(new.get(c.name, c) for c in self.status.cohorts)
        )


def _pause(asked: _Asked) -> tuple[Draft, str]:
    meant = [c for c in asked.cohorts() if not c.held]
    if asked.status.held or not meant:
        raise CommandError("it is held already")
    held = [asked.on_record(c, "Held", c.canary or c.stable, "held where it is") for c in meant]
    if not asked.command.cohort:
        return asked.changed(*held).with_status(held=True), "every cohort is held where it is"
    return asked.changed(*(structs.replace(c, held=True) for c in held)), f"{_names(held)} is held"


def _resume(asked: _Asked) -> tuple[Draft, str]:
    if asked.context.spec.paused:
        raise CommandError("the spec says paused: true; take it out there, or promote step by step")
    whole = not asked.command.cohort
    if asked.status.held and not whole:
        raise CommandError("the whole rollout is held; resume it without naming a cohort")
    meant = [c for c in asked.cohorts() if c.held or asked.status.held]
    if not meant:
        raise CommandError("nothing is held")
    free = [
        structs.replace(asked.on_record(c, "Released", c.canary or c.stable, "goes on"), held=False)
        for c in meant
    ]
    draft = asked.changed(*free)
    return (draft.with_status(held=False) if whole else draft), f"{_names(free)} may go on"


def _promote(asked: _Asked) -> tuple[Draft, str]:
    status = asked.status
    meant = [c for c in asked.cohorts() if not _arrived(status, c)]
    if not meant:
        raise CommandError(f"it is on {asked.label(status.desired)} already")
    if any(not c.stable for c in meant):
        raise CommandError(
            "a first revision serves as soon as its pods are ready; there is no step"
        )
    if asked.command.to == ALL:
        urged = [_urged_through(asked, c) for c in meant]
        return asked.changed(*urged), (
            f"{_names(urged)} goes to {asked.label(status.desired)} as soon as its pods are ready"
        )
    urged = [_urged_on(asked, c) for c in meant]
    return asked.changed(*urged), f"{_names(urged)} goes on to the next step"


def _urged_on(asked: _Asked, cohort: CohortStatus) -> CohortStatus:
    """On to the next step: the one after that on which its clients are, else the first."""
    desired = asked.status.desired
    steps = next(s.stages for s in asked.context.spec.cohorts if s.name == cohort.name)
    on_step = cohort.canary == desired and cohort.step < len(steps)
    begun = on_step and cohort.step_started_at is not None
    told = f"left step {cohort.step + 1} of {len(steps)}" if begun else "does not wait"
    return structs.replace(
        asked.on_record(cohort, "StepSkipped", desired, told),
        step=cohort.step + 1 if begun else cohort.step,
        step_started_at=None if begun else cohort.step_started_at,
        rejected="",
        urged=Urged.NEXT,
    )


def _urged_through(asked: _Asked, cohort: CohortStatus) -> CohortStatus:
    """Through all steps. What was seen so far stays on record and decides nothing any more."""
    steps = next(s.stages for s in asked.context.spec.cohorts if s.name == cohort.name)
    desired = asked.status.desired
    told = f"left all {len(steps)} steps"
    return structs.replace(
        asked.on_record(cohort, "StepSkipped", desired, told),
        step=len(steps) if cohort.canary == desired else cohort.step,
        step_started_at=None,
        evidence=(),
        rejected="",
        urged=Urged.ALL,
    )


def _abort(asked: _Asked) -> tuple[Draft, str]:
    desired = asked.status.desired
    meant = [c for c in asked.cohorts() if c.canary or not _arrived(asked.status, c)]
    meant = [c for c in meant if c.stable and c.rejected != desired]
    if not meant:
        raise CommandError(
            f"there is no rollout of {asked.label(desired)} to abort; undo goes back"
        )
    back = [_aborted(asked, c) for c in meant]
    told = f"{_names(back)} stays on {_listed(asked.label(c.stable) for c in back)}"
    return asked.changed(*back), told


def _aborted(asked: _Asked, cohort: CohortStatus) -> CohortStatus:
    desired = asked.status.desired
    told = f"{asked.label(desired)} was aborted; on {asked.label(cohort.stable)}"
    return structs.replace(
        asked.on_record(cohort, "Aborted", cohort.canary or desired, told),
        canary="",
        weight=0,
        step=0,
        step_started_at=None,
        urged=None,
        rejected=desired,
        evidence=tuple(structs.replace(e, state="", slots="") for e in cohort.evidence),
        phase=CohortPhase.ROLLED_BACK,
        message=told,
    )


def _retry(asked: _Asked) -> tuple[Draft, str]:
    desired = asked.status.desired
    named = asked.cohorts()
    if asked.context.spec.on_failure is OnFailure.ROLL_BACK_ALL:
        named = asked.status.cohorts  # they went back together
    meant = [c for c in named if c.rejected == desired]
    if not meant:
        raise CommandError(
            f"nothing has sent back {asked.label(desired)}; there is nothing to retry"
        )
    again = [
        structs.replace(
            asked.on_record(c, "Retried", desired, f"tries {asked.label(desired)} again"),
            rejected="",
            phase=CohortPhase.WAITING,
            message=f"tries {asked.label(desired)} again",
        )
        for c in meant
    ]
    return asked.changed(*again), f"{_names(again)} tries {asked.label(desired)} again"


def _undo(asked: _Asked) -> tuple[Draft, str]:
    status, context = asked.status, asked.context
    target = _undo_target(asked)
    if target == status.desired and all(_arrived(status, c) for c in status.cohorts):
        raise CommandError(f"it is on {asked.label(target)} already")
    asked_for_now = asked_for(context)
    pinned = "" if target == asked_for_now else target
    told = f"back to {asked.label(target)}"
    cohorts = [
        structs.replace(asked.on_record(c, "Undone", target, told), rejected="", urged=None)
        for c in status.cohorts
    ]
    draft = asked.changed(*cohorts).with_status(
        desired=target, pinned=pinned, pinned_over=asked_for_now if pinned else ""
    )
    return draft, f"goes back to {asked.label(target)} in every cohort"


def _undo_target(asked: _Asked) -> str:
    """The revision that is meant, which has to be on record."""
    status, recorded = asked.status, asked.context.world.recorded
    kept = {r.name: f"v{r.number}" for r in status.revisions if r.name in recorded}
    if asked.command.to:
        found = [name for name, short in kept.items() if asked.command.to in (name, short)]
        if not found:
            there = ", ".join(sorted(kept.values())) or "none"
            raise CommandError(f"no revision {asked.command.to} is kept; there is: {there}")
        return found[0]
    # Clients that are not on the desired revision never left the one before.
    former = [c.former if c.stable == status.desired else c.stable for c in status.cohorts]
    former = [name for name in former if name in kept and name != status.desired]
    if not former:
        raise CommandError("no revision before this one is kept; name one with to=")
    return former[0]


def _restart(asked: _Asked) -> tuple[Draft, str]:
    if not asked.context.world.capacity:
        raise CommandError("there are no pods to restart")
    return asked.draft.with_status(restarted_at=asked.time), "its pods are replaced a few at a time"


_VERBS: Mapping[Verb, Callable[[_Asked], tuple[Draft, str]]] = {
    Verb.PAUSE: _pause,
    Verb.RESUME: _resume,
    Verb.PROMOTE: _promote,
    Verb.ABORT: _abort,
    Verb.RETRY: _retry,
    Verb.UNDO: _undo,
    Verb.RESTART: _restart,
}


def _arrived(status: Status, cohort: CohortStatus) -> bool:
    return cohort.stable == status.desired and not cohort.canary


def _names(cohorts: list[CohortStatus]) -> str:
    return ", ".join(c.name for c in cohorts)


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts))
