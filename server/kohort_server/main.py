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
from kohort_server.gates.parity import Limits
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
    failure = 2 if given.command == "gates" else 1  # 1 is that of gates that did not pass
    try:
        status = run_gates(given) if given.command == "gates" else run(given)
    except StartFailure as failed:
        sys.stderr.write(f"{failed.failure.line()}\n")
        status = failure
    except OSError as error:
        what = f"cannot listen on port {given.port}: " if given.command == "serve" else ""
        sys.stderr.write(f"kohort-server: {what}{error}\n")
        status = failure
    for stream in (sys.stderr, sys.stdout):
        with contextlib.suppress(OSError):  # nobody can be told any more
            stream.flush()
    # A model that is still being loaded in its thread must not hold up, or crash, the exit.
    os._exit(status)


def run(given: argparse.Namespace) -> int:
    """Serve, measure, build or fetch a model; the exit status. Raises `StartFailure` or `OSError`."""
    options = options_of(given)
    if given.command == "bench":
        loaded = load(options.model, options.engine, options.cache)
        sys.stdout.write(curve_table(loaded.curve))
        return 0
    if given.command == "build":
        built = obtain(
            fetch(options.model, options.cache, options.engine.room).path,
            options.engine,
            Cache(options.cache / "engines"),
        )
        export(built, given.output)
        sys.stdout.write(selection_table(built.selection))
        return 0
    if given.command == "fetch":
        fetched = fetch(options.model, options.cache, options.engine.room)
        if not fetched.digest:
            fetched = local(options.model, told=True)
        told = f"uri: {fetched.pinned}\ndigest: {fetched.digest}\n"
        sys.stdout.write(f"{told}path: {fetched.path}\nsize: {fetched.size}\n")
        return 0
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(options))


def run_gates(given: argparse.Namespace) -> int:
    """Try a model on golden data; the exit status. Raises `StartFailure` or `OSError`."""
    from kohort_server.gates import command  # what serves does without it

    threads = given.threads or usable_cpus()
    return command.run(
        given.spec, given.report, given.mutants, given.summary, given.cache_dir, threads
    )


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
    gates = commands.add_parser("gates", help="try a model on golden data before it is served")
    gates.add_argument("spec", type=Path, metavar="SPEC.yaml", help="the model and its gates")
    gates.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        help="write report.html, report.md, junit.xml, results.json",
    )
    gates.add_argument(
        "--mutants", action="store_true", help="list which broken models the gates would notice"
    )
    gates.add_argument("--summary", type=Path, metavar="FILE", help="write 4 KiB of JSON at most")
    gates.add_argument(
        "--cache-dir", type=Path, default=Path.home() / ".cache/kohort/models", metavar="DIR"
    )
    gates.add_argument("--threads", type=int, default=None, help="of the engine")
    gates.set_defaults(log_format="text")
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
