"""Prometheus, built from its Go module: the one that tests read counters from."""

from __future__ import annotations

from pathlib import Path

from kohort_local.tools import Tools

VERSION = "3.16.0"
PROMETHEUS = Tools(
    module=Path(__file__).parent,
    packages={"prometheus": "github.com/prometheus/prometheus/cmd/prometheus"},
    # Without the clients of all clouds it is half as large, and built sooner.
    flags=(
        "-trimpath",
        "-tags",
        "remove_all_sd",
        "-ldflags",
        f"-s -w -X github.com/prometheus/common/version.Version={VERSION}",
    ),
    takes="takes about 4 minutes",
)
