"""Prometheus and its promtool, built from their Go module: tests read counters and try alerts with them."""

from __future__ import annotations

from pathlib import Path

from kohort_local.tools import Tools

VERSION = "3.16.0"
PROMETHEUS = Tools(
    module=Path(__file__).parent,
    packages={
        name: f"github.com/prometheus/prometheus/cmd/{name}" for name in ("prometheus", "promtool")
    },
    # Without the clients of all clouds it is half as large, and built sooner.
    flags=(
        "-trimpath",
        "-tags",
        "remove_all_sd",
        "-ldflags",
        f"-s -w -X github.com/prometheus/common/version.Version={VERSION}",
    ),
    takes="both take about 5 minutes",
)
