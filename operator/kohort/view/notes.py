"""What concerns a whole rollout and no cohort tells."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from kohort.api.status import CommandStatus
from kohort.view.rollout import ModelView
from kohort.view.words import clock, parse_time


class Tone(StrEnum):
    """How a note is meant."""

    PLAIN = "plain"
    ASIDE = "aside"
    CARE = "care"
    HELD = "held"
    REFUSED = "refused"


class Note(NamedTuple):
    """A line, and how it is meant."""

    text: str
    tone: Tone


def notes(view: ModelView) -> list[Note]:
    """The message, what a person holds or wants, and what became of the newest command."""
    told = [Note(view.own_message, Tone.PLAIN)] if view.own_message else []
    if not view.seen:
        told.append(Note("The operator has not taken in the latest spec yet.", Tone.CARE))
    if view.held:
        since = f" since {clock(view.paused_since, view.now)}" if view.paused_since else ""
        told.append(Note(f"held{since}, until kubectl kohort resume {view.name}", Tone.HELD))
    if view.instead_of:
        undone = (
            f"a person undid {view.instead_of}, which the spec asks for, and wants {view.desired}"
        )
        told.append(Note(undone, Tone.CARE))
    if view.waiting:
        told.append(Note(f"waits for Kohort to {view.waiting}", Tone.CARE))
    elif view.command:
        told.append(_newest_command(view.command, view.now))
    return told


def _newest_command(command: CommandStatus, now: datetime) -> Note:
    """``pause staff at 10:41:07: staff is held (asked for by anna)``; refused ones stand out."""
    at = parse_time(command.at)
    told = f"{command.line}{f' at {clock(at, now)}' if at else ''}"
    if command.accepted:
        return Note(f"{told}: {command.message}", Tone.ASIDE)
    return Note(f"{told}: refused: {command.message}", Tone.REFUSED)
