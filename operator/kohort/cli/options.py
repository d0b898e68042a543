"""What commands take alike: options of the cluster, and help in one shape."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from kohort.cli.cluster import Cluster

Command = Callable[[argparse.Namespace], int]
"""Carries out a command line; returns the exit code."""


def cluster_options(default: Any) -> argparse.ArgumentParser:
    """The options that say which cluster; taken before and after the command."""
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


def add_command(
    commands: Any,
    shared: list[argparse.ArgumentParser],
    name: str,
    command: Command,
    *,
    help: str,
    description: str,
    examples: tuple[str, ...] = (),
) -> argparse.ArgumentParser:
    """A command with its help; ``command`` carries it out."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        parents=shared,
        help=help,
        description=description,
        epilog="\n  ".join(["examples:", *examples]) if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=command, usage_error=parser.error)
    return parser


def connect(options: argparse.Namespace) -> Cluster:
    """The cluster that the options name."""
    return Cluster(options.kubeconfig, options.context, options.namespace)
