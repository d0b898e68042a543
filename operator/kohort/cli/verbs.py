"""What people tell a rollout: pause, resume, promote, abort, retry, undo, restart."""

from __future__ import annotations

import argparse
import re
import secrets
from dataclasses import dataclass
from typing import Any

from kohort.api.command import ALL, FOR_ALL_COHORTS, NEXT, Command, Verb
from kohort.api.quantity import DURATION_PATTERN, seconds
from kohort.cli.options import add_command, connect
from kohort.cli.sending import Answer, SendingError, await_answer, send
from kohort.cli.terminal import now
from kohort.view.changes import place
from kohort.view.rollout import CohortView, ModelView, model_view
from kohort.view.words import clean, stopped

LONGEST_NAME = 256  # of who asked, as status keeps it


@dataclass(frozen=True)
class Told:
    """What a verb's help says."""

    help: str
    description: str
    examples: tuple[str, ...]


VERBS = {
    Verb.PAUSE: Told(
        "hold cohorts where they are",
        "Holds one cohort, or all, where it is until resume. Its clients keep the revisions that\n"
        "they have, and evidence of harm still sends it back. spec.paused is Git's pause and another one.",
        ('pause burger eu-shops --why "incident 4711"',),
    ),
    Verb.RESUME: Told(
        "let held cohorts go on",
        "Lets one cohort, or all, go on from where it was held; held time does not count. It is\n"
        "refused while spec.paused is true: that is released where it was set.",
        ("resume burger eu-shops",),
    ),
    Verb.PROMOTE: Told(
        "go on to the next step, or through all of them",
        "Leaves the present step now, whatever it waits for, also where a pause holds. With --full\n"
        "goes through all remaining steps. Pods are there before clients come, as always.\n"
        "After an abort or a rollback it gives the revision to the cohort all the same.",
        ("promote burger eu-shops", 'promote burger --full --why "agreed with sales"'),
    ),
    Verb.ABORT: Told(
        "send cohorts back to stable, and leave them there",
        "Takes all clients of one cohort, or of all, back to the stable revision. The new one is not\n"
        "tried again until retry, promote, or another spec.",
        ('abort burger --why "wrong labels"',),
    ),
    Verb.RETRY: Told(
        "try again what went back",
        "Starts the rollout of a cohort anew that was aborted or rolled back, with other clients\n"
        "first: the salt of the split is a new one.",
        ("retry burger eu-shops",),
    ),
    Verb.UNDO: Told(
        "serve a revision that is kept",
        "Gives every cohort a revision that is kept, the one before by default, at once and without\n"
        "steps, once its pods are ready. It stays until the spec asks for something else.\n"
        "history shows which revisions are kept.",
        ("undo burger", 'undo burger --to v2 --why "back to the tuned one"'),
    ),
    Verb.RESTART: Told(
        "replace the pods, a few at a time",
        "Replaces the pods of the revisions in use by fresh ones of the same revisions, a few at a\n"
        "time, and without any client noticing.",
        ("restart burger",),
    ),
}


def add_commands(commands: Any, shared: list[argparse.ArgumentParser]) -> None:
    """Adds a command for each verb."""
    for verb, told in VERBS.items():
        parser = add_command(
            commands,
            shared,
            verb.value,
            _tell,
            help=told.help,
            description=told.description,
            examples=tuple(f"kubectl kohort {example}" for example in told.examples),
        )
        parser.set_defaults(verb=verb, cohort="", to="")
        parser.add_argument("name", metavar="NAME", help="name of a ModelDeployment")
        if verb not in FOR_ALL_COHORTS:
            parser.add_argument(
                "cohort", nargs="?", default="", metavar="COHORT", help="only this cohort"
            )
        if verb is Verb.PROMOTE:
            far = parser.add_mutually_exclusive_group()
            far.add_argument("--to", choices=[NEXT, ALL], help="how far (default: next)")
            far.add_argument("--full", action="store_const", const=ALL, dest="to", help="--to all")
        if verb is Verb.UNDO:
            parser.add_argument(
                "--to", default="", metavar="REVISION", help="v2, or its name (default: the former)"
            )
        _add_sending(parser)


def _add_sending(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--why", default="", metavar="TEXT", help="the reason, for the record")
    parser.add_argument(
        "--timeout",
        type=_patience,
        default=30.0,
        metavar="DURATION",
        help="how long to wait for Kohort to take the command (default: 30s)",
    )
    parser.add_argument(
        "--no-wait", action="store_true", help="leave the command there and do not wait"
    )


def _patience(text: str) -> float:
    if not re.fullmatch(DURATION_PATTERN, text):
        raise argparse.ArgumentTypeError(f'"{text}" is no duration such as 30s or 2m')
    return seconds(text)


def _tell(options: argparse.Namespace) -> int:
    cluster = connect(options)
    command = asked(options, by=cluster.who())
    send(cluster, options.name, command, options.timeout)
    if options.no_wait:
        print(f"left for Kohort: {command.line()}")
        return 0
    answer = await_answer(cluster, options.name, command, options.timeout)
    if not answer.accepted:
        raise SendingError(f"Kohort refuses to {command.verb}: {answer.message}")
    print("\n".join(outcome(answer, command)))
    return 0


def asked(options: argparse.Namespace, by: str) -> Command:
    """The command that a command line means; each has an id of its own."""
    return Command(
        verb=options.verb,
        cohort=options.cohort,
        to=options.to or (NEXT if options.verb is Verb.PROMOTE else ""),
        by=clean(by)[:LONGEST_NAME],
        why=clean(options.why),
        id=secrets.token_hex(8),
    )


def outcome(answer: Answer, command: Command) -> list[str]:
    """What was done, where the cohorts concerned stand now, and how to follow them."""
    view = model_view(answer.resource, (), now())
    concerned = [c for c in view.cohorts if command.cohort in ("", c.name)]
    lines = [stopped(answer.message) or f"{command.verb}: done."]
    lines += [f"  {place(cohort)}" for cohort in concerned]
    return lines if _at_rest(view, concerned) else [*lines, f"kubectl kohort get {view.name} -w"]


def _at_rest(view: ModelView, cohorts: list[CohortView]) -> bool:
    return all(c.stable == view.desired and not c.canary for c in cohorts)
