"""What the batcher counts: how long requests wait, and what their batches take."""

from __future__ import annotations

from dataclasses import dataclass, field


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
    sizes: dict[int, BatchSize] = field(default_factory=dict)  # by rows

    @property
    def batches(self) -> int:
        """How many batches ran."""
        return sum(size.batches for size in self.sizes.values())

    @property
    def rows(self) -> int:
        """How many rows ran."""
        return sum(rows * size.batches for rows, size in self.sizes.items())

    def dispatched(self, queued: float, requests: int) -> None:
        """So many requests leave the queue, in which they waited `queued` seconds together."""
        self.requests += requests
        self.queue_time += queued

    def ran(self, rows: int, requests: int, input_time: float, infer_time: float) -> None:
        """A batch ran."""
        size = self.sizes.get(rows)
        if size is None:
            size = self.sizes[rows] = BatchSize()
        size.batches += 1
        size.requests += requests
        size.input_time += input_time
        size.infer_time += infer_time
        self.input_time += input_time * requests
        self.infer_time += infer_time * requests

    def answered(self, output_time: float, requests: int) -> None:
        """A batch's answers were written."""
        self.output_time += output_time * requests
