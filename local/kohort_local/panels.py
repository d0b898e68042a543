"""What Grafana's boards of the chart show: panels, their queries, and the choices above them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kohort.contract import METRIC_MIRRORED, METRIC_REQUESTS

OWN = 'namespace="$installation"'
# Prometheus calls a label of a metric so where what it scrapes has one of that name already.
OF_MODEL = ('exported_namespace="$namespace"', 'model="$model"', 'cohort=~"$cohort"')
REQUESTS = f'{METRIC_REQUESTS}{{{OWN},arm=~"$namespace/$model/.+",cohort=~"$cohort"}}'
ALL_REQUESTS = f'{METRIC_REQUESTS}{{{OWN},arm!=""}}'
MIRRORED = f'{METRIC_MIRRORED}{{{OWN},stable=~"$namespace/$model/.+",cohort=~"$cohort"}}'
# The label code is HTTP/GRPC/FLAGS/TOOK/SLOT/BY: see kohort.contract, whose measure of a failure this is.
WELL = "([123]..|401|403|404|408|429)/([^0-9/]*|0|5|7|8|16)/.*"
REVISION = '"revision", "$1", "arm", "[^/]+/[^/]+/([^/]+).*"'
TOOK = '"milliseconds", "$1", "code", "[^/]*/[^/]*/[^/]*/([^/]*)/.*"'


@dataclass(frozen=True)
class Query:
    """PromQL, and what a line of its answer is called."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """A picture; ``unit`` is Grafana's name, ``width`` of 24 columns."""

    title: str
    text: str
    queries: tuple[Query, ...]
    unit: str = "short"
    width: int = 8
    kind: str = "timeseries"
    stacked: bool = False


@dataclass(frozen=True)
class Variable:
    """A choice above the panels: the values of ``label`` in ``series``, or what ``regex`` finds in them."""

    name: str
    title: str
    series: str
    label: str
    regex: str = ""
    several: bool = False


def rate(series: str) -> str:
    """Per second, over a window that Grafana chooses by the scrape interval."""
    return f"rate({series}[$__rate_interval])"


def by_revision(series: str) -> str:
    """The rate, with the revision's name as a label."""
    return f"label_replace({rate(series)}, {REVISION})"


def failures(by: str, series: str, counted: Callable[[str], str]) -> str:
    """Share of requests that failed; nought, not nothing, where none did."""
    every = f"sum by ({by}) ({counted(series)})"
    bad = series.replace("}", f',code!~"{WELL}"}}')
    return f"(sum by ({by}) ({counted(bad)}) or 0 * {every}) / ({every} > 0)"


def operator(metric: str, *matchers: str) -> str:
    """A metric of the installation's operators."""
    return f"kohort_operator_{metric}{{{','.join((OWN, *matchers))}}}"


def quantile(metric: str, of: float) -> str:
    """A quantile of one of their histograms."""
    buckets = f"sum by (le) ({rate(operator(f'{metric}_bucket'))})"
    return f"histogram_quantile({of}, {buckets})"


FLEET = (
    Panel(
        "Models",
        "ModelDeployments by phase.",
        (Query(f"max by (phase) ({operator('models')})", "{{phase}}"),),
        kind="bargauge",
    ),
    Panel(
        "Cohorts",
        "Cohorts by phase.",
        (Query(f"max by (phase) ({operator('cohorts')})", "{{phase}}"),),
        kind="bargauge",
    ),
    Panel(
        "Verdicts",
        "What the evidence says of cohorts that have a canary. MetricsError: nothing is measured.",
        (Query(f"max by (verdict) ({operator('verdicts')})", "{{verdict}}"),),
        kind="bargauge",
    ),
    Panel(
        "Decisions",
        "Promotions, rollbacks and the like, by Kohort itself or by a person.",
        (
            Query(
                f"sum by (action, by) (increase({operator('decisions_total')}[$__rate_interval]))",
                "{{action}} by {{by}}",
            ),
        ),
    ),
    Panel(
        "Cohorts in a rollout",
        "Cohorts that have a canary.",
        (Query(f"max({operator('rolling_cohorts')})", "cohorts"),),
    ),
    Panel(
        "Who decides",
        "1 on the operator that leads; none means that no rollout goes on.",
        (Query(f"max by (pod) ({operator('leader')})", "{{pod}}"),),
    ),
    Panel(
        "Requests",
        "Requests of clients that were answered or given up, by gateway.",
        (Query(f"sum by (pod) ({rate(ALL_REQUESTS)})", "{{pod}}"),),
        unit="reqps",
        stacked=True,
    ),
    Panel(
        "Failures",
        "By gateway: share of 5xx, of no answer, and of 4xx that are not about access or load.",
        (Query(failures("pod", ALL_REQUESTS, rate), "{{pod}}"),),
        unit="percentunit",
    ),
    Panel(
        "Open requests and connections",
        "Of clients, at all gateways.",
        (
            Query(f"sum(envoy_http_clients_downstream_rq_active{{{OWN}}})", "requests"),
            Query(f"sum(envoy_http_clients_downstream_cx_active{{{OWN}}})", "connections"),
        ),
    ),
    Panel(
        "Gateways' connection to an operator",
        "0: the gateway serves the routes that it has, and hears of no new ones.",
        (Query(f"min by (pod) (envoy_control_plane_connected_state{{{OWN}}})", "{{pod}}"),),
    ),
    Panel(
        "New routes in effect after",
        "From when routes were decided until every ready gateway serves them.",
        (
            Query(quantile("route_acknowledgement_seconds", 0.5), "median"),
            Query(quantile("route_acknowledgement_seconds", 0.99), "99 %"),
        ),
        unit="s",
    ),
    Panel(
        "Gateways' memory",
        "Allocated by Envoy.",
        (Query(f"sum by (pod) (envoy_server_memory_allocated{{{OWN}}})", "{{pod}}"),),
        unit="bytes",
    ),
    Panel(
        "Passes",
        "Looks at one model each, by outcome. A defect is one of Kohort's own.",
        (
            Query(
                f"sum by (outcome) ({rate(operator('reconcile_seconds_count'))})",
                "{{outcome}}",
            ),
        ),
        unit="ops",
    ),
    Panel(
        "Models wait for a pass",
        "From when a model wants one until a worker takes it.",
        (
            Query(quantile("queue_wait_seconds", 0.99), "99 %"),
            Query(f"max({operator('queue_age_seconds')})", "oldest now"),
        ),
        unit="s",
    ),
    Panel(
        "API calls",
        "Calls to the API server, by its answer; 0 is none.",
        (Query(f"sum by (code) ({rate(operator('api_calls_total'))})", "{{code}}"),),
        unit="reqps",
    ),
    Panel(
        "The API server was last heard",
        "By what is watched; it says something once a minute.",
        (Query(f"max by (resource) ({operator('watch_age_seconds')})", "{{resource}}"),),
        unit="s",
    ),
    Panel(
        "Operators' CPU",
        "Cores.",
        (
            Query(
                f'sum by (pod) (rate(process_cpu_seconds_total{{{OWN},pod=~"kohort-operator.*"}}'
                "[$__rate_interval]))",
                "{{pod}}",
            ),
        ),
    ),
    Panel(
        "Operators' memory",
        "Resident.",
        (
            Query(
                f'sum by (pod) (process_resident_memory_bytes{{{OWN},pod=~"kohort-operator.*"}})',
                "{{pod}}",
            ),
        ),
        unit="bytes",
    ),
)

ROLLOUT = (
    Panel(
        "Share of clients on the canary",
        "By cohort, as the operator wants it; nothing while a cohort has no canary.",
        (
            Query(
                f"max by (cohort) ({operator('rollout_weight_percent', *OF_MODEL)})", "{{cohort}}"
            ),
        ),
        unit="percent",
        width=12,
    ),
    Panel(
        "Step",
        "That a cohort is on, from 0.",
        (Query(f"max by (cohort) ({operator('rollout_step', *OF_MODEL)})", "{{cohort}}"),),
        width=12,
    ),
    Panel(
        "Requests by revision",
        "What clients met, as gateways counted it.",
        (
            Query(
                f"sum by (cohort, revision) ({by_revision(REQUESTS)})",
                "{{cohort}} {{revision}}",
            ),
        ),
        unit="reqps",
        width=12,
        stacked=True,
    ),
    Panel(
        "Failures by revision",
        "Share of requests that failed. Look at both revisions of a cohort at the same time: what both "
        "have is no harm of the new one.",
        (Query(failures("cohort, revision", REQUESTS, by_revision), "{{cohort}} {{revision}}"),),
        unit="percentunit",
        width=12,
    ),
    Panel(
        "Requests by duration",
        "By revision and by the milliseconds that they took at least, in the gateways' classes.",
        (
            Query(
                f"sum by (revision, milliseconds) (label_replace({by_revision(REQUESTS)}, {TOOK}))",
                "{{revision}} from {{milliseconds}} ms",
            ),
        ),
        unit="reqps",
        width=12,
        stacked=True,
    ),
    Panel(
        "Mirrored requests",
        "Of steps with mirror: what came of asking both revisions the same.",
        (Query(f"sum by (cohort, outcome) ({rate(MIRRORED)})", "{{cohort}} {{outcome}}"),),
        unit="reqps",
        width=12,
    ),
)
INSTALLATION = Variable("installation", "Installation", "kohort_operator_leader", "namespace")
OF_ONE_MODEL = (
    INSTALLATION,
    Variable("namespace", "Namespace", ALL_REQUESTS, "arm", r"/^([^\/]+)\//"),
    Variable(
        *("model", "Model"),
        f'{METRIC_REQUESTS}{{{OWN},arm=~"$namespace/.+"}}',
        *("arm", r"/^[^\/]+\/([^\/]+)\//"),
    ),
    Variable(
        *("cohort", "Cohort"),
        f'{METRIC_REQUESTS}{{{OWN},arm=~"$namespace/$model/.+"}}',
        "cohort",
        several=True,
    ),
)

BOARDS = {
    "fleet": ("Kohort: fleet", (INSTALLATION,), FLEET),
    "rollout": ("Kohort: rollout", OF_ONE_MODEL, ROLLOUT),
}
