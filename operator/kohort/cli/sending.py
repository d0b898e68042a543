"""Giving a rollout a command, and awaiting what becomes of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from kohort.api.command import ANNOTATION_COMMAND, Command, command_id, parse_command
from kohort.cli.cluster import Cluster, ConflictError, NotFoundError
from kohort.view.rollout import Resource, command_line, read_status, waiting

T = TypeVar("T")


class SendingError(Exception):
    """A command that was not carried out, or not to anybody's knowledge; the message says why."""


@dataclass(frozen=True)
class Answer:
    """What Kohort made of a command, and the ModelDeployment right then."""

    accepted: bool
    message: str
    resource: Resource


def send(cluster: Cluster, name: str, command: Command, patience: float) -> None:
    """Writes the command into the annotation, after the one that may still wait there.

    Raises:
        CommandError: it is no command that Kohort would understand.
        SendingError: another command is still waiting after ``patience`` seconds.
    """
    line = command.line()
    parse_command(line)  # rather refused here than by the operator, a while later
    until = time.monotonic() + patience
    while True:
        resource = cluster.get(name)
        if before := waiting(resource):
            _await_command_before(cluster, name, before, until)
            continue
        # Without the version two people's commands could replace one another unseen.
        metadata = {
            "annotations": {ANNOTATION_COMMAND: line},
            "resourceVersion": resource["metadata"]["resourceVersion"],
        }
        try:
            cluster.patch(name, {"metadata": metadata})
            return
        except ConflictError as error:
            if time.monotonic() > until:
                raise SendingError(f"{name} changes faster than it can be told: {error}") from None


def await_answer(cluster: Cluster, name: str, command: Command, patience: float) -> Answer:
    """What Kohort makes of a command that was sent.

    Raises:
        SendingError: nothing within ``patience`` seconds, or another command came in between.
    """
    until = time.monotonic() + patience
    answered = _seen(cluster, name, lambda resource: answer(resource, command), until)
    if answered is None:
        raise SendingError(
            f"Kohort has not answered within {patience:.0f} s. The command stays in {name} and is "
            f"carried out once the operator runs; to take it back: {_taking_back(cluster, name)}"
        )
    return answered


def answer(resource: Resource, command: Command) -> Answer | None:
    """What a ModelDeployment tells of a command; None while it waits.

    Raises:
        SendingError: another command stands in its place.
    """
    told = read_status(resource).command
    if told and told.id == command.id:
        return Answer(told.accepted, told.message, resource)
    line = command_line(resource)
    if command_id(line) == command.id:
        return None
    overtaken = f'another command came before Kohort answered: "{line}"'
    withdrawn = "the command was taken back before Kohort answered"
    raise SendingError(
        f"{overtaken if line else withdrawn}. Whether yours was carried out stands in: "
        f"kubectl kohort history {resource['metadata']['name']}"
    )


def _await_command_before(cluster: Cluster, name: str, before: str, until: float) -> None:
    if _seen(cluster, name, lambda resource: waiting(resource) != before or None, until) is None:
        raise SendingError(
            f'an earlier command still waits for Kohort: "{before}". Is its operator running? To put '
            f"yours in its place: {_taking_back(cluster, name)}, and again"
        )


def _seen(
    cluster: Cluster, name: str, look: Callable[[Resource], T | None], until: float
) -> T | None:
    """The first that ``look`` finds in the ModelDeployment as it changes; None when time is over."""
    while (left := until - time.monotonic()) > 0:
        for found in cluster.watch_models(name, seconds=max(1, round(left))):
            if not found:
                raise NotFoundError(f"{name} was deleted")
            if (value := look(found[0])) is not None:
                return value
            if time.monotonic() > until:
                break
    return None


def _taking_back(cluster: Cluster, name: str) -> str:
    return f"kubectl annotate -n {cluster.namespace} mdep {name} {ANNOTATION_COMMAND}-"
