"""Common parts of writers: checks before a file is written, its scales and its description."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

from export.errors import CannotLower
from export.formulas import FORMULAS
from export.graph import Graph
from export.integers import constant_quantization
from export.scales import Quantization, ScaleTable
from export.tables import table_of
from runtime.errors import UserError
from runtime.formats import Precision
from runtime.manifest import PoolingTensors, TensorInfo

Scales = Mapping[str, Quantization]
"""The quantization of every activation that an int8 file holds, and of every constant that is read
as one, by its name in the graph."""

REFUSED_INT8: Mapping[str, str] = {
    "MixTemplates": "int8 files hold kernels and no templates; apply 'fold_template_bank' first",
    "Resize": "pixels are repeated by shuffles; apply 'resize_by_shuffles' first",
    "SpaceToDepth": "blocks of pixels are read by convolutions; apply 'convolve_blocks' first",
    "Interpolate": "convolutions interpolate; apply 'interpolate_by_convolutions' first",
}
"""Operators without an int8 form in any format, and what to do instead."""


def scales_for(
    graph: Graph,
    path: Path,
    precision: Precision,
    table: ScaleTable | None,
    refused: Mapping[str, str],
) -> Scales | None:
    """Check that a format can hold a graph, before anything is written.

    Args:
        graph: The lowered graph.
        path: The file that is to be written.
        precision: Precision of weights and arithmetic.
        table: The scales; only int8 needs them.
        refused: Operators that the format cannot express, and what to do instead.

    Returns:
        The scales of an int8 file; None in other precisions.

    Raises:
        CannotLower: If the format, or int8, has no form of an operator.
        UserError: If int8 is asked for without scales, or with the scales of another network.
    """
    refuse(graph, refused)
    if precision != "int8":
        return None
    if table is None:
        raise UserError(f"{path.name}: int8 needs a table of scales; run 'reslite quantize' first")
    check_int8(graph)
    return activation_scales(graph, table)


def check_int8(graph: Graph) -> None:
    """Refuse graphs that cannot be quantized.

    Raises:
        CannotLower: If an operator has no int8 form.
    """
    refuse(graph, REFUSED_INT8)
    for node in graph.nodes:
        # Scales belong to the output channels of one group; all groups would have to share them.
        if node.op == "ConvTranspose" and node.integer("groups") > 1:
            raise CannotLower(
                f"{node.name}: a transposed convolution in {node.integer('groups')} groups has no "
                "int8 form; rewrite the module with one group"
            )


def refuse(graph: Graph, refused: Mapping[str, str]) -> None:
    """Refuse graphs with operators that a format cannot hold.

    Raises:
        CannotLower: If there is one; says what to do instead.
    """
    for node in graph.nodes:
        if node.op in refused:
            raise CannotLower(f"{node.name}: {refused[node.op]}")


def activation_scales(graph: Graph, table: ScaleTable) -> Scales:
    """Return the quantization of all that an int8 file of ``graph`` holds (see ``Scales``).

    Raises:
        CannotLower: If 8 bits hold numbers of which a function has no finite result.
        UserError: If the table does not cover the graph.
    """
    made = (node.outputs for node in graph.nodes if graph.fused_relu(node) is None)
    held = [*graph.inputs, *(value for outputs in made for value in outputs)]
    constants = {
        name: constant_quantization(graph.constants[name])
        for node in graph.nodes
        for name in node.operands
        if graph.is_constant(name)
    }
    scales = constants | {value: table.of(graph.origin(value)) for value in held}
    for node in graph.nodes:
        if node.op in FORMULAS:
            table_of(node, scales[node.inputs[0]], scales[node.output])
    return scales


Stored = TypeVar("Stored")


class Constants(Generic[Stored]):
    """The constants of a file; equal constants are stored once.

    Args:
        store: Stores an array under a name and returns the reference by which nodes read it.
    """

    def __init__(self, store: Callable[[str, NDArray[Any]], Stored]) -> None:
        self._store = store
        self._stored: dict[tuple[str, tuple[int, ...], bytes], Stored] = {}

    def of(self, name: str, array: NDArray[Any]) -> Stored:
        """Return the constant that holds ``array``; store it as ``name`` unless it exists."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._stored:
            self._stored[key] = self._store(name, array)
        return self._stored[key]


@dataclass(frozen=True)
class Written:
    """The interface of a written file.

    Attributes:
        input: Its picture tensor.
        output: Its restored tensor.
        operators: How often each of the format's operators occurs in it.
        pooling: The tensors of a file that was cut at its global pooling.
        requires: The least systems that run it, if its format says so.
    """

    input: TensorInfo
    output: TensorInfo
    operators: dict[str, int]
    pooling: PoolingTensors | None = None
    requires: str | None = None


def planar_file(
    graph: Graph, size: tuple[int, int] | None, operators: dict[str, int], dtype: str = "float32"
) -> Written:
    """Describe a file that takes and returns planes, NCHW.

    Args:
        graph: The graph that the file holds.
        size: Height and width of its input; None for any.
        operators: How often each of the format's operators occurs in it.
        dtype: Type of all its tensors.
    """
    enlarged = (size[0] * graph.scale, size[1] * graph.scale) if size else None
    pooling = None
    if graph.pooling is not None:
        features = _planar_tensor(graph, graph.pooling.features, size, dtype)
        pooled = _planar_tensor(graph, graph.pooling.pooled, (1, 1), dtype)
        pooling = PoolingTensors(features, pooled)
    return Written(
        input=_planar_tensor(graph, graph.input, size, dtype),
        output=_planar_tensor(graph, graph.output, enlarged, dtype),
        operators=operators,
        pooling=pooling,
    )


def _planar_tensor(
    graph: Graph, value: str, size: tuple[int, int] | None, dtype: str
) -> TensorInfo:
    shape = (1, graph.channels()[value], *(size or (None, None)))
    return TensorInfo(value, "NCHW", dtype, shape)
