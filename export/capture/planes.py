"""Constant planes of a traced model, as large as the picture it was traced for.

A network may give itself a plane of one value beside the picture, such as a level of noise. Traced
at one size, it is a constant of that size; a convolution of zeros makes it for all sizes.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.capture.editing import constant, constant_of, inserted, shape_of


def make_planes(graph: ir.Graph) -> None:
    """Replace planes of the picture's size that are concatenated, in place."""
    (image,) = graph.inputs
    extents = shape_of(image)
    assert extents is not None
    _, channels, *size = extents
    for node in list(graph):
        if node.op_type != "Concat":
            continue
        for index, value in enumerate(node.inputs):
            plane = constant_of(value)
            if plane is None or plane.ndim != 4 or list(plane.shape[2:]) != size:
                continue
            values = plane[0, :, 0, 0].astype(np.float32)
            if np.any(plane != values[None, :, None, None]):
                continue
            kernel = np.zeros((len(values), channels, 1, 1), np.float32)
            operands = [image, constant(graph, kernel, "plane"), constant(graph, values, "level")]
            node.replace_input_with(index, inserted(node, "Conv", operands, plane.shape))
