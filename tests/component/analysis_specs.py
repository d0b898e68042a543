"""Specs that ask for an analysis that cannot be, and the advice that refuses them."""

from __future__ import annotations

from typing import Any

EVERYONE = {"name": "everyone"}
PROMETHEUS = {"url": "http://prometheus.monitoring:9090"}
SELECTOR = 'checkouts_total{revision="{{revision}}"}'


def counting(*, of: Any = None, where: Any = None, **metric: Any) -> dict[str, Any]:
    """A spec with conversions as a metric; ``of``: what of its counters is otherwise; ``where``: of
    Prometheus."""
    counts = {"good": SELECTOR, "total": SELECTOR, **(of or {})}
    given = {name: query for name, query in counts.items() if query is not None}
    conversions = {"name": "conversions", "counts": given, **metric}
    metrics = [{"name": "errors"}, conversions]
    return {"analysis": {"prometheus": {**PROMETHEUS, **(where or {})}, "metrics": metrics}}


def scoring(*, of: dict[str, Any] | None = None, **metric: Any) -> dict[str, Any]:
    """A spec with a histogram in Prometheus."""
    quality = {"name": "quality", "score": {"buckets": SELECTOR, **(of or {})}, **metric}
    return {"analysis": {"prometheus": PROMETHEUS, "metrics": [{"name": "errors"}, quality]}}


ACCEPTED: dict[str, dict[str, Any]] = {
    "counters in Prometheus, with a margin relative to stable's share": counting(
        of={"sumOver": ["pod"], "marginType": "Relative"}, margin="5%", minClients=20
    ),
    "counters that tell client slots": counting(of={"sumOver": ["pod"], "slotLabel": "slot"}),
    "a histogram of scores": scoring(
        of={"better": "Lower", "sumOver": ["pod"], "slotLabel": "slot", "marginType": "Relative"},
        margin="5%",
    ),
    "counters of bad ones, and a query with every placeholder": counting(
        of={
            "good": None,
            "bad": 'bad_total{ns="{{namespace}}",m="{{name}}",c="{{cohort}}",r="{{revision}}"}',
        }
    ),
    "counters whose names look like functions": counting(
        of={"total": 'rate_total{min="1",revision="{{revision}}"}'}
    ),
    "a proof of counters alone": {
        "analysis": {
            "prometheus": PROMETHEUS,
            "metrics": [
                {
                    "name": "conversions",
                    "role": "Goal",
                    "margin": "0%",
                    "counts": {"good": SELECTOR, "total": SELECTOR},
                }
            ],
        },
        "cohorts": [{**EVERYONE, "steps": [{"weight": 25, "until": "NonInferior"}]}],
    },
    "a Prometheus with credentials, a path and patience": {
        "analysis": {
            "source": "Prometheus",
            "prometheus": {
                "url": "https://mimir.example:8443/prometheus",
                "secretRef": {"name": "prometheus-reader"},
                "tenantHeader": "THANOS-TENANT",
                "timeout": "30s",
                "staleAfter": "10m",
            },
        }
    },
}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an error rate that nobody can mean": (
        {"analysis": {"falseRollback": "50%"}},
        "falseRollback must be between 0.0001% and 20%",
    ),
    "a promotion error that nobody can mean": (
        {"analysis": {"falsePromotion": "0%"}},
        "falsePromotion must be between 0.0001% and 20%",
    ),
    "a metric that does not exist": (
        {"analysis": {"metrics": [{"name": "vibes"}]}},
        "a metric of another name needs either counts",
    ),
    "a pass without hold": (
        {"cohorts": [{**EVERYONE, "steps": [{"weight": 25, "until": "Pass"}]}]},
        "until: Pass needs hold",
    ),
    "a pass of a step with nothing to compare": (
        {"cohorts": [{**EVERYONE, "steps": [{"weight": 100, "until": "Pass", "hold": "5m"}]}]},
        "until: Pass needs hold, and clients on both revisions",
    ),
    "a proof with hold": (
        {
            "cohorts": [
                {**EVERYONE, "steps": [{"weight": 25, "until": "NonInferior", "hold": "5m"}]}
            ]
        },
        "set one of hold, until and pause",
    ),
    "a metric twice": (
        {"analysis": {"metrics": [{"name": "errors"}, {"name": "errors", "margin": "2%"}]}},
        "Duplicate value",
    ),
    "a proof of latency": (
        {"analysis": {"metrics": [{"name": "latency", "role": "Goal"}]}},
        "latency can only be a Guardrail",
    ),
    "a proof of errors where only latency is looked at": (
        {
            "analysis": {"metrics": [{"name": "latency"}]},
            "cohorts": [{**EVERYONE, "steps": [{"weight": 25, "until": "NonInferior"}]}],
        },
        "until: NonInferior waits for errors",
    ),
    "more failures tolerated than there are requests": (
        {"analysis": {"metrics": [{"name": "errors", "margin": "101%"}]}},
        "at most 100%",
    ),
    "more clients than slots": (
        {"analysis": {"metrics": [{"name": "errors", "minClients": 257}]}},
        "spec.analysis.metrics[0].minClients",
    ),
    "counters under the name of what gateways count": (
        {
            "analysis": {
                "prometheus": PROMETHEUS,
                "metrics": [{"name": "errors", "counts": {"good": SELECTOR, "total": SELECTOR}}],
            }
        },
        "give the metric with counts or score another name",
    ),
    "counters and no Prometheus": (
        {"analysis": {"metrics": counting()["analysis"]["metrics"]}},
        "set prometheus.url",
    ),
    "a source that is nowhere": ({"analysis": {"source": "Prometheus"}}, "set prometheus.url"),
    "a Prometheus that nothing is read from": (
        {"analysis": {"prometheus": PROMETHEUS}},
        "nothing would be read from prometheus",
    ),
    "both the good and the bad ones": (
        counting(of={"bad": SELECTOR}),
        "give either good or bad",
    ),
    "neither the good nor the bad ones": (counting(of={"good": None}), "give either good or bad"),
    "a query that is the same for both revisions": (
        counting(of={"total": "checkouts_total"}),
        "a query must tell revisions apart",
    ),
    "a placeholder that nobody fills": (
        counting(of={"total": 'a{r="{{revision}}",p="{{pod}}"}'}),
        "no other {{…}}",
    ),
    "a rate": (
        counting(of={"total": f"rate({SELECTOR}[5m])"}),
        "Kohort takes differences itself",
    ),
    "a sum": (
        counting(of={"total": f"sum by (pod) ({SELECTOR})"}),
        "adds up those that differ in sumOver",
    ),
    "a label that is none": (
        counting(of={"sumOver": ["kubernetes.io/pod"]}),
        "spec.analysis.metrics[1].counts.sumOver[0]",
    ),
    "slots that are added up": (
        counting(of={"sumOver": ["pod", "slot"], "slotLabel": "slot"}),
        "slotLabel tells client slots apart: leave it out of sumOver",
    ),
    "a label of slots that is none": (
        counting(of={"slotLabel": "kubernetes.io/slot"}),
        "spec.analysis.metrics[1].counts.slotLabel",
    ),
    "a histogram and counters at once": (
        scoring(counts={"total": SELECTOR, "good": SELECTOR}),
        "a metric of another name needs either counts, its counters in Prometheus, or score",
    ),
    "a histogram that is no guardrail": (scoring(role="Goal"), "score can only be a Guardrail"),
    "buckets that are added up": (scoring(of={"sumOver": ["le"]}), "le tells buckets apart"),
    "a histogram of latency": (
        scoring(name="latency"),
        "give the metric with counts or score another name",
    ),
    "a histogram that is asked for nowhere": (
        {"analysis": {"metrics": scoring()["analysis"]["metrics"]}},
        "metrics with counts or score need prometheus",
    ),
    "a goal of counters that nothing is proven against": (
        counting(role="Goal"),
        "a Goal with counts needs margin",
    ),
    "a margin that nothing exceeds": (
        counting(margin="100%"),
        "margin of counts and score must be below",
    ),
    "clients of counters alone": (
        {
            "analysis": {
                "prometheus": PROMETHEUS,
                "metrics": [counting(minClients=5)["analysis"]["metrics"][1]],
            }
        },
        "minClients needs errors or latency",
    ),
    "a pass by counters alone": (
        {
            "analysis": {
                "prometheus": PROMETHEUS,
                "metrics": [
                    counting(role="Goal", margin="1%")["analysis"]["metrics"][1],
                ],
            },
            "cohorts": [{**EVERYONE, "steps": [{"weight": 25, "until": "Pass", "hold": "5m"}]}],
        },
        "and Pass too",
    ),
    "credentials in the address of Prometheus": (
        counting(where={"url": "http://me:secret@prometheus:9090"}),
        "credentials belong into secretRef",
    ),
    "an address of a query": (
        counting(where={"url": "http://prometheus:9090/api/v1/query"}),
        "leave out /api/v1/query",
    ),
    "more patience with Prometheus than a rollout has": (
        counting(where={"timeout": "31s"}),
        "timeout must be between 1s and 30s",
    ),
    "samples of another day": (
        counting(where={"staleAfter": "11m"}),
        "staleAfter must be between 1s and 10m",
    ),
    "counters of a gateway that keeps no client where it is": (
        {
            **counting(),
            "route": {"type": "GatewayAPI", "gatewayAPI": {"parentRefs": [{"name": "public"}]}},
        },
        "Kohort compares revisions only behind its own gateways",
    ),
}
