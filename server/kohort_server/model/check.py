"""Checking an ONNX file before anything is built from it: what is wrong is said once, clearly, and early."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from kohort_server.digest import digest_of
from kohort_server.model.origin import invalid

MAX_PROTO_BYTES = (2 << 30) - 1  # protobuf's own limit for one message
MAX_WEIGHT_BYTES = 64 << 30  # of all external data together
# Operators of these domains are the engines' own; what each of them has is for the engine to say.
ENGINE_DOMAINS = frozenset({"com.microsoft", "com.microsoft.nchwc", "ai.onnx.preview.training"})
STANDARD_DOMAINS = {"": "", "ai.onnx": "", "ai.onnx.ml": "ai.onnx.ml"}


@dataclass(frozen=True, slots=True)
class CheckedModel:
    """An ONNX file that passed every check, and what decides an engine of it."""

    path: Path
    digest: str  # sha256:… of the file and its external data
    files: tuple[Path, ...]  # the file itself first, then its external data
    size: int  # bytes of all of them
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def checked(path: Path, max_proto_bytes: int = MAX_PROTO_BYTES) -> CheckedModel:
    """The checked model; raises `StartFailure` with ModelInvalid and one line that says what to do."""
    size = path.stat().st_size
    if size > max_proto_bytes:
        raise invalid(
            path,
            f"has {size} bytes, more than the {max_proto_bytes} that one file may have; export the weights "
            "as external data: onnx.save(model, path, save_as_external_data=True)",
        )
    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise invalid(path, "is not an ONNX file; export the model to ONNX") from error
    graph = model.graph
    if not (graph.node or graph.initializer) or not graph.output:
        raise invalid(path, "is not an ONNX model, or one without outputs; export it again")
    check_opsets(path, model)
    check_operators(path, model)
    weights = external_files(path, model)
    for one in (graph, *subgraphs(graph.node)):
        if cycle := find_cycle(
            [(node.name or node.op_type, node.input, node.output) for node in one.node]
        ):
            raise invalid(path, f"has a cycle: {' → '.join(cycle)}; export the model again")
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise invalid(
            path, f"is not valid ONNX: {one_line(error)}; export it again with a newer exporter"
        ) from error
    weighed = set(initial_names(graph))
    return CheckedModel(
        path,
        digest_of_files([path, *weights]),
        (path, *weights),
        size + sum(file.stat().st_size for file in weights),
        tuple(value.name for value in graph.input if value.name not in weighed),
        tuple(value.name for value in graph.output),
    )


def check_opsets(path: Path, model: Any) -> None:
    """Refuse operator sets that are newer than what is known here."""
    newest = {"": onnx.defs.onnx_opset_version(), "ai.onnx.ml": onnx.defs.onnx_ml_opset_version()}
    if not any(STANDARD_DOMAINS.get(opset.domain) == "" for opset in model.opset_import):
        raise invalid(path, "does not say which opset it needs; export it again")
    for opset in model.opset_import:
        domain = STANDARD_DOMAINS.get(opset.domain)
        if domain is not None and not 1 <= opset.version <= newest[domain]:
            raise invalid(
                path,
                f"needs opset {opset.version} of {opset.domain or 'ai.onnx'}; this server knows 1 to "
                f"{newest[domain]}: export it with one of these",
            )


def check_operators(path: Path, model: Any) -> None:
    """Refuse operators that neither the standard, the model's own functions nor an engine defines."""
    versions = {STANDARD_DOMAINS.get(opset.domain): opset.version for opset in model.opset_import}
    functions = {(function.domain, function.name) for function in model.functions}
    bodies = (model.graph.node, *(function.node for function in model.functions))
    for body in bodies:
        for node in all_nodes(body):
            domain = STANDARD_DOMAINS.get(node.domain)
            if domain is None:
                known = node.domain in ENGINE_DOMAINS or (node.domain, node.op_type) in functions
                what = f"{node.domain}.{node.op_type}"
            else:
                known = has_operator(node.op_type, domain, versions.get(domain)) or (
                    (node.domain, node.op_type) in functions
                )
                what = node.op_type
            if not known:
                raise invalid(
                    path,
                    f'needs the operator {what} (node "{node.name}"), which is not in ONNX\'s opset '
                    f"{versions.get(domain, 'of that name')}; export the model without custom operators",
                )


def has_operator(name: str, domain: str, version: int | None) -> bool:
    """Whether the standard has the operator in that version of the domain's opset."""
    if version is None:
        return False
    try:
        return not onnx.defs.get_schema(name, version, domain).deprecated
    except onnx.defs.SchemaError:
        return False


def all_nodes(nodes: Sequence[Any]) -> Iterator[Any]:
    """The nodes, and those of the graphs inside them."""
    for node in nodes:
        yield node
        for graph in direct_subgraphs(node):
            yield from all_nodes(graph.node)


def subgraphs(nodes: Sequence[Any]) -> Iterator[Any]:
    """The graphs inside these nodes, and those inside them."""
    for node in all_nodes(nodes):
        yield from direct_subgraphs(node)


def direct_subgraphs(node: Any) -> Iterator[Any]:
    """The graphs that a node's attributes hold."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def initial_names(graph: Any) -> Iterator[str]:
    """The names of a graph's weights, which old exporters list among its inputs too."""
    yield from (tensor.name for tensor in graph.initializer)
    yield from (tensor.values.name for tensor in graph.sparse_initializer)


def external_files(path: Path, model: Any) -> list[Path]:
    """The files that hold weights beside the model, each once; raises for any that is not in its folder."""
    folder = path.parent.resolve()
    found: dict[Path, None] = {}
    for tensor in tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        told = {entry.key: entry.value for entry in tensor.external_data}
        location = told.get("location", "")
        pure = PurePosixPath(location)
        if (
            not location
            or pure.is_absolute()
            or ".." in pure.parts
            or "\\" in location
            or "\0" in location
        ):
            raise invalid(
                path,
                f'wants the weights of "{tensor.name}" from {location!r}, which is outside its folder; '
                "save the external data beside the model",
            )
        file = (folder / pure).resolve()
        if not file.is_relative_to(folder):
            raise invalid(
                path,
                f'wants the weights of "{tensor.name}" from {location!r}, a link out of its folder; copy the '
                "file itself beside the model",
            )
        if not file.is_file():
            raise invalid(
                path,
                f"wants weights from {location!r}, which is not there; put it beside the model",
            )
        offset, length = (whole_number(told.get(key, "0")) for key in ("offset", "length"))
        if offset is None or length is None or offset + length > file.stat().st_size:
            raise invalid(
                path,
                f'wants the weights of "{tensor.name}" from a part of {location!r} that is not '
                "there: the file is cut short or of another export; copy both again",
            )
        found[folder / pure] = None
    if sum(file.stat().st_size for file in found) > MAX_WEIGHT_BYTES:
        raise invalid(
            path, f"has more than {MAX_WEIGHT_BYTES} bytes of weights, which is the limit"
        )
    return list(found)


def whole_number(text: str) -> int | None:
    """The number that a text of decimal digits is."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def tensors(model: Any) -> Iterator[Any]:
    """Every tensor in a model: weights, constants, those of subgraphs and functions."""
    graph = model.graph
    for one in (graph, *subgraphs(graph.node)):
        yield from one.initializer
        for sparse in one.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for nodes in (graph.node, *(function.node for function in model.functions)):
        for node in all_nodes(nodes):
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def find_cycle(nodes: Sequence[tuple[str, Sequence[str], Sequence[str]]]) -> list[str]:
    """The names along a cycle, its first at its end again; empty without one.

    `nodes`: name, names of the inputs, names of the outputs, each in any order.
    """
    maker = {
        output: index for index, (_, _, outputs) in enumerate(nodes) for output in outputs if output
    }
    feeds = [sorted({maker[name] for name in inputs if name in maker}) for _, inputs, _ in nodes]
    done: set[int] = set()
    for start in range(len(nodes)):
        if start in done:
            continue
        way: list[int] = [start]
        on_way = {start}
        waiting = [iter(feeds[start])]
        while waiting:
            following = next(waiting[-1], None)
            if following is None:
                waiting.pop()
                on_way.discard(way[-1])
                done.add(way.pop())
            elif following in on_way:
                cycle = way[way.index(following) :]
                return [nodes[index][0] for index in (*reversed(cycle), cycle[-1])]
            elif following not in done:
                way.append(following)
                on_way.add(following)
                waiting.append(iter(feeds[following]))
    return []


def digest_of_files(files: Sequence[Path]) -> str:
    """One digest of the files' names and contents; that of the content alone for a single file."""
    digests = [digest_of(file) for file in files]
    if len(files) == 1:
        return digests[0]
    # The model's own name decides nothing; those of its weights are written in it.
    weights = zip(digests[1:], files[1:], strict=True)
    told = "\n".join([digests[0], *sorted(f"{digest} {file.name}" for digest, file in weights)])
    return f"sha256:{hashlib.sha256(told.encode()).hexdigest()}"


def one_line(error: Exception) -> str:
    """An error's message in one line without a trailing full stop."""
    return " ".join(str(error).split())[:400].rstrip(".") or type(error).__name__
