"""Starts a node: `python -m kohort_local.node`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
from pathlib import Path

import uvloop

from kohort_local.client import Client
from kohort_local.node import server
from kohort_local.node.addresses import Addresses
from kohort_local.node.agent import Agent
from kohort_local.node.events import Recorder
from kohort_local.node.probe import Prober
from kohort_local.node.registration import Registration
from kohort_local.node.settings import Settings
from kohort_local.node.sources import Sources
from kohort_local.node.supervisor import Services


def parse(arguments: list[str] | None = None) -> Settings:
    """The settings given on the command line."""
    parser = argparse.ArgumentParser(prog="kohort_local.node", description=__doc__)
    parser.add_argument("--name", required=True, help="the node's name")
    parser.add_argument("--root", type=Path, required=True, help="directory of its pods")
    parser.add_argument("--server", required=True, help="URL of the API server")
    parser.add_argument(
        "--pki", type=Path, required=True, help="directory of NAME.crt and NAME.key"
    )
    parser.add_argument("--images", type=Path, required=True, help="JSON file: what images run")
    parser.add_argument("--address", required=True, help="address of the node's own API")
    parser.add_argument("--port", type=int, required=True, help="port of the node's own API")
    parser.add_argument("--pod-prefix", required=True, help="first three octets of pod addresses")
    parser.add_argument(
        "--back-off-cap", type=float, default=10.0, help="longest back-off, seconds"
    )
    return Settings(**vars(parser.parse_args(arguments)))


async def run(settings: Settings) -> None:
    """Be the node until SIGTERM or SIGINT; then kill its pods' processes."""
    settings.pods.mkdir(parents=True, exist_ok=True)
    client = Client(settings.server, settings.pki, settings.name)
    recorder, prober = Recorder(client, settings.name), Prober()
    registration = Registration(settings, client)
    services = Services(
        settings, client, Sources(client), recorder, prober, Addresses(settings.pod_prefix)
    )
    agent = Agent(services, registration)
    agent.end_orphans()
    runner = await server.start(settings, agent)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    working: list[asyncio.Task[object]] = [
        asyncio.create_task(work) for work in (recorder.run(), registration.run(), agent.run())
    ]
    stopped: asyncio.Task[object] = asyncio.create_task(stop.wait())
    # Each of these goes on for ever; one that ends has failed, and a node without it is none.
    done, _ = await asyncio.wait([stopped, *working], return_when=asyncio.FIRST_COMPLETED)
    agent.abandon()
    for task in working:
        task.cancel()
    for task in done - {stopped}:
        with contextlib.suppress(asyncio.CancelledError):
            task.result()
    await runner.cleanup()
    await prober.close()
    await client.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    uvloop.run(run(parse()))
