"""What the planner wants: a new status, and actions that any later pass would want again."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kohort.api.status import Status


@dataclass(frozen=True)
class RecordRevision:
    """Write the ControllerRevision: the snapshot of what decides an answer."""

    revision: str
    number: int


@dataclass(frozen=True)
class EnsureDeployment:
    """Have this many pods of a revision (server-side apply; the template comes from its record).

    ``restarted_at``: when fresh pods were last wanted; empty: never. ``spare``: whether there is room for
    the fresh ones beside those that they replace.
    """

    revision: str
    replicas: int
    restarted_at: str = ""
    spare: bool = True


@dataclass(frozen=True)
class RemoveDeployment:
    """Delete the pods of a revision that no client can reach any more; its record stays."""

    revision: str


@dataclass(frozen=True)
class RemoveRecord:
    """Delete the ControllerRevision of a revision beyond the history limit."""

    revision: str


Action = RecordRevision | EnsureDeployment | RemoveDeployment | RemoveRecord


class EventType(StrEnum):
    """The types that Kubernetes knows."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True)
class Event:
    """Something that people should read in ``kubectl describe``."""

    type: EventType
    reason: str
    message: str


@dataclass(frozen=True)
class Outcome:
    """The result of one pass.

    ``status`` is persisted *before* ``actions`` are carried out and before routes follow it, whenever
    it differs from the old one. ``wake_after``: seconds until the next pass without any event; None:
    only an event can change anything.
    """

    status: Status
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    wake_after: float | None = None
