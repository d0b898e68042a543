"""What a model's file is, and what is wrong with it, before anything is built from it."""

from __future__ import annotations

import os
import pickle
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from kohort.contract import FailureReason
from kohort_server.errors import StartFailure
from kohort_server.model.check import checked, find_cycle
from kohort_server.model.origin import Origin, origin_of


def look_at(path: Path, **limits: int) -> None:
    """All that is looked at before an engine is built of an ONNX file."""
    assert origin_of(path) is Origin.ONNX
    checked(path, **limits)


def refused(path: Path, **limits: int) -> str:
    """Why a file is no model that engines are built from."""
    with pytest.raises(StartFailure) as raised:
        look_at(path, **limits)
    assert raised.value.failure.reason == FailureReason.MODEL_INVALID
    message = raised.value.failure.message
    assert path.name in message
    assert "\n" not in message
    return message


def value(name: str, shape: list[int | str], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(
    nodes: list[Any], *weights: Any, opset: int = 17, functions: tuple[Any, ...] = ()
) -> Any:
    graph = helper.make_graph(
        nodes, "m", [value("x", ["n", 4])], [value("y", ["n", 4])], initializer=list(weights)
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=list(functions))


def write(path: Path, model: Any) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def archive(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


ADD = helper.make_node("Add", ["x", "w"], ["y"], name="plus")
WEIGHT = numpy_helper.from_array(np.ones(4, np.float32), "w")


def external(location: str, length: int = 16, offset: int = 0) -> Any:
    """A weight whose bytes lie in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    told = {"location": location, "offset": str(offset), "length": str(length)}
    for key, text in told.items():
        tensor.external_data.add(key=key, value=text)
    return tensor


class Harmful:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_refused_with_the_way_to_export_it_and_never_read(
    tmp_path: Path, protocol: int
) -> None:
    path, mark = tmp_path / "model.onnx", tmp_path / "mark"
    path.write_bytes(pickle.dumps(Harmful(mark), protocol))
    assert "torch.onnx.export" in refused(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"m/data.pkl": b"", "m/data/0": b""}, "a pickle by torch.save"),
        ({"m/data.pkl": b"", "m/code/__torch__.py": b""}, "a TorchScript program"),
        ({"model.onnx": b""}, "give the model file that is in it"),
    ],
)
def test_an_archive_is_told_by_what_is_in_it(
    tmp_path: Path, files: dict[str, bytes], told: str
) -> None:
    assert told in refused(archive(tmp_path / "model.onnx", files))


def test_a_program_of_torch_export_is_known_by_its_content(tmp_path: Path) -> None:
    path = archive(tmp_path / "model.bin", {"m/models/model.json": b"{}", "m/byteorder": b"little"})
    assert origin_of(path) is Origin.TORCH_EXPORT


def test_a_program_that_unpacks_to_far_more_than_it_is_is_refused(tmp_path: Path) -> None:
    files = {"m/models/model.json": b"{}", "m/data/weights/weight_0": bytes(8 << 20)}
    path = archive(tmp_path / "model.pt2", files, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    assert "unpacks to" in refused(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"<html><body>404</body></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"PK\x03\x04 and no more", "a broken zip archive"),
        (b"\xff" * 64, "not an ONNX file"),
        (b"\x08\x08", "not an ONNX model"),
    ],
)
def test_what_is_no_model_is_told_for_what_it_is(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert told in refused(path)


@given(content=st.binary(max_size=200))
def test_any_bytes_are_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(content)
    refused(path)


def test_a_model_is_known_by_its_bytes_and_those_of_its_weights(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(np.ones(4, np.float32).tobytes())
    path = write(tmp_path / "model.onnx", model_of([ADD], external("w.bin")))
    model = checked(path)
    assert [file.name for file in model.files] == ["model.onnx", "w.bin"]
    assert (model.inputs, model.outputs) == (("x",), ("y",))
    assert model.size == path.stat().st_size + 16
    assert checked(path.rename(tmp_path / "other.onnx")).digest == model.digest
    (tmp_path / "w.bin").write_bytes(np.zeros(4, np.float32).tobytes())
    assert checked(tmp_path / "other.onnx").digest != model.digest


@pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", "a/../../w.bin", "..\\w.bin", ""])
def test_weights_outside_the_models_folder_are_never_read(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(16))
    assert "outside its folder" in refused(
        write(folder / "m.onnx", model_of([ADD], external(location)))
    )


def test_a_link_out_of_the_models_folder_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(16))
    (folder / "w.bin").symlink_to(tmp_path / "w.bin")
    assert "link out of its folder" in refused(
        write(folder / "m.onnx", model_of([ADD], external("w.bin")))
    )


def test_weights_of_a_constant_in_a_branch_are_looked_at_too(tmp_path: Path) -> None:
    constant = helper.make_node("Constant", [], ["z"], value=external("../w.bin"))
    branch = helper.make_graph([constant], "branch", [], [value("z", [4])])
    choice = helper.make_node("If", ["c"], ["w"], then_branch=branch, else_branch=branch)
    condition = numpy_helper.from_array(np.array(True), "c")
    assert "outside its folder" in refused(
        write(tmp_path / "m.onnx", model_of([choice, ADD], condition))
    )


@pytest.mark.parametrize(
    ("made", "told"),
    [(None, "not there"), (bytes(8), "cut short"), (bytes(15), "cut short")],
)
def test_weights_that_are_missing_or_cut_short_are_told(
    tmp_path: Path, made: bytes | None, told: str
) -> None:
    if made is not None:
        (tmp_path / "w.bin").write_bytes(made)
    assert told in refused(write(tmp_path / "m.onnx", model_of([ADD], external("w.bin"))))


def test_a_newer_opset_is_told_with_the_ones_that_are_known(tmp_path: Path) -> None:
    message = refused(write(tmp_path / "m.onnx", model_of([ADD], WEIGHT, opset=999)))
    assert "opset 999" in message
    assert f"1 to {onnx.defs.onnx_opset_version()}" in message


@pytest.mark.parametrize(
    ("domain", "name"), [("", "Frobnicate"), ("acme", "Add"), ("own", "Other")]
)
def test_an_operator_that_nobody_defines_is_told_by_its_node(
    tmp_path: Path, domain: str, name: str
) -> None:
    node = helper.make_node(name, ["x", "w"], ["y"], name="strange", domain=domain)
    message = refused(write(tmp_path / "m.onnx", model_of([node], WEIGHT)))
    assert name in message
    assert '"strange"' in message


def test_a_models_own_functions_are_operators(tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], opsets
    )
    node = helper.make_node("Twice", ["x"], ["y"], domain="own")
    assert checked(write(tmp_path / "m.onnx", model_of([node], functions=(function,)))).inputs == (
        "x",
    )


def test_a_cycle_is_told_by_the_nodes_on_it(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"], name="one"),
        helper.make_node("Relu", ["a"], ["b"], name="two"),
        helper.make_node("Add", ["a", "w"], ["y"], name="three"),
    ]
    assert "a cycle: two → one → two" in refused(
        write(tmp_path / "m.onnx", model_of(nodes, WEIGHT))
    )


def test_shapes_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    wide = numpy_helper.from_array(np.ones((3, 4), np.float32), "w")
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    assert "not valid ONNX" in refused(write(tmp_path / "m.onnx", model_of([product], wide)))


def test_a_file_that_is_too_large_for_one_message_is_told_how_to_be_saved(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", model_of([ADD], WEIGHT))
    assert "external data" in refused(path, max_proto_bytes=10)


@st.composite
def graphs(draw: st.DrawFn) -> list[tuple[str, list[str], list[str]]]:
    """Nodes that each make one value and take any others."""
    count = draw(st.integers(1, 12))
    taken = st.lists(st.integers(0, count - 1), max_size=3)
    return [(str(one), [str(other) for other in draw(taken)], [str(one)]) for one in range(count)]


@given(nodes=graphs())
def test_a_cycle_is_found_exactly_when_no_order_exists(
    nodes: list[tuple[str, list[str], list[str]]],
) -> None:
    left = {name: set(inputs) for name, inputs, _ in nodes}
    while ready := [name for name, inputs in left.items() if not inputs & left.keys()]:
        for name in ready:
            del left[name]
    cycle = find_cycle(nodes)
    assert bool(cycle) == bool(left)
    inputs_of = {name: inputs for name, inputs, _ in nodes}
    for maker, user in pairwise(cycle):
        assert maker in inputs_of[user]  # each feeds the next


def test_a_chain_of_twenty_thousand_nodes_is_looked_at_without_recursion() -> None:
    nodes = [(str(one), [str(one + 1)], [str(one)]) for one in range(20_000)]
    assert find_cycle(nodes) == []


def test_weights_listed_among_the_inputs_are_no_inputs(tmp_path: Path) -> None:
    model = model_of([ADD], WEIGHT)
    model.graph.input.append(value("w", [4]))
    assert checked(write(tmp_path / "m.onnx", model)).inputs == ("x",)
