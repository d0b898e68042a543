"""The server's life: listen, load, serve, drain."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from kohort_server.batch.batcher import Batcher
from kohort_server.batch.calibration import Curve
from kohort_server.building import Request
from kohort_server.datatypes import BYTES, FIXED_SIZE, element_count
from kohort_server.engine.cpu import affordable_processes
from kohort_server.engine.interface import Signature
from kohort_server.front.codec import Codec
from kohort_server.front.grpc_codec import GrpcCodec
from kohort_server.front.limits import HttpLimits
from kohort_server.front.port import Front
from kohort_server.front.routes import Routes
from kohort_server.front.served import ServedModel, Serving
from kohort_server.front.services import Services
from kohort_server.loading import WarmModel, load
from kohort_server.progress import Progress
from kohort_server.source.fetch import Wanted
from kohort_server.tracing import tracing
from kohort_server.workers import (
    FirstProcess,
    Place,
    SharedCounts,
    Workers,
    group_name,
    useful_workers,
)

BACKLOG = 4096
LONGEST_DRAIN = 25.0  # seconds after the drain delay; then what is unanswered is given up
LONGEST_CLOSE = 1.0  # seconds for the last clients to come to their end
WRITTEN_ELEMENTS = 256  # of an example's tensor
LOOK = 0.02  # seconds between looks for whether the last answer has gone out

Loaded = tuple[WarmModel, int]  # with the number of processes that serve it

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """What to serve and how; sizes in bytes, times in seconds."""

    model: Wanted
    name: str
    revision: str
    host: str
    port: int
    cache: Path
    drain_delay: float
    max_body: int
    engine: Request
    workers: int = 1  # processes that share the port; 0 for as many as calibration finds useful
    place: Place | None = None  # among those, of one that is not the first
    debug: bool = False  # tell at /debug/… what the process is doing
    introduce: bool = False  # tell on stdout how the model is called


async def serve(options: Options) -> int:
    """Serve until SIGTERM or SIGINT, then drain; the exit status. Raises `StartFailure`."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    lost = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    served = ServedModel(options.name, options.revision)
    served.tracing = tracing(options.name, options.revision)
    services = Services(served)
    front = Front(
        Routes(served, options.debug), HttpLimits(body=options.max_body), services.methods()
    )
    shared = options.workers != 1
    listen = partial(loop.create_server, front.connection, options.host, options.port)
    listener = None
    if options.place is None:
        listener = await listen(backlog=BACKLOG, reuse_port=shared)
        log.info("listening on %s:%d, loading %s", options.host, options.port, options.model.uri)
    sweeper = loop.create_task(front.sweep())
    loaded = await load_unless_stopped(options, stop, served.progress)
    if loaded is not None:
        model, size = loaded
        served.selection = model.selection
        place = options.place or Place(group_name(), 0, size)
        if place.size > 1:
            shared_counts = SharedCounts(place, served.metrics.counts)
            await shared_counts.start()
            served.others = shared_counts.others
        workers = Workers(place)
        batcher = Batcher(model.engine, model.curve)
        codec = Codec(options.name, options.revision, model.engine.signature, model.batch)
        grpc_codec = GrpcCodec(options.name, served.versions, codec)
        # What lives for ever needs no look by the garbage collector at every pass.
        gc.collect()
        gc.freeze()
        if options.place is None:
            await workers.start()
        elif await (first := FirstProcess()).lets_go():
            listener = await listen(backlog=BACKLOG, reuse_port=True)
            leaving = loop.create_task(first.gone())
            leaving.add_done_callback(lambda _: stop.set())
        else:
            return 1
        served.start(Serving(model.engine, codec, grpc_codec, batcher))
        workers.go(lost.set)
        services.ready_changed()
        if options.place is None:
            log.info("ready: %s", describe(model, size))
        if options.introduce:
            introduce(introduction(options, model.engine.signature))
        await either(stop, lost)
        workers.stop()
        served.draining = True
        services.ready_changed()
        await drain(front, options.drain_delay)
        if listener is not None:
            listener.close()
        await until(lambda: not (front.busy() or front.expecting()), LONGEST_CLOSE)
        await workers.ended(LONGEST_DRAIN)
        batcher.close()
    if listener is not None:
        listener.close()
    front.close()
    await until(lambda: not front.connections, LONGEST_CLOSE)
    sweeper.cancel()
    if served.tracing is not None:
        served.tracing.close()
    return 1 if lost.is_set() else 0


async def either(*events: asyncio.Event) -> None:
    """Wait for the first of them."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


async def load_unless_stopped(
    options: Options, stop: asyncio.Event, progress: Progress
) -> Loaded | None:
    """The model, or None when the server is told to stop first."""
    loaded = in_daemon_thread(lambda: load_and_choose(options, progress))
    stopped = asyncio.ensure_future(stop.wait())
    loaded.add_done_callback(lambda _: stopped.cancel())
    await asyncio.wait([stopped])
    return loaded.result() if loaded.done() else None


def load_and_choose(options: Options, progress: Progress) -> Loaded:
    """The model, and how many processes serve it; blocks for as long as it takes."""

    def loaded(threads: int) -> WarmModel:
        request = replace(options.engine, threads=threads)
        return load(options.model, request, options.cache, progress)

    most = options.engine.threads
    model = loaded(most)
    if options.workers or most == 1 or not model.curve.inline:
        return model, options.workers or 1
    alone = loaded(1)
    size = min(useful_workers(most, model.curve, alone.curve), affordable_processes())
    return (alone, size) if size > 1 else (model, 1)


def in_daemon_thread(work: Callable[[], Loaded]) -> asyncio.Future[Loaded]:
    """Run blocking work in a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Loaded] = loop.create_future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:
            loop.call_soon_threadsafe(future.set_exception, error)
        else:
            loop.call_soon_threadsafe(future.set_result, result)

    threading.Thread(target=run, name="loading", daemon=True).start()
    return future


async def drain(front: Front, delay: float) -> None:
    """Ask clients to go elsewhere, and serve on until the routes and the last requests are gone."""
    log.info("draining")
    front.drain()
    await asyncio.sleep(delay)
    if not await until(lambda: not front.busy(), LONGEST_DRAIN):
        log.warning("giving up %d unanswered requests", front.unanswered)


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until the condition holds, for at most so many seconds; whether it holds."""
    for _ in range(int(seconds / LOOK)):
        if condition():
            return True
        await asyncio.sleep(LOOK)
    return condition()


def introduce(text: str) -> None:
    """Write it for a person, if anybody reads it."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        log.warning("the introduction cannot be written: %s", error)


def introduction(options: Options, signature: Signature) -> str:
    """Where the model is, and a command that calls it with zeros or empty strings."""
    host = "localhost" if options.host == "0.0.0.0" else options.host  # noqa: S104 (only compared)
    url = f"http://{host}:{options.port}/v2/models/{options.name}"
    inputs: list[dict[str, object]] = []
    zeros = 0  # bytes that follow the JSON, where that is shorter than to write them in it
    for spec in signature.inputs:
        shape = [1 if extent < 0 else extent for extent in spec.shape]
        count = element_count(shape)
        tensor = {"name": spec.name, "shape": shape, "datatype": spec.datatype}
        if spec.datatype == BYTES:
            inputs.append({**tensor, "data": [""] * count})
        elif spec.datatype == "BOOL":
            inputs.append({**tensor, "data": [False] * count})
        elif count <= WRITTEN_ELEMENTS:
            inputs.append({**tensor, "data": [0] * count})
        else:
            size = count * FIXED_SIZE[spec.datatype].size
            inputs.append({**tensor, "parameters": {"binary_data_size": size}})
            zeros += size
    body = json.dumps({"inputs": inputs}, separators=(",", ":"))
    if zeros:
        call = (
            f"{{ printf %s '{body}'; head -c {zeros} /dev/zero; }} | curl {url}/infer "
            f"-H 'Inference-Header-Content-Length: {len(body.encode())}' --data-binary @-"
        )
    else:
        call = f"curl {url}/infer -d '{body}'"
    return f"\nHTTP and gRPC: {url}\n\n{call}\n\n"


def describe(model: WarmModel, processes: int) -> str:
    """What calibration found, in a line."""
    where = "on the loop" if model.curve.inline else "in a thread"
    engine = f"{model.engine.name} in {model.engine.precision}"
    many = f" of each of {processes} processes" if processes > 1 else ""
    return f"{engine}, {describe_batch(model)} {where}{many}; {describe_curve(model.curve)}"


def describe_batch(model: WarmModel) -> str:
    """How many rows run together, in words."""
    if model.batch.kind == "dynamic":
        return f"batches of up to {model.curve.max_rows} rows"
    if model.batch.kind == "fixed":
        return f"each request alone, of exactly {model.batch.size} rows"
    return "each request alone"


def describe_curve(curve: Curve) -> str:
    """The measured latencies, in a line."""
    return ", ".join(f"{size}: {taken * 1e6:.0f} µs" for size, taken in curve.seconds.items())
