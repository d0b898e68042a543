"""The gRPC services: inference, health, reflection."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from kohort_server.batch.call import Result
from kohort_server.errors import RequestError
from kohort_server.front.calls import InferCall
from kohort_server.front.codec import InferRequest
from kohort_server.front.grpc import STATUSES, UNKNOWN, GrpcStream, Method
from kohort_server.front.grpc_codec import GrpcCodec
from kohort_server.front.hpack import Headers
from kohort_server.front.metrics import Exposition
from kohort_server.front.served import LOAD_REFUSED, ServedModel
from kohort_server.logs import trace_of
from kohort_server.rpc import descriptors, protobuf
from kohort_server.rpc.protobuf import Message, ProtobufError
from kohort_server.rpc.schema import FILES

HEALTH = "grpc.health.v1.HealthCheckResponse"
NOT_FOUND_STATUS = 5

log = logging.getLogger(__name__)

Values = dict[str, Any]


class Services:
    """Answers every call of every service."""

    def __init__(self, model: ServedModel) -> None:
        self._model = model
        self._watchers: set[GrpcStream] = set()

    def methods(self) -> dict[bytes, Method]:
        """The methods by their paths."""
        simple: dict[str, Callable[[Values], Values]] = {
            "ServerLive": lambda _: {"live": True},
            "ServerReady": lambda _: {"ready": self._model.ready},
            "ModelReady": self._model_ready,
            "ServerMetadata": lambda _: self._model.server_metadata(),
            "ModelMetadata": self._about(self._model.metadata),
            "ModelConfig": self._about(lambda: {"config": self._model.config()}),
            "RepositoryIndex": lambda asked: {
                "models": self._model.index(asked.get("ready", False))
            },
            "RepositoryModelLoad": refuse_loading,
            "RepositoryModelUnload": refuse_loading,
        }
        table = {
            "inference.GRPCInferenceService/ModelInfer": Method(self._infer),
            "inference.GRPCInferenceService/ModelStreamInfer": Method(self._stream_infer, True),
            "inference.GRPCInferenceService/ModelStatistics": Method(
                answering("inference.ModelStatistics", self._statistics)
            ),
            "grpc.health.v1.Health/Check": Method(unary("grpc.health.v1.HealthCheck", self._check)),
            "grpc.health.v1.Health/Watch": Method(self._watch, lasting=True),
        }
        for name, answer in simple.items():
            handler = unary(f"inference.{name}", answer)
            table[f"inference.GRPCInferenceService/{name}"] = Method(handler)
        for package in ("grpc.reflection.v1", "grpc.reflection.v1alpha"):
            path = f"{package}.ServerReflection/ServerReflectionInfo"
            table[path] = Method(partial(reflect, package), True)
        return {f"/{path}".encode(): method for path, method in table.items()}

    def _about(self, told: Callable[[], Values]) -> Callable[[Values], Values]:
        def answer(asked: Values) -> Values:
            self._model.check(asked.get("name", ""), asked.get("version", ""))
            return told()

        return answer

    def _model_ready(self, asked: Values) -> Values:
        self._model.check(asked.get("name", ""), asked.get("version", ""))
        return {"ready": self._model.ready}

    def _statistics(self, stream: GrpcStream, asked: Values) -> None:
        model = self._model
        if asked.get("name"):
            model.check(asked["name"], asked.get("version", ""))
        model.loaded()

        def told(counted: Exposition) -> None:
            response = model.statistics(counted)
            stream.reply([protobuf.encode("inference.ModelStatisticsResponse", response)])

        model.counted(told, partial(finish_refused, stream))

    # Inference.

    def _infer(self, stream: GrpcStream, message: Message) -> None:
        try:
            serving = self._model.loaded()
            request = serving.grpc.decode(message)
            call = GrpcCall(self._model, serving.grpc, stream, request)
            serving.batcher.submit(call)
        except RequestError as error:
            refuse(self._model, stream, error)
        except Exception:
            log.exception("a ModelInfer failed", extra=trace_of(stream.headers))
            refuse(self._model, stream, failed())

    def _stream_infer(self, stream: GrpcStream, message: Message) -> None:
        if stream.context is None:
            stream.context = Conversation(stream)
        conversation: Conversation = stream.context
        place = conversation.place()
        identity = ""
        try:
            serving = self._model.loaded()
            request = serving.grpc.decode(message)
            identity = request.id
            call = StreamedCall(self._model, serving.grpc, conversation, place, request)
            serving.batcher.submit(call)
        except RequestError as error:
            refuse_in_stream(self._model, conversation, place, identity, error)
        except Exception:
            trace = trace_of(stream.headers)
            log.exception("a request of a ModelStreamInfer failed", extra=trace)
            refuse_in_stream(self._model, conversation, place, identity, failed())

    # Health.

    def _status(self, asked: Values) -> str:
        service = asked.get("service", "")
        if service and service not in descriptors.services():
            return "SERVICE_UNKNOWN"
        return "SERVING" if self._model.ready else "NOT_SERVING"

    def _check(self, asked: Values) -> Values:
        status = self._status(asked)
        if status == "SERVICE_UNKNOWN":
            raise RequestError(404, f'the service "{asked["service"]}" does not exist')
        return {"status": status}

    def _watch(self, stream: GrpcStream, message: Message) -> None:
        try:
            asked = protobuf.decode("grpc.health.v1.HealthCheckRequest", message)
        except ProtobufError as error:
            stream.finish(STATUSES[400], str(error))
            return
        stream.context = asked
        stream.on_abandoned = lambda: self._watchers.discard(stream)
        self._watchers.add(stream)
        stream.push([protobuf.encode(HEALTH, {"status": self._status(asked)})])

    def ready_changed(self) -> None:
        """Tell those who watch."""
        for stream in self._watchers:
            stream.push([protobuf.encode(HEALTH, {"status": self._status(stream.context)})])


def unary(name: str, answer: Callable[[Values], Values]) -> Callable[[GrpcStream, Message], None]:
    """A method whose messages are `name` with Request and Response after it."""

    def respond(stream: GrpcStream, asked: Values) -> None:
        stream.reply([protobuf.encode(f"{name}Response", answer(asked))])

    return answering(name, respond)


def answering(
    name: str, respond: Callable[[GrpcStream, Values], None]
) -> Callable[[GrpcStream, Message], None]:
    """A method whose request is `name` with Request after it; it is answered now or later."""

    def handle(stream: GrpcStream, message: Message) -> None:
        try:
            respond(stream, protobuf.decode(f"{name}Request", message))
        except ProtobufError as error:
            stream.finish(STATUSES[400], f"the message is no {name}Request: {error}")
        except RequestError as error:
            finish_refused(stream, error)

    return handle


def finish_refused(stream: GrpcStream, error: RequestError) -> None:
    """End a call with an error."""
    stream.finish(STATUSES.get(error.status, UNKNOWN), error.message, error.retry_after)


def failed() -> RequestError:
    """What a client is told of a fault of the server's own."""
    return RequestError(500, "the server failed; its log says why")


def refuse_loading(asked: Values) -> Values:
    """Neither loads nor unloads."""
    raise RequestError(501, LOAD_REFUSED)


class GrpcCall(InferCall):
    """A ModelInfer."""

    __slots__ = ("_codec", "_model", "_stream")

    def __init__(
        self, model: ServedModel, codec: GrpcCodec, stream: GrpcStream, request: InferRequest
    ) -> None:
        super().__init__(request, stream.received, stream.expires)
        self._model = model
        self._codec = codec
        self._stream = stream
        stream.on_abandoned = self.abandon

    def headers(self) -> Headers:
        """See `InferCall`."""
        return self._stream.headers

    def answer(self, result: Result, start: int | None) -> None:
        """See `InferCall`."""
        stream = self._stream
        stream.reply(self._codec.encode(self.request, result, start))
        self._model.answered(stream.headers, 200, stream.received)

    def refuse(self, error: RequestError) -> None:
        """See `InferCall`."""
        refuse(self._model, self._stream, error)


def refuse(model: ServedModel, stream: GrpcStream, error: RequestError) -> None:
    """End a call with an error, and count it."""
    finish_refused(stream, error)
    model.answered(stream.headers, error.status, stream.received)


class Place:
    """The place of one request's response among those of its stream."""

    __slots__ = ("call", "response")

    def __init__(self) -> None:
        self.call: InferCall | None = None
        self.response: list[bytes] | None = None


class Conversation:
    """A ModelStreamInfer: its responses go out in the order of its requests."""

    __slots__ = ("_places", "stream")

    def __init__(self, stream: GrpcStream) -> None:
        self.stream = stream
        self._places: deque[Place] = deque()
        stream.on_abandoned = self.abandon

    def place(self) -> Place:
        """The place of the request that has just come."""
        place = Place()
        self._places.append(place)
        return place

    def respond(self, place: Place, response: list[bytes]) -> None:
        """Send this response in its turn, with those after it that waited for it."""
        place.response = response
        while self._places and (ready := self._places[0].response) is not None:
            self._places.popleft()
            self.stream.push(ready)
            self.stream.answered()

    def abandon(self) -> None:
        """The client has gone."""
        for place in self._places:
            if place.call is not None:
                place.call.abandon()


class StreamedCall(InferCall):
    """One request of a ModelStreamInfer."""

    __slots__ = ("_codec", "_conversation", "_model", "_place")

    def __init__(
        self,
        model: ServedModel,
        codec: GrpcCodec,
        conversation: Conversation,
        place: Place,
        request: InferRequest,
    ) -> None:
        super().__init__(request, conversation.stream.received, conversation.stream.expires)
        self._model = model
        self._codec = codec
        self._conversation = conversation
        self._place = place
        place.call = self

    def headers(self) -> Headers:
        """See `InferCall`."""
        return self._conversation.stream.headers

    def answer(self, result: Result, start: int | None) -> None:
        """See `InferCall`."""
        response = b"".join(self._codec.encode(self.request, result, start))
        self._model.answered(self._conversation.stream.headers, 200, self.received)
        self._conversation.respond(self._place, [protobuf.delimited(2, response)])

    def refuse(self, error: RequestError) -> None:
        """See `InferCall`."""
        identity = self.request.id
        refuse_in_stream(self._model, self._conversation, self._place, identity, error)


def refuse_in_stream(
    model: ServedModel, conversation: Conversation, place: Place, identity: str, error: RequestError
) -> None:
    """Answer one request of a stream with an error, and count it; the stream goes on."""
    stream = conversation.stream
    model.answered(stream.headers, error.status, stream.received)
    told: Values = {"error_message": error.message}
    if identity:
        told["infer_response"] = {"id": identity}
    response = protobuf.encode("inference.ModelStreamInferResponse", told)
    conversation.respond(place, [response])


# Reflection.


def reflect(package: str, stream: GrpcStream, message: Message) -> None:
    """Tell which services there are, and their files."""
    try:
        asked = protobuf.decode(f"{package}.ServerReflectionRequest", message)
    except ProtobufError as error:
        stream.finish(STATUSES[400], str(error))
        return
    told = {"original_request": asked, **reflected(asked)}
    stream.push([protobuf.encode(f"{package}.ServerReflectionResponse", told)])
    stream.answered()


def reflected(asked: Values) -> Values:
    """The answer to one question of reflection."""
    if "list_services" in asked:
        names = [{"name": name} for name in descriptors.services()]
        return {"list_services_response": {"service": names}}
    file = None
    if "file_by_filename" in asked:
        file = next((file for file in FILES if file.name == asked["file_by_filename"]), None)
    elif "file_containing_symbol" in asked:
        file = descriptors.file_of(asked["file_containing_symbol"])
    if file is None:
        return {"error_response": {"error_code": NOT_FOUND_STATUS, "error_message": "not found"}}
    return {"file_descriptor_response": {"file_descriptor_proto": [descriptors.describe(file)]}}
