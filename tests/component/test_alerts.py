"""Each alert of the chart, in promtool: silent while all is well, loud in time when it is not."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec.yaml
import pytest

from kohort_local.helm import Helm
from kohort_local.prometheus import PROMETHEUS

NAMESPACE = "kohort-system"
RUNBOOKS = "https://docs.example/runbooks/"
Series = dict[str, str]

# A healthy installation, a sample each minute, in promtool's notation: from+step x times.
WELL: Series = {
    'kohort_operator_leader{pod="o-1"}': "1+0x60",
    'kohort_operator_leader{pod="o-2"}': "0+0x60",
    'envoy_control_plane_connected_state{pod="g-1"}': "1+0x60",
    'envoy_control_plane_connected_state{pod="g-2"}': "1+0x60",
    'kohort_operator_queue_age_seconds{pod="o-1"}': "0+0x60",
    'kohort_operator_watch_age_seconds{resource="pods"}': "30+0x60",
    'kohort_operator_watch_age_seconds{resource="deployments"}': "30+0x60",
    "kohort_operator_models_watch_lag_seconds": "0+0x60",
    "kohort_operator_route_refusals_total": "0+0x60",
    'kohort_operator_route_acknowledgement_seconds_bucket{le="1"}': "0+10x60",
    'kohort_operator_route_acknowledgement_seconds_bucket{le="10"}': "0+10x60",
    'kohort_operator_route_acknowledgement_seconds_bucket{le="+Inf"}': "0+10x60",
    'kohort_operator_reconcile_seconds_count{outcome="ok"}': "0+100x60",
    'kohort_operator_reconcile_seconds_count{outcome="defect"}': "0+0x60",
    'kohort_operator_verdicts{verdict="Insufficient"}': "3+0x60",
    'kohort_operator_verdicts{verdict="MetricsError"}': "0+0x60",
    'kohort_operator_decisions_total{action="Promoted",by="kohort"}': "0+1x60",
    'kohort_operator_decisions_total{action="RolledBack",by="kohort"}': "0+0x60",
    'kohort_operator_models{phase="Healthy"}': "7+0x60",
    'kohort_operator_models{phase="Degraded"}': "0+0x60",
    'kohort_operator_events_lost_total{why="overflow"}': "0+0x60",
    'kohort_operator_cloudevents_total{result="delivered"}': "0+9x60",
    'kohort_operator_cloudevents_total{result="refused"}': "0+0x60",
}


@dataclass(frozen=True)
class Case:
    """One alert: what differs from a healthy installation, from minute 10 on; minutes at which it is
    not told yet, and told; its labels.
    """

    alert: str
    differs: Series
    silent: int
    told: int
    severity: str
    labels: Mapping[str, str] = field(default_factory=dict)


CASES = [
    Case(
        "KohortNobodyDecides",
        {'kohort_operator_leader{pod="o-1"}': "1+0x9 0+0x50"},
        *(11, 12, "critical"),
    ),
    Case(
        "KohortNobodyDecides",  # nobody is scraped any more
        {
            'kohort_operator_leader{pod="o-1"}': "1+0x9 stale",
            'kohort_operator_leader{pod="o-2"}': "0+0x9 stale",
        },
        *(11, 12, "critical"),
    ),
    Case(
        "KohortGatewaysCutOff",
        {'envoy_control_plane_connected_state{pod="g-2"}': "1+0x9 0+0x50"},
        *(14, 15, "critical", {"pod": "g-2"}),
    ),
    Case(
        "KohortRoutesSlow",
        {
            'kohort_operator_route_acknowledgement_seconds_bucket{le="1"}': "0+10x9 90+0x50",
            'kohort_operator_route_acknowledgement_seconds_bucket{le="10"}': "0+10x60",
        },
        *(12, 32, "warning"),
    ),
    Case(
        "KohortDecidesLate",
        {'kohort_operator_queue_age_seconds{pod="o-1"}': "0+0x9 61+60x50"},
        *(14, 15, "warning"),
    ),
    Case(
        "KohortSeesThePast",
        {'kohort_operator_watch_age_seconds{resource="pods"}': "30+0x9 121+60x50"},
        *(11, 12, "warning", {"resource": "pods"}),
    ),
    Case(
        "KohortModelsLag",
        {"kohort_operator_models_watch_lag_seconds": "0+0x9 121+60x50"},
        *(11, 12, "warning"),
    ),
    Case(
        "KohortRoutesRefused",
        {"kohort_operator_route_refusals_total": "0+0x9 1+0x50"},
        *(9, 11, "warning"),
    ),
    Case(
        "KohortPassesFail",
        {'kohort_operator_reconcile_seconds_count{outcome="defect"}': "0+0x9 1+0x50"},
        *(9, 11, "warning", {"outcome": "defect"}),
    ),
    Case(
        "KohortCannotMeasure",
        {'kohort_operator_verdicts{verdict="MetricsError"}': "0+0x9 1+0x50"},
        *(19, 20, "warning"),
    ),
    Case(
        "KohortRolledBack",
        {
            'kohort_operator_decisions_total{action="RolledBack",by="kohort"}': "0+0x9 1+0x50",
        },
        *(9, 11, "info"),
    ),
    Case(
        "KohortModelsDegraded",
        {'kohort_operator_models{phase="Degraded"}': "0+0x9 1+0x50"},
        *(24, 25, "info"),
    ),
    Case(
        "KohortNewsLost",
        {'kohort_operator_events_lost_total{why="overflow"}': "0+0x9 1+0x50"},
        *(9, 11, "info", {"why": "overflow"}),
    ),
    Case(
        "KohortNewsLost",
        {'kohort_operator_cloudevents_total{result="refused"}': "0+0x9 1+0x50"},
        *(9, 11, "info", {"result": "refused"}),
    ),
]


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rules as Prometheus reads them, out of the chart's PrometheusRule."""
    values = {"monitoring": {"rules": {"enabled": True, "runbooks": RUNBOOKS}}}
    objects = Helm(print).render(NAMESPACE, values)
    (rule,) = (o for o in objects if o["kind"] == "PrometheusRule")
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_bytes(msgspec.yaml.encode(rule["spec"]))
    return path


def alerts(rules: Path) -> dict[str, dict[str, Any]]:
    groups = msgspec.yaml.decode(rules.read_bytes())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def promtool(*arguments: str) -> str:
    """What promtool prints; fails in its words."""
    program = PROMETHEUS.ensure(print) / "promtool"
    done = subprocess.run(
        [str(program), *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def placed(series: Series) -> list[dict[str, str]]:
    """As they are scraped: of the installation's namespace, beside those of another one."""
    found = []
    for name, values in series.items():
        metric, _, labels = name.partition("{")
        labels = labels.rstrip("}")
        place = f'namespace="{NAMESPACE}"' + (f",{labels}" if labels else "")
        found.append({"series": f"{metric}{{{place}}}", "values": values})
    return found


def expected(rule: Mapping[str, Any], case: Case) -> dict[str, Any]:
    """The alert with its words, templates filled in."""

    def said(text: str) -> str:
        return re.sub(r"{{ \$labels\.(\w+) }}", lambda m: case.labels[m[1]], text)

    # Rules that look at series one by one say whose they are.
    own = {"namespace": NAMESPACE} if rule["expr"].startswith("increase(") else {}
    return {
        "exp_labels": {"severity": case.severity, **own, **case.labels},
        "exp_annotations": {name: said(text) for name, text in rule["annotations"].items()},
    }


def run(rules: Path, directory: Path, series: Series, tests: list[dict[str, Any]]) -> None:
    content = {
        "rule_files": [str(rules)],
        "evaluation_interval": "1m",
        "tests": [
            {"interval": "1m", "input_series": placed(series), "alert_rule_test": tests},
        ],
    }
    path = directory / "tests.yaml"
    path.write_bytes(msgspec.yaml.encode(content))
    promtool("test", "rules", str(path))


def test_rules_are_what_prometheus_takes(rules: Path) -> None:
    assert f"{len(alerts(rules))} rules found" in promtool("check", "rules", str(rules))


def test_every_alert_has_a_case(rules: Path) -> None:
    assert {case.alert for case in CASES} == alerts(rules).keys()


def test_nothing_is_told_of_a_healthy_installation(rules: Path, tmp_path: Path) -> None:
    silent = [
        {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": []}
        for name in alerts(rules)
        for minute in (1, 20, 59)
    ]
    run(rules, tmp_path, WELL, silent)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}-{[*case.differs][-1]}")
def test_an_alert_is_told_in_time_and_no_other(case: Case, rules: Path, tmp_path: Path) -> None:
    known = alerts(rules)
    told = expected(known[case.alert], case)
    others = [name for name in known if name != case.alert]
    run(
        rules,
        tmp_path,
        {**WELL, **case.differs},
        [
            {"eval_time": f"{case.silent}m", "alertname": case.alert, "exp_alerts": []},
            {"eval_time": f"{case.told}m", "alertname": case.alert, "exp_alerts": [told]},
            *(
                {"eval_time": f"{case.told}m", "alertname": name, "exp_alerts": []}
                for name in others
            ),
        ],
    )


def test_alerts_lead_to_where_the_runbooks_are_published(rules: Path) -> None:
    for name, rule in alerts(rules).items():
        assert rule["annotations"]["runbook"] == f"docs/runbooks.md#{name.lower()}"
        assert rule["annotations"]["runbook_url"] == f"{RUNBOOKS}#{name.lower()}"
