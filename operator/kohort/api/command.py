"""What people tell a rollout to do: one line of text in an annotation, carried out once.

``VERB [COHORT] [KEY=VALUE …]``, split like a shell's words; without a cohort it means all of them. A
line is carried out when it differs from the one before: ``id=…`` tells two equal wishes apart.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from enum import StrEnum

from msgspec import Struct

ANNOTATION_COMMAND = "kohort.dev/command"
LONGEST = 1024
NEXT, ALL = "next", "all"


class Verb(StrEnum):
    """What a person may ask for."""

    PAUSE = "pause"  # hold where it is, until resume
    RESUME = "resume"
    PROMOTE = "promote"  # leave the present step, or all of them, whatever is awaited
    ABORT = "abort"  # back to stable, and stay there
    RETRY = "retry"  # try again what went back
    UNDO = "undo"  # serve a revision that is kept, whatever the spec asks for, until that changes
    RESTART = "restart"  # fresh pods of the same revisions, a few at a time


FOR_ALL_COHORTS = frozenset({Verb.UNDO, Verb.RESTART})
"""Verbs that concern the whole ModelDeployment and take no cohort."""


class CommandError(ValueError):
    """A line that cannot be carried out; the message says what to write instead."""


class Command(Struct, frozen=True, kw_only=True):
    """One wish. ``cohort``: empty for all. ``to``: ``next`` or ``all`` for promote, a revision
    (``v2`` or its name; empty: the one before) for undo. ``by``, ``why``: for the record."""

    verb: Verb
    cohort: str = ""
    to: str = ""
    by: str = ""
    why: str = ""
    id: str = ""

    def line(self) -> str:
        """The text for the annotation."""
        words = [self.verb.value, *([self.cohort] if self.cohort else [])]
        words += [f"{key}={getattr(self, key)}" for key in _KEYS if getattr(self, key)]
        return shlex.join(words)


_KEYS = ("to", "by", "why", "id")
_COHORT = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def command_id(line: str) -> str:
    """Names a line: ``id=…`` if it has a readable one, else a hash of it; empty for an empty line."""
    if not line.strip():
        return ""
    try:
        given = parse_command(line).id
    except CommandError:
        given = ""
    return given[:64] or hashlib.sha256(line.encode()).hexdigest()[:16]


def parse_command(line: str) -> Command:
    """Read a line.

    Raises:
        CommandError: it is no command.
    """
    if len(line) > LONGEST:
        raise CommandError(f"a command has at most {LONGEST} characters")
    try:
        first, *rest = shlex.split(line) or [""]
    except ValueError as error:
        raise CommandError(f"{error}: close every quote") from error
    try:
        verb = Verb(first)
    except ValueError as error:
        known = ", ".join(verb.value for verb in Verb)
        raise CommandError(f'"{first}" is no command; there is: {known}') from error
    return _checked(verb, *_arguments(verb, rest))


def _arguments(verb: Verb, words: list[str]) -> tuple[str, dict[str, str]]:
    """The cohort, and what was given by key."""
    cohort, given = "", dict[str, str]()
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            if cohort or not _COHORT.fullmatch(word):
                raise CommandError(
                    f'"{word}" is not understood; write {verb} [COHORT] [KEY=VALUE …]'
                )
            cohort = word
        elif key not in _KEYS or key in given:
            problem = "stands twice" if key in given else f"is no key; there is: {', '.join(_KEYS)}"
            raise CommandError(f'"{key}" {problem}')
        else:
            given[key] = value
    return cohort, given


def _checked(verb: Verb, cohort: str, given: dict[str, str]) -> Command:
    to = given.get("to", "")
    if cohort and verb in FOR_ALL_COHORTS:
        raise CommandError(f"{verb} concerns all cohorts; leave out {cohort}")
    if verb is Verb.PROMOTE and to not in ("", NEXT, ALL):
        raise CommandError(f'to={to} is not understood; promote goes to "{NEXT}" or "{ALL}"')
    if to and verb not in (Verb.PROMOTE, Verb.UNDO):
        raise CommandError(f"{verb} takes no to=")
    if verb is Verb.PROMOTE and not to:
        given = {**given, "to": NEXT}
    return Command(verb=verb, cohort=cohort, **given)
