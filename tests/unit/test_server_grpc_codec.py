"""Protocol buffers and the inference messages in them, beside Google's own implementation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kohort_server.batch.call import Result
from kohort_server.datatypes import BYTES, FIXED_SIZE
from kohort_server.engine.interface import BatchDimension, Signature, TensorSpec
from kohort_server.errors import RequestError
from kohort_server.front.codec import Codec
from kohort_server.front.grpc_codec import CONTENTS, GrpcCodec
from kohort_server.rpc import descriptors, protobuf
from kohort_server.rpc.protobuf import ProtobufError
from kohort_server.rpc.schema import FILES

POOL = descriptor_pool.DescriptorPool()
for _file in FILES:
    POOL.Add(descriptor_pb2.FileDescriptorProto.FromString(descriptors.describe(_file)))


def message(name: str) -> Any:
    """Google's class of a message."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


Request, Response = message("inference.ModelInferRequest"), message("inference.ModelInferResponse")
Contents = message("inference.InferTensorContents")


def codec_for(datatype: str) -> GrpcCodec:
    """A codec of a model that gives back what it gets."""
    signature = Signature(
        (TensorSpec("x", datatype, (-1, 2)),), (TensorSpec("y", datatype, (-1, 2)),)
    )
    return GrpcCodec("m", ("r", "1"), Codec("m", "r", signature, BatchDimension("dynamic")))


def request(datatype: str, count: int, **more: Any) -> Any:
    """A request of so many rows, without data."""
    tensor = {"name": "x", "datatype": datatype, "shape": [count, 2]}
    return Request(model_name="m", inputs=[tensor], **more)


def rows_of(datatype: str) -> st.SearchStrategy[Any]:
    """Pairs of values of a datatype, flat."""
    kind = FIXED_SIZE[datatype].dtype
    if kind.kind == "b":
        values: Any = st.booleans()
    elif kind.kind == "f":
        values = hnp.from_dtype(kind, allow_nan=False)
    else:
        info = np.iinfo(kind)
        values = st.integers(int(info.min), int(info.max))
    pairs = st.lists(st.tuples(values, values), max_size=5)
    return pairs.map(lambda told: np.array(told, kind).reshape(-1, 2))


typed = st.sampled_from(sorted(set(CONTENTS) - {BYTES})).flatmap(
    lambda name: st.tuples(st.just(name), rows_of(name))
)


@given(typed, st.booleans(), st.text(max_size=20), st.booleans())
def test_a_request_arrives_and_its_answer_returns_raw_and_typed(
    sent: tuple[str, Any], raw: bool, identity: str, twice: bool
) -> None:
    datatype, rows = sent
    codec = codec_for(datatype)
    asked = request(datatype, len(rows), id=identity)
    if raw:
        asked.raw_input_contents.append(rows.tobytes())
    else:
        getattr(asked.inputs[0].contents, CONTENTS[datatype]).extend(rows.reshape(-1).tolist())
    for _ in range(1 + twice):  # the second time its head is known
        decoded = codec.decode(asked.SerializeToString())
    shape, data = decoded.inputs["x"]
    assert (shape, bytes(data)) == (rows.shape, rows.tobytes())
    before = np.zeros((3, 2), rows.dtype)
    result = Result({"y": np.concatenate([before, rows])})
    told = Response.FromString(b"".join(codec.encode(decoded, result, 3)))
    assert (told.model_name, told.model_version, told.id) == ("m", "r", identity)
    output = told.outputs[0]
    assert (output.name, output.datatype, list(output.shape)) == ("y", datatype, [len(rows), 2])
    if raw:
        assert list(told.raw_output_contents) == [rows.tobytes()]
    else:
        got = list(getattr(output.contents, CONTENTS[datatype]))
        np.testing.assert_array_equal(np.array(got, rows.dtype), rows.reshape(-1))


@given(st.lists(st.binary(max_size=9), min_size=2, max_size=2), st.booleans())
def test_strings_arrive_and_return(elements: list[bytes], raw: bool) -> None:
    codec = codec_for(BYTES)
    asked = request(BYTES, 1)
    packed = b"".join(len(element).to_bytes(4, "little") + element for element in elements)
    if raw:
        asked.raw_input_contents.append(packed)
    else:
        asked.inputs[0].contents.bytes_contents.extend(elements)
    decoded = codec.decode(asked.SerializeToString())
    array: Any = decoded.inputs["x"][1]
    assert array.reshape(-1).tolist() == elements
    told = Response.FromString(b"".join(codec.encode(decoded, Result({"y": array}), 0)))
    if raw:
        assert list(told.raw_output_contents) == [packed]
    else:
        assert list(told.outputs[0].contents.bytes_contents) == elements


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_the_protocols_error(data: bytes) -> None:
    with pytest.raises(RequestError):
        codec_for("FP32").decode(data)


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4), st.integers(0, 200)
)
def test_a_damaged_request_is_read_as_google_reads_it_or_refused(
    damage: list[tuple[int, int]], length: int
) -> None:
    good = request("FP32", 2, id="seven", raw_input_contents=[bytes(range(16))])
    data = bytearray(good.SerializeToString()[:length])
    for place, byte in damage:
        if data:
            data[place % len(data)] = byte
    codec = codec_for("FP32")
    codec.decode(good.SerializeToString())
    try:
        decoded = codec.decode(bytes(data))
    except RequestError:
        return
    told = Request.FromString(bytes(data))
    assert bytes(decoded.inputs["x"][1]) == told.raw_input_contents[0]
    assert decoded.id == told.id


@given(st.binary(max_size=100))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    for name in ("inference.ModelInferRequest", "grpc.health.v1.HealthCheckRequest"):
        try:
            protobuf.decode(name, data)
        except ProtobufError:
            continue


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_packed_integers_are_written_and_read_as_google_does(values: list[int]) -> None:
    theirs = Contents(int64_contents=values).SerializeToString()
    ours = protobuf.encode("inference.InferTensorContents", {"int64_contents": values})
    assert ours == theirs
    told = protobuf.decode("inference.InferTensorContents", theirs)
    assert list(told.get("int64_contents", [])) == values


@pytest.mark.parametrize("data", [b"\0\0", protobuf.delimited(5, protobuf.delimited(9, b"\0\0"))])
def test_a_message_of_countless_fields_is_refused(data: bytes) -> None:
    with pytest.raises(ProtobufError, match="more than 100000 fields"):
        protobuf.decode("inference.ModelInferRequest", data * 100_001)


@pytest.mark.parametrize("data", [b"\x0a\x00", b"\x3a\x00"], ids=["names", "tensors"])
@pytest.mark.parametrize("known", [False, True])
def test_a_request_of_countless_fields_is_refused(data: bytes, known: bool) -> None:
    codec = codec_for("FP32")
    good = request("FP32", 2, raw_input_contents=[bytes(16)]).SerializeToString()
    if known:
        codec.decode(good)
    with pytest.raises(RequestError, match=r"more than|follows"):
        codec.decode(good + data * 100_001)
