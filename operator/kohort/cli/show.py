"""``get`` and ``why``: where rollouts are, as a tree or a list, and in plain words."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from kohort.cli.cluster import Cluster, ForbiddenError, not_found
from kohort.cli.options import add_command, connect
from kohort.cli.terminal import now, print_data, print_prose, show, terminal
from kohort.cli.tree import ModelList, tree
from kohort.cli.watching import follow
from kohort.view.rollout import ModelView, Resource, ViewError, model_view
from kohort.view.why import why, why_cohort


def add_commands(commands: Any, shared: list[argparse.ArgumentParser]) -> None:
    """Adds ``get`` and ``why``."""
    get = add_command(
        commands,
        shared,
        "get",
        _get,
        help="show one rollout as a tree, or all as a list",
        description="With NAME: its cohorts (arms, weight, step, evidence, what is awaited),\n"
        "its revisions and their pods. Without: all ModelDeployments of the namespace.",
        examples=(
            "kubectl kohort get -A",
            "kubectl kohort get burger -w",
            "kubectl kohort get burger -o yaml",
        ),
    )
    get.add_argument("name", nargs="?", metavar="NAME", help="name of a ModelDeployment")
    get.add_argument(
        "-w",
        "--watch",
        action="store_true",
        help="stay and show changes: live on a terminal, one line per change in a pipe",
    )
    get.add_argument(
        "-A", "--all-namespaces", action="store_true", help="list those of all namespaces"
    )
    get.add_argument(
        "-o", "--output", choices=["json", "yaml"], help="print the resources themselves"
    )
    explain = add_command(
        commands,
        shared,
        "why",
        _why,
        help="tell in plain words why each cohort is where it is",
        description="One paragraph per cohort: where it is, why and since when,\n"
        "what is awaited, and what was decided last.",
        examples=("kubectl kohort why burger", "kubectl kohort why burger eu-shops"),
    )
    explain.add_argument("name", metavar="NAME", help="name of a ModelDeployment")
    explain.add_argument("cohort", nargs="?", metavar="COHORT", help="only this cohort")


def _get(options: argparse.Namespace) -> int:
    if options.watch and options.output:
        options.usage_error("-w shows changes, -o the resource as it is: use one of them")
    if options.name and options.all_namespaces:
        options.usage_error("a NAME is looked up in one namespace: use -n instead of -A")
    cluster = connect(options)
    everywhere = options.all_namespaces
    resources = [cluster.get(options.name)] if options.name else cluster.list_models(everywhere)
    if options.output:
        many = {"apiVersion": "v1", "kind": "List", "items": resources}
        print_data(resources[0] if options.name else many, options.output)
    elif options.watch:
        follow(cluster, options.name, everywhere, terminal())
    elif options.name:
        pods = _pods(cluster, options.name)
        show(tree(model_view(resources[0], pods, now())))
    elif not resources:
        place = "any namespace" if everywhere else f"namespace {cluster.namespace}"
        print(f"There is no ModelDeployment in {place}.", file=sys.stderr)
    else:
        show(ModelList([model_view(r, [], now()) for r in resources], everywhere))
    return 0


def _why(options: argparse.Namespace) -> int:
    view = model_view(connect(options).get(options.name), [], now())
    if options.cohort:
        paragraphs = [why_cohort(c, view) for c in view.cohorts if c.name == options.cohort]
        if not paragraphs:
            names = [cohort.name for cohort in view.cohorts]
            raise ViewError(not_found("cohort", options.cohort, names, options.name))
    else:
        paragraphs = why(view)
    print_prose("\n\n".join([*_notes(view), *paragraphs]))
    return 0


def _notes(view: ModelView) -> list[str]:
    """What concerns the whole rollout and no cohort tells."""
    if view.cohorts and not view.seen:
        return [
            "The operator has not taken in the latest spec yet; this is how things stood before."
        ]
    return []


def _pods(cluster: Cluster, name: str) -> list[Resource]:
    """The pods, or a note on stderr where a person may see rollouts but no pods."""
    try:
        return cluster.pods(name)
    except ForbiddenError as error:
        print(f"pods are not shown: {error}", file=sys.stderr)
        return []
