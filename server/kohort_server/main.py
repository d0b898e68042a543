"""The command `kohort-server`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from kohort.contract import PORT_SERVER
from kohort_server import conformance
from kohort_server.batch.calibration import Curve
from kohort_server.building import GoldenFile, Request, export, obtain
from kohort_server.engine.cpu import cgroup_quota, usable_cpus
from kohort_server.engine.kinds import FULL_PRECISION, KINDS, PRECISIONS
from kohort_server.errors import StartFailure
from kohort_server.gate.parity import Limits
from kohort_server.loading import load
from kohort_server.logs import FORMATS, start_logging
from kohort_server.model.engine_cache import MANIFEST, Cache
from kohort_server.selection import selection_table
from kohort_server.serving import Options, serve
from kohort_server.source.credentials import Credentials
from kohort_server.source.fetch import Wanted, fetch, local
from kohort_server.units import parse_duration, parse_share, parse_size
from kohort_server.workers import parse_place

THRESHOLDS = {
    "tolerance": "greatest error of a value when answers are compared (default: by precision)",
    "cosine": "smallest cosine of a sample's outputs (default: by precision)",
    "agreement": "smallest share of samples with the same largest class (default: by precision)",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; a start that fails ends with one line of JSON on stderr and status 1."""
    given = parse(arguments)
    if given.command == "conformance":
        sys.exit(conformance.run(given.url, given.model, given.grpc))
    start_logging(given.log_format)
    options = options_of(given)
    try:
        if given.command == "bench":
            loaded = load(options.model, options.engine, options.cache)
            sys.stdout.write(curve_table(loaded.curve))
            status = 0
        elif given.command == "build":
            built = obtain(
                fetch(options.model, options.cache, options.engine.room).path,
                options.engine,
                Cache(options.cache / "engines"),
            )
            export(built, given.output)
            sys.stdout.write(selection_table(built.selection))
            status = 0
        elif given.command == "fetch":
            fetched = fetch(options.model, options.cache, options.engine.room)
            if not fetched.digest:
                fetched = local(options.model, told=True)
            told = f"uri: {fetched.pinned}\ndigest: {fetched.digest}\n"
            sys.stdout.write(f"{told}path: {fetched.path}\nsize: {fetched.size}\n")
            status = 0
        else:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                status = runner.run(serve(options))
    except StartFailure as failed:
        sys.stderr.write(f"{failed.failure.line()}\n")
        status = 1
    except OSError as error:
        what = f"cannot listen on port {options.port}: " if given.command == "serve" else ""
        sys.stderr.write(f"kohort-server: {what}{error}\n")
        status = 1
    for stream in (sys.stderr, sys.stdout):
        with contextlib.suppress(OSError):  # nobody can be told any more
            stream.flush()
    # A model that is still being loaded in its thread must not hold up, or crash, the exit.
    os._exit(status)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says; exits with usage and status 2 for wrong ones."""
    parser = argparse.ArgumentParser(prog="kohort-server", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    command = commands.add_parser("serve", help="serve one model")
    command.add_argument("uri", help="the model: a path or a URI")
    command.add_argument("--name", help="the model's name in URLs (default: the file's)")
    command.add_argument("--revision", help="the model's version in URLs (default: 1)")
    command.add_argument("--digest", help="sha256:… that the file must have")
    command.add_argument("--host", default="0.0.0.0", help="address to listen on")  # noqa: S104 (a pod's)
    command.add_argument("--port", type=int, default=PORT_SERVER)
    command.add_argument("--drain-delay", type=parse_duration, default="5s", metavar="DURATION")
    command.add_argument("--max-body", type=parse_size, default="64Mi", metavar="SIZE")
    command.add_argument(
        "--workers",
        type=int,
        help="processes that share the port (default: with a CPU quota, as many as are useful)",
    )
    command.add_argument("--place", type=parse_place, help=argparse.SUPPRESS)  # of one of those
    command.add_argument("--debug", action="store_true", help="answer /debug/stacks, /debug/state")
    command.add_argument("--log-format", choices=FORMATS, default="text")
    bench = commands.add_parser("bench", help="measure what batches of a model cost")
    bench.add_argument("uri", help="the model: a path or a URI")
    bench.set_defaults(name=None, revision=None, digest=None, host="", port=0)
    bench.set_defaults(
        drain_delay=0.0, max_body=0, log_format="text", workers=1, place=None, debug=False
    )
    build = commands.add_parser("build", help="build an engine, prove its answers, and keep it")
    build.add_argument("uri", help="the model, .onnx or .pt2: a path or a URI")
    build.add_argument("--output", type=Path, required=True, metavar="DIR", help="for the engine")
    build.add_argument("--digest", help="sha256:… that the file must have")
    build.set_defaults(name=None, revision=None, host="", port=0, drain_delay=0.0, max_body=0)
    build.set_defaults(log_format="text", workers=1, place=None, debug=False)
    getting = commands.add_parser("fetch", help="fetch a model, and tell what pins it")
    getting.add_argument("uri", help="the model: a path or a URI")
    getting.add_argument("--digest", help="sha256:… that it must have")
    getting.set_defaults(name=None, revision=None, host="", port=0, drain_delay=0.0, max_body=0)
    getting.set_defaults(log_format="text", workers=1, place=None, debug=False)
    for loading in (command, bench, build, getting):
        loading.add_argument(
            "--credentials",
            type=Path,
            metavar="DIR",
            help="for the model: a file per key, as a Secret is mounted (default: the environment)",
        )
        loading.add_argument("--endpoint", metavar="URL", help="of the model's service")
        loading.add_argument("--region", help="of the model's bucket")
        loading.add_argument(
            "--engine",
            choices=(*KINDS, "Auto"),
            default="ONNXRuntime",
            help="Auto builds all that this machine has and takes the fastest that gives the same answers",
        )
        loading.add_argument(
            "--precision",
            choices=PRECISIONS,
            default=FULL_PRECISION,
            help="the lowest that may be computed in (default: FP32)",
        )
        loading.add_argument(
            "--golden",
            metavar="FILE.npz",
            help="samples to compare engines with, a path or URI (default: drawn from the model's signature)",
        )
        loading.add_argument("--golden-digest", help="sha256:… that they must have")
        for name, what in THRESHOLDS.items():
            loading.add_argument(f"--{name}", type=parse_share, metavar="PERCENT", help=what)
        loading.add_argument(
            "--fallback",
            action="store_true",
            help="serve with onnxruntime where the engine cannot be had (other answers always fail)",
        )
        loading.add_argument(
            "--cache-dir", type=Path, default=Path.home() / ".cache/kohort/models", metavar="DIR"
        )
        loading.add_argument(
            "--cache-size",
            type=parse_size,
            default=os.environ.get("KOHORT_CACHE_SIZE", "20Gi"),
            metavar="SIZE",
            help="room for engines there, and as much for models; those that were used least recently go "
            "(default: 20Gi, or KOHORT_CACHE_SIZE)",
        )
        loading.add_argument(
            "--threads",
            type=int,
            default=None,
            help="of the engine (default: the CPUs that affinity and quota allow)",
        )
    checks = commands.add_parser(
        "conformance", help="check any server against the Open Inference Protocol"
    )
    checks.add_argument("url", help="such as http://localhost:8080")
    checks.add_argument("--model", help="a model that it serves (default: asked of the server)")
    checks.add_argument("--grpc", metavar="HOST:PORT", help="check gRPC too, which is spoken there")
    return parser.parse_args(arguments)


def options_of(given: argparse.Namespace) -> Options:
    """Options with defaults that follow from the model's place."""
    uri = as_uri(given.uri)
    # Without a quota nobody has said that the machine's cores are this server's.
    chosen = 0 if given.threads is None and cgroup_quota() is not None else 1
    size = given.place.size if given.place is not None else given.workers or 1
    return Options(
        model=Wanted(
            uri,
            given.digest,
            Credentials(given.credentials),
            endpoint=given.endpoint or "",
            region=given.region or "",
        ),
        name=given.name or Path(urlsplit(uri).path).stem or "model",
        revision=given.revision or "1",
        host=given.host,
        port=given.port,
        cache=given.cache_dir,
        drain_delay=given.drain_delay,
        max_body=given.max_body,
        workers=size if given.place is not None else given.workers or chosen,
        place=given.place,
        debug=given.debug,
        engine=Request(
            given.engine,
            given.precision,
            given.threads or max(1, usable_cpus() // size),
            golden=GoldenFile(as_uri(given.golden), given.golden_digest) if given.golden else None,
            limits=Limits(given.tolerance, given.cosine, given.agreement),
            fallback=given.fallback,
            room=given.cache_size,
        ),
        # An operator names what it starts; a person wants to be told how to call it.
        introduce=given.revision is None and given.place is None,
    )


def as_uri(text: str) -> str:
    """The URI of a model that may be given as a path, or as a directory.

    A directory holds an engine that was built, or a model.onnx.
    """
    if "://" in text:
        return text
    path = Path(text).resolve()
    if path.is_dir():
        built = path / MANIFEST
        path = built if built.is_file() else path / "model.onnx"
    return path.as_uri()


def curve_table(curve: Curve) -> str:
    """What batches cost, and which is chosen."""
    lines = [f"{'rows':>6} {'µs per run':>12} {'µs per row':>12} {'rows per s':>12}"]
    for rows, seconds in curve.seconds.items():
        chosen = "  ← the largest that is useful" if rows == curve.max_rows else ""
        micros = seconds * 1e6
        lines.append(
            f"{rows:6} {micros:12,.0f} {micros / rows:12,.1f} {rows / seconds:12,.0f}{chosen}"
        )
    return "\n".join(lines) + "\n"
