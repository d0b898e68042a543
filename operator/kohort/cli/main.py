"""``kubectl kohort``: what a rollout is doing, and why."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NoReturn

import msgspec
from rich.console import Console

from kohort.cli.cluster import Cluster, ClusterError, ForbiddenError, not_found
from kohort.cli.tree import ModelList, tree
from kohort.cli.view import ModelView, Resource, ViewError, model_view
from kohort.cli.watching import follow
from kohort.cli.why import why, why_cohort

PIPED_WIDTH = 160  # where no terminal says how wide it is
PROSE_WIDTH = 100  # longer lines are hard to read
INTERRUPTED = 130  # as a shell counts SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code: 0, 1 for an error, 130 after Ctrl-C."""
    _degrade(sys.stdout)
    _degrade(sys.stderr)
    options = parser().parse_args(arguments)
    try:
        code: int = options.command(options)
        sys.stdout.flush()
    except (ClusterError, ViewError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough, as in `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def console_script() -> NoReturn:
    """The program's whole life: ``main``, and an end that waits for nobody.

    A watch blocks its thread until the cluster says something; the interpreter's own end would
    meet it there and abort.
    """
    code = main()
    with contextlib.suppress(OSError):  # a reader that is gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def parser() -> argparse.ArgumentParser:
    """The commands and their options; those of the cluster are taken before and after the command."""
    root = argparse.ArgumentParser(
        prog="kubectl kohort",
        description="Shows how model versions roll out, cohort by cohort, and why.",
        parents=[_cluster_options(default=None)],
    )
    shared = _cluster_options(default=argparse.SUPPRESS)
    commands = root.add_subparsers(required=True, metavar="COMMAND")
    _add_get(commands, shared)
    _add_why(commands, shared)
    return root


def _cluster_options(default: Any) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    group = options.add_argument_group("cluster")
    group.add_argument(
        "-n", "--namespace", default=default, help="namespace (default: that of the context)"
    )
    group.add_argument("--context", default=default, help="context of the kubeconfig")
    group.add_argument(
        "--kubeconfig", default=default, metavar="FILE", help="kubeconfig (default: $KUBECONFIG)"
    )
    return options


def _add_get(commands: Any, shared: argparse.ArgumentParser) -> None:
    get = commands.add_parser(
        "get",
        parents=[shared],
        help="show one rollout as a tree, or all as a list",
        description="With NAME: its cohorts (arms, weight, step, evidence, what is awaited),\n"
        "its revisions and their pods. Without: all ModelDeployments of the namespace.",
        epilog="examples:\n  kubectl kohort get -A\n  kubectl kohort get burger -w\n"
        "  kubectl kohort get burger -o yaml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    get.set_defaults(command=_get, usage_error=get.error)


def _add_why(commands: Any, shared: argparse.ArgumentParser) -> None:
    explain = commands.add_parser(
        "why",
        parents=[shared],
        help="tell in plain words why each cohort is where it is",
        description="One paragraph per cohort: where it is, why and since when,\n"
        "what is awaited, and what was decided last.",
        epilog="examples:\n  kubectl kohort why burger\n  kubectl kohort why burger eu-shops",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    explain.add_argument("name", metavar="NAME", help="name of a ModelDeployment")
    explain.add_argument("cohort", nargs="?", metavar="COHORT", help="only this cohort")
    explain.set_defaults(command=_why)


def _get(options: argparse.Namespace) -> int:
    if options.watch and options.output:
        options.usage_error("-w shows changes, -o the resource as it is: use one of them")
    if options.name and options.all_namespaces:
        options.usage_error("a NAME is looked up in one namespace: use -n instead of -A")
    cluster = _cluster(options)
    everywhere = options.all_namespaces
    resources = [cluster.get(options.name)] if options.name else cluster.list_models(everywhere)
    console = _console()
    if options.output:
        _print_resources(resources, bool(options.name), options.output)
    elif options.watch:
        follow(cluster, options.name, everywhere, console)
    elif options.name:
        pods = _pods(cluster, options.name)
        console.print(tree(model_view(resources[0], pods, _now())))
    elif not resources:
        place = "any namespace" if everywhere else f"namespace {cluster.namespace}"
        print(f"There is no ModelDeployment in {place}.", file=sys.stderr)
    else:
        console.print(ModelList([model_view(r, [], _now()) for r in resources], everywhere))
    return 0


def _why(options: argparse.Namespace) -> int:
    cluster = _cluster(options)
    view = model_view(cluster.get(options.name), [], _now())
    if options.cohort:
        paragraphs = [why_cohort(c, view) for c in view.cohorts if c.name == options.cohort]
        if not paragraphs:
            names = [cohort.name for cohort in view.cohorts]
            raise ViewError(not_found("cohort", options.cohort, names, options.name))
    else:
        paragraphs = why(view)
    prose = "\n\n".join([*_notes(view), *paragraphs])
    console = _console()
    if console.is_terminal:
        console.print(prose, markup=False, width=min(console.width, PROSE_WIDTH))
    else:
        print(prose)
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


def _print_resources(resources: list[Resource], one: bool, form: str) -> None:
    whole: Any = resources[0] if one else {"apiVersion": "v1", "kind": "List", "items": resources}
    if form == "json":
        print(msgspec.json.format(msgspec.json.encode(whole), indent=4).decode())
    else:
        print(msgspec.yaml.encode(whole).decode(), end="")


def _cluster(options: argparse.Namespace) -> Cluster:
    return Cluster(options.kubeconfig, options.context, options.namespace)


def _console() -> Console:
    known = sys.stdout.isatty() or os.environ.get("COLUMNS")
    return Console(width=None if known else PIPED_WIDTH, highlight=False)


def _degrade(stream: Any) -> None:
    """Lets characters that a locale lacks become ``?`` instead of an error."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")


def _now() -> datetime:
    return datetime.now().astimezone()


if __name__ == "__main__":
    console_script()
