"""Broken models, made of a good one: mistakes that happen when models are trained, exported and wired up.

Each is an edit of the ONNX graph. Gates that let one through would not notice that mistake either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from kohort_server.gates.layout import Layout
from kohort_server.gates.spec import Order

NOISE = (0.1, 0.5, 2.0)  # of the standard deviation of each tensor
BITS = 3  # that rounded weights have
BYTE_RANGE = 255.0
SEED = 8
# Where models of ai.onnx.ml have their weights.
WEIGHT_ATTRIBUTES = frozenset(
    {"coefficients", "nodes_values", "class_weights", "target_weights", "support_vectors"}
)
NORMALISING = frozenset({"Sub", "Div", "Mul", "Add", "Scaler", "BatchNormalization"})
DEFAULT_OPSET = 17  # of operators that are added to a model that has none of them


@dataclass(frozen=True, slots=True)
class Ground:
    """What is known of a model. ``outputs``: those that gates read, and how many classes each tells apart
    (0: it is a number); ``labels``: which of them are class numbers and no scores; ``inputs``: of floats."""

    outputs: dict[str, int]
    labels: frozenset[str]
    inputs: tuple[str, ...]
    layout: Layout | None = None


Edit = Callable[[Any], bool]
"""Breaks a model; says whether there was anything to break."""


def mutants(model: Any, ground: Ground) -> Iterator[tuple[str, Any]]:
    """Every broken model that can be made, with what is wrong about it."""
    for name, edit in edits(ground):
        broken = onnx.ModelProto()
        broken.CopyFrom(model)
        if edit(broken):
            yield name, broken


def edits(ground: Ground) -> list[tuple[str, Edit]]:
    """All mistakes, by name."""
    found: list[tuple[str, Edit]] = [
        (f"weights with {level:.0%} noise", partial(noisy, level=level)) for level in NOISE
    ]
    found += [
        (f"weights rounded to {BITS} bits", rounded),
        ("largest weights are zero", largest_zeroed),
        ("classes 0 and 1 swapped", lambda model: relabelled(model, ground, swap_first)),
        ("classes shifted by one", lambda model: relabelled(model, ground, shift_by_one)),
        ("always class 0", lambda model: always_first(model, ground)),
        ("normalisation left out", unnormalised),
        (f"input × {BYTE_RANGE:g}", lambda model: scaled(model, ground, BYTE_RANGE)),
        (f"input ÷ {BYTE_RANGE:g}", lambda model: scaled(model, ground, 1 / BYTE_RANGE)),
    ]
    if ground.layout is not None:
        layout = ground.layout
        found += [
            ("rows and columns swapped", lambda model: rearranged(model, layout, transposed)),
            (
                "channels reversed (BGR for RGB)",
                lambda model: rearranged(model, layout, reversed_channels),
            ),
            (
                "channels first for last, or last for first",
                lambda model: rearranged(model, layout, misread),
            ),
        ]
    return found


def noisy(model: Any, level: float) -> bool:
    """Gaussian noise on every weight."""
    random = np.random.default_rng(SEED)
    return _each_weight(
        model, lambda weight: weight + random.normal(0, level * (weight.std() or 1.0), weight.shape)
    )


def rounded(model: Any) -> bool:
    """Weights with too few different values, as of a quantisation that went wrong."""

    def few(weight: NDArray[Any]) -> NDArray[Any]:
        step = np.abs(weight).max() / (2 ** (BITS - 1) - 1) or 1.0
        return np.round(weight / step) * step

    return _each_weight(model, few)


def largest_zeroed(model: Any) -> bool:
    """A layer that was never loaded."""
    places = list(_weights(model))
    if not places:
        return False
    read, write = max(places, key=lambda place: place[0]().size)
    write(np.zeros_like(read()))
    return True


def _each_weight(model: Any, change: Callable[[NDArray[Any]], NDArray[Any]]) -> bool:
    places = list(_weights(model))
    for read, write in places:
        write(change(read()))
    return bool(places)


Place = tuple[Callable[[], NDArray[Any]], Callable[[NDArray[Any]], None]]


def _weights(model: Any) -> Iterator[Place]:
    """How to read and write every tensor of weights: floats of two dimensions or more, and trees'."""
    for tensor in model.graph.initializer:
        if len(tensor.dims) >= 2 and tensor.data_type in (
            onnx.TensorProto.FLOAT,
            onnx.TensorProto.DOUBLE,
            onnx.TensorProto.FLOAT16,
        ):
            yield _tensor_place(tensor)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name in WEIGHT_ATTRIBUTES and len(attribute.floats) > 1:
                yield _attribute_place(attribute)


def _tensor_place(tensor: Any) -> Place:
    def write(values: NDArray[Any]) -> None:
        dtype = numpy_helper.to_array(tensor).dtype
        tensor.CopyFrom(numpy_helper.from_array(values.astype(dtype), tensor.name))

    return lambda: numpy_helper.to_array(tensor).astype(np.float64), write


def _attribute_place(attribute: Any) -> Place:
    def write(values: NDArray[Any]) -> None:
        attribute.floats[:] = values.astype(np.float32).tolist()

    return lambda: np.array(attribute.floats, np.float64), write


Relabel = Callable[[int], list[int]]


def swap_first(classes: int) -> list[int]:
    """Which class each stands for: the first two are each other's."""
    return [1, 0, *range(2, classes)]


def shift_by_one(classes: int) -> list[int]:
    """As where a list of names has one more in front."""
    return [*range(1, classes), 0]


def relabelled(model: Any, ground: Ground, order: Relabel) -> bool:
    """Scores and class numbers stand for other classes."""
    changed = False
    for output, classes in ground.outputs.items():
        if classes < 2:
            continue
        changed = True
        if output in ground.labels:
            inner = _behind(model, output)
            table = _constant(model, np.array(order(classes), np.int64))
            model.graph.node.append(helper.make_node("Gather", [table, inner], [output], axis=0))
        else:
            # Score i of the broken model is that of the class that stands for i.
            places = np.argsort(order(classes)).astype(np.int64)
            inner = _behind(model, output)
            table = _constant(model, places)
            model.graph.node.append(helper.make_node("Gather", [inner, table], [output], axis=1))
    return changed


def always_first(model: Any, ground: Ground) -> bool:
    """The same answer, whatever is asked."""
    changed = False
    for output, classes in ground.outputs.items():
        if classes < 2:
            continue
        changed = True
        kind = _element_type(model, output)
        inner = _behind(model, output)
        zero = _constant(model, np.zeros((), kind))
        nothing = f"{inner}.nothing"
        model.graph.node.append(helper.make_node("Mul", [inner, zero], [nothing]))
        answer = np.zeros((), kind) if output in ground.labels else np.eye(1, classes, dtype=kind)
        model.graph.node.append(
            helper.make_node("Add", [nothing, _constant(model, answer)], [output])
        )
    return changed


def scaled(model: Any, ground: Ground, factor: float) -> bool:
    """Inputs of another scale than those that the model was trained on."""
    for name in ground.inputs:
        kind = _element_type(model, name)
        outer = _before(model, name)
        by = _constant(model, np.array(factor, kind))
        model.graph.node.insert(0, helper.make_node("Mul", [name, by], [outer]))
    return bool(ground.inputs)


def unnormalised(model: Any) -> bool:
    """The steps that bring inputs to a usual scale are left out, where the model begins with them."""
    weights = {tensor.name for tensor in model.graph.initializer}
    left_out = False
    for value in model.graph.input:
        name = value.name
        while True:
            users = [node for node in model.graph.node if name in node.input]
            if len(users) != 1 or users[0].op_type not in NORMALISING:
                break
            others = set(users[0].input) - {name}
            if not others <= weights or users[0].output[0] in {o.name for o in model.graph.output}:
                break
            after = users[0].output[0]
            model.graph.node.remove(users[0])
            _rename_uses(model.graph.node, after, name)
            left_out = True
    return left_out


Rearrange = Callable[[Layout], tuple[Sequence[int], Sequence[int], bool] | None]


def transposed(layout: Layout) -> tuple[Sequence[int], Sequence[int], bool] | None:
    """Read as [.., width, height] and turned over: shape, order of its axes, whether channels turn."""
    if layout.height != layout.width:
        return None
    if layout.picture.channels is Order.FIRST:
        return (layout.channels, layout.height, layout.width), (0, 1, 3, 2), False
    return (layout.height, layout.width, layout.channels), (0, 2, 1, 3), False


def misread(layout: Layout) -> tuple[Sequence[int], Sequence[int], bool] | None:
    """The numbers of a picture in one order, read as if they were in the other."""
    if layout.channels == 1:
        return None
    if layout.picture.channels is Order.FIRST:
        return (layout.height, layout.width, layout.channels), (0, 3, 1, 2), False
    return (layout.channels, layout.height, layout.width), (0, 2, 3, 1), False


def reversed_channels(layout: Layout) -> tuple[Sequence[int], Sequence[int], bool] | None:
    """The last channel first."""
    if layout.channels == 1:
        return None
    first = layout.picture.channels is Order.FIRST
    shape = (layout.channels, layout.height, layout.width)
    return (shape if first else (*shape[1:], shape[0])), (0, 1, 2, 3), True


def rearranged(model: Any, layout: Layout, how: Rearrange) -> bool:
    """The model sees the same numbers in other places."""
    plan = how(layout)
    if plan is None:
        return False
    shape, axes, turn = plan
    outer = _before(model, layout.input)
    names = [layout.input, *(f"{outer}.{step}" for step in ("shaped", "moved", "turned")), outer]
    nodes = [
        helper.make_node("Reshape", [names[0], _shape(model, shape)], [names[1]]),
        helper.make_node("Transpose", [names[1]], [names[2]], perm=list(axes)),
    ]
    last = names[2]
    if turn:
        axis = 1 if layout.picture.channels is Order.FIRST else 3
        places = _constant(model, np.arange(layout.channels - 1, -1, -1, dtype=np.int64))
        nodes.append(helper.make_node("Gather", [last, places], [names[3]], axis=axis))
        last = names[3]
    nodes.append(helper.make_node("Reshape", [last, _shape(model, layout.shape)], [outer]))
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    return True


def _shape(model: Any, extents: Sequence[int]) -> str:
    return _constant(model, np.array([-1, *extents], np.int64))


def _constant(model: Any, values: NDArray[Any]) -> str:
    """The name of a new weight."""
    if not any(opset.domain in ("", "ai.onnx") for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid("", DEFAULT_OPSET))
    name = f"mutant.{len(model.graph.initializer)}"
    model.graph.initializer.append(numpy_helper.from_array(values, name))
    return name


def _element_type(model: Any, name: str) -> np.dtype[Any]:
    """The numpy type of an input or output."""
    values = (*model.graph.input, *model.graph.output)
    kind = next(value.type.tensor_type.elem_type for value in values if value.name == name)
    found: np.dtype[Any] = np.dtype(helper.tensor_dtype_to_np_dtype(kind))
    return found


def _behind(model: Any, output: str) -> str:
    """Make room in front of an output; the name of what was it."""
    inner = f"{output}.unbroken"
    for node in model.graph.node:
        node.output[:] = [inner if name == output else name for name in node.output]
    _rename_uses(model.graph.node, output, inner)
    return inner


def _before(model: Any, name: str) -> str:
    """Make room behind an input; the name that the model reads now."""
    outer = f"{name}.broken"
    _rename_uses(model.graph.node, name, outer)
    return outer


def _rename_uses(nodes: Any, name: str, other: str) -> None:
    """Another name for a value wherever it is read, inside of subgraphs too."""
    for node in nodes:
        node.input[:] = [other if used == name else used for used in node.input]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename_uses(attribute.g.node, name, other)
            for graph in attribute.graphs:
                _rename_uses(graph.node, name, other)
