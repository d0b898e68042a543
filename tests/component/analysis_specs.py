"""Specs that ask for an analysis that cannot be, and the advice that refuses them."""

from __future__ import annotations

from typing import Any

EVERYONE = {"name": "everyone"}

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
        'supported values: "errors", "latency"',
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
}
