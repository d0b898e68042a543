"""The listener for clients: limits, the search for a model, slots, counters."""

from __future__ import annotations

from typing import Any

from kohort.contract import (
    FILTERS_HOST,
    HEADER_COHORT,
    HEADER_SCOPE,
    HEADER_SLOT,
    LABEL_ARM,
    METRIC_REQUESTS,
    PROTOCOL_SEGMENT,
    TOOK_MS,
)
from kohort.gateway.settings import Settings

Config = dict[str, Any]

STATS_SCOPE = "kohort"
STAT_PREFIX = "clients"
MIB = 1 << 20
HTTP2_STREAMS = 256
HTTP2_WINDOW = MIB
_EXPORTED_PREFIX = f"envoy_{STATS_SCOPE}_"
_PROTOCOL = f"/{PROTOCOL_SEGMENT}/"

# A client's own are never believed. Those that would change what Envoy does with a request (x-envoy-…)
# are removed by Envoy itself, for which every client is external.
OWN_HEADER_PREFIX = "x-kohort-"

NO_MODEL = (
    "no model here: call /NAMESPACE/NAME/v2/… or send Host: NAME.NAMESPACE, "
    "and see kubectl get mdep -A for what there is"
)


def typed(name: str, message: str, **fields: Any) -> Config:
    """An extension's entry in Envoy's configuration."""
    return {
        "name": name,
        "typed_config": {"@type": f"type.googleapis.com/envoy.extensions.{message}", **fields},
    }


def _set_scope(value: str) -> Config:
    return {
        "append": {
            "header": {"key": HEADER_SCOPE, "value": value},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    }


def _early_mutations() -> Config:
    """Before anything is matched: remove what only we may say, and say where to look for a model.

    What stands between the first two ``/v2/`` of the scope header is the key of a model's scope:
    ``HOST,`` when the path begins with it, and else ``,/NAMESPACE/NAME``. No host has a slash.
    """
    return typed(
        "edge",
        "http.early_header_mutation.header_mutation.v3.HeaderMutation",
        mutations=[
            {"remove_on_match": {"key_matcher": {"prefix": OWN_HEADER_PREFIX}}},
            _set_scope(
                f"%REQ(:path):{len(_PROTOCOL)}%%REQ(:authority)%,{_PROTOCOL},%PATH(NQ)%{_PROTOCOL}"
            ),
        ],
    )


def _host_filters() -> list[Config]:
    """Look by host for the model of a path that is not the protocol's, as those of gRPC are.

    Routes of a model switch these off, so only other calls pay.
    """
    mutate, reroute = FILTERS_HOST
    return [
        typed(
            mutate,
            "filters.http.header_mutation.v3.HeaderMutation",
            mutations={
                "request_mutations": [_set_scope(f"{_PROTOCOL}%REQ(:authority)%,{_PROTOCOL}")]
            },
        ),
        typed(reroute, "filters.http.set_filter_state.v3.Config", clear_route_cache=True),
    ]


def _tag(name: str, value: str) -> Config:
    return {"name": name, "value_format": value}


def _took(op: str, milliseconds: int) -> Config:
    value = {"default_value": milliseconds, "runtime_key": f"kohort.took.{milliseconds}"}
    return {"duration_filter": {"comparison": {"op": op, "value": value}}}


def _counters() -> list[Config]:
    """One count for every answered or abandoned request that had a model, by how long it took.

    Envoy has no tag for a class of duration, so there is a counter for each class, and a filter that
    lets each request through to one of them. A histogram beside one counter would cost as much, and would
    not tell how long each slot's requests took.
    """
    # Every tag costs each request about half a microsecond: the cluster names model and revision.
    # A client's own headers were removed, and routes set theirs before a pod is looked for, so that
    # these are right for every ending. Metadata would cost each request four microseconds more.
    tags = [
        _tag(LABEL_ARM, "%UPSTREAM_CLUSTER_RAW%"),
        _tag("cohort", f"%REQ({HEADER_COHORT})%"),
    ]
    # One tag for all that is told of an answer.
    ending = "%RESPONSE_CODE%/%GRPC_STATUS(NUMBER)%/%RESPONSE_FLAGS%"
    last = f"%REQ({HEADER_SLOT})%/%UPSTREAM_HOST_NAME%"
    name = METRIC_REQUESTS.removeprefix(_EXPORTED_PREFIX)

    def counter(low: int, high: int | None) -> Config:
        within = [_took("GE", low), *([] if high is None else [_took("LE", high - 1)])]
        stat = {"name": name, "tags": [*tags, _tag("code", f"{ending}/{low}/{last}")]}
        return {
            "filter": {"and_filter": {"filters": within}} if high is not None else within[0],
            **typed(
                "counters",
                "access_loggers.stats.v3.Config",
                stats_scope={"prefix": STATS_SCOPE, "enable_eviction": True},
                counters=[{"stat": stat, "value_fixed": 1}],
            ),
        }

    return [counter(low, high) for low, high in zip(TOOK_MS, (*TOOK_MS[1:], None), strict=True)]


def _scoped_routes() -> Config:
    """One scope and one route table for each model, all from the operator."""
    key = {"name": HEADER_SCOPE, "element_separator": _PROTOCOL, "index": 1}
    ads: Config = {
        "ads": {},
        "resource_api_version": "V3",
        # Without this a gateway that reaches no operator would become ready and answer 404.
        "initial_fetch_timeout": "0s",
    }
    return {
        "name": "models",
        "scope_key_builder": {"fragments": [{"header_value_extractor": key}]},
        "rds_config_source": ads,
        "scoped_rds": {"scoped_rds_config_source": ads},
    }


def _local_replies() -> Config:
    """Answers that no model server gave: JSON in the shape that model servers use, and for clients of
    gRPC the text of their status.
    """
    no_route = {"response_flag_filter": {"flags": ["NR"]}}
    value = {"default_value": 400, "runtime_key": "kohort.local_reply"}
    error = {"status_code_filter": {"comparison": {"op": "GE", "value": value}}}
    by_grpc = {"name": "content-type", "string_match": {"prefix": "application/grpc"}}
    told = ((no_route, NO_MODEL), (error, "gateway: %LOCAL_REPLY_BODY% (%RESPONSE_FLAGS%)"))
    return {
        "mappers": [
            {
                "filter": {
                    "and_filter": {"filters": [{"header_filter": {"header": by_grpc}}, why]}
                },
                "body_format_override": {"text_format_source": {"inline_string": text}},
            }
            for why, text in told
        ]
        + [
            {"filter": why, "body_format_override": {"json_format": {"error": text}}}
            for why, text in told
        ]
    }


def clients_listener(settings: Settings) -> Config:
    """HTTP/1.1 and HTTP/2 without TLS on one port."""
    manager = typed(
        "http",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=STAT_PREFIX,
        codec_type="AUTO",
        scoped_routes=_scoped_routes(),
        use_remote_address=True,
        # Nobody is internal: who is may send x-envoy-… headers, and an empty list means a default.
        internal_address_config={"cidr_ranges": [{"address_prefix": "::", "prefix_len": 128}]},
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="KEEP_UNCHANGED",
        strip_any_host_port=True,
        strip_trailing_host_dot=True,
        generate_request_id=False,
        server_header_transformation="PASS_THROUGH",
        early_header_mutation_extensions=[_early_mutations()],
        local_reply_config=_local_replies(),
        access_log=_counters(),
        max_request_headers_kb=60,
        request_headers_timeout="10s",
        stream_idle_timeout="120s",
        drain_timeout="5s",
        common_http_protocol_options={
            "idle_timeout": "600s",
            "max_headers_count": 100,
            "headers_with_underscores_action": "ALLOW",
        },
        # Old probes and load generators speak HTTP/1.0, without a host.
        http_protocol_options={"accept_http_10": True, "default_host_for_http_10": "kohort"},
        http2_protocol_options={
            "max_concurrent_streams": HTTP2_STREAMS,
            "initial_stream_window_size": HTTP2_WINDOW,
            "initial_connection_window_size": HTTP2_WINDOW,
        },
        http_filters=[
            *_host_filters(),
            typed("router", "filters.http.router.v3.Router", suppress_envoy_headers=True),
        ],
    )
    return {
        "name": "clients",
        "address": {
            "socket_address": {"address": settings.listen_address, "port_value": settings.port}
        },
        "per_connection_buffer_limit_bytes": MIB,
        "filter_chains": [{"filters": [manager]}],
    }
