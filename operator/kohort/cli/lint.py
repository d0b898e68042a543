"""``lint``: what is wrong with ModelDeployments in files, and what could be better; needs no cluster."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from kohort.api.spec import Spec
from kohort.cli import schema
from kohort.cli.advice import advice
from kohort.cli.documents import Document, DocumentError, read
from kohort.cli.options import add_command
from kohort.contract import API_VERSION
from kohort.view.words import plural

ERROR, ADVICE = "error", "advice"


@dataclass(frozen=True)
class Remark:
    """A line of ``lint``: where, whether it is an error, and what to do."""

    place: str
    kind: str
    message: str


def add_commands(commands: Any, shared: list[argparse.ArgumentParser]) -> None:
    """Adds ``lint``."""
    parser = add_command(
        commands,
        shared,
        "lint",
        _lint,
        help="check files, with advice; needs no cluster",
        description="Checks ModelDeployments as the API server would, and gives advice. Documents of other\n"
        "kinds are passed over. Exits with 1 when there is an error; with --strict also when\n"
        "there is advice.",
        examples=(
            "kubectl kohort lint burger.yaml",
            "helm template . | kubectl kohort lint --strict -",
        ),
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="files, or - for standard input")
    parser.add_argument("--strict", action="store_true", help="advice counts as an error")


def _lint(options: argparse.Namespace) -> int:
    documents = [document for file in options.files for document in read(file)]
    if not documents:
        raise DocumentError(f"there is no ModelDeployment of {API_VERSION} in these files")
    remarks = [remark for document in documents for remark in lint(document)]
    for remark in remarks:
        print(f"{remark.place}: {remark.kind}: {remark.message}")
    errors = sum(remark.kind == ERROR for remark in remarks)
    if not remarks:
        print(f"{plural(len(documents), 'ModelDeployment')}: nothing to say")
    return int(bool(remarks if options.strict else errors))


def lint(document: Document) -> Iterator[Remark]:
    """Errors, or advice where there is none."""
    found, spec = checked(document)
    kind = ERROR
    if spec is not None:
        found, kind = list(advice(spec)), ADVICE
    for problem in found:
        text = f"{problem.path}: {problem.message}" if problem.path else problem.message
        yield Remark(document.place(problem.path), kind, text)


def checked(document: Document) -> tuple[list[schema.Problem], Spec | None]:
    """Errors of a document, and its spec with all defaults if there is none."""
    found = [schema.Problem(path, "stands there twice") for path in document.twice]
    if document.value.get("apiVersion") != API_VERSION:
        return [schema.Problem("apiVersion", f"this version knows {API_VERSION} alone")], None
    if not document.name:
        found.append(schema.Problem("metadata", "a name is missing"))
    root = schema.schema()
    value = schema.defaulted(document.value, root)
    found += schema.problems(value, root)
    if found:
        return found, None
    try:
        return [], msgspec.convert(value["spec"], Spec)
    except msgspec.ValidationError as error:
        return [schema.Problem("spec", str(error))], None
