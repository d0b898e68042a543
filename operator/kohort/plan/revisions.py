"""Which revisions there are: what the spec asks for, what is still used, what history keeps."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import msgspec
from msgspec import structs

from kohort.analysis.timestamps import to_time
from kohort.api.spec import Spec
from kohort.api.status import RevisionStatus, Status
from kohort.plan.context import Context, Draft, label, normal, referenced, warning


def revision_data(spec: Spec) -> dict[str, Any]:
    """What decides an answer: the content of a revision. Defaults are left out, so that a field that
    a later version adds makes no new revision."""
    data: dict[str, Any] = {
        "model": _said(spec.model),
        "engine": _said(spec.engine),
        # Where GPUs come from during a rollout decides no answer.
        "gpu": spec.gpu and {k: v for k, v in _said(spec.gpu).items() if k != "capacity"},
        "template": spec.template,
    }
    return data


def _said(node: msgspec.Struct) -> dict[str, Any]:
    """A node as YAML has it, without what would be so anyway.

    msgspec's own omission compares objects, not values: a string that was read is never the default.
    """
    told: dict[str, Any] = {}
    for name, written, default in _fields(type(node)):
        value = getattr(node, name)
        if value != default:
            nested = isinstance(value, msgspec.Struct)
            told[written] = _said(value) if nested else msgspec.to_builtins(value)
    return told


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[tuple[str, str, Any], ...]:
    """Names of a node's fields, in Python and in YAML, and their defaults."""
    return tuple(
        (
            field.name,
            field.encode_name,
            field.default
            if field.default_factory is msgspec.NODEFAULT
            else field.default_factory(),
        )
        for field in structs.fields(kind)
    )


def revision_name(name: str, spec: Spec) -> str:
    """The name of the revision that a spec asks for: the ModelDeployment's name and a content hash."""
    content = msgspec.json.encode(revision_data(spec), order="sorted")
    return f"{name}-{hashlib.sha256(content).hexdigest()[:8]}"


def asked_for(context: Context) -> str:
    """The name of the revision that the spec asks for."""
    return revision_name(context.identity.name, context.spec)


def ask(context: Context, draft: Draft) -> Draft:
    """Take what the spec asks for as desired, unless a person wants another revision over it; a new wish
    clears what cohorts rejected."""
    desired = asked_for(context)
    pinned = draft.status.pinned
    if pinned:
        gone = pinned not in context.world.recorded and pinned not in context.world.capacity
        if draft.status.pinned_over == desired and not gone:
            return draft
        draft = draft.with_status(pinned="", pinned_over="")
        if gone:
            told = f"{label(draft.status, pinned)} is on record no more: the spec counts again"
            draft = draft.telling(warning("UndoLost", told))
    status = draft.status
    if desired == status.desired:
        return draft
    kept = tuple(r for r in status.revisions if not _never_came_to_be(context, status, r.name))
    known = any(r.name == desired for r in kept)
    draft = draft.with_status(
        desired=desired,
        revisions=kept
        if known
        else (*kept, _new_revision(context, status, desired, context.spec.model.uri)),
        cohorts=tuple(structs.replace(c, rejected="") for c in status.cohorts),
    )
    if not status.desired:
        return draft  # a first revision is told of when it serves
    told = f"{label(draft.status, desired)} ({desired}) is {context.spec.model.uri}"
    return draft.telling(normal("RevisionWanted", told))


def adopt(context: Context, draft: Draft) -> Draft:
    """Take into status what exists without it, so that it leaves by the same way as the rest."""
    known = {r.name for r in draft.status.revisions}
    unknown = sorted((context.world.recorded.keys() | context.world.capacity.keys()) - known)
    for name in unknown:
        revision = _new_revision(context, draft.status, name, uri="")
        draft = draft.with_status(revisions=(*draft.status.revisions, revision))
    return draft


def forget(context: Context, draft: Draft) -> Draft:
    """Drop from status the revisions beyond the history limit that are gone from the cluster."""
    world = context.world
    beyond = {
        name
        for name in beyond_history(context, draft.status)
        if name not in world.recorded and name not in world.capacity
    }
    if not beyond:
        return draft
    return draft.with_status(
        revisions=tuple(r for r in draft.status.revisions if r.name not in beyond)
    )


def beyond_history(context: Context, status: Status) -> tuple[str, ...]:
    """Revisions that nobody uses and that history has no room for, oldest first."""
    former = {c.former for c in status.cohorts}
    needed = referenced(status) | former | {status.desired, status.pinned_over}
    unneeded = sorted((r for r in status.revisions if r.name not in needed), key=lambda r: r.number)
    beyond = max(0, len(status.revisions) - context.spec.history_limit)
    return tuple(r.name for r in unneeded[:beyond])


def _never_came_to_be(context: Context, status: Status, name: str) -> bool:
    """Whether a revision was wanted for a moment only: not recorded, no pods, nobody refers to it."""
    return (
        name == status.desired
        and name not in context.world.recorded
        and name not in context.world.capacity
        and name not in referenced(status)
    )


def _new_revision(context: Context, status: Status, name: str, uri: str) -> RevisionStatus:
    return RevisionStatus(
        name=name, number=_number(context, status, name), uri=uri, created_at=to_time(context.now)
    )


def _number(context: Context, status: Status, name: str) -> int:
    """The number on record; else one that neither status nor a record has told yet."""
    recorded, told = context.world.recorded, {r.number for r in status.revisions}
    number = recorded.get(name, 0)
    if number > 0 and number not in told:
        return number
    return max((*told, *recorded.values()), default=0) + 1
