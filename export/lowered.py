"""The lowered form of a variant: the graph its file holds, and the rewrites that made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from export.graph import Graph
from export.lowering import apply, int8_steps, steps_named
from export.profiles import FLOAT_FORM
from export.rewrites.corrections import with_corrected_biases
from export.rewrites.gains import with_gains
from export.rewrites.pooling import cut_at_pooling
from export.rewrites.requantization import with_requantization
from export.scales import ScaleTable
from export.sources.source import Source
from export.variants import Variant
from runtime.errors import UserError


@dataclass(frozen=True)
class Lowered:
    """A graph ready to be written.

    Attributes:
        graph: The graph that the file holds.
        rewrites: Names of the rewrites that made ``graph``, in order, for the manifest.
        whole: The lowered graph without the cut at its pooling, which is the reference in the
            parity check; equal to ``graph`` unless the variant restores tiles.
    """

    graph: Graph
    rewrites: tuple[str, ...]
    whole: Graph


def lower_for(
    source: Source,
    variant: Variant,
    table: ScaleTable | None = None,
    float16_gains: Mapping[str, float] | None = None,
) -> Lowered:
    """Lower a network for one of its files.

    Args:
        source: The network.
        variant: The file.
        table: The scales; needed for int8.
        float16_gains: As ``export.headroom.float16_gains`` finds them, for float16; profiles that
            keep the template bank have none.

    Raises:
        UserError: If the profile is unknown or for another format, or the table is missing or made
            for other weights.
    """
    target = variant.target
    cut = [partial(cut_at_pooling)] if variant.tiled else []
    if variant.precision == "int8":
        table = own_table(source, table)
        corrected = partial(with_corrected_biases, table=table)
        steps = [*int8_steps(table), corrected, *steps_named(target.further_int8)]
        last = [partial(with_requantization, table=table)] if table.requantized else []
    else:
        steps, last = steps_named(target.rewrites(variant.precision)), []
        form = len(FLOAT_FORM)
        if float16_gains and target.rewrites_float[:form] == FLOAT_FORM:
            steps.insert(form, partial(with_gains, gains=float16_gains))
    uncut = apply(source.graph, steps)
    whole = apply(uncut, last)
    return Lowered(
        graph=apply(uncut, [*cut, *last]) if cut else whole,
        rewrites=tuple(step.func.__name__ for step in (*steps, *cut, *last)),
        whole=whole,
    )


def own_table(source: Source, table: ScaleTable | None) -> ScaleTable:
    """Return ``table`` if it was made for the weights and the scale of ``source``.

    Raises:
        UserError: If the table is missing or made for other weights or another scale.
    """
    if table is None:
        raise UserError(
            f"{source.model.name} ×{source.scale}: int8 needs a table of scales; 'reslite "
            "quantize' makes one"
        )
    if (table.weights_sha256, table.scale) != (source.model.sha256, source.scale):
        raise UserError(
            f"{source.model.path}: the table of scales was made for other weights or another scale "
            f"than ×{source.scale}; 'reslite quantize' makes one for 'reslite export --scales', "
            "'reslite ship --calibration' makes and uses it"
        )
    return table
