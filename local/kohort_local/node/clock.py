"""The current time as the Kubernetes API writes it."""

from __future__ import annotations

import datetime


def now() -> str:
    """To the second, as `metav1.Time`."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def now_micro() -> str:
    """To the microsecond, as `metav1.MicroTime`."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
