"""SEAM (to be written): sequential analysis of one (cohort, metric) by a two-arm e-process.

def begin(metric: Metric, reading: Reading | None, now: datetime) -> Evidence
    Fresh evidence; its snapshot is the reading, so that only later requests count.

def advance(evidence: Evidence, reading: Reading, *, canary: str, stable: str, metric: Metric,
            alpha: float, beta: float, now: datetime) -> Evidence
    Adds what was counted since the snapshot. alpha is this check's share of falseRollback, beta
    falsePromotion. Sets verdict and message. Idempotent: the same reading twice adds nothing.
"""
