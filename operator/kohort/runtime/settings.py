"""How an operator is told what to do: flags, each with a default that suits a pod."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from kohort import contract
from kohort.api import quantity

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Settings(Struct, frozen=True, kw_only=True):
    """Settings of one operator process; durations in seconds."""

    namespace: str
    identity: str
    server_image: str
    service_account_dir: Path = SERVICE_ACCOUNT
    kubeconfig: Path | None = None
    listen_address: str = "0.0.0.0"  # noqa: S104
    routes_port: int = contract.PORT_OPERATOR_ROUTES
    status_port: int = contract.PORT_OPERATOR_STATUS
    view_port: int = 0
    scrape_interval: float = 5.0
    resync: float = 300.0
    watch_namespaces: tuple[str, ...] = ()
    lease_duration: float = 15.0
    lease_deadline: float = 10.0
    lease_retry: float = 2.0
    workers: int = 16
    event_sink: str = ""
    gateway_service: str = ""
    gateway_api: bool = False
    prometheus_urls: tuple[str, ...] = ()


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """Settings from a command line; exits with a usage message when it makes no sense."""
    parser = argparse.ArgumentParser(prog="kohort-operator", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the operator until SIGTERM")
    option = run.add_argument
    option("--namespace", default=os.environ.get("POD_NAMESPACE", ""), help="the operator's own")
    option(
        "--identity",
        default=os.environ.get("POD_NAME") or socket.gethostname(),
        help="name of this process among the replicas (default: $POD_NAME)",
    )
    option("--server-image", required=True, help="image of the model server")
    option(
        "--service-account-dir",
        type=Path,
        default=SERVICE_ACCOUNT,
        help="where token and ca.crt of the service account are mounted",
    )
    option("--kubeconfig", type=Path, help="use this instead of the service account")
    option(
        "--listen-address",
        default=os.environ.get("POD_IP", "0.0.0.0"),  # noqa: S104
        help="address to listen on (default: $POD_IP)",
    )
    option("--routes-port", type=int, default=contract.PORT_OPERATOR_ROUTES, help="for gateways")
    option(
        "--status-port",
        type=int,
        default=contract.PORT_OPERATOR_STATUS,
        help="for /healthz, /readyz and /metrics",
    )
    option(
        "--view-port",
        type=int,
        default=0,
        help="serve the web view over TLS here; needs permission to create tokenreviews and "
        "subjectaccessreviews (default: it is not served)",
    )
    option("--scrape-interval", type=_duration, default=5.0, help="between looks at the counters")
    option("--resync", type=_duration, default=300.0, help="between full lists of models")
    option(
        "--watch-namespaces",
        type=_names,
        default=(),
        help="comma-separated namespaces with models (default: all)",
    )
    option(
        "--lease-duration", type=_duration, default=15.0, help="until a silent leader is replaced"
    )
    option(
        "--lease-deadline", type=_duration, default=10.0, help="until a leader gives up renewing"
    )
    option(
        "--lease-retry", type=_duration, default=2.0, help="between tries to get or renew the lease"
    )
    option("--workers", type=int, default=16, help="models that are worked on at a time")
    option(
        "--event-sink",
        type=_url,
        default=os.environ.get("KOHORT_EVENT_SINK", ""),
        help="http(s) URL that takes CloudEvents of decisions and events (default: $KOHORT_EVENT_SINK)",
    )
    option(
        "--gateway-service",
        default="",
        metavar="DNS-NAME",
        help="of the gateways' Service, such as kohort-gateway.kohort-system.svc.cluster.local: with it "
        "clients in the cluster may call each model as http://NAME.NAMESPACE (default: they may not)",
    )
    option(
        "--gateway-api",
        action="store_true",
        help="write HTTPRoutes and GRPCRoutes for models with route.type GatewayAPI; needs its CRDs",
    )
    option(
        "--prometheus-urls",
        type=_urls,
        default=(),
        help="comma-separated http(s) URLs of Prometheus-compatible APIs that models may name in "
        "analysis.prometheus (default: none)",
    )
    given = vars(parser.parse_args(arguments))
    del given["command"]
    settings = Settings(**given)
    if not settings.namespace:
        run.error("set --namespace or $POD_NAMESPACE to the namespace that the operator runs in")
    if not settings.lease_duration > settings.lease_deadline > settings.lease_retry:
        run.error("--lease-duration must exceed --lease-deadline, and that --lease-retry")
    return settings


def _duration(text: str) -> float:
    value = quantity.seconds(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 5s or 1m30s")
    return value


def _url(text: str) -> str:
    parts = urlsplit(text)
    if text and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no URL such as https://events.example/kohort"
        )
    return text


def _urls(text: str) -> tuple[str, ...]:
    return tuple(_url(each) for each in _names(text))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
