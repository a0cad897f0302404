"""Exact rewrites by name, and applying them in order.

A target profile (``export/profiles.py``) says which rewrites a file gets, and the manifest lists
them. Every rewrite is proven by a test that runs the graph before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from export.errors import InvalidGraph
from export.graph import Graph
from export.profiles import QUANTIZED_FORM
from export.rewrites.exact import (
    carry_mean_as_channel,
    convolve_before_pooling,
    fold_output_shift,
    fold_template_bank,
)
from export.rewrites.gains import with_gains
from export.rewrites.groups import (
    make_convolutions_dense,
    split_grouped_convolutions,
    split_shuffled_convolutions,
    split_unaligned_groups,
)
from export.rewrites.interpolations import interpolate_by_convolutions
from export.rewrites.overflow import leave_limits_to_rounding, with_overflow
from export.rewrites.resizes import convolve_before_resizes, resize_by_shuffles
from export.rewrites.roundings import with_roundings
from export.rewrites.scalings import fold_scaling
from export.rewrites.shuffles import (
    convolve_before_shuffles,
    convolve_for_shuffles,
    join_rows_of_shuffles,
    use_dcr_shuffles,
    use_transposed_convolutions,
)
from export.rewrites.signs import split_signs
from export.rewrites.slopes import flatten_slopes
from export.rewrites.windows import (
    convolve_blocks,
    pad_before_convolutions,
    transposed_by_shuffles,
)
from export.scales import ScaleTable

REWRITES: Mapping[str, Callable[[Graph], Graph]] = {
    function.__name__: function
    for function in (
        fold_template_bank,
        fold_output_shift,
        fold_scaling,
        convolve_blocks,
        transposed_by_shuffles,
        convolve_before_resizes,
        resize_by_shuffles,
        interpolate_by_convolutions,
        carry_mean_as_channel,
        convolve_before_pooling,
        split_signs,
        flatten_slopes,
        make_convolutions_dense,
        convolve_before_shuffles,
        convolve_for_shuffles,
        split_grouped_convolutions,
        split_unaligned_groups,
        split_shuffled_convolutions,
        use_dcr_shuffles,
        use_transposed_convolutions,
        join_rows_of_shuffles,
        pad_before_convolutions,
    )
}


Step = partial[Graph]
"""A rewrite with all its arguments except the graph; its function's name is the rewrite's name."""


def steps_named(rewrites: Sequence[str]) -> list[Step]:
    """Return the rewrites with these names."""
    return [partial(REWRITES[name]) for name in rewrites]


def int8_steps(table: ScaleTable) -> list[Step]:
    """Return the rewrites that make the graph whose activations ``table`` covers, in order."""
    steps = steps_named(QUANTIZED_FORM)
    if table.gains:
        steps.append(partial(with_gains, gains=table.gains))
    if table.overflow:
        steps.append(partial(with_overflow, overflow=table.overflow))
    if table.roundings:
        steps.append(partial(with_roundings, roundings=table.roundings))
    if table.overflow:
        steps.append(partial(leave_limits_to_rounding, table=table))
    return steps


def apply(graph: Graph, steps: Iterable[Step]) -> Graph:
    """Apply rewrites in order.

    Raises:
        InvalidGraph: If the graph is not whole after one of them; the message names the rewrite.
    """
    applied: list[str] = []
    for step in steps:
        name = step.func.__name__
        try:
            graph = step(graph).check()
        except InvalidGraph as error:
            raise InvalidGraph(
                f"the rewrite '{name}' broke the graph: {error} (rewrites before it: "
                f"{', '.join(applied) or 'none'})"
            ) from error
        applied.append(name)
    return graph


def lower(graph: Graph, rewrites: Sequence[str]) -> Graph:
    """Apply the named rewrites in order."""
    return apply(graph, steps_named(rewrites))


def int8_form(graph: Graph, table: ScaleTable) -> Graph:
    """Lower a captured graph to the graph whose activations ``table`` covers, kernels rounded."""
    return apply(graph, int8_steps(table))
