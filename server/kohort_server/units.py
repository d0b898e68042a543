"""Sizes, durations and shares as people write them on a command line."""

from __future__ import annotations

import argparse
import re

SIZES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_size(text: str) -> int:
    """Bytes from text like 64Mi; raises argparse's error, which argparse prints."""
    match = re.fullmatch(r"(\d+)(k|M|G|Ki|Mi|Gi)?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write one like 64Mi")
    return int(match[1]) * SIZES[match[2] or ""]


def parse_duration(text: str) -> float:
    """Seconds from text like 500ms or 5s; raises argparse's error, which argparse prints."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write one like 500ms or 5s")
    return float(match[1]) * SECONDS[match[2]]


def parse_share(text: str) -> float:
    """A share in [0, 1] from text like 99.5%; raises argparse's error, which argparse prints."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)%", text)
    if match is None or float(match[1]) > 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage; write one like 99.5%")
    return float(match[1]) / 100
