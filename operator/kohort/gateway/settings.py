"""What a gateway is told when it starts."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kohort.contract import PORT_GATEWAY, PORT_GATEWAY_STATUS


@dataclass(frozen=True)
class Settings:
    """``drain_delay``: seconds that a stopping gateway goes on taking requests, so that all who send
    to it have heard of its end. ``drain_timeout``: seconds in which requests may end by themselves.
    """

    operator: str
    tls_dir: Path
    listen_address: str
    port: int
    status_port: int
    node_id: str
    concurrency: int
    drain_delay: float
    drain_timeout: float
    log_level: str
    max_connections: int

    @property
    def operator_address(self) -> tuple[str, int]:
        """Host and port of the operator."""
        host, _, port = self.operator.rpartition(":")
        return host.strip("[]"), int(port)


def _host_and_port(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{value!r} is not HOST:PORT; give the operator's address")
    return value


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """Read the command line; exits with a message when it makes no sense."""
    parser = argparse.ArgumentParser(
        prog="kohort-gateway", description="Envoy with routes from the Kohort operator"
    )
    add = parser.add_argument
    add("--operator", required=True, type=_host_and_port, help="HOST:PORT of the operator's routes")
    add("--tls-dir", required=True, type=Path, help="directory with ca.crt, tls.crt and tls.key")
    add("--listen-address", default="0.0.0.0", help="address to listen on")  # noqa: S104
    add("--port", type=int, default=PORT_GATEWAY, help="port for clients")
    add("--status-port", type=int, default=PORT_GATEWAY_STATUS, help="port for /ready and metrics")
    add("--node-id", required=True, help="name of this gateway, as a rule its pod's")
    add("--concurrency", type=int, default=0, help="worker threads; 0: one for each core")
    add("--drain-delay", type=float, default=4.0, help="seconds to go on after SIGTERM")
    add("--drain-timeout", type=float, default=25.0, help="seconds for open requests to end")
    add("--log-level", default="warning", help="Envoy's log level")
    add("--max-connections", type=int, default=50_000, help="clients' connections at once")
    return Settings(**vars(parser.parse_args(arguments)))
