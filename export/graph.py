"""The graph: one small closed vocabulary between every network and every file format.

A graph is immutable. Rewrites are functions from graph to graph, writers walk its nodes in order,
and the simulator runs it. Activations are N × C × H × W with N = 1 and symbolic height and width.

``Graph.origins`` maps each name that a rewrite added to the name in the captured graph that it
stands for, so that one table of scales fits every lowered form of a network. Names have no other
meaning.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from export.errors import InvalidGraph
from export.misfits import Shape
from export.node import Node
from export.operators import Trait
from export.sampling import PICTURE, POOLED, Reach, Samplings, Size
from export.values import Values
from runtime.sides import Sides

__all__ = ["Array", "Graph", "Node", "Pooling"]

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Pooling:
    """Where a graph was cut at its global pooling.

    Attributes:
        features: Name of the pooled activation, 1 × C × H × W.
        pooled: Name of its mean over the picture, 1 × C × 1 × 1.
        channels: The number of channels, C.
    """

    features: str
    pooled: str
    channels: int


@dataclass(frozen=True)
class Graph:
    """Nodes in the order they run, and the constants they read.

    Attributes:
        nodes: Topologically ordered.
        constants: Weights (out × in/groups × k × k), biases (out), and per-channel constants
            (1 × C × 1 × 1), float32, by name. Nodes that share a name share the array.
        input: Name of the picture, 1 × 3 × H × W in [0, 1].
        output: Name of the restored picture.
        pooling: The activation that is pooled over the whole picture and the pooled value, where
            the first is an output beside the restored picture and the second is an input beside
            the picture (see ``export.rewrites.pooling``).
        origins: For every activation and constant that a rewrite added or changed, the name of the
            captured graph that it stands for. Two kinds stand for their own name: an activation
            that took the place and the name of a captured one, and a constant that a rewrite made
            up. Names that are absent are what they were in the captured graph, but for the gains
            and the rounding that a table of scales asks for.
        step: Pixels of which the picture's sides were multiples when the network was captured.
        colours: Channels of the picture: 3 in all that is exported; 1 in what was read of a network
            of luma, until ``export.sources.plain`` gives it colours.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    input: str = "image"
    output: str = "restored_image"
    pooling: Pooling | None = None
    origins: Mapping[str, str] = field(default_factory=dict)
    step: int = 1
    colours: int = 3

    def check(self) -> Graph:
        """Check that every value is made once, before it is read, and fits the nodes that read it.

        Returns:
            The graph itself.

        Raises:
            InvalidGraph: If a value or constant is missing, made twice or read too early, if a
                node has too many or too few operands, or operands of the wrong kind or shape.
        """
        known = self._handed_in()
        for node in self.nodes:
            if problem := known.problem(node):
                made = ", ".join(f"'{name}'" for name in node.outputs)
                raise InvalidGraph(f"{node.name}: the {node.op} that makes {made} {problem}")
            known.add(node)
        for name in self.outputs:
            if name not in known.sizes:
                raise InvalidGraph(f"no node makes the output '{name}'")
        return self

    def producer(self, value: str) -> Node | None:
        """Return the node that makes ``value``, or None for the input and constants."""
        return next((node for node in self.nodes if value in node.outputs), None)

    def consumers(self, value: str) -> list[Node]:
        """Return the nodes that read ``value``, in order."""
        return [node for node in self.nodes if value in node.inputs]

    def sole_consumer(self, value: str) -> Node | None:
        """Return the only node that reads ``value``; None if there are more, or it is an output."""
        consumers = self.consumers(value)
        return consumers[0] if len(consumers) == 1 and value not in self.outputs else None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs: the picture, and the pooled value if the graph is cut."""
        return (self.input,) if self.pooling is None else (self.input, self.pooling.pooled)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs: the restored picture, and the features if the graph is cut."""
        return (self.output,) if self.pooling is None else (self.output, self.pooling.features)

    @property
    def pools_globally(self) -> bool:
        """Whether a pixel depends on the whole picture."""
        return any(
            Trait.GLOBAL in node.operator.traits or any(sampling.up == 0 for sampling in one)
            for node, one in self._samplings()
        )

    def kernel_shape(self, node: Node) -> tuple[int, ...]:
        """Return the shape of the kernel that a convolution reads, mixed from templates or not."""
        kernel = node.inputs[1]
        if self.is_constant(kernel):
            return self.constants[kernel].shape
        mix = self.producer(kernel)
        assert mix is not None, f"{node.name}: no node makes its kernel {kernel}"
        return mix.shape()

    def fused_relu(self, node: Node) -> Node | None:
        """Return the Relu that files compute as part of ``node``, or None."""
        if Trait.FUSES_RELU not in node.operator.traits:
            return None
        consumer = self.sole_consumer(node.output)
        return consumer if consumer is not None and consumer.op == "Relu" else None

    def is_constant(self, name: str) -> bool:
        """Tell whether ``name`` is a constant and not an activation."""
        return name in self.constants

    def origin(self, name: str) -> str:
        """Return the name of the captured graph that an activation or a constant stands for."""
        return self.origins.get(name, name)

    def is_captured(self, name: str) -> bool:
        """Tell whether ``name`` means the same as in the captured graph: no rewrite added it."""
        return name not in self.origins

    @property
    def names(self) -> frozenset[str]:
        """All activations and constants, and the kernels that are mixed from constants."""
        used = (name for node in self.nodes for name in (*node.inputs, *node.outputs))
        return frozenset((self.input, *self.constants, *used))

    def with_nodes(
        self,
        nodes: Iterable[Node],
        constants: Mapping[str, Array] | None = None,
        origins: Mapping[str, str] | None = None,
    ) -> Graph:
        """Return a graph of other nodes, with constants added and unused ones dropped.

        Args:
            nodes: Topologically ordered.
            constants: The constants to add.
            origins: For every name that is added or changes its meaning, the name in this graph
                that it stands for, or the name itself (see ``export.rewrites.additions``).

        Raises:
            ValueError: If a name is added without an origin.
        """
        kept = tuple(nodes)
        used = {name for node in kept for name in node.inputs}
        merged = {**self.constants, **(constants or {})}
        resolved = {name: self.origin(origin) for name, origin in (origins or {}).items()}
        changed = dataclasses.replace(
            self,
            nodes=kept,
            constants={name: array for name, array in merged.items() if name in used},
        )
        if unknown := changed.names - self.names - resolved.keys():
            raise ValueError(f"{', '.join(sorted(unknown))}: added without an origin")
        known = {**self.origins, **resolved}
        return dataclasses.replace(
            changed, origins={name: known[name] for name in known if name in changed.names}
        )

    def operators(self) -> dict[str, int]:
        """Return how often each operator occurs."""
        return dict(sorted(Counter(node.op for node in self.nodes).items()))

    def shapes(self) -> dict[str, Shape]:
        """Return the shape of every constant, kernel and activation.

        Activations have the shape of one pixel, 1 × C × 1 × 1: height and width are symbolic.
        """
        return self._known().shapes

    def channels(self) -> dict[str, int]:
        """Return the number of channels of every activation."""
        known = self._known()
        return {value: known.shapes[value][1] for value in known.sizes}

    def sizes(self) -> dict[str, Size]:
        """Return height and width of every activation, as functions of the picture's."""
        return self._known().sizes

    def activations(self) -> Iterator[Node]:
        """Iterate over the nodes that make activations, not kernels."""
        return (node for node in self.nodes if Trait.KERNEL not in node.operator.traits)

    @property
    def scale(self) -> int:
        """Upscaling factor from input to output."""
        return int(self.sizes()[self.output][0].factor)

    @property
    def multiple(self) -> int:
        """The least number of which a picture's sides must be multiples.

        With others, activations would be of sizes that depend on how a side is rounded.
        """
        extents = (extent for size in self.sizes().values() for extent in size)
        return math.lcm(self.step, *(extent.factor.denominator for extent in extents))

    @property
    def sides(self) -> Sides:
        """The heights and widths of pictures that the network takes.

        With the least, every activation has a pixel, and what is reflected has enough of them.
        """
        sizes, least, multiple = self.sizes(), 1, self.multiple
        for node, samplings in self._samplings():
            for name in filter(sizes.__contains__, node.inputs):
                for sampling, extent in zip(samplings, sizes[name], strict=True):
                    if extent.factor:
                        needed = (sampling.least - extent.offset) / extent.factor
                        least = max(least, math.ceil(needed))
        return Sides(multiple, -(-least // multiple) * multiple)

    def halo(self) -> int:
        """Return the distance in input pixels up to which an output pixel depends on the input.

        Values pooled over the whole picture do not count, because all pixels share them. Where
        pictures must be multiples of several pixels, it is the distance from blocks of as many.
        """
        sizes, halo = self.sizes(), 0
        for name, reach in self._reach().items():
            # Every activation of a tile must hold what is needed of it, not the picture alone.
            for extent, one in zip(sizes.get(name, ()), reach, strict=False):
                if extent.factor:
                    most = max(one.before, one.after - extent.offset)
                    halo = max(halo, math.ceil(most / extent.factor))
        return halo

    def _reach(self) -> dict[str, tuple[Reach, Reach]]:
        """Return what a block of the restored picture depends on, along height and width."""
        reach = {self.input: (Reach(), Reach()), self.output: (Reach(), Reach())}
        for node, (along_rows, along_columns) in reversed(list(self._samplings())):
            for rows, columns in [reach[output] for output in node.outputs if output in reach]:
                for name in node.inputs:
                    known = reach.get(name, (None, None))
                    reach[name] = (
                        along_rows.reach(rows).merged(known[0]),
                        along_columns.reach(columns).merged(known[1]),
                    )
        return reach

    def _samplings(self) -> Iterator[tuple[Node, Samplings]]:
        """Iterate over the nodes that make activations, with the pixels that they read and make."""
        shapes = self.shapes()
        for node in self.activations():
            operands = [shapes[name] for name in node.inputs]
            yield node, node.operator.samplings(node.attributes, operands)

    def layer_multadds(self, width: int, height: int) -> list[tuple[Node, int]]:
        """Return each convolution with its multiply-accumulates at an output of width × height.

        The input is the output's size divided by the scale as real numbers, as the papers count:
        a 1280×720 output of a ×3 network has an input of 426⅔ × 240.
        """
        shapes, sizes = self.shapes(), self.sizes()
        scale = sizes[self.output][0].factor
        rows = []
        for node in self.activations():
            operands = [shapes[name] for name in node.inputs]
            per_pixel = node.operator.multadds(node.attributes, operands)
            if per_pixel:
                rows_columns = zip(sizes[node.inputs[0]], sizes[node.output], strict=True)
                area = math.prod(min(one.factor for one in extents) for extents in rows_columns)
                # Convolutions of pooled values run once, however large the picture is.
                pixels = width * height * area / scale**2 if area else 1
                rows.append((node, round(pixels * per_pixel)))
        return rows

    def multadds(self, width: int, height: int) -> int:
        """Return the multiply-accumulates of all convolutions at an output of width × height."""
        return sum(count for _, count in self.layer_multadds(width, height))

    def _known(self) -> Values:
        values = self._handed_in()
        for node in self.nodes:
            values.add(node)
        return values

    def _handed_in(self) -> Values:
        """Return the values that exist before the first node runs."""
        values = Values({name: array.shape for name, array in self.constants.items()}, {})
        values.add_activation(self.input, self.colours, PICTURE)
        if self.pooling is not None:
            values.add_activation(self.pooling.pooled, self.pooling.channels, POOLED)
        return values
