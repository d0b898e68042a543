"""What a gateway costs, and how soon a decision has effect: ``python -m tests.bench.gateway``.

Prints markdown tables: everything on (a split of 256 slots, counters), by path and by host, against a
route of an otherwise equal Envoy; and the wait from a decision to its first answer. CPU is that of
Envoy's threads, read from the kernel, so that a slow client does not matter; both Envoys are asked in
short turns in a random order, and ratios are of neighbouring turns, and of the cheaper turns of each, so
that a busy machine does not matter much either.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kohort.gateway.bootstrap import admin_socket, bootstrap
from kohort.gateway.launcher import find_envoy
from kohort.gateway.listener import typed
from kohort.gateway.settings import Settings, parse
from kohort.route.table import Endpoint, ModelKey
from tests.component.gateway_parts import (
    KEY,
    LOCALHOST,
    Fleet,
    ask,
    fleet,
    free_port,
    requests_by,
    table,
    upstream,
)

CONNECTIONS = 16
WARM_UP = 5
CLIENTS = 512
# How long the API server takes to answer a write of a status, about.
WRITE_SECONDS = 0.008
# An inference of 64 numbers, as clients send it.
TENSOR = {"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [0.12345678] * 64}
BODY = json.dumps({"inputs": [TENSOR]}).encode()


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process so far."""
    nanoseconds = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            nanoseconds += int((task / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def plain_configuration(
    settings: Settings, directory: Path, upstream: Endpoint
) -> dict[str, object]:
    """The gateway's configuration less everything that Kohort adds: one route to one cluster.

    It is what one would write by hand for production and for speed: the same limits and time-outs of
    the listener, normalized paths, no request ids, the same short list of statistics, the least
    loaded endpoint; no retries, no access log, no header added or removed, no lookup of a host.
    """
    config = bootstrap(settings, directory)
    listener, *_ = config["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    for name in ("scoped_routes", "early_header_mutation_extensions", "access_log"):
        del manager[name]
    manager["route_config"] = {
        "virtual_hosts": [
            {
                "name": "all",
                "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}],
            }
        ]
    }
    manager["http_filters"] = [
        typed("router", "filters.http.router.v3.Router", suppress_envoy_headers=True)
    ]
    address = {"socket_address": {"address": upstream.address, "port_value": upstream.port}}
    cluster = {
        "name": "upstream",
        "type": "STATIC",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {
            "cluster_name": "upstream",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    config["static_resources"] = {"listeners": [listener], "clusters": [cluster]}
    del config["dynamic_resources"]
    return config


@contextlib.asynccontextmanager
async def plain_envoy(upstream: Endpoint) -> AsyncIterator[tuple[int, int]]:
    """A plain Envoy: its port and process."""
    port = free_port()
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        settings = parse(
            [
                *("--operator", "localhost:1", "--tls-dir", made, "--node-id", "plain"),
                *("--listen-address", LOCALHOST, "--port", str(port)),
            ]
        )
        path = directory / "plain.json"
        path.write_text(json.dumps(plain_configuration(settings, directory, upstream)))
        process = await asyncio.create_subprocess_exec(
            find_envoy({}),
            *("-c", str(path), "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"),
        )
        try:
            while not admin_socket(directory).exists():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
            yield port, process.pid
        finally:
            process.kill()
            await process.wait()


async def envoy_of(pid: int) -> int:
    """The Envoy that a kohort-gateway runs."""
    children = await asyncio.to_thread(Path(f"/proc/{pid}/task/{pid}/children").read_text)
    return int(children.split()[0])


@dataclass(frozen=True)
class Way:
    """A way to send requests, and the process that pays for them."""

    name: str
    port: int
    pid: int
    requests: Sequence[bytes]


async def cpu_per_request(way: Way) -> float:
    """Microseconds of CPU for a request."""
    before = cpu_seconds(way.pid)
    await ask(way.port, way.requests, CONNECTIONS)
    return (cpu_seconds(way.pid) - before) / len(way.requests) * 1e6


def cheapest(values: Sequence[float]) -> float:
    """What the cheapest fifth of turns cost: those that the machine's other work disturbed least."""
    return statistics.mean(sorted(values)[: max(1, len(values) // 5)])


def interval(values: Sequence[float]) -> str:
    """Median, and the range that holds the middle 80 % of rounds."""
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 10], ordered[-1 - len(ordered) // 10]
    return f"{statistics.median(values):.2f} [{low:.2f}, {high:.2f}]"


async def cost(
    made: Fleet, upstreams: Sequence[Endpoint], rounds: int, turn: int, body: bytes
) -> None:
    """CPU per request with everything on against a plain route."""
    gateway = made.gateways[0]
    wanted = table(25)
    made.server.publish(wanted, {"r1": (upstreams[0],), "r2": (upstreams[1],)})
    await made.effective(wanted)
    pid = await envoy_of(gateway.process.pid)
    port = gateway.address.port
    path = f"/{KEY.namespace}/{KEY.name}/v2/models/m/infer"
    host = f"{KEY.name}.{KEY.namespace}.svc"
    async with plain_envoy(upstreams[0]) as (plain_port, plain_pid):
        plain = Way(
            "plain route", plain_port, plain_pid, requests_by(path, host, turn, CLIENTS, body)
        )
        ways = [
            Way("Kohort by path", port, pid, requests_by(path, host, turn, CLIENTS, body)),
            Way(
                "Kohort by host",
                port,
                pid,
                requests_by("/v2/models/m/infer", host, turn, CLIENTS, body),
            ),
        ]
        everyone = [plain, *ways]
        for way in everyone * WARM_UP:
            await cpu_per_request(way)
        microseconds: dict[str, list[float]] = {way.name: [] for way in everyone}
        for _ in range(rounds):
            random.shuffle(everyone)
            for way in everyone:
                microseconds[way.name].append(await cpu_per_request(way))
    print(
        f"\n{rounds} rounds of {turn} requests with {len(body)} bytes, {CONNECTIONS} connections\n"
    )
    print(
        "| way | µs CPU per request | ratio to plain, same round | ratio of the cheapest fifths |"
    )
    print("|---|---|---|---|")
    base = microseconds[plain.name]
    for name, values in microseconds.items():
        ratios = [value / plain for value, plain in zip(values, base, strict=True)]
        cheap = cheapest(values) / cheapest(base)
        print(f"| {name} | {interval(values)} | {interval(ratios)} | {cheap:.2f} |")


async def effect(
    made: Fleet, upstreams: Sequence[Endpoint], others: int, decisions: int, prepared: bool
) -> None:
    """From publish to the first answer of the new revision.

    ``prepared``: gateways had the table while the decision was written, as the operator does it.
    """
    gateway = made.gateways[0]
    idle = table(0, canary="")
    for number in range(others):
        key = ModelKey("other", f"model-{number}")
        made.server.publish(table(0, canary="", key=key), {"r1": (upstreams[0],)})
    if others:
        await made.effective(table(0, canary="", key=key))
    endpoints = {"r1": (upstreams[0],), "r2": (upstreams[1],)}
    made.server.publish(idle, endpoints)
    await made.effective(idle)
    reader, writer = await asyncio.open_connection(LOCALHOST, gateway.address.port)
    request = requests_by(f"/{KEY.namespace}/{KEY.name}/v2", "gateway", 1, CLIENTS)[0]

    async def arm() -> bytes:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(2)
        return head.partition(b"x-arm: ")[2][:2]

    waits = []
    for number in range(decisions):
        weight = 100 if number % 2 == 0 else 0
        expected = b"r2" if weight else b"r1"
        await asyncio.sleep(0.02)
        if prepared:
            made.server.prepare(table(weight), endpoints)
            await asyncio.sleep(WRITE_SECONDS)
        started = time.perf_counter()
        made.server.publish(table(weight), endpoints)
        while await arm() != expected:
            pass
        waits.append((time.perf_counter() - started) * 1e3)
    writer.close()
    ordered = sorted(waits[2:])
    p50, p95 = statistics.median(ordered), ordered[int(len(ordered) * 0.95)]
    told = "prepared" if prepared else "unforeseen"
    print(f"| {others} | {told} | {p50:.1f} | {p95:.1f} | {len(ordered)} |")


async def measure(options: argparse.Namespace) -> None:
    """Both tables."""
    upstreams = [await upstream(revision) for revision in ("r1", "r2")]
    with tempfile.TemporaryDirectory() as made:
        async with fleet(Path(made)) as alone:
            for body in (BODY, b""):
                await cost(alone, upstreams, options.rounds, options.turn, body)
    print("\n| other models | table | publish → effect, p50 ms | p95 ms | decisions |")
    print("|---|---|---|---|---|")
    for others in options.others:
        with tempfile.TemporaryDirectory() as made:
            async with fleet(Path(made)) as many:
                for prepared in (True, False):
                    await effect(many, upstreams, others, options.decisions, prepared)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--turn", type=int, default=600, help="requests of one turn")
    parser.add_argument("--decisions", type=int, default=100)
    parser.add_argument("--others", type=int, nargs="*", default=[0, 1000])
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
