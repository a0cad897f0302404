"""Exact rewrites by name, and applying them in order.

A target profile (``export/profiles.py``) says which rewrites a file gets, and the manifest lists
them. Every rewrite is proven by a test that runs the graph before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from export.graph import Graph
from export.profiles import QUANTIZED_FORM
from export.rewrites.exact import (
    carry_mean_as_channel,
    convolve_before_pooling,
    fold_output_shift,
    fold_template_bank,
)
from export.rewrites.gains import with_gains
from export.rewrites.groups import make_convolutions_dense, split_shuffled_convolutions
from export.rewrites.roundings import with_roundings
from export.rewrites.shuffles import (
    convolve_before_shuffles,
    use_dcr_shuffles,
    use_transposed_convolutions,
)
from export.scales import ScaleTable

REWRITES: Mapping[str, Callable[[Graph], Graph]] = {
    function.__name__: function
    for function in (
        fold_template_bank,
        fold_output_shift,
        carry_mean_as_channel,
        convolve_before_pooling,
        make_convolutions_dense,
        convolve_before_shuffles,
        split_shuffled_convolutions,
        use_dcr_shuffles,
        use_transposed_convolutions,
    )
}


def lower(graph: Graph, rewrites: Sequence[str]) -> Graph:
    """Apply the named rewrites in order."""
    for name in rewrites:
        graph = REWRITES[name](graph)
    return graph


def int8_form(graph: Graph, table: ScaleTable) -> Graph:
    """Lower a captured graph to the one whose activations ``table`` covers, kernels rounded."""
    return with_roundings(with_gains(lower(graph, QUANTIZED_FORM), table.gains), table.roundings)
