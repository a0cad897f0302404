"""Shapes and sizes of the values of a graph, and the check of each node against them."""

from __future__ import annotations

from dataclasses import dataclass

from export.misfits import Shape
from export.node import Node
from export.operators import Trait
from export.sampling import POOLED, Size


@dataclass(frozen=True)
class Values:
    """The values that exist at one point of a graph, its constants included.

    Attributes:
        shapes: Shape of each constant, kernel and activation, as ``Graph.shapes`` returns them.
        sizes: Size of each activation, as ``Graph.sizes`` returns them.
    """

    shapes: dict[str, Shape]
    sizes: dict[str, Size]

    def add_activation(self, name: str, channels: int, size: Size) -> None:
        """Add an input of the graph."""
        self.shapes[name], self.sizes[name] = (1, channels, 1, 1), size

    def add(self, node: Node) -> None:
        """Add the values that ``node`` makes."""
        made = node.operator.output_shapes(node.attributes, self._operands(node))
        self.shapes.update(zip(node.outputs, made, strict=True))
        if Trait.KERNEL not in node.operator.traits:
            self.sizes.update(dict.fromkeys(node.outputs, self._made(node)))

    def problem(self, node: Node) -> str:
        """Say what is wrong with the next node; an empty string if nothing is."""
        operator = node.operator
        for name in node.inputs:
            if name not in self.shapes:
                return f"reads '{name}', which no node before it makes"
        for name in node.outputs:
            if name in self.shapes:
                return f"makes '{name}', which already exists"
        if problem := self._miscount(node) or self._mismatch(node):
            return problem
        if problem := operator.misfit(node.attributes, self._operands(node)):
            return f"reads {', '.join(node.inputs)}: {problem}"
        made = operator.output_shapes(node.attributes, self._operands(node))
        if len(made) != len(node.outputs):
            return f"has {len(node.outputs)} outputs; expected {len(made)}"
        return ""

    def _made(self, node: Node) -> Size:
        """Return the size of what ``node`` makes; pooled values take that of the others."""
        sizes = [self.sizes[name] for name in self._activations(node)]
        size = next((one for one in sizes if one != POOLED), POOLED)
        return node.operator.output_size(node.attributes, self._operands(node), size)

    def _operands(self, node: Node) -> list[Shape]:
        return [self.shapes[name] for name in node.inputs]

    def _activations(self, node: Node) -> list[str]:
        return [name for name in node.inputs if name in self.sizes]

    def _miscount(self, node: Node) -> str:
        """Say what is wrong with the number and kind of operands; an empty string if nothing is."""
        operator = node.operator
        count = len(node.inputs) - len(operator.constants)
        if count < 1 if operator.operands is None else count != operator.operands:
            wanted = "1 or more" if operator.operands is None else operator.operands
            constants = "".join(f" and a constant {name}" for name in operator.constants)
            return f"has {len(node.inputs)} operands; expected {wanted} activations{constants}"
        for name, role in zip(node.inputs[count:], operator.constants, strict=True):
            if name in self.sizes:
                return f"reads the activation '{name}' as its {role}; expected a constant"
        broadcasts = Trait.BROADCASTS in operator.traits and self._activations(node)
        for name in node.inputs[:count]:
            if name not in self.sizes and not broadcasts:
                return f"reads the constant '{name}'; expected an activation"
        return ""

    def _mismatch(self, node: Node) -> str:
        """Say what is wrong with the operands' sizes; an empty string if nothing is."""
        found = {self.sizes[name] for name in self._activations(node)}
        broadcasts = Trait.BROADCASTS in node.operator.traits
        if len(found - {POOLED} if broadcasts else found) > 1:
            return f"reads {', '.join(node.inputs)}, which are of different sizes"
        if found == {POOLED} and self._made(node) != POOLED:
            return f"enlarges '{node.inputs[0]}', which is one value for the whole picture"
        return ""
