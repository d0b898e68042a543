"""The one model of this server: what can be told about it, and the way of a request through it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from kohort.contract import HEADER_COHORT, Start
from kohort_server.batch.batcher import Batcher
from kohort_server.datatypes import BYTES
from kohort_server.engine.interface import Engine, TensorSpec
from kohort_server.errors import RequestError
from kohort_server.front.codec import Codec
from kohort_server.front.grpc_codec import GrpcCodec
from kohort_server.front.metrics import Counts, Exposition, ServerMetrics, together
from kohort_server.progress import Progress
from kohort_server.selection import Selection, told
from kohort_server.tracing import Tracing

COHORT = HEADER_COHORT.encode()
VERSION_ALIAS = "1"  # what clients that insist on a version send when they know none
EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]
VERSION = version("kohort")
LOAD_REFUSED = (
    "models are neither loaded nor unloaded here: this server serves one model for as long as it "
    "lives, and the operator decides which; change the ModelDeployment"
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Serving:
    """A model that is ready: how requests reach it."""

    engine: Engine
    codec: Codec
    grpc: GrpcCodec
    batcher: Batcher


class ServedModel:
    """What both protocols tell about the model, as plain values named as in the protocol."""

    def __init__(self, name: str, revision: str) -> None:
        self.name = name
        self.revision = revision
        self.progress = Progress()
        self.selection: Selection | None = None  # what the engine was chosen from
        self.versions = (revision, VERSION_ALIAS)
        self.metrics = ServerMetrics()
        self.tracing: Tracing | None = None
        # What the other processes have counted that serve the same port, if there are any.
        self.others: Callable[[], Awaitable[list[Counts]]] | None = None
        self._asking: set[asyncio.Future[list[Counts]]] = set()
        self.serving: Serving | None = None
        self.draining = False

    def start(self, serving: Serving) -> None:
        """Become ready."""
        self.metrics.watch(serving.batcher)
        self.serving = serving

    def answered(self, headers: dict[bytes, bytes], code: int, received: float) -> None:
        """Count an inference request as answered now; `received` is the time.perf_counter of its end."""
        self.metrics.observe(headers.get(COHORT, b""), code, received)
        if self.tracing is not None:
            self.tracing.answered(headers, code, received)

    def started(self) -> Start:
        """How far the start is, and which engines were tried."""
        return self.progress.told() if self.selection is None else told(self.selection)

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here."""
        return self.serving is not None and not self.draining

    def why_not_ready(self) -> str:
        """The reason in words."""
        return "the server is shutting down" if self.draining else "the model is being loaded"

    def loaded(self) -> Serving:
        """The model; raises `RequestError` 503 while it is being loaded."""
        if self.serving is None:
            raise RequestError(503, self.why_not_ready(), retry_after=1)
        return self.serving

    def check(self, name: str, revision: str = "") -> None:
        """Raise `RequestError` 404 for a name and version that are not this model's."""
        if name != self.name or (revision and revision not in self.versions):
            raise RequestError(
                404,
                f'the model "{name}"{f" in the version {revision!r}" if revision else ""} is not '
                f'served here; this server serves "{self.name}" in the version "{self.revision}"',
            )

    def server_metadata(self) -> dict[str, Any]:
        """The server itself."""
        return {"name": "kohort-server", "version": VERSION, "extensions": EXTENSIONS}

    def metadata(self) -> dict[str, Any]:
        """The model's inputs and outputs."""
        engine = self.loaded().engine
        return {
            "name": self.name,
            "versions": [self.revision],
            "platform": engine.name,
            "inputs": [tensor_metadata(spec) for spec in engine.signature.inputs],
            "outputs": [tensor_metadata(spec) for spec in engine.signature.outputs],
        }

    def config(self) -> dict[str, Any]:
        """The model as Triton's configuration has it, without what does not apply here.

        With a batch dimension, `dims` leave it out and `max_batch_size` is set, as there.
        """
        serving = self.loaded()
        engine = serving.engine
        rows = serving.batcher.max_rows if engine.batch.kind == "dynamic" else 0
        skipped = 1 if rows else 0
        config: dict[str, Any] = {
            "name": self.name,
            "platform": engine.name,
            "backend": engine.name.partition("_")[0],
            "max_batch_size": rows,
            "input": [tensor_config(spec, skipped) for spec in engine.signature.inputs],
            "output": [tensor_config(spec, skipped) for spec in engine.signature.outputs],
        }
        if rows:
            config["dynamic_batching"] = {"max_queue_delay_microseconds": 0}
        return config

    def counted(
        self, told: Callable[[Exposition], None], failed: Callable[[RequestError], None]
    ) -> None:
        """Tell what was counted since the start, by all processes together; now, or soon."""

        def answered(done: asyncio.Future[list[Counts]]) -> None:
            self._asking.discard(done)
            if (error := done.exception()) is None:
                told(self._exposition(done.result()))
            else:  # rather nothing than a part of it
                log.warning("not all processes tell what they have counted: %r", error)
                failed(RequestError(503, "not all processes of this server answer", retry_after=1))

        if self.others is None:
            told(self._exposition([]))
        else:
            asking = asyncio.ensure_future(self.others())
            self._asking.add(asking)
            asking.add_done_callback(answered)

    def _exposition(self, others: list[Counts]) -> Exposition:
        return Exposition(self.name, self.revision, together([self.metrics.counts(), *others]))

    def statistics(self, counted: Exposition) -> dict[str, Any]:
        """Counts and durations since the start, in Triton's terms."""
        stats = {"name": self.name, "version": self.revision, **counted.statistics()}
        return {"model_stats": [stats]}

    def index(self, only_ready: bool = False) -> list[dict[str, Any]]:
        """All models: this one."""
        if only_ready and not self.ready:
            return []
        state = "READY" if self.ready else "UNAVAILABLE" if self.draining else "LOADING"
        reason = "" if self.ready else self.why_not_ready()
        return [{"name": self.name, "version": self.revision, "state": state, "reason": reason}]


def tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    """One input or output as the protocol's metadata shows it."""
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def tensor_config(spec: TensorSpec, skipped: int) -> dict[str, Any]:
    """One input or output as Triton's configuration shows it, without its first dimensions."""
    kind = "STRING" if spec.datatype == BYTES else spec.datatype
    return {"name": spec.name, "data_type": f"TYPE_{kind}", "dims": list(spec.shape[skipped:])}
