"""``plan``: what an edited file would do, before it is applied."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import structs

from kohort.api.model import Model
from kohort.api.spec import Spec
from kohort.api.status import Status
from kohort.cli.cluster import (
    APPLY_PATCH,
    MERGE_PATCH,
    Cluster,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    UnreachableError,
    not_found,
)
from kohort.cli.differences import three_way_patch
from kohort.cli.documents import Document, DocumentError, read
from kohort.cli.foresight import Foresight, released, serving
from kohort.cli.lint import checked
from kohort.cli.options import add_command
from kohort.cli.previewing import report
from kohort.cli.room import room_told
from kohort.cli.terminal import show
from kohort.contract import API_VERSION
from kohort.view.rollout import Resource, read_status

ROLLS_OUT = 2  # the exit code that tells CI that a rollout would start
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
# Of a rollout about which nothing is known: the model of the revision before.
SOME_OTHER_MODEL = Model(uri="file:///the-revision-before")


@dataclass(frozen=True)
class Present:
    """What is there before the edit. ``known``: whether it is what is really there, or just an example
    of a revision before. ``room``: for how many more pods there are GPUs, in words."""

    spec: Spec | None
    status: Status
    generation: int
    known: bool = True
    room: str = ""


def add_commands(commands: Any, shared: list[argparse.ArgumentParser]) -> None:
    """Adds ``plan``."""
    parser = add_command(
        commands,
        shared,
        "plan",
        _plan,
        help="tell what an edited file would do, before it is applied",
        description="Tells whether a file makes a new revision and because of which fields, what each\n"
        "cohort would do and how long it would take if all goes well, and which pods and GPUs\n"
        "that needs. Nothing is changed. The cluster is asked what it would make of the file; without\n"
        "one, or with --offline, the file itself is judged.\n\n"
        "Exits with 0, with 1 when the file would be refused, and with --exit-code with 2 when a\n"
        "rollout would start.",
        examples=(
            "kubectl kohort plan -f burger.yaml",
            "git show main:burger.yaml > /tmp/former.yaml\n"
            "  kubectl kohort plan --offline -f burger.yaml --from /tmp/former.yaml --exit-code",
        ),
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="only this one of the file")
    parser.add_argument(
        "-f", "--filename", required=True, metavar="FILE", help="the edited file, or - for stdin"
    )
    parser.add_argument(
        "--from",
        dest="former",
        metavar="FILE",
        help="the file as it was: what it asked for serves everybody (with --offline)",
    )
    parser.add_argument("--offline", action="store_true", help="ask no cluster")
    parser.add_argument(
        "--exit-code", action="store_true", help=f"exit with {ROLLS_OUT} if a rollout would start"
    )


def _plan(options: argparse.Namespace) -> int:
    if options.former and not options.offline:
        options.usage_error("--from stands for what is in the cluster: use it with --offline")
    edited = _documents(options.filename, options.name)
    former = _documents(options.former, None) if options.former else []
    rolls_out = False
    for number, document in enumerate(edited):
        if number:
            print()
        spec, present = _asked(options, document, former)
        began = datetime.now(UTC).replace(microsecond=0)
        ahead = _ahead(document.name, spec, present, began)
        rolls_out |= ahead.status.desired != present.status.desired
        show(*report(ahead, present.spec, present.status, present.known, present.room))
    return ROLLS_OUT if options.exit_code and rolls_out else 0


def _documents(file: str, name: str | None) -> list[Document]:
    found = read(file)
    if not found:
        raise DocumentError(f"{file}: there is no ModelDeployment of {API_VERSION} in it")
    chosen = [document for document in found if name in (None, document.name)]
    if name and not chosen:
        names = [document.name for document in found]
        raise DocumentError(not_found("ModelDeployment", name, names, file))
    return chosen


def _asked(
    options: argparse.Namespace, document: Document, former: list[Document]
) -> tuple[Spec, Present]:
    """What the file asks for, and what is there: of the cluster, else of files."""
    spec = _checked(document)
    if not options.offline:
        try:
            return _from_cluster(options, document, spec)
        except (UnreachableError, ForbiddenError) as error:
            print(f"planned without the cluster: {error}", file=sys.stderr)
    before = next((d for d in former if d.name == document.name), None)
    if former and before is None:
        return spec, Present(None, Status(), 0)
    other = _checked(before) if before else structs.replace(spec, model=SOME_OTHER_MODEL)
    began = datetime.now(UTC).replace(microsecond=0)
    world = serving(document.name, other, began)
    return spec, Present(other, world.status, 1, known=before is not None)


def _checked(document: Document) -> Spec:
    """The spec of a file without an error."""
    problems, spec = checked(document)
    if spec is None:
        told = (f"{document.place(p.path)}: {p.path}: {p.message}" for p in problems)
        raise DocumentError("this would be refused:\n  " + "\n  ".join(told))
    return spec


def _from_cluster(
    options: argparse.Namespace, document: Document, spec: Spec
) -> tuple[Spec, Present]:
    """The spec as the cluster makes it of the file, where it may be asked, and what is there."""
    metadata = document.value.get("metadata", {})
    namespace = options.namespace or metadata.get("namespace")
    cluster = Cluster(options.kubeconfig, options.context, namespace)
    live: Resource | None
    try:
        live = cluster.get(document.name)
    except NotFoundError:
        live = None
    try:
        result = cluster.dry_run(document.name, *_patch(document.value, live))
        spec = msgspec.convert(result["spec"], Spec)
    except InvalidError as error:
        raise DocumentError(f"this would be refused: {error}") from None
    except ForbiddenError as error:  # who may read only still sees what is there
        print(f"the cluster was not asked what it makes of the file: {error}", file=sys.stderr)
    room = room_told(cluster, spec.gpu)
    if live is None:
        return spec, Present(None, Status(), 0, room=room)
    generation = int(live["metadata"].get("generation", 1))
    former = msgspec.convert(live["spec"], Spec)
    return spec, Present(former, read_status(live), generation, room=room)


def _patch(wanted: Resource, live: Resource | None) -> tuple[Resource, str]:
    """What ``kubectl apply`` would send: by the annotation of its older kind where that is in use."""
    last = (live["metadata"].get("annotations") or {}).get(LAST_APPLIED) if live else None
    if live is None or last is None:
        return wanted, APPLY_PATCH
    return three_way_patch(json.loads(last), wanted, live), MERGE_PATCH


def _ahead(name: str, spec: Spec, present: Present, began: datetime) -> Foresight:
    """The rollout to come, as it goes once nobody holds it."""
    changed = present.spec != spec
    ahead = Foresight(name, spec, released(present.status), began, present.generation + changed)
    ahead.run()
    return ahead
