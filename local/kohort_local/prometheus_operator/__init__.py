"""The Prometheus operator: the kinds that the chart can make."""

from __future__ import annotations

from pathlib import Path

from kohort_local.definitions import Definitions

PROMETHEUS_OPERATOR = Definitions(
    directory=Path(__file__).parent,
    module="github.com/prometheus-operator/prometheus-operator",
    folder="example/prometheus-operator-crd",
    group="monitoring.coreos.com",
    kinds=("podmonitors", "prometheusrules"),
)
