"""The graph: one small closed vocabulary between every network and every file format.

A graph is immutable. Rewrites are functions from graph to graph, writers walk its nodes in order,
and the simulator runs it. Activations are N × C × H × W with N = 1 and symbolic height and width;
every convolution has stride 1, a bias and zero padding that keeps the size.

Values that a rewrite adds are named ``<origin>/<suffix>``, after the value of the captured graph
they stand for; this is how one table of scales fits every lowered form of a network.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from export.errors import CannotLower

Array = NDArray[np.float32]
Attribute = int | float | str | tuple[int, ...]

OPERATORS: Mapping[str, frozenset[str]] = {
    "Conv": frozenset({"groups"}),
    "ConvTranspose": frozenset({"stride", "groups"}),
    "Relu": frozenset(),
    "LeakyRelu": frozenset({"slope"}),
    "Clip": frozenset({"minimum", "maximum"}),
    "Sigmoid": frozenset(),
    "Add": frozenset(),
    "Sub": frozenset(),
    "Mul": frozenset(),
    "Concat": frozenset(),
    "Split": frozenset({"sizes"}),
    "DepthToSpace": frozenset({"block", "mode"}),
    "GlobalAveragePool": frozenset(),
    "MixTemplates": frozenset({"shape"}),
    "Requantize": frozenset(),
}
"""The operators and their attributes.

``Conv`` and ``ConvTranspose`` take (value, weight, bias); a ConvTranspose's kernel is as large as
its stride and its weight is input × output/groups × k × k. ``Concat`` and ``Split`` work on
channels. ``DepthToSpace`` has mode ``CRD`` (PyTorch's) or ``DCR`` (TFLite's). ``MixTemplates``
makes a kernel of ``shape`` from two constants, coefficients (T) and templates (T × the kernel's
size). ``Requantize`` is the identity on real numbers: it marks where an 8-bit value changes its
scale.
"""


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        op: Its operator, a key of ``OPERATORS``.
        name: The module of the network it comes from, for messages.
        inputs: Names of values or constants.
        outputs: Names of the values it makes.
        attributes: As ``OPERATORS`` lists them.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.op not in OPERATORS:
            raise CannotLower(
                f"{self.name}: operator '{self.op}' is not supported; reslite exports "
                f"{', '.join(sorted(OPERATORS))}"
            )
        if set(self.attributes) != OPERATORS[self.op]:
            raise CannotLower(
                f"{self.name}: {self.op} has attributes {sorted(self.attributes)}; expected "
                f"{sorted(OPERATORS[self.op])}"
            )

    @property
    def output(self) -> str:
        """The only value this node makes."""
        (output,) = self.outputs
        return output

    def integer(self, attribute: str) -> int:
        """Return an attribute that is a whole number."""
        value = self.attributes[attribute]
        if not isinstance(value, int):
            raise TypeError(f"{self.name}: {attribute}={value!r} is no whole number")
        return value

    def number(self, attribute: str) -> float:
        """Return an attribute that is a real number."""
        value = self.attributes[attribute]
        if not isinstance(value, (int, float)):
            raise TypeError(f"{self.name}: {attribute}={value!r} is no number")
        return float(value)

    def sizes(self) -> tuple[int, ...]:
        """Return the channel counts a Split makes."""
        return self._extents("sizes")

    def shape(self) -> tuple[int, ...]:
        """Return the shape of the kernel that a MixTemplates makes."""
        return self._extents("shape")

    def _extents(self, attribute: str) -> tuple[int, ...]:
        value = self.attributes[attribute]
        if not isinstance(value, tuple):
            raise TypeError(f"{self.name}: {attribute}={value!r} is no tuple")
        return value


@dataclass(frozen=True)
class Pooling:
    """Where a graph was cut at its global pooling.

    Attributes:
        features: The activation whose mean over the picture is wanted, 1 × C × H × W.
        pooled: That mean, 1 × C × 1 × 1.
        channels: C.
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
            the first is handed out beside the restored picture and the second is handed in beside
            the picture (see ``export.rewrites.pooling``).
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    input: str = "image"
    output: str = "restored_image"
    pooling: Pooling | None = None

    def producer(self, value: str) -> Node | None:
        """Return the node that makes ``value``, or None for the input and constants."""
        return next((node for node in self.nodes if value in node.outputs), None)

    def consumers(self, value: str) -> list[Node]:
        """Return the nodes that read ``value``, in order."""
        return [node for node in self.nodes if value in node.inputs]

    def sole_consumer(self, value: str) -> Node | None:
        """Return the node that alone reads ``value``; None if several do or it is handed out."""
        consumers = self.consumers(value)
        return consumers[0] if len(consumers) == 1 and value not in self.outputs else None

    @property
    def inputs(self) -> tuple[str, ...]:
        """What is handed in: the picture, and the pooled value of a graph cut there."""
        return (self.input,) if self.pooling is None else (self.input, self.pooling.pooled)

    @property
    def outputs(self) -> tuple[str, ...]:
        """What is handed out: the restored picture, and the features of a graph cut there."""
        return (self.output,) if self.pooling is None else (self.output, self.pooling.features)

    @property
    def pools_globally(self) -> bool:
        """Whether a pixel depends on the whole picture."""
        return any(node.op == "GlobalAveragePool" for node in self.nodes)

    def kernel_shape(self, node: Node) -> tuple[int, ...]:
        """Return the shape of the kernel that a convolution reads, mixed from templates or not."""
        kernel = node.inputs[1]
        if self.is_constant(kernel):
            return self.constants[kernel].shape
        mix = self.producer(kernel)
        assert mix is not None, f"{node.name}: its kernel {kernel} comes from nowhere"
        return mix.shape()

    def fused_relu(self, node: Node) -> Node | None:
        """Return the Relu that ``node`` (Conv, Add, Sub) can apply itself, or None."""
        if node.op not in {"Conv", "Add", "Sub"}:
            return None
        consumer = self.sole_consumer(node.output)
        return consumer if consumer is not None and consumer.op == "Relu" else None

    def is_constant(self, name: str) -> bool:
        """Tell whether ``name`` is a constant and not an activation."""
        return name in self.constants

    def with_nodes(self, nodes: Iterator[Node] | list[Node], **constants: Array) -> Graph:
        """Return a graph of other nodes, with constants added and unused ones dropped."""
        kept = tuple(nodes)
        used = {name for node in kept for name in node.inputs}
        merged = {**self.constants, **constants}
        return dataclasses.replace(
            self,
            nodes=kept,
            constants={name: array for name, array in merged.items() if name in used},
        )

    def operators(self) -> dict[str, int]:
        """Return how often each operator occurs."""
        return dict(sorted(Counter(node.op for node in self.nodes).items()))

    def channels(self) -> dict[str, int]:
        """Return the number of channels of every activation."""
        found = {self.input: 3}
        if self.pooling is not None:
            found[self.pooling.pooled] = self.pooling.channels
        for node in self.activations():
            for output, count in zip(node.outputs, self._output_channels(node, found), strict=True):
                found[output] = count
        return found

    def activations(self) -> Iterator[Node]:
        """Go through the nodes that make activations and not kernels."""
        return (node for node in self.nodes if node.op != "MixTemplates")

    def resolutions(self) -> dict[str, int]:
        """Return how many times larger than the input each activation is; 0 if it is 1 × 1."""
        found = {self.input: 1}
        if self.pooling is not None:
            found[self.pooling.pooled] = 0
        for node in self.activations():
            resolution = max(found[name] for name in node.inputs if name in found)
            if node.op == "DepthToSpace":
                resolution *= node.integer("block")
            elif node.op == "ConvTranspose":
                resolution *= node.integer("stride")
            elif node.op == "GlobalAveragePool":
                resolution = 0
            found.update(dict.fromkeys(node.outputs, resolution))
        return found

    @property
    def scale(self) -> int:
        """Upscaling factor from input to output."""
        return self.resolutions()[self.output]

    def halo(self) -> int:
        """Return how many input pixels beyond its own each output pixel depends on.

        What is pooled over the whole picture is not counted: it is one value for all pixels.
        """
        reach = {self.output: 0}
        for node in reversed(self.nodes):
            needed = max(reach.get(output, 0) for output in node.outputs)
            if node.op == "Conv":
                needed += self.kernel_shape(node)[-1] // 2
            elif node.op == "DepthToSpace":
                needed = -(-needed // node.integer("block"))
            elif node.op == "ConvTranspose":
                needed = -(-needed // node.integer("stride"))
            elif node.op == "GlobalAveragePool":
                needed = 0
            for name in node.inputs:
                if not self.is_constant(name):
                    reach[name] = max(reach.get(name, 0), needed)
        return reach[self.input]

    def layer_multadds(self, width: int, height: int) -> list[tuple[Node, int]]:
        """Return each convolution with its multiply-accumulates at an output of that size.

        The input is the output's size divided by the scale as real numbers, as the papers count:
        a 1280×720 output of a ×3 network has an input of 426⅔ × 240.
        """
        resolutions, scale = self.resolutions(), self.scale
        rows = []
        for node in self.nodes:
            if node.op in {"Conv", "ConvTranspose"}:
                # A ConvTranspose meets each of its weights once per input pixel, a Conv once per
                # pixel of its output, which is as large as its input.
                pixels = width * height * resolutions[node.inputs[0]] ** 2 / scale**2
                # Convolutions of what was pooled run once, however large the picture is.
                pixels = pixels if resolutions[node.inputs[0]] else 1
                rows.append((node, round(pixels * math.prod(self.kernel_shape(node)))))
        return rows

    def multadds(self, width: int, height: int) -> int:
        """Return the multiply-accumulates of all convolutions at an output of that size."""
        return sum(count for _, count in self.layer_multadds(width, height))

    def _output_channels(self, node: Node, known: Mapping[str, int]) -> tuple[int, ...]:
        first = known.get(node.inputs[0], 0)
        match node.op:
            case "Conv":
                return (self.kernel_shape(node)[0],)
            case "ConvTranspose":
                return (self.kernel_shape(node)[1] * node.integer("groups"),)
            case "Concat":
                return (sum(known[name] for name in node.inputs),)
            case "Split":
                return node.sizes()
            case "DepthToSpace":
                return (first // node.integer("block") ** 2,)
            case _:
                return (max(known.get(name, 1) for name in node.inputs),)


def origin(value: str) -> str:
    """Return the value of the captured graph that ``value`` stands for."""
    return value.partition("/")[0]
