"""Pods as Envoy takes them: a cluster for each target, and the endpoints that are ready."""

from __future__ import annotations

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2
from envoy.config.core.v3 import address_pb2, config_source_pb2, protocol_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf import any_pb2, duration_pb2, wrappers_pb2

from kohort.route.envoy.resource import Kind, Resource, resource
from kohort.route.table import Endpoint, Endpoints, ModelKey, Target

CONNECT_TIMEOUT_SECONDS = 2
# Model servers keep an idle connection for longer, so that a request never meets a closing one.
IDLE_TIMEOUT_SECONDS = 45
# Limits belong to the model server's queue: the gateway only guards itself. All requests may be on a pod
# that dies; as only broken connections are retried, never answers, a busy server gets no more to do.
UNLIMITED = 1_000_000

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def cluster_name(key: ModelKey, target: Target) -> str:
    """The name of a target's cluster and of its endpoints."""
    return "/".join((key.namespace, key.name, *filter(None, target)))


def _packed(message: http_protocol_options_pb2.HttpProtocolOptions) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message, deterministic=True)
    return packed


def _limit(value: int) -> wrappers_pb2.UInt32Value:
    return wrappers_pb2.UInt32Value(value=value)


def cluster(key: ModelKey, target: Target) -> Resource:
    """The cluster of one target. Its content depends on nothing but its name."""
    name = cluster_name(key, target)
    options = http_protocol_options_pb2.HttpProtocolOptions(
        common_http_protocol_options=protocol_pb2.HttpProtocolOptions(
            idle_timeout=duration_pb2.Duration(seconds=IDLE_TIMEOUT_SECONDS)
        ),
        # HTTP/2 for clients of gRPC, who need it, and the cheaper HTTP/1.1 for all that speak it.
        use_downstream_protocol_config=http_protocol_options_pb2.HttpProtocolOptions.UseDownstreamHttpConfig(
            http_protocol_options=protocol_pb2.Http1ProtocolOptions(),
            http2_protocol_options=protocol_pb2.Http2ProtocolOptions(),
        ),
    )
    breakers = circuit_breaker_pb2.CircuitBreakers(
        thresholds=[
            circuit_breaker_pb2.CircuitBreakers.Thresholds(
                max_connections=_limit(UNLIMITED),
                max_pending_requests=_limit(UNLIMITED),
                max_requests=_limit(UNLIMITED),
                max_retries=_limit(UNLIMITED),
            )
        ]
    )
    ads = config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(),
        resource_api_version=config_source_pb2.V3,
        # Endpoints always come: an empty list is a list, and waiting for it must not end in a guess.
        initial_fetch_timeout=duration_pb2.Duration(seconds=0),
    )
    message = cluster_pb2.Cluster(
        name=name,
        # What routes call the revision that serves a request.
        alt_stat_name=target.revision,
        type=cluster_pb2.Cluster.EDS,
        eds_cluster_config=cluster_pb2.Cluster.EdsClusterConfig(eds_config=ads),
        lb_policy=cluster_pb2.Cluster.LEAST_REQUEST,
        connect_timeout=duration_pb2.Duration(seconds=CONNECT_TIMEOUT_SECONDS),
        circuit_breakers=breakers,
        # Readiness comes from Kubernetes: with few of many pods ready, all others stay excluded.
        common_lb_config=cluster_pb2.Cluster.CommonLbConfig(
            healthy_panic_threshold=percent_pb2.Percent(value=0)
        ),
    )
    message.typed_extension_protocol_options[_HTTP_OPTIONS].CopyFrom(_packed(options))
    return resource(Kind.CLUSTER, name, message)


def load_assignment(key: ModelKey, target: Target, ready: Endpoints) -> Resource:
    """The ready endpoints of a target, in an order of their own, so that equal sets are equal.

    Those of its fallback have the second priority: they are for what the others did not take.
    """
    name = cluster_name(key, target)
    message = endpoint_pb2.ClusterLoadAssignment(
        cluster_name=name,
        endpoints=[
            endpoint_components_pb2.LocalityLbEndpoints(
                priority=priority,
                lb_endpoints=[
                    _endpoint(revision, endpoint)
                    for endpoint in sorted(set(ready.get(revision, ())))
                ],
            )
            for priority, revision in enumerate(filter(None, target))
        ],
    )
    return resource(Kind.ENDPOINTS, name, message)


def _endpoint(revision: str, endpoint: Endpoint) -> endpoint_components_pb2.LbEndpoint:
    return endpoint_components_pb2.LbEndpoint(
        endpoint=endpoint_components_pb2.Endpoint(
            # What answers are told to be from.
            hostname=revision,
            address=address_pb2.Address(
                socket_address=address_pb2.SocketAddress(
                    address=endpoint.address, port_value=endpoint.port
                )
            ),
        )
    )
