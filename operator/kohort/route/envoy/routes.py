"""A model's route table as Envoy takes it: one route configuration for each version."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.extensions.retry.priority.previous_priorities.v3 import previous_priorities_config_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf import any_pb2, duration_pb2, wrappers_pb2
from google.protobuf.message import Message

from kohort.analysis.split import split
from kohort.contract import (
    CLUSTER_MIRROR,
    FILTERS_HOST,
    HEADER_COHORT,
    HEADER_MIRROR,
    HEADER_REVISION,
    HEADER_SCOPE,
    HEADER_SLOT,
    SLOTS,
    TABLE_VERSION_PATH,
)
from kohort.route.address import path_prefix
from kohort.route.envoy.clusters import cluster_name
from kohort.route.envoy.resource import Kind, Resource, resource
from kohort.route.envoy.scopes import routes_name
from kohort.route.table import CohortRoute, HeaderMatch, ModelKey, RouteTable, Target

TIMEOUT_SECONDS = 60
TRIES, OWN_TRIES = 3, 2
# A pod that refuses connections never looks busy, so that the least busy is often the same one again.
RETRY_CHOICES = 64
# Inference changes nothing, so a request whose pod died under it goes to another pod of its revision;
# few times, so that one which kills its pod does not kill them all. The last try of a canary's request is
# its stable revision's: the only pod of a canary may have died.
RETRY_ON = "connect-failure,refused-stream,reset"

_OVERWRITE = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_WeightedCluster = route_components_pb2.WeightedCluster
_LENGTH_DELIMITED = 2  # protobuf's wire type of messages
_CLUSTERS = bytes([_WeightedCluster.CLUSTERS_FIELD_NUMBER << 3 | _LENGTH_DELIMITED])
# A cluster's alternative name is its revision. Once for a route it costs each request a tenth of a
# microsecond; in every entry of a split it would cost every change of the split some milliseconds.
_BY_CLUSTER = "%UPSTREAM_CLUSTER%"
# Whoever answered, which may have been the fallback; and who should have, when nobody did.
_WHO_ANSWERED = '%COALESCE({"operators":["UPSTREAM_HOST_NAME","UPSTREAM_CLUSTER"]})%'


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message, deterministic=True)
    return packed


def _add(name: str, value: str) -> base_pb2.HeaderValueOption:
    """For requests: what clients send under our names is gone by then, so nothing is looked for."""
    return base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key=name, value=value))


def _set(name: str, value: str) -> base_pb2.HeaderValueOption:
    """For answers, in which a pod may have said anything."""
    return base_pb2.HeaderValueOption(
        header=base_pb2.HeaderValue(key=name, value=value), append_action=_OVERWRITE
    )


@lru_cache(maxsize=4 * SLOTS)
def _slot(slot: int, units: int) -> bytes:
    """What an entry of a split says of a slot, serialized: as little as can be, because Envoy reads some
    hundred of them."""
    message = _WeightedCluster.ClusterWeight(
        weight=wrappers_pb2.UInt32Value(value=units),
        request_headers_to_add=[_add(HEADER_SLOT, str(slot))],
    )
    return bytes(message.SerializeToString(deterministic=True))


def _varint(number: int) -> bytes:
    """A number as protobuf writes lengths."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _weighted(key: ModelKey, cohort: CohortRoute) -> bytes:
    """The split of a cohort, serialized.

    Messages of one type put end to end are their union, and a large split put together of such pieces
    takes a tenth of the time: it is made anew for every change of a weight.
    """
    arms = {
        canary: bytes(
            _WeightedCluster.ClusterWeight(name=cluster_name(key, target)).SerializeToString()
        )
        for canary, target in (
            (True, Target(cohort.canary, cohort.stable)),
            (False, Target(cohort.stable)),
        )
    }
    sticky = _WeightedCluster(use_hash_policy=wrappers_pb2.BoolValue(value=True))
    parts = [sticky.SerializeToString()]
    for share in split(cohort.weight, cohort.salt):
        entry = arms[share.canary] + _slot(share.slot, share.units)
        parts += (_CLUSTERS, _varint(len(entry)), entry)
    return b"".join(parts)


def _hash_policies(client_key: str) -> list[route_components_pb2.RouteAction.HashPolicy]:
    """The client's key as it is; without a key, the source address."""
    policy = route_components_pb2.RouteAction.HashPolicy
    return [
        policy(header=policy.Header(header_name=client_key), terminal=True),
        policy(connection_properties=policy.ConnectionProperties(source_ip=True)),
    ]


def _retry_policy() -> route_components_pb2.RetryPolicy:
    policy = route_components_pb2.RetryPolicy
    return policy(
        retry_on=RETRY_ON,
        num_retries=wrappers_pb2.UInt32Value(value=TRIES - 1),
        retry_host_predicate=[
            policy.RetryHostPredicate(
                name="envoy.retry_host_predicates.previous_hosts",
                typed_config=_packed(previous_hosts_pb2.PreviousHostsPredicate()),
            )
        ],
        host_selection_retry_max_attempts=RETRY_CHOICES,
        retry_back_off=policy.RetryBackOff(
            base_interval=duration_pb2.Duration(nanos=5_000_000),
            max_interval=duration_pb2.Duration(nanos=50_000_000),
        ),
    )


def _retry_then_fall_back() -> route_components_pb2.RetryPolicy:
    """For canaries alone: it costs each request a percent or so."""
    policy = _retry_policy()
    policy.retry_priority.name = "envoy.retry_priorities.previous_priorities"
    policy.retry_priority.typed_config.CopyFrom(
        _packed(previous_priorities_config_pb2.PreviousPrioritiesConfig(update_frequency=OWN_TRIES))
    )
    return policy


def _mirror_policy(
    key: ModelKey, cohort: CohortRoute
) -> route_components_pb2.RouteAction.RequestMirrorPolicy:
    """Send a copy of some requests to the gateway's own process that compares answers."""
    arms = ",".join(
        cluster_name(key, Target(revision)) for revision in (cohort.stable, cohort.canary)
    )
    return route_components_pb2.RouteAction.RequestMirrorPolicy(
        cluster=CLUSTER_MIRROR,
        runtime_fraction=base_pb2.RuntimeFractionalPercent(
            default_value=percent_pb2.FractionalPercent(numerator=cohort.mirror)
        ),
        request_headers_mutations=[
            mutation_rules_pb2.HeaderMutation(append=_set(HEADER_MIRROR, arms))
        ],
    )


def _without_prefix(key: ModelKey) -> regex_pb2.RegexMatchAndSubstitute | None:
    """Take the prefix off a call by path and leave one by host as it is."""
    prefix = path_prefix(key)
    if prefix is None:
        return None
    return regex_pb2.RegexMatchAndSubstitute(
        pattern=regex_pb2.RegexMatcher(regex=f"^{re.escape(prefix)}(/|$)"), substitution="/"
    )


def _fill_action(
    action: route_components_pb2.RouteAction, table: RouteTable, cohort: CohortRoute
) -> None:
    action.timeout.seconds = TIMEOUT_SECONDS
    if (rewrite := _without_prefix(table.key)) is not None:
        action.regex_rewrite.CopyFrom(rewrite)
    if cohort.mirror:
        action.request_mirror_policies.append(_mirror_policy(table.key, cohort))
    if cohort.canary:
        action.weighted_clusters.MergeFromString(_weighted(table.key, cohort))
        action.hash_policy.extend(_hash_policies(table.client_key))
        action.retry_policy.CopyFrom(_retry_then_fall_back())
    else:
        action.cluster = cluster_name(table.key, Target(cohort.stable))


def _header_matcher(match: HeaderMatch) -> route_components_pb2.HeaderMatcher:
    if not match.values:
        return route_components_pb2.HeaderMatcher(name=match.name, present_match=True)
    if len(match.values) == 1:
        accepted = string_pb2.StringMatcher(exact=match.values[0])
    else:
        alternatives = "|".join(re.escape(value) for value in match.values)
        accepted = string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=alternatives))
    return route_components_pb2.HeaderMatcher(name=match.name, string_match=accepted)


def merged(matches: tuple[tuple[HeaderMatch, ...], ...]) -> tuple[tuple[HeaderMatch, ...], ...]:
    """The same alternatives in fewer: those about one and the same header become one list of values.

    Every alternative repeats the whole split, so that fewer of them make a smaller table.
    """
    values: dict[str, dict[str, None]] = {}
    for match in matches:
        if len(match) == 1:
            values.setdefault(match[0].name, {}).update(dict.fromkeys(match[0].values))
    single = tuple((HeaderMatch(name, tuple(accepted)),) for name, accepted in values.items())
    return single + tuple(match for match in matches if len(match) != 1)


def _fill(
    route: route_components_pb2.Route,
    table: RouteTable,
    cohort: CohortRoute,
    match: tuple[HeaderMatch, ...],
) -> None:
    """One way to belong to a cohort. Filled in place: a split is too large to be copied about."""
    asked, answered = (_BY_CLUSTER, _WHO_ANSWERED) if cohort.canary else (cohort.stable,) * 2
    route.match.prefix = "/"
    route.match.headers.extend(_header_matcher(header) for header in match)
    # Counters are labelled by what stands in the request.
    route.request_headers_to_add.extend(
        (_add(HEADER_COHORT, cohort.name), _add(HEADER_REVISION, asked))
    )
    route.response_headers_to_add.extend(
        (_set(HEADER_COHORT, cohort.told), _set(HEADER_REVISION, answered))
    )
    _fill_action(route.route, table, cohort)


def _version_routes(table: RouteTable) -> Iterator[route_components_pb2.Route]:
    """Answer with the table's version: what is really in effect on the worker that is asked."""
    for prefix in {path_prefix(table.key) or "": None, "": None}:
        yield route_components_pb2.Route(
            match=route_components_pb2.RouteMatch(path=f"{prefix}{TABLE_VERSION_PATH}"),
            direct_response=route_components_pb2.DirectResponseAction(
                status=200, body=base_pb2.DataSource(inline_string=table.version)
            ),
        )


def _disabled() -> any_pb2.Any:
    return _packed(route_components_pb2.FilterConfig(disabled=True))


def route_configuration(table: RouteTable) -> Resource:
    """All routes of one model. What reached it needs no further search for a host."""
    name = routes_name(table.key, table.version)
    message = route_pb2.RouteConfiguration(name=name, request_headers_to_remove=[HEADER_SCOPE])
    virtual_host = message.virtual_hosts.add(
        name=str(table.key), domains=["*"], retry_policy=_retry_policy()
    )
    virtual_host.routes.extend(_version_routes(table))
    for cohort in table.cohorts:
        for match in merged(cohort.matches) or ((),):
            if table.preview and cohort.preview:
                preview = cohort.previewed(table.preview)
                _fill(virtual_host.routes.add(), table, preview, (*match, table.preview))
            _fill(virtual_host.routes.add(), table, cohort, match)
    for host_filter in FILTERS_HOST:
        message.typed_per_filter_config[host_filter].CopyFrom(_disabled())
    return resource(Kind.ROUTES, name, message)
