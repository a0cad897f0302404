"""Functions of one activation in int8: a table of 256 results."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from export.errors import CannotLower
from export.execution import HANDLERS
from export.graph import Node
from export.scales import Quantization


def table_of(node: Node, source: Quantization, target: Quantization) -> NDArray[np.int8]:
    """Return the int8 results of a function for the integers −128 … 127.

    They are the real results, rounded to the nearest integer; ties go to the even quantum.

    Args:
        node: A node of an operator of ``export.formulas.FORMULAS``.
        source: The quantization of the activation that it reads.
        target: The quantization of the result.

    Raises:
        CannotLower: If an integer stands for a number of which the function has no finite result.
    """
    values = (torch.arange(-128.0, 128.0, dtype=torch.float64) - source.zero_point) * source.scale
    (results,) = HANDLERS[node.op](node, [values])
    if not torch.isfinite(results).all():
        low, high = float(values[0]), float(values[-1])
        raise CannotLower(
            f"{node.name}: {node.op} has no finite results in all of [{low:.4g}, {high:.4g}], the "
            "numbers that 8 bits hold there; export in float32 or float16"
        )
    quanta = results.div(target.scale).float().round() + target.zero_point
    integers: NDArray[np.int8] = quanta.clamp(-128, 127).to(torch.int8).numpy()
    return integers
