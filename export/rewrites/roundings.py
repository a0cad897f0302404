"""Kernels whose weights are rounded up or down as a table of scales says, and not to the nearest.

The directions come from ``quantize.weight_rounding``, which weighs rounding errors by what they
change in the output, or from ``quantize.tuning``, which moves weights farther. If every weight is
already a multiple of its scale, rounding in the writers leaves it unchanged, so that no writer has
to know of this rewrite.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from export.graph import Array, Graph, Node
from export.integers import weight_scales
from export.rewrites.additions import Additions
from runtime.errors import UserError

Flags = NDArray[np.bool_]
Offsets = NDArray[np.bool_] | NDArray[np.int8]
"""Flags, or the whole quanta by which weights are above the integer below them, −127 or more."""

_LONE_FLAG = 0x80  # a flag in a byte of its own; no offset is −128


def in_quanta(kernel: Array) -> Array:
    """Return the weights of a Conv as multiples of their scales, in [−127, 127]."""
    quanta: Array = kernel / weight_scales(kernel).reshape(-1, 1, 1, 1)
    return quanta


def rounded_kernel(kernel: Array, up: Offsets) -> Array:
    """Return the kernel of a Conv with every weight on a multiple of its scale.

    The largest weight of each output channel must stay ±127 scales: writers derive the scale of the
    channel from that weight.

    Args:
        kernel: Output × input/groups × k × k.
        up: In the kernel's shape: how many multiples above the one below the weight, of flags True
            for the next.
    """
    scales = weight_scales(kernel).reshape(-1, 1, 1, 1)
    return ((np.floor(in_quanta(kernel)) + up) * scales).astype(np.float32)


def as_text(up: Offsets) -> str:
    """Return offsets as base64: flags packed into bytes, highest bit first, or a byte each."""
    packed = np.packbits(up) if up.dtype == np.bool_ else up.astype(np.int8)
    return base64.b64encode(packed.tobytes()).decode()


def as_offsets(text: str, shape: tuple[int, ...]) -> Offsets:
    """Return the offsets of a kernel of ``shape`` from the text that ``as_text`` made of them.

    Raises:
        ValueError: If the text holds another number of flags or bytes.
    """
    packed = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    count = int(np.prod(shape))
    # A single weight has one byte in either form.
    lone = len(packed) == count == 1
    if len(packed) == -(-count // 8) and (not lone or packed[0] == _LONE_FLAG):
        return np.unpackbits(packed)[:count].astype(bool).reshape(shape)
    if len(packed) != count:
        raise ValueError(f"{len(packed)} bytes for a kernel of {count} weights")
    return packed.view(np.int8).reshape(shape)


def kernel_forms(graph: Graph) -> dict[str, tuple[str, ...]]:
    """Return the forms of each captured kernel in a graph, in the order in which nodes read them.

    A kernel has several forms where convolutions share it and a rewrite changed it for some of
    these convolutions.
    """
    forms: dict[str, tuple[str, ...]] = {}
    for name in dict.fromkeys(node.inputs[1] for node in graph.nodes if node.op == "Conv"):
        forms[graph.origin(name)] = (*forms.get(graph.origin(name), ()), name)
    return forms


def with_roundings(graph: Graph, roundings: Mapping[str, tuple[str, ...]]) -> Graph:
    """Round the kernels named in ``roundings`` (see ``ScaleTable``); all else stays as it is.

    Args:
        graph: The result of ``export.rewrites.gains.with_gains``, before all other rewrites.
        roundings: By the name of a captured kernel, one text (see ``as_text``) per form.

    Raises:
        UserError: If the roundings do not fit the kernels of the graph.
    """
    added, rounded, forms = Additions(graph), dict[str, str](), kernel_forms(graph)
    for kernel, texts in roundings.items():
        try:
            names = forms.get(kernel, ())
            if len(names) != len(texts):
                raise ValueError(f"roundings of {len(texts)} forms for {len(names)}")
            for name, text in zip(names, texts, strict=True):
                array = graph.constants[name]
                onto_integers = rounded_kernel(array, as_offsets(text, array.shape))
                rounded[name] = added.constant(f"{name}/rounded", onto_integers, name)
        except ValueError as error:
            raise UserError(
                f"the table of scales does not fit the kernel '{kernel}': {error}; "
                "run 'reslite quantize' again"
            ) from error

    def reading(node: Node) -> Node:
        return dataclasses.replace(node, inputs=tuple(rounded.get(n, n) for n in node.inputs))

    return added.graph(map(reading, graph.nodes))
