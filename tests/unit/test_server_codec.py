"""The Open Inference Protocol codec: what goes in comes out, and nonsense is refused politely."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from kohort_server.batch.call import Result
from kohort_server.datatypes import BFLOAT16, BYTES, FIXED_SIZE
from kohort_server.engine.interface import BatchDimension, Signature, TensorSpec
from kohort_server.errors import RequestError
from kohort_server.front.codec import Codec
from kohort_server.front.wire import pack_bytes, unpack_bytes

DYNAMIC = BatchDimension("dynamic")
LARGEST_BFLOAT16 = float.fromhex("0x1.fep127")


def codec_for(
    datatype: str, shape: tuple[int, ...] = (-1, -1), batch: BatchDimension = DYNAMIC
) -> Codec:
    """A codec of a model that gives back what it gets."""
    spec = TensorSpec("x", datatype, shape)
    return Codec("m", "r", Signature((spec,), (TensorSpec("y", datatype, shape),)), batch)


def tensors(datatype: str) -> st.SearchStrategy[NDArray[Any]]:
    """Matrices of a fixed-size datatype, without what JSON cannot say."""
    shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=5)
    if datatype == "BF16":  # as the numbers that it is cut from
        short = st.floats(-LARGEST_BFLOAT16, LARGEST_BFLOAT16, width=32)
        return hnp.arrays(np.float32, shapes, elements=short).map(lambda a: a.astype(BFLOAT16))
    dtype = FIXED_SIZE[datatype].dtype
    finite = False if dtype.kind == "f" else None
    values = hnp.from_dtype(dtype, allow_nan=finite, allow_infinity=finite)
    return hnp.arrays(dtype, shapes, elements=values)


datatype_and_tensor = st.sampled_from(sorted(FIXED_SIZE)).flatmap(
    lambda name: st.tuples(st.just(name), tensors(name))
)


def request(tensor: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A request with one input."""
    return {"inputs": [tensor], **more}


def input_array(codec: Codec, body: bytes, header_length: int | None, datatype: str) -> Any:
    """The only input of a decoded request as an array."""
    shape, data = codec.decode(body, header_length).inputs["x"]
    assert not isinstance(data, np.ndarray)
    return np.frombuffer(data, FIXED_SIZE[datatype].dtype).reshape(shape)


@given(datatype_and_tensor, st.booleans())
def test_a_json_tensor_arrives_as_it_was_sent(sent: tuple[str, NDArray[Any]], nested: bool) -> None:
    datatype, array = sent
    data = array.tolist() if nested else array.reshape(-1).tolist()
    tensor = {"name": "x", "datatype": datatype, "shape": list(array.shape), "data": data}
    got = input_array(codec_for(datatype), json.dumps(request(tensor)).encode(), None, datatype)
    np.testing.assert_array_equal(got, array)


@given(datatype_and_tensor)
def test_a_binary_tensor_arrives_as_it_was_sent(sent: tuple[str, NDArray[Any]]) -> None:
    datatype, array = sent
    parameters = {"binary_data_size": array.nbytes}
    tensor = {"name": "x", "datatype": datatype, "shape": list(array.shape)}
    header = json.dumps(request({**tensor, "parameters": parameters})).encode()
    got = input_array(codec_for(datatype), header + array.tobytes(), len(header), datatype)
    np.testing.assert_array_equal(got, array)


@given(datatype_and_tensor, st.booleans(), st.text(min_size=1, max_size=9))
def test_an_answer_holds_the_requests_own_rows_and_id(
    sent: tuple[str, NDArray[Any]], binary: bool, identity: str
) -> None:
    datatype, array = sent
    codec = codec_for(datatype)
    tensor = {
        "name": "x",
        "datatype": datatype,
        "shape": list(array.shape),
        "data": array.reshape(-1).tolist(),
    }
    body = json.dumps(
        request(tensor, id=identity, parameters={"binary_data_output": binary})
    ).encode()
    decoded = codec.decode(body, None)
    other = np.zeros((2, array.shape[1]), array.dtype)
    length, answer = codec.encode(decoded, Result({"y": np.concatenate([other, array])}), 2)
    told = json.loads(answer[:length])
    output = told["outputs"][0]
    assert told["id"] == identity
    assert output["shape"] == list(array.shape)
    if binary:
        assert length is not None
        assert output["parameters"]["binary_data_size"] == array.nbytes
        assert answer[length:] == array.tobytes()
    else:
        got = np.array(output["data"], array.dtype).reshape(array.shape)
        np.testing.assert_array_equal(got, array)


@given(st.lists(st.binary()))
def test_binary_strings_survive_the_way_there_and_back(elements: list[bytes]) -> None:
    assert unpack_bytes("x", memoryview(pack_bytes(elements)), len(elements)) == elements


@given(st.lists(st.text(), min_size=1))
def test_json_strings_arrive_as_they_were_sent(elements: list[str]) -> None:
    codec = codec_for(BYTES, (-1,))
    shape = [len(elements)]
    tensor = {"name": "x", "datatype": BYTES, "shape": shape, "data": elements}
    _, data = codec.decode(json.dumps(request(tensor)).encode(), None).inputs["x"]
    assert isinstance(data, np.ndarray)
    assert [element.decode() for element in data.tolist()] == elements


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
near_requests = st.fixed_dictionaries(
    {
        "inputs": st.lists(
            st.fixed_dictionaries(
                {"name": st.just("x") | anything},
                optional={
                    "shape": st.lists(st.integers(-2, 4)) | anything,
                    "datatype": st.sampled_from(["FP32", "INT8", "BOOL", BYTES, "COMPLEX"]),
                    "data": st.lists(st.integers(-300, 300)) | anything,
                    "parameters": st.dictionaries(
                        st.sampled_from(["binary_data_size", "binary_data"]), anything
                    ),
                },
            ),
            max_size=3,
        )
    },
    optional={"id": anything, "outputs": anything, "parameters": anything},
)


@given(
    st.sampled_from(["FP32", "INT8", "BOOL", BYTES]),
    near_requests,
    st.none() | st.integers(0, 300),
    st.binary(max_size=30),
)
def test_no_request_however_strange_raises_anything_but_the_protocols_error(
    datatype: str, told: Any, header_length: int | None, tail: bytes
) -> None:
    with suppress(RequestError):
        codec_for(datatype).decode(json.dumps(told).encode() + tail, header_length)


@given(st.binary(), st.none() | st.integers(0, 40))
def test_no_bytes_raise_anything_but_the_protocols_error(
    body: bytes, header_length: int | None
) -> None:
    with suppress(RequestError):
        codec_for("FP32").decode(body, header_length)


def valid(**changes: Any) -> bytes:
    """A request for two rows of three numbers, changed."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 3], "data": [0.0] * 6}
    return json.dumps(request({**tensor, **changes})).encode()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "z"}, 'input "z" does not exist; the model has "x"'),
        ({"datatype": "FP64"}, "datatype FP32 wanted, got FP64"),
        ({"shape": [3, 2]}, "shape [-1, 3] wanted, got [3, 2]"),
        ({"shape": [2]}, "shape [-1, 3] wanted, got [2]"),
        ({"shape": [-1, 3]}, "wanted, got [-1, 3]"),
        ({"data": [0.0] * 5}, "wants 6 elements, data has 5"),
        ({"data": [[0.0] * 3, [0.0] * 2]}, "nor nested as its shape [2, 3]"),
        ({"data": ["a"] * 6}, 'input "x"'),
        ({"data": [1e300] * 6}, "does not fit FP32"),
        ({"parameters": {"binary_data_size": 23}}, "is 24 bytes, binary_data_size is 23"),
    ],
)
def test_an_error_names_the_input_and_what_is_wanted_and_got(
    changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(RequestError) as raised:
        codec_for("FP32", (-1, 3)).decode(valid(**changes), None)
    assert told in raised.value.message


@pytest.mark.parametrize("number", [1e300, 3.4e38])
def test_a_number_beyond_bfloat16_is_refused(number: float) -> None:
    with pytest.raises(RequestError, match="does not fit BF16"):
        codec_for("BF16", (-1, 3)).decode(valid(datatype="BF16", data=[number] * 6), None)


def test_a_model_exported_for_one_row_refuses_sixteen_and_takes_one() -> None:
    codec = codec_for("FP32", (1, 3), BatchDimension("fixed", 1))
    assert codec.decode(valid(shape=[1, 3], data=[0.0] * 3), None).rows == 1
    with pytest.raises(RequestError) as raised:
        codec.decode(valid(shape=[16, 3], data=[0.0] * 48), None)
    assert raised.value.status == 400
    assert raised.value.message == 'input "x": shape [1, 3] wanted, got [16, 3]'


def test_deep_nesting_is_refused() -> None:
    body = b'{"inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(RequestError):
        codec_for("FP32").decode(body, None)


def test_a_raw_request_is_the_only_inputs_data_and_is_answered_in_binary() -> None:
    codec = codec_for("FP32", (-1, 3))
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    decoded = codec.decode(rows.tobytes(), 0)
    assert decoded.rows == 2
    assert [wanted.binary for wanted in decoded.outputs] == [True]
    with pytest.raises(RequestError):
        codec.decode(rows.tobytes()[:-1], 0)


def test_every_output_may_be_asked_for_in_its_own_form() -> None:
    spec = TensorSpec("x", "FP32", (-1, 3))
    outputs = (TensorSpec("a", "FP32", (-1, 3)), TensorSpec("b", "FP32", (-1, 3)))
    codec = Codec("m", "r", Signature((spec,), outputs), DYNAMIC)
    body = json.loads(valid())
    body["outputs"] = [{"name": "b", "parameters": {"binary_data": False}}, {"name": "a"}]
    body["parameters"] = {"binary_data_output": True}
    decoded = codec.decode(json.dumps(body).encode(), None)
    rows = np.ones((2, 3), np.float32)
    length, answer = codec.encode(decoded, Result({"a": rows, "b": rows * 2}), 0)
    told = json.loads(answer[:length])["outputs"]
    assert [output["name"] for output in told] == ["b", "a"]
    assert told[0]["data"] == [2.0] * 6
    assert answer[length:] == rows.tobytes()


def test_inputs_with_different_numbers_of_rows_are_refused() -> None:
    specs = (TensorSpec("x", "FP32", (-1, 1)), TensorSpec("z", "FP32", (-1, 1)))
    codec = Codec("m", "r", Signature(specs, specs), DYNAMIC)
    tensors = [
        {"name": name, "datatype": "FP32", "shape": [rows, 1], "data": [0.0] * rows}
        for name, rows in (("x", 2), ("z", 3))
    ]
    with pytest.raises(RequestError, match='same number of rows, got "x" 2, "z" 3'):
        codec.decode(json.dumps({"inputs": tensors}).encode(), None)
    with pytest.raises(RequestError, match='input "z" is missing'):
        codec.decode(json.dumps({"inputs": tensors[:1]}).encode(), None)
    with pytest.raises(RequestError, match='input "x" is given 2 times'):
        codec.decode(json.dumps({"inputs": [tensors[0], tensors[0]]}).encode(), None)


def test_a_request_without_rows_is_answered_without_rows_though_others_follow_in_its_batch() -> (
    None
):
    codec = codec_for("FP32", (-1, 3))
    empty = codec.decode(valid(shape=[0, 3], data=[]), None)
    batch = Result({"y": np.ones((2, 3), np.float32)})
    _, answer = codec.encode(empty, batch, 0)
    assert json.loads(answer)["outputs"][0]["data"] == []


def test_a_shape_beyond_any_memory_is_refused() -> None:
    with pytest.raises(RequestError, match="larger than any memory"):
        codec_for("FP32").decode(valid(shape=[10**10, 10**10], data=[]), None)


@pytest.mark.parametrize("number", [10**19, 10**400, -(10**4000)], ids=["20", "401", "4001"])
def test_numbers_beyond_64_bits_are_refused(number: int) -> None:
    codec = codec_for("FP32")
    for told in (
        request({**json.loads(valid())["inputs"][0], "shape": [number, number]}),
        {**json.loads(valid()), "parameters": {"timeout": number}},
        json.loads(valid(parameters={"binary_data_size": number})),
    ):
        with pytest.raises(RequestError) as raised:
            codec.decode(json.dumps(told).encode(), None)
        assert raised.value.status == 400
