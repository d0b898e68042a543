"""Reading what a server wrote, strictly: whatever it was sent, it must itself keep to the protocols."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from kohort_server.front import frames
from kohort_server.front.hpack import HeaderDecoder, Headers
from kohort_server.rpc import protobuf

HTTP_STATUSES = {200, 400, 404, 405, 408, 413, 415, 431, 501, 503, 504}
GRPC_STATUSES = {0, 3, 4, 5, 8, 12, 13, 14}
INTERNAL_MESSAGES = ("the call has no message", "more than one message")
FAULT = "its log says why"  # what a client is told of a fault of the server's own


@dataclass
class Answer:
    """An HTTP response."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


def read_http1(written: bytes) -> list[Answer]:
    """All responses of a connection; raises `AssertionError` where they are none."""
    answers = []
    at = 0
    while at < len(written):
        if written.startswith(b"HTTP/1.1 100 Continue\r\n\r\n", at):
            at += len(b"HTTP/1.1 100 Continue\r\n\r\n")
            continue
        end = written.find(b"\r\n\r\n", at)
        assert end >= 0, f"a head without end: {written[at : at + 200]!r}"
        first, *lines = written[at:end].split(b"\r\n")
        assert first.startswith(b"HTTP/1.1 "), f"no status line: {first!r}"
        headers = {
            name.lower(): told for name, _, told in (line.partition(b": ") for line in lines)
        }
        assert len(headers) == len(lines), f"a header twice: {lines}"
        at = end + 4
        size = int(headers[b"content-length"])
        without = at == len(written) or written.startswith(b"HTTP/1.1 ", at)  # answers a HEAD
        body = b"" if without else written[at : at + size]
        assert without or len(body) == size, "a body is cut off"
        at += len(body)
        answer = Answer(int(first.split()[1]), headers, body)
        check_http(answer, without)
        answers.append(answer)
    return answers


def check_http(answer: Answer, without_body: bool = False) -> None:
    """Raise where a response is not as the protocol says."""
    assert answer.status in HTTP_STATUSES, f"{answer.status}: {answer.body[:300]!r}"
    if answer.headers[b"content-type"].startswith(b"text/plain") or without_body:
        return
    told = json_of(answer)
    if answer.status != 200:
        assert isinstance(told.get("error"), str), f"no error in {answer.body[:300]!r}"
        assert FAULT not in told["error"], told["error"]


def json_of(answer: Answer) -> Any:
    """The JSON of a response."""
    length = answer.headers.get(b"inference-header-content-length")
    return json.loads(answer.body if length is None else answer.body[: int(length)])


def tensors_of(answer: Answer) -> dict[str, bytes | list[Any]]:
    """The outputs of an inference: binary ones as bytes, others as their values."""
    told = json_of(answer)
    at = int(answer.headers.get(b"inference-header-content-length", len(answer.body)))
    outputs: dict[str, bytes | list[Any]] = {}
    for output in told["outputs"]:
        if "data" in output:
            outputs[output["name"]] = output["data"]
        else:
            size = output["parameters"]["binary_data_size"]
            outputs[output["name"]] = answer.body[at : at + size]
            at += size
    assert at == len(answer.body), "the sizes told are not those that came"
    return outputs


@dataclass
class StreamAnswer:
    """What came on one stream."""

    headers: Headers = field(default_factory=dict)
    trailers: Headers = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    over: bool = False


def read_http2(written: bytes) -> dict[int, StreamAnswer]:
    """The answers by stream; raises `AssertionError` where the server breaks the protocol."""
    streams: dict[int, StreamAnswer] = {}
    decoder = HeaderDecoder()
    at = 0
    while at < len(written):
        assert len(written) - at >= frames.HEADER_SIZE, "a frame is cut off"
        high, low, kind, flags, number = frames.HEADER.unpack_from(written, at)
        size = high << 8 | low
        assert size <= frames.DEFAULT_FRAME_SIZE or kind == frames.DATA, "a frame is too large"
        at += frames.HEADER_SIZE
        payload = written[at : at + size]
        assert len(payload) == size, "a frame is cut off"
        at += size
        if kind not in (frames.HEADERS, frames.DATA):
            assert kind != frames.GOAWAY or len(payload) >= 8, "a GOAWAY is too short"
            continue
        stream = streams.setdefault(number, StreamAnswer())
        assert not stream.over, f"stream {number} goes on after its end"
        if kind == frames.DATA:
            assert stream.headers, f"stream {number} has data before headers"
            stream.data += payload
        elif not stream.headers:
            stream.headers = decoder.decode(payload)
        else:
            assert flags & frames.END_STREAM, f"stream {number} has headers in the middle"
            stream.trailers = decoder.decode(payload)
        stream.over = bool(flags & frames.END_STREAM)
    for stream in streams.values():
        check_stream(stream)
    return streams


def check_stream(stream: StreamAnswer) -> None:
    """Raise where an answer is not as gRPC or HTTP says."""
    headers = stream.headers
    if headers[b"content-type"] != b"application/grpc":
        if stream.over:
            answer = Answer(int(headers[b":status"]), headers, bytes(stream.data))
            without = not stream.data and int(headers[b"content-length"]) > 0
            check_http(answer, without)
        return
    assert headers[b":status"] == b"200"
    if not stream.over:
        return
    told = stream.trailers or headers
    status = int(told[b"grpc-status"])
    message = told.get(b"grpc-message", b"").decode()
    assert status in GRPC_STATUSES, f"grpc-status {status}: {message}"
    assert status != 13 or message.startswith(INTERNAL_MESSAGES), message
    for message_bytes in messages_of(stream):
        assert FAULT.encode() not in message_bytes, message_bytes


def messages_of(stream: StreamAnswer) -> list[bytes]:
    """The messages of a call that is over."""
    messages = []
    data = bytes(stream.data)
    at = 0
    while at < len(data):
        assert data[at] == 0, "a message is said to be compressed"
        size = int.from_bytes(data[at + 1 : at + 5], "big")
        messages.append(data[at + 5 : at + 5 + size])
        assert len(messages[-1]) == size, "a message is cut off"
        at += 5 + size
    return messages


def raw_outputs(message: bytes) -> tuple[str, list[bytes]]:
    """The id and the raw outputs of a ModelInferResponse."""
    told = protobuf.decode("inference.ModelInferResponse", message)
    return told.get("id", ""), [bytes(raw) for raw in told["raw_output_contents"]]
