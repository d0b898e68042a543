"""The command `kohort-server`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from kohort.contract import PORT_SERVER
from kohort_server.engine.cpu import usable_cpus
from kohort_server.errors import StartFailure
from kohort_server.loading import ENGINES
from kohort_server.serving import Options, serve
from kohort_server.units import parse_duration, parse_size


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; a start that fails ends with one line of JSON on stderr and status 1."""
    options = parse(arguments)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(options))
        status = 0
    except StartFailure as failed:
        sys.stderr.write(f"{failed.failure.line()}\n")
        status = 1
    except OSError as error:
        sys.stderr.write(f"kohort-server: cannot listen on port {options.port}: {error}\n")
        status = 1
    sys.stderr.flush()
    # A model that is still being loaded in its thread must not hold up, or crash, the exit.
    os._exit(status)


def parse(arguments: Sequence[str] | None) -> Options:
    """The options of the command line; exits with usage and status 2 for wrong ones."""
    parser = argparse.ArgumentParser(prog="kohort-server", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("serve", help="serve one model")
    command.add_argument("uri", help="the model: file://, http:// or https://")
    command.add_argument("--name", required=True, help="the model's name in URLs")
    command.add_argument("--revision", required=True, help="the model's version in URLs")
    command.add_argument("--digest", help="sha256:… that the file must have")
    command.add_argument("--engine", choices=sorted(ENGINES), default="Auto")
    command.add_argument("--host", default="0.0.0.0", help="address to listen on")  # noqa: S104 (a pod's)
    command.add_argument("--port", type=int, default=PORT_SERVER)
    command.add_argument(
        "--cache-dir", type=Path, default=Path.home() / ".cache/kohort/models", metavar="DIR"
    )
    command.add_argument("--drain-delay", type=parse_duration, default="5s", metavar="DURATION")
    command.add_argument("--max-body", type=parse_size, default="64Mi", metavar="SIZE")
    command.add_argument(
        "--threads",
        type=int,
        default=None,
        help="of the engine (default: the CPUs that affinity and quota allow)",
    )
    given = parser.parse_args(arguments)
    return Options(
        uri=given.uri,
        name=given.name,
        revision=given.revision,
        digest=given.digest,
        engine=given.engine,
        host=given.host,
        port=given.port,
        cache=given.cache_dir,
        drain_delay=given.drain_delay,
        max_body=given.max_body,
        threads=given.threads or usable_cpus(),
    )
