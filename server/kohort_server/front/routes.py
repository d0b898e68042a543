"""What each path answers: health, metadata, inference, metrics."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import traceback
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST

from kohort.contract import HEADER_REVISION, START_PATH
from kohort_server.batch.call import Result
from kohort_server.errors import RequestError
from kohort_server.front import protobuf_metrics
from kohort_server.front.calls import InferCall
from kohort_server.front.codec import Codec, InferRequest
from kohort_server.front.compression import decompress
from kohort_server.front.exchange import BINARY, HEADER_LENGTH, JSON, Exchange, read_length
from kohort_server.front.metrics import Exposition
from kohort_server.front.served import LOAD_REFUSED, ServedModel
from kohort_server.front.wire import INVALID_JSON
from kohort_server.logs import trace_of

THROUGH_GATEWAY = HEADER_REVISION.encode()  # on every request that a gateway sends, and on no other
CACHED_LENGTHS = 256

log = logging.getLogger(__name__)
encode_json = msgspec.json.encode


class IndexRequest(msgspec.Struct):
    """What a client asks the repository's index for."""

    ready: bool = False


decode_index = msgspec.json.Decoder(IndexRequest).decode


class Routes:
    """Answers every request of plain HTTP; inference begins when the model is there."""

    def __init__(self, model: ServedModel, debug: bool = False) -> None:
        """With `debug`, two paths more tell what the process is doing."""
        self._model = model
        self._table = self._paths()
        if debug:
            self._table[b"/debug/stacks"] = (b"GET", self._inside(stacks))
            self._table[b"/debug/state"] = (b"GET", self._inside(self._state))

    def _paths(self) -> dict[bytes, tuple[bytes, Callable[[Exchange], None]]]:
        """Path → (method, handler)."""
        model = self._model
        table: dict[str, tuple[bytes, Callable[[Exchange], None]]] = {
            "/v2": (b"GET", tell(model.server_metadata)),
            "/v2/health/live": (b"GET", tell(lambda: {"live": True})),
            "/v2/health/ready": (b"GET", self._ready),
            "/v2/models/stats": (b"GET", self._statistics),
            "/v2/repository/index": (b"POST", self._index),
            "/metrics": (b"GET", self._inside(self._prometheus)),
            START_PATH: (b"GET", self._inside(tell(model.started))),
        }
        bare = f"/v2/models/{model.name}"
        for base in (bare, *(f"{bare}/versions/{version}" for version in model.versions)):
            table[base] = (b"GET", tell(model.metadata))
            table[f"{base}/ready"] = (b"GET", self._model_ready)
            table[f"{base}/config"] = (b"GET", tell(model.config))
            table[f"{base}/stats"] = (b"GET", self._statistics)
            table[f"{base}/infer"] = (b"POST", self._infer)
        for what in ("load", "unload"):
            table[f"/v2/repository/models/{model.name}/{what}"] = (b"POST", refuse_loading)
        return {path.encode(): route for path, route in table.items()}

    def __call__(self, exchange: Exchange) -> None:
        """Answer a request, now or when the model has run; never raises."""
        route = self._table.get(exchange.path) or self._table.get(normal_path(exchange.path))
        if route is None:
            exchange.respond_error(404, self._not_found(exchange.path))
            return
        method, handler = route
        if exchange.method != method and (exchange.method, method) != (b"HEAD", b"GET"):
            exchange.respond_error(
                405,
                f"{exchange.method.decode('latin-1')} is not for this path; use {method.decode()}",
            )
            return
        try:
            handler(exchange)
        except RequestError as error:
            respond_refusal(exchange, error)
        except Exception:
            path = exchange.path.decode("latin-1")
            log.exception("answering %s failed", path, extra=trace_of(exchange.headers))
            exchange.respond_error(500, "the server failed; its log says why")

    def _not_found(self, path: bytes) -> str:
        model = self._model
        return (
            f"{path.decode('latin-1')} does not exist; this server serves the model "
            f'"{model.name}" in the version "{model.revision}" at /v2/models/{model.name}'
        )

    def _ready(self, exchange: Exchange) -> None:
        if self._model.ready:
            exchange.respond(200, b'{"ready":true}')
        else:
            told = {"ready": False, "error": self._model.why_not_ready()}
            exchange.respond(503, encode_json(told))

    def _model_ready(self, exchange: Exchange) -> None:
        ready = self._model.ready
        body: dict[str, Any] = {"name": self._model.name, "ready": ready}
        if not ready:
            body["error"] = self._model.why_not_ready()
        exchange.respond(200 if ready else 503, encode_json(body))

    def _index(self, exchange: Exchange) -> None:
        try:
            asked = decode_index(exchange.body) if exchange.body else IndexRequest()
        except INVALID_JSON as error:
            raise RequestError(400, f"the request is not valid: {error}") from error
        exchange.respond(200, encode_json(self._model.index(asked.ready)))

    def _inside(self, answer: Callable[[Exchange], None]) -> Callable[[Exchange], None]:
        """A handler for those inside: clients of a gateway are not to see who else is one."""

        def handle(exchange: Exchange) -> None:
            if THROUGH_GATEWAY in exchange.headers:
                exchange.respond_error(404, self._not_found(exchange.path))
            else:
                answer(exchange)

        return handle

    def _prometheus(self, exchange: Exchange) -> None:
        if protobuf_metrics.is_asked_for(exchange.headers.get(b"accept", b"")):
            kind, form = protobuf_metrics.CONTENT_TYPE, Exposition.protobuf
        else:
            kind, form = CONTENT_TYPE_LATEST.encode(), Exposition.text
        self._model.counted(
            lambda counted: exchange.respond(200, form(counted), kind),
            partial(respond_refusal, exchange),
        )

    def _state(self, exchange: Exchange) -> None:
        front = exchange.connection.front
        calls, rows, size = self._model.metrics.counts().waiting
        told = {
            "connections": len(front.connections),
            "unanswered": front.unanswered,
            "body_bytes": front.body_bytes,
            "slot_bytes": front.buffers.held,
            "queue": {"requests": calls, "rows": rows, "bytes": size},
            "garbage": gc.get_stats(),
        }
        exchange.respond(200, encode_json(told))

    def _statistics(self, exchange: Exchange) -> None:
        model = self._model
        model.loaded()
        model.counted(
            lambda counted: exchange.respond(200, encode_json(model.statistics(counted))),
            partial(respond_refusal, exchange),
        )

    def _infer(self, exchange: Exchange) -> None:
        try:
            serving = self._model.loaded()
            headers = exchange.headers
            body = exchange.body
            if b"content-encoding" in headers:
                limit = exchange.connection.front.limits.body
                body = decompress(headers[b"content-encoding"], body, limit)
            told = headers.get(HEADER_LENGTH)
            request = serving.codec.decode(body, None if told is None else header_length(told))
            serving.batcher.submit(HttpCall(self._model, serving.codec, exchange, request))
        except RequestError as error:
            refuse(self._model, exchange, error)


class HttpCall(InferCall):
    """An inference request over HTTP."""

    __slots__ = ("_codec", "_exchange", "_model")

    def __init__(
        self, model: ServedModel, codec: Codec, exchange: Exchange, request: InferRequest
    ) -> None:
        super().__init__(request, exchange.received)
        self._model = model
        self._codec = codec
        self._exchange = exchange
        exchange.on_abandoned = self.abandon

    def headers(self) -> dict[bytes, bytes]:
        """See `InferCall`."""
        return self._exchange.headers

    def answer(self, result: Result, start: int | None) -> None:
        """See `InferCall`."""
        exchange = self._exchange
        json_length, body = self._codec.encode(self.request, result, start)
        if json_length is None:
            exchange.respond(200, body, JSON)
        else:
            extra = b"Inference-Header-Content-Length: %d\r\n" % json_length
            exchange.respond(200, body, BINARY, extra)
        self._model.answered(exchange.headers, 200, exchange.received)

    def refuse(self, error: RequestError) -> None:
        """See `InferCall`."""
        refuse(self._model, self._exchange, error)


def refuse(model: ServedModel, exchange: Exchange, error: RequestError) -> None:
    """Answer an inference request with an error, and count it."""
    respond_refusal(exchange, error)
    model.answered(exchange.headers, error.status, exchange.received)


def stacks(exchange: Exchange) -> None:
    """Where every thread is."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    told = [
        f"{names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
    ]
    exchange.respond(200, "\n".join(told).encode(), b"text/plain; charset=utf-8")


def respond_refusal(exchange: Exchange, error: RequestError) -> None:
    """Answer with an error."""
    exchange.respond_error(error.status, error.message, error.retry_after)


def tell(values: Callable[[], object]) -> Callable[[Exchange], None]:
    """A handler that answers with values as JSON."""
    return lambda exchange: exchange.respond(200, encode_json(values()))


def refuse_loading(exchange: Exchange) -> None:
    """Neither loads nor unloads."""
    raise RequestError(501, LOAD_REFUSED)


@lru_cache(CACHED_LENGTHS)
def header_length(value: bytes) -> int:
    """The length of the JSON before binary tensors, from its header."""
    length = read_length(value)
    if length is None:
        raise RequestError(
            400,
            "Inference-Header-Content-Length wants a number of bytes, got "
            f"{value.decode('latin-1')!r}",
        )
    return length


def normal_path(target: bytes) -> bytes:
    """The path of a request target without query, escapes, scheme, host and trailing slash."""
    if not target.startswith(b"/"):
        try:
            target = urlsplit(target).path
        except ValueError:
            return target
    return unquote_to_bytes(target.partition(b"?")[0]).rstrip(b"/")
