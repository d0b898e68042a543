"""What Envoy starts with: the operator's address, two listeners, an administration nobody else reaches."""

from __future__ import annotations

import ipaddress
import uuid
from itertools import starmap
from pathlib import Path
from typing import Any

from kohort.contract import (
    CLUSTER_MIRROR,
    HEADER_CLUSTER,
    HEADER_PROCESS,
    MIRROR_COUNTERS_PATH,
)
from kohort.gateway.listener import STAT_PREFIX, STATS_SCOPE, clients_listener, typed
from kohort.gateway.settings import Settings
from kohort.gateway.sockets import REPLAY_SECONDS, mirror_socket, replay_socket

Config = dict[str, Any]

# The name in the operator's certificate; it holds wherever the operator listens.
OPERATOR_NAME = "kohort-operator"
ADMIN = "admin"
STATUS_PATHS = {"/ready": ADMIN, "/stats/prometheus": ADMIN, MIRROR_COUNTERS_PATH: CLUSTER_MIRROR}
# Copies of requests that may be on their way to the process that compares; more are dropped.
MIRROR_REQUESTS = 64
# Counters of revisions that are long gone are forgotten; one in use is never.
EVICTION_INTERVAL = "86400s"
# An operator that starts anew is found soon, and not overrun.
RECONNECT = {"retry_back_off": {"base_interval": "0.1s", "max_interval": "2s"}}
ACTIVE_REQUESTS_STAT = f"http.{STAT_PREFIX}.downstream_rq_active"


def admin_socket(directory: Path) -> Path:
    """The administration interface: a socket that only this process's user can open."""
    return directory / "admin.sock"


def _pipe_or_address(host: str, port: int) -> Config:
    return {"socket_address": {"address": host, "port_value": port}}


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _http2_options() -> Config:
    options = typed(
        "",
        "upstreams.http.v3.HttpProtocolOptions",
        explicit_http_config={
            "http2_protocol_options": {"connection_keepalive": {"interval": "10s", "timeout": "5s"}}
        },
    )
    return {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options["typed_config"]}


def _from_file(directory: Path, name: str) -> Config:
    return {
        "name": name,
        "sds_config": {
            "path_config_source": {"path": str(directory / f"{name}.json")},
            "resource_api_version": "V3",
        },
    }


def secrets(tls_dir: Path) -> dict[str, Config]:
    """Files by name that tell Envoy where certificates are, and to read them again when they change."""
    tls_dir = tls_dir.absolute()
    watched = {"path": str(tls_dir)}
    contents: dict[str, Config] = {
        "identity": {
            "tls_certificate": {
                "certificate_chain": {"filename": str(tls_dir / "tls.crt")},
                "private_key": {"filename": str(tls_dir / "tls.key")},
                "watched_directory": watched,
            }
        },
        "authority": {
            "validation_context": {
                "trusted_ca": {"filename": str(tls_dir / "ca.crt")},
                "watched_directory": watched,
                "match_typed_subject_alt_names": [
                    {"san_type": "DNS", "matcher": {"exact": OPERATOR_NAME}}
                ],
            }
        },
    }
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    return {
        f"{name}.json": {"resources": [{"@type": kind, "name": name, **content}]}
        for name, content in contents.items()
    }


def _operator_cluster(settings: Settings, directory: Path) -> Config:
    host, port = settings.operator_address
    tls = typed(
        "tls",
        "transport_sockets.tls.v3.UpstreamTlsContext",
        sni=OPERATOR_NAME,
        common_tls_context={
            "tls_params": {
                "tls_minimum_protocol_version": "TLSv1_3",
                "tls_maximum_protocol_version": "TLSv1_3",
            },
            "alpn_protocols": ["h2"],
            "tls_certificate_sds_secret_configs": [_from_file(directory, "identity")],
            "validation_context_sds_secret_config": _from_file(directory, "authority"),
        },
    )
    return {
        "name": "operator",
        "type": "STATIC" if _is_address(host) else "STRICT_DNS",
        "connect_timeout": "2s",
        "typed_extension_protocol_options": _http2_options(),
        "transport_socket": tls,
        "load_assignment": {
            "cluster_name": "operator",
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": _pipe_or_address(host, port)}}]}
            ],
        },
    }


def _socket_cluster(name: str, path: Path) -> Config:
    address = {"pipe": {"path": str(path)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def _mirror_cluster(directory: Path) -> Config:
    """The process that compares answers; when it hangs, copies are dropped and nothing waits."""
    few = {
        "max_connections": MIRROR_REQUESTS,
        "max_pending_requests": MIRROR_REQUESTS,
        "max_requests": MIRROR_REQUESTS,
    }
    return _socket_cluster(CLUSTER_MIRROR, mirror_socket(directory)) | {
        "circuit_breakers": {"thresholds": [few]}
    }


def _replay_listener(directory: Path) -> Config:
    """Takes what is to be answered by a revision of the sender's choice: only this process's user can."""
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster_header": HEADER_CLUSTER, "timeout": f"{REPLAY_SECONDS}s"},
        "request_headers_to_remove": [HEADER_CLUSTER],
    }
    manager = typed(
        "http",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="replay",
        generate_request_id=False,
        route_config={"virtual_hosts": [{"name": "replay", "domains": ["*"], "routes": [route]}]},
        http_filters=[
            typed("router", "filters.http.router.v3.Router", suppress_envoy_headers=True)
        ],
    )
    return {
        "name": "replay",
        "address": {"pipe": {"path": str(replay_socket(directory)), "mode": 0o600}},
        "filter_chains": [{"filters": [manager]}],
    }


def _status_route(path: str, cluster: str) -> Config:
    """Exactly this path, without a query: nothing else of the administration is reachable."""
    return {
        "match": {
            "path": path,
            "headers": [
                {"name": ":path", "string_match": {"exact": path}},
                {"name": ":method", "string_match": {"exact": "GET"}},
            ],
        },
        "route": {"cluster": cluster, "timeout": "10s"},
    }


def _status_listener(settings: Settings, process: str) -> Config:
    manager = typed(
        "http",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="status",
        generate_request_id=False,
        request_headers_timeout="5s",
        max_request_headers_kb=8,
        common_http_protocol_options={"idle_timeout": "60s", "max_headers_count": 50},
        route_config={
            "virtual_hosts": [
                {
                    "name": "status",
                    "domains": ["*"],
                    "response_headers_to_add": [
                        {"header": {"key": HEADER_PROCESS, "value": process}}
                    ],
                    "routes": list(starmap(_status_route, STATUS_PATHS.items())),
                }
            ]
        },
        http_filters=[typed("router", "filters.http.router.v3.Router")],
    )
    return {
        "name": "status",
        "address": _pipe_or_address(settings.listen_address, settings.status_port),
        "per_connection_buffer_limit_bytes": 65536,
        "ignore_global_conn_limit": True,
        "filter_chains": [{"filters": [manager]}],
    }


def bootstrap(settings: Settings, directory: Path) -> Config:
    """Envoy's configuration; ``directory`` is private and lives as long as the process."""
    return {
        "node": {"id": settings.node_id, "cluster": "kohort-gateway"},
        "admin": {
            "address": {"pipe": {"path": str(admin_socket(directory)), "mode": 0o600}},
        },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [
                    {"envoy_grpc": {"cluster_name": "operator", "retry_policy": RECONNECT}}
                ],
            },
            "cds_config": {
                "ads": {},
                "resource_api_version": "V3",
                "initial_fetch_timeout": "0s",
            },
        },
        "cluster_manager": {"enable_deferred_cluster_creation": True},
        "static_resources": {
            "clusters": [
                _operator_cluster(settings, directory),
                _socket_cluster(ADMIN, admin_socket(directory)),
                _mirror_cluster(directory),
            ],
            "listeners": [
                clients_listener(settings),
                _status_listener(settings, process=uuid.uuid4().hex),
                _replay_listener(directory),
            ],
        },
        "stats_flush_interval": "1s",
        "stats_eviction_interval": EVICTION_INTERVAL,
        "stats_config": {
            "use_all_default_tags": False,
            "stats_matcher": {
                "inclusion_list": {
                    "patterns": [
                        {"prefix": f"{STATS_SCOPE}."},
                        {"exact": ACTIVE_REQUESTS_STAT},
                        {"exact": f"http.{STAT_PREFIX}.downstream_cx_active"},
                        {"exact": "control_plane.connected_state"},
                        {"exact": "server.uptime"},
                        {"exact": "server.memory_allocated"},
                    ]
                }
            },
        },
        "overload_manager": {
            "resource_monitors": [
                typed(
                    "envoy.resource_monitors.global_downstream_max_connections",
                    "resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                    max_active_downstream_connections=settings.max_connections,
                )
            ]
        },
        "layered_runtime": {
            "layers": [
                {
                    "name": "static",
                    "static_layer": {
                        # A cohort's list of header values is one regular expression.
                        "re2.max_program_size.error_level": 1_000_000,
                        "re2.max_program_size.warn_level": 1_000_000,
                    },
                }
            ]
        },
    }
