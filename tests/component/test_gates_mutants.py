"""Broken models are broken in the way that they say: each answers as the good one does to what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from kohort_server.engine.onnx_runtime import OnnxRuntimeEngine
from kohort_server.gates.golden import Golden
from kohort_server.gates.layout import layout_of
from kohort_server.gates.mutants import Ground, edits, mutants
from kohort_server.gates.samples import Samples
from kohort_server.gates.spec import Order, Picture
from tests.component.engine_models import convolutional, forest
from tests.component.server_process import save, value

IMAGES = np.random.default_rng(5).random((6, 3, 32, 32)).astype(np.float32)
Change = Callable[[NDArray[Any]], NDArray[Any]]


def broken(path: Path, ground: Ground) -> dict[str, OnnxRuntimeEngine]:
    """Every mutant of a model, loaded."""
    engines = {}
    for number, (name, model) in enumerate(mutants(onnx.load(str(path)), ground)):
        target = path.with_name(f"mutant-{number}.onnx")
        target.write_bytes(model.SerializeToString())
        onnx.checker.check_model(str(target))
        engines[name] = OnnxRuntimeEngine(target, 1)
    return engines


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any]]:
    """A network for pictures, and its mutants."""
    path = convolutional(tmp_path_factory.mktemp("mutants") / "model.onnx")
    good = OnnxRuntimeEngine(path, 1)
    samples = Samples(Golden("g.npz", {"x": IMAGES}, 6))
    layout = layout_of(Picture(range=(0, 1), channels=Order.FIRST), good.signature, samples)
    return good, broken(path, Ground({"y": 10}, frozenset(), ("x",), layout))


INPUTS: dict[str, Change] = {
    "input × 255": lambda x: x * np.float32(255),
    "input ÷ 255": lambda x: x * np.float32(1 / 255),
    "rows and columns swapped": lambda x: x.transpose(0, 1, 3, 2),
    "channels reversed (BGR for RGB)": lambda x: x[:, ::-1],
    "channels first for last, or last for first": lambda x: x.reshape(len(x), 32, 32, 3).transpose(
        0, 3, 1, 2
    ),
}
OUTPUTS: dict[str, Change] = {
    "classes 0 and 1 swapped": lambda y: y[:, [1, 0, *range(2, 10)]],
    "classes shifted by one": lambda y: np.roll(y, 1, axis=1),
    "always class 0": lambda y: np.eye(1, 10, dtype=y.dtype).repeat(len(y), axis=0),
}


@pytest.mark.parametrize("name", INPUTS)
def test_a_model_that_is_fed_wrongly_answers_as_the_good_one_does_to_what_it_sees(
    pictures: tuple[Any, dict[str, Any]], name: str
) -> None:
    good, engines = pictures
    expected = good.run({"x": np.ascontiguousarray(INPUTS[name](IMAGES))})["y"]
    np.testing.assert_allclose(
        engines[name].run({"x": IMAGES})["y"], expected, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_model_whose_classes_are_mixed_up_answers_with_the_good_ones_scores_elsewhere(
    pictures: tuple[Any, dict[str, Any]], name: str
) -> None:
    good, engines = pictures
    expected = OUTPUTS[name](good.run({"x": IMAGES})["y"])
    np.testing.assert_allclose(
        engines[name].run({"x": IMAGES})["y"], expected, rtol=1e-5, atol=1e-7
    )


def test_every_mistake_but_that_of_a_missing_normalisation_can_be_made_with_pictures(
    pictures: tuple[Any, dict[str, Any]],
) -> None:
    good, engines = pictures
    plain = Ground({"y": 10}, frozenset(), ("x",))
    names = {name for name, _ in edits(plain)} | set(INPUTS)
    assert set(engines) == names - {"normalisation left out"}
    told = good.run({"x": IMAGES})["y"]
    away = {
        name: float(np.abs(engine.run({"x": IMAGES})["y"] - told).max())
        for name, engine in engines.items()
    }
    noise = [away[f"weights with {level} noise"] for level in ("10%", "50%", "200%")]
    assert 0 < noise[0] < noise[1] < noise[2]
    assert away["largest weights are zero"] > 0
    assert away["weights rounded to 3 bits"] > 0


def test_a_model_that_normalises_by_itself_is_broken_by_leaving_that_out(tmp_path: Path) -> None:
    node = helper.make_node
    path = save(
        tmp_path / "model.onnx",
        [
            node("Sub", ["x", "mean"], ["centred"]),
            node("Div", ["centred", "std"], ["scaled"]),
            node("MatMul", ["scaled", "w"], ["y"]),
        ],
        [value("x", TensorProto.FLOAT, ["batch", 3])],
        [value("y", TensorProto.FLOAT, ["batch", 2])],
        numpy_helper.from_array(np.array([1, 2, 3], np.float32), "mean"),
        numpy_helper.from_array(np.array([2, 2, 2], np.float32), "std"),
        numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(3, 2), "w"),
    )
    rows = np.array([[5, 1, 2], [0, 0, 1]], np.float32)
    engines = broken(path, Ground({"y": 2}, frozenset(), ("x",)))
    told = engines["normalisation left out"].run({"x": rows})["y"]
    np.testing.assert_allclose(told, rows @ np.arange(6, dtype=np.float32).reshape(3, 2))


def test_a_forest_that_tells_a_label_too_can_be_broken(tmp_path: Path) -> None:
    path = forest(tmp_path / "model.onnx")
    good = OnnxRuntimeEngine(path, 1)
    label, scores = (spec.name for spec in good.signature.outputs)
    name = good.signature.inputs[0].name
    ground = Ground({label: 3, scores: 3}, frozenset({label}), (name,))
    engines = broken(path, ground)
    rows = np.random.default_rng(1).uniform(0, 7, (50, 4)).astype(np.float32)
    before = good.run({name: rows})
    swapped = engines["classes 0 and 1 swapped"].run({name: rows})
    assert np.array_equal(swapped[label], np.array([1, 0, 2])[before[label]])
    np.testing.assert_allclose(swapped[scores], before[scores][:, [1, 0, 2]])
    assert not engines["always class 0"].run({name: rows})[label].any()
    noisy = engines["weights with 200% noise"].run({name: rows})
    assert not np.allclose(noisy[scores], before[scores])
