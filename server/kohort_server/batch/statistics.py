"""What the batcher counts: how long requests wait, and what their batches take."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

MOST_SIZES = 256  # that are told apart: a client may send any


@dataclass(slots=True)
class BatchSize:
    """Batches of one size in rows; times in seconds."""

    batches: int = 0
    requests: int = 0
    input_time: float = 0.0
    infer_time: float = 0.0


@dataclass(slots=True)
class Statistics:
    """Totals since the start. A duration of a batch counts once per request in it, as in Triton."""

    requests: int = 0  # that were dispatched to the model
    queue_time: float = 0.0
    input_time: float = 0.0
    infer_time: float = 0.0
    output_time: float = 0.0
    cancelled: int = 0
    batches: int = 0  # that ran
    rows: int = 0  # that ran
    sizes: dict[int, BatchSize] = field(default_factory=dict)  # by rows

    def dispatched(self, queued: float, requests: int) -> None:
        """So many requests leave the queue, in which they waited `queued` seconds together."""
        self.requests += requests
        self.queue_time += queued

    def ran(self, rows: int, requests: int, input_time: float, infer_time: float) -> None:
        """A batch ran."""
        self.batches += 1
        self.rows += rows
        size = self.sizes.get(rows)
        if size is None:
            if len(self.sizes) >= MOST_SIZES:  # from then on new sizes count as powers of two
                rows = 1 << (rows - 1).bit_length() if rows else 0
            size = self.sizes.setdefault(rows, BatchSize())
        size.batches += 1
        size.requests += requests
        size.input_time += input_time
        size.infer_time += infer_time
        self.input_time += input_time * requests
        self.infer_time += infer_time * requests

    def answered(self, output_time: float, requests: int) -> None:
        """A batch's answers were written."""
        self.output_time += output_time * requests

    def add(self, other: Statistics) -> None:
        """Count what another process has counted, too."""
        for total in fields(self):
            if total.name != "sizes":
                both = getattr(self, total.name) + getattr(other, total.name)
                setattr(self, total.name, both)
        for rows, counted in other.sizes.items():
            size = self.sizes.setdefault(rows, BatchSize())
            for total in fields(size):
                setattr(size, total.name, getattr(size, total.name) + getattr(counted, total.name))
