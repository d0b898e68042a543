"""The command `kohort-local`: a real Kubernetes control plane on this machine, and its demo."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from kohort_local.cluster import Cluster, ClusterError, Image
from kohort_local.helm import HelmError
from kohort_local.kubectl import KubectlError
from kohort_local.places import state_directory
from kohort_local.tools import BuildError

_PLUGINS = ("install", "demo")  # each registers subcommands of its own
_MIB = 2**20
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status."""
    given = parser().parse_args(arguments)
    try:
        return int(given.run(given) or 0)
    except (BuildError, ClusterError, HelmError, KubectlError) as error:
        print(f"kohort-local: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """The command line, with the subcommands of every module that has some."""
    made = argparse.ArgumentParser(prog="kohort-local", description=__doc__)
    subparsers = made.add_subparsers(required=True, metavar="COMMAND")
    _add_up(subparsers)
    _add(subparsers, "down", _down, "stop the cluster; nothing is left running")
    _add(subparsers, "status", _status, "show the parts of the cluster")
    config = _add(subparsers, "kubeconfig", _kubeconfig, "print the path of the kubeconfig")
    config.add_argument("--export", action="store_true", help="print a line for the shell instead")
    logs = _add(subparsers, "logs", _logs, "print the output of a part")
    logs.add_argument("part", help="such as kube-apiserver or local-0; `status` lists them")
    gpus = _add(subparsers, "gpus", _gpus, "set how many GPUs the node offers")
    gpus.add_argument("count", type=_count, help="nvidia.com/gpu that pods may ask for")
    for name in _PLUGINS:
        module = f"kohort_local.{name}"
        if importlib.util.find_spec(module):
            plugin = importlib.import_module(module)
            if register := getattr(plugin, "register", None):
                register(subparsers)
    return made


def _add(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    description: str,
) -> argparse.ArgumentParser:
    added = subparsers.add_parser(name, help=description, description=description)
    added.add_argument(
        "--name", type=_name, default="default", help="which cluster (default: default)"
    )
    added.set_defaults(run=run)
    return added


def _add_up(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    up = _add(subparsers, "up", _up, "start the cluster, or what of it does not run")
    up.add_argument("--gpus", type=_count, help="nvidia.com/gpu that the node offers")
    up.add_argument(
        "--images", type=Path, help='JSON file: image → {"entrypoint": [...], "env": {...}}'
    )
    up.add_argument(
        "--foreground", action="store_true", help="stay, and stop the cluster with Ctrl-C"
    )


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no cluster name; use up to 40 of a-z, 0-9 and -"
        )
    return text


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of GPUs; use 0 or more")
    return int(text)


def _read_images(path: Path) -> dict[str, Image]:
    """What images run, from a JSON file.

    Raises:
        ClusterError: the file is not there or not what it should be.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, Any]])
    except (OSError, msgspec.MsgspecError) as error:
        raise ClusterError(
            f'{path} cannot be read: {error}; write {{"IMAGE": {{"entrypoint": ["PROGRAM"]}}}}'
        ) from error
    return {**found}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _cluster(given: argparse.Namespace) -> Cluster:
    return Cluster(state_directory(given.name), say=_say)


def _up(given: argparse.Namespace) -> int:
    cluster = _cluster(given)
    try:
        cluster.up(bound=given.foreground)
        if given.gpus is not None:
            cluster.set_gpus(given.gpus)
        if given.images:
            cluster.add_images(_read_images(given.images))
        _say(f"export KUBECONFIG={cluster.kubeconfig}")
        if given.foreground:
            _say("stop with Ctrl-C")
            cluster.wait_for_signal()
    except KeyboardInterrupt:
        cluster.down()
        raise
    if given.foreground:
        cluster.down()
        _say("stopped")
    return 0


def _down(given: argparse.Namespace) -> int:
    _cluster(given).down()
    return 0


def _status(given: argparse.Namespace) -> int:
    cluster = _cluster(given)
    parts = cluster.status()
    console = Console()
    if not parts:
        console.print(f"not running; start it with: kohort-local up --name {given.name}")
        return 1
    table = Table("PART", "STATE", "PID", "MEMORY", "PORT", box=None)
    for part in parts:
        running = part.process is not None
        table.add_row(
            part.name,
            cluster.condition(part.name) if running else "[red]not running[/]",
            str(part.process.pid) if part.process else "",
            f"{part.resident_bytes / _MIB:.0f} MiB" if running else "",
            f"127.0.0.1:{part.port}" if part.port else "",
        )
    console.print(table)
    ports = cluster.node_port_range
    console.print(f"node ports {ports.start}-{ports.stop - 1}; kubeconfig {cluster.kubeconfig}")
    return 0 if all(part.process for part in parts) else 1


def _kubeconfig(given: argparse.Namespace) -> int:
    cluster = _cluster(given)
    if not cluster.kubeconfig.exists():
        raise ClusterError(
            f"no cluster {given.name}; start one with `kohort-local up --name {given.name}`"
        )
    print(f"export KUBECONFIG={cluster.kubeconfig}" if given.export else cluster.kubeconfig)
    return 0


def _logs(given: argparse.Namespace) -> int:
    path = _cluster(given).log(given.part)
    if not path.exists():
        known = sorted(log.stem for log in path.parent.glob("*.log"))
        raise ClusterError(f"no output of {given.part}; there is that of {', '.join(known) or '-'}")
    sys.stdout.write(path.read_text(errors="replace"))
    return 0


def _gpus(given: argparse.Namespace) -> int:
    _cluster(given).set_gpus(given.count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
