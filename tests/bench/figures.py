"""What an operator and the parts beside it have used so far, and differences of that."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import aiohttp

_SAMPLE = re.compile(r"^(\w+)(?:\{([^}]*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_TICKS = os.sysconf("SC_CLK_TCK")
CALLS = "kohort_operator_api_calls_total"


@dataclass(frozen=True)
class Sample:
    """One line of a metrics page."""

    name: str
    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class Page:
    """An operator's metrics page, read once."""

    size: int  # bytes
    samples: tuple[Sample, ...]

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric over all labels but those given."""
        wanted = labels.items()
        return sum(s.value for s in self.samples if s.name == name and wanted <= s.labels.items())

    def by(self, name: str, *labels: str) -> Counter[str]:
        """A metric summed by some labels, joined with blanks."""
        found: Counter[str] = Counter()
        for sample in self.samples:
            if sample.name == name:
                key = " ".join(sample.labels.get(label, "") for label in labels)
                found[key] += sample.value  # type: ignore[assignment]
        return found

    @property
    def calls(self) -> Counter[str]:
        """Calls to the API server by verb and resource; beginnings of watches left out."""
        found = self.by(CALLS, "verb", "resource")
        return Counter({key: n for key, n in found.items() if not key.startswith("WATCH")})

    @property
    def passes(self) -> float:
        """Passes over models."""
        return self.total("kohort_operator_reconcile_seconds_count")

    @property
    def cpu(self) -> float:
        """CPU seconds."""
        return self.total("process_cpu_seconds_total")

    @property
    def resident(self) -> float:
        """Resident memory in bytes."""
        return self.total("process_resident_memory_bytes")


NO_PAGE = Page(0, ())


def quantile(before: Page, after: Page, histogram: str, share: float) -> float:
    """The value below which a share of a histogram's new observations are, straight within a bucket.

    NaN without any; the greatest finite bound for what is beyond it.
    """
    old = before.by(f"{histogram}_bucket", "le")
    counts = {float(le): n - old[le] for le, n in after.by(f"{histogram}_bucket", "le").items()}
    bounds = sorted(counts)
    wanted, below, lower = share * counts[bounds[-1]] if bounds else 0.0, 0.0, 0.0
    for bound in bounds if wanted else ():
        if counts[bound] >= wanted:
            inside = (wanted - below) / (counts[bound] - below)
            return lower if bound == math.inf else lower + (bound - lower) * inside
        below, lower = counts[bound], bound
    return math.nan


async def read(session: aiohttp.ClientSession, url: str) -> Page:
    """The metrics page at ``url``.

    Raises:
        aiohttp.ClientError: nobody answers.
    """
    async with session.get(url) as answer:
        return parse(await answer.text())


def parse(text: str) -> Page:
    """A metrics page out of its text."""
    found = (
        Sample(name, dict(_LABEL.findall(labels)), float(value))
        for name, labels, value in _SAMPLE.findall(text)
    )
    return Page(len(text.encode()), tuple(found))


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process and its ended children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(fields[index]) for index in (11, 12, 13, 14)) / _TICKS
