"""Core AI assets: the format that follows Core ML, NCHW, float32 input and output. Beta.

An asset is a folder with one program of Apple's operations, built node by node, and its metadata.
float16 programs compute in float16 between two casts. int8 programs round every activation to the
8 bits of the table of scales, in ``quantize`` and ``dequantize`` operations, and hold int8 kernels.

The library is beta: one version of it is known, and any other is refused.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from export.formulas import FORMULAS, NORMALIZATIONS
from export.graph import Graph, Node
from export.integers import rounded_slopes
from export.scales import ScaleTable
from export.writers.coreai_functions import OPERATORS, function, normalized
from export.writers.coreai_program import FUNCTION, ca, signed, unsigned
from export.writers.coreai_windows import Windows
from export.writers.description import AUTHOR, NOTHING_KNOWN, RANGE, Description
from export.writers.normalizations import CHANNELS, PIXELS
from export.writers.writing import Written, planar_file, scales_for
from runtime.atomic import replacing
from runtime.engines.coreai_library import check_library
from runtime.errors import UserError
from runtime.formats import Precision

_SUFFIX = ".aimodel"


def write_coreai(
    graph: Graph,
    path: Path,
    precision: Precision,
    table: ScaleTable | None = None,
    size: tuple[int, int] | None = None,
    description: Description = NOTHING_KNOWN,
) -> Written:
    """Write ``graph`` as a Core AI asset; equal arguments give equal bytes.

    Args:
        graph: Lowered for its target.
        path: The asset, a folder called ``*.aimodel``, replaced if it exists.
        precision: Precision of weights and arithmetic.
        table: The scales; needed for int8.
        size: Height and width of the input, or None to leave them to the app.
        description: What the asset says of the network, in its metadata.

    Raises:
        CannotLower: If Core AI, or int8, has no operation for a node of the graph.
        UserError: If int8 is asked for without scales, the name has another suffix or the asset
            cannot be written.
    """
    if path.suffix != _SUFFIX:
        raise UserError(f"{path}: a Core AI asset must be called *{_SUFFIX}; rename it")
    check_library()
    scales = scales_for(graph, path, precision, table, REFUSED)
    dtype = np.dtype(np.float16 if precision == "float16" else np.float32)
    program = _ProgramWriter(graph, dtype, scales, size).program()
    with replacing(path) as temporary:
        program.save_asset(temporary)
        _describe(temporary, graph, description)
    return planar_file(graph, size, _operators(program))


def _describe(folder: Path, graph: Graph, told: Description) -> None:
    """Set the texts that Xcode shows; drop the date, with which equal assets would differ."""
    path = folder / "metadata.json"
    known = json.loads(path.read_text(encoding="utf-8"))
    del known["creationDate"]
    known |= {
        "author": AUTHOR,
        "license": told.licence or "",
        "description": f"Restores a picture at {graph.scale} times its size. {RANGE}.",
        "creatorDefinedMetadata": told.facts(),
    }
    path.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _operators(program: Any) -> dict[str, int]:
    # The library's own statistics count the operations that these are made of, too.
    operations = program._get_graph(FUNCTION).entry_block.operations
    found = Counter(operation.name.rpartition(".")[2] for operation in operations)
    return {name: found[name] for name in sorted(found) if name not in ("constant", "output")}


class _ProgramWriter(Windows):
    """Builds the program of one graph."""

    def build(self, node: Node) -> Any:
        """Build the operations of one node; return its value, or a list of them."""
        return HANDLERS[node.op](self, node)

    def sloped(self, node: Node) -> Any:
        """Multiply what is negative by a slope, one for all or one for each channel."""
        if node.op == "PRelu":
            slopes = self._graph.constants[node.inputs[1]].reshape(1, -1, 1, 1)
            slopes = slopes if self._scales is None else rounded_slopes(slopes)
            slope = self._constant(node.inputs[1], slopes.astype(self._dtype))
        else:
            slope = self.number(node.number("slope"))
        x = self.operand(node)
        below = ca.broadcasting_minimum(x, self.number(0))
        return ca.broadcasting_add(ca.relu(x), ca.broadcasting_mul(below, slope))

    def clip(self, node: Node) -> Any:
        low, high = (self.number(node.number(name)) for name in ("minimum", "maximum"))
        raised = ca.broadcasting_maximum(self.operand(node), low)
        return ca.broadcasting_minimum(raised, high)

    def function(self, node: Node) -> Any:
        return function(node.op, self.operand(node), self._dtype)

    def normalization(self, node: Node) -> Any:
        return normalized(self._graph, node, self.operand(node), self._dtype, self._constant)

    def concat(self, node: Node) -> Any:
        return ca.concat(np.int32(1), [*map(self._value, node.inputs)])

    def split(self, node: Node) -> Any:
        return list(ca.split(self.operand(node), unsigned(*node.sizes()), np.int32(1)))


_Handler = Callable[[_ProgramWriter, Node], Any]


def _binary(operator: str) -> _Handler:
    return lambda program, node: OPERATORS[operator](
        program.operand(node), program.operand(node, 1)
    )


HANDLERS: Mapping[str, _Handler] = {
    "Conv": _ProgramWriter.convolution,
    "GeneralConv": _ProgramWriter.general_convolution,
    "ConvTranspose": _ProgramWriter.transposed_convolution,
    "Relu": lambda program, node: ca.relu(program.operand(node)),
    "LeakyRelu": _ProgramWriter.sloped,
    "PRelu": _ProgramWriter.sloped,
    "Clip": _ProgramWriter.clip,
    "Sigmoid": lambda program, node: ca.sigmoid(program.operand(node)),
    **dict.fromkeys(FORMULAS, _ProgramWriter.function),
    **dict.fromkeys(NORMALIZATIONS, _ProgramWriter.normalization),
    **{operator: _binary(operator) for operator in ("Add", "Sub", "Mul", "Div", "Max", "Min")},
    "Concat": _ProgramWriter.concat,
    "Split": _ProgramWriter.split,
    "DepthToSpace": _ProgramWriter.depth_to_space,
    "Pad": _ProgramWriter.pad,
    "MaxPool": _ProgramWriter.max_pool,
    "GlobalAveragePool": lambda program, node: ca.reduce_mean(
        program.operand(node), signed(*PIXELS)
    ),
    "GlobalMaxPool": lambda program, node: ca.reduce_max(program.operand(node), signed(*PIXELS)),
    "ChannelMax": lambda program, node: ca.reduce_max(program.operand(node), signed(*CHANNELS)),
    "Requantize": _ProgramWriter.operand,
}
"""Builds the operations of a node and returns its value, or a list of them."""

REFUSED: Mapping[str, str] = {
    "MixTemplates": "Core AI mixes no kernels; apply 'fold_template_bank' first",
    "Resize": "pixels are repeated by shuffles; apply 'resize_by_shuffles' first",
    "SpaceToDepth": "blocks of pixels are read by convolutions; apply 'convolve_blocks' first",
    "Interpolate": "convolutions interpolate; apply 'interpolate_by_convolutions' first",
}
"""Operators that assets cannot hold, and what to do instead."""
