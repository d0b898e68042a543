"""What each path answers: health, metadata, inference, metrics."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST

from kohort.contract import HEADER_COHORT, HEADER_REVISION
from kohort_server.batch.batcher import Batcher
from kohort_server.batch.call import Result
from kohort_server.engine.interface import Engine, InputError, TensorSpec
from kohort_server.errors import RequestError
from kohort_server.front.codec import Codec, InferRequest
from kohort_server.front.exchange import BINARY, HEADER_LENGTH, JSON, Exchange
from kohort_server.front.metrics import ServerMetrics

THROUGH_GATEWAY = HEADER_REVISION.encode()  # on every request that a gateway sends, and on no other
COHORT = HEADER_COHORT.encode()
VERSION_ALIAS = "1"  # what clients that insist on a version send when they know none
EXTENSIONS = ["binary_tensor_data"]
VERSION = version("kohort")

log = logging.getLogger(__name__)
encode_json = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class Serving:
    """A model that is ready: how requests reach it."""

    engine: Engine
    codec: Codec
    batcher: Batcher


class Routes:
    """Answers every request; serving begins when `start` is called with a warm model."""

    def __init__(self, model: str, revision: str, metrics: ServerMetrics) -> None:
        self._model = model
        self._revision = revision
        self._metrics = metrics
        self._serving: Serving | None = None
        self.draining = False
        self._table = self._paths()

    def _paths(self) -> dict[bytes, tuple[bytes, Callable[[Exchange], None]]]:
        """Path → (method, handler)."""
        table: dict[str, tuple[bytes, Callable[[Exchange], None]]] = {
            "/v2": (b"GET", self._server_metadata),
            "/v2/health/live": (b"GET", self._live),
            "/v2/health/ready": (b"GET", self._ready),
            "/metrics": (b"GET", self._prometheus),
        }
        bare = f"/v2/models/{self._model}"
        for base in (
            bare,
            f"{bare}/versions/{self._revision}",
            f"{bare}/versions/{VERSION_ALIAS}",
        ):
            table[base] = (b"GET", self._model_metadata)
            table[f"{base}/ready"] = (b"GET", self._model_ready)
            table[f"{base}/infer"] = (b"POST", self._infer)
        return {path.encode(): route for path, route in table.items()}

    def start(self, serving: Serving) -> None:
        """Become ready."""
        self._metrics.batches = serving.batcher.batches
        self._metrics.waiting_rows = lambda: serving.batcher.waiting_rows
        self._metrics.waiting_bytes = lambda: serving.batcher.waiting_size
        self._serving = serving

    def __call__(self, exchange: Exchange) -> None:
        """Answer a request, now or when the model has run; never raises."""
        route = self._table.get(exchange.path) or self._table.get(normal_path(exchange.path))
        if route is None:
            exchange.respond_error(404, self._not_found(exchange.path))
            return
        method, handler = route
        if exchange.method != method and (exchange.method, method) != (b"HEAD", b"GET"):
            exchange.respond_error(
                405, f"{exchange.method.decode()} is not for this path; use {method.decode()}"
            )
            return
        try:
            handler(exchange)
        except Exception:
            log.exception("answering %s failed", exchange.path.decode("latin-1"))
            exchange.respond_error(500, "the server failed; its log says why")

    def _not_found(self, path: bytes) -> str:
        return (
            f"{path.decode('latin-1')} does not exist; this server serves the model "
            f'"{self._model}" in the version "{self._revision}" at /v2/models/{self._model}'
        )

    # Health and metadata.

    def _live(self, exchange: Exchange) -> None:
        exchange.respond(200, b'{"live":true}')

    def _is_ready(self) -> bool:
        return self._serving is not None and not self.draining

    def _ready(self, exchange: Exchange) -> None:
        if self._is_ready():
            exchange.respond(200, b'{"ready":true}')
        else:
            exchange.respond(503, encode_json({"ready": False, "error": self._why_not_ready()}))

    def _why_not_ready(self) -> str:
        return "the server is shutting down" if self.draining else "the model is being loaded"

    def _model_ready(self, exchange: Exchange) -> None:
        ready = self._is_ready()
        body: dict[str, Any] = {"name": self._model, "ready": ready}
        if not ready:
            body["error"] = self._why_not_ready()
        exchange.respond(200 if ready else 503, encode_json(body))

    def _server_metadata(self, exchange: Exchange) -> None:
        exchange.respond(
            200,
            encode_json({"name": "kohort-server", "version": VERSION, "extensions": EXTENSIONS}),
        )

    def _model_metadata(self, exchange: Exchange) -> None:
        serving = self._serving
        if serving is None:
            exchange.respond_error(503, self._why_not_ready(), retry_after=1)
            return
        signature = serving.engine.signature
        metadata = {
            "name": self._model,
            "versions": [self._revision],
            "platform": serving.engine.name,
            "inputs": [tensor_metadata(spec) for spec in signature.inputs],
            "outputs": [tensor_metadata(spec) for spec in signature.outputs],
        }
        exchange.respond(200, encode_json(metadata))

    def _prometheus(self, exchange: Exchange) -> None:
        if THROUGH_GATEWAY in exchange.headers:  # clients are not to see who else is one
            exchange.respond_error(404, self._not_found(exchange.path))
            return
        exchange.respond(200, self._metrics.text(), CONTENT_TYPE_LATEST.encode())

    # Inference.

    def _infer(self, exchange: Exchange) -> None:
        try:
            if self._serving is None:
                raise RequestError(503, self._why_not_ready(), retry_after=1)
            headers = exchange.headers
            if b"content-encoding" in headers:
                raise RequestError(
                    501, "a compressed body is not supported; send it without Content-Encoding"
                )
            length = headers.get(HEADER_LENGTH)
            request = self._serving.codec.decode(
                exchange.body, None if length is None else header_length(length)
            )
            self._serving.batcher.submit(InferCall(self, self._serving.codec, exchange, request))
        except RequestError as error:
            self.refuse(exchange, error)

    def refuse(self, exchange: Exchange, error: RequestError) -> None:
        """Answer an inference request with an error, and count it."""
        exchange.respond_error(error.status, error.message, error.retry_after)
        self.count(exchange, error.status)

    def count(self, exchange: Exchange, code: int) -> None:
        """Count an answered inference request."""
        cohort = exchange.headers.get(COHORT, b"")
        self._metrics.observe(cohort, code, time.perf_counter() - exchange.received)


class InferCall:
    """An inference request between its decoding and its answer."""

    __slots__ = (
        "_codec",
        "_exchange",
        "_request",
        "_routes",
        "abandoned",
        "batch_key",
        "inputs",
        "rows",
        "size",
    )

    def __init__(
        self, routes: Routes, codec: Codec, exchange: Exchange, request: InferRequest
    ) -> None:
        self._routes = routes
        self._codec = codec
        self._exchange = exchange
        self._request = request
        self.inputs = request.inputs
        self.rows = request.rows
        self.size = request.size
        self.batch_key = request.batch_key
        self.abandoned = False
        exchange.on_abandoned = self._abandon

    def _abandon(self) -> None:
        self.abandoned = True

    def deliver(self, result: Result, start: int | None) -> None:
        """Answer with this call's rows; an answer that cannot be made does not harm the others."""
        try:
            json_length, body = self._codec.encode(self._request, result, start)
        except Exception as error:
            self.fail(error)
            return
        if json_length is None:
            self._exchange.respond(200, body, JSON)
        else:
            extra = b"Inference-Header-Content-Length: %d\r\n" % json_length
            self._exchange.respond(200, body, BINARY, extra)
        self._routes.count(self._exchange, 200)

    def fail(self, error: Exception) -> None:
        """Answer with what went wrong."""
        if isinstance(error, RequestError):
            self._routes.refuse(self._exchange, error)
        elif isinstance(error, InputError):
            self._routes.refuse(self._exchange, RequestError(400, str(error)))
        else:
            log.error("the model failed: %s", error)
            self._routes.refuse(self._exchange, RequestError(500, f"the model failed: {error}"))


def header_length(value: bytes) -> int:
    """The length of the JSON before binary tensors, from its header."""
    if not value.isdigit():
        raise RequestError(
            400,
            "Inference-Header-Content-Length wants a number of bytes, got "
            f"{value.decode('latin-1')!r}",
        )
    return int(value)


def normal_path(target: bytes) -> bytes:
    """The path of a request target without query, escapes, scheme, host and trailing slash."""
    if not target.startswith(b"/"):
        try:
            target = urlsplit(target).path
        except ValueError:
            return target
    return unquote_to_bytes(target.partition(b"?")[0]).rstrip(b"/")


def tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    """One input or output as the protocol's metadata shows it."""
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
