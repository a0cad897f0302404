"""A node of a graph: an operator applied to values, its attributes checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from export.errors import CannotLower
from export.operators import OPERATORS, Operator

Attribute = int | float | str | tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        op: The operator, a key of ``OPERATORS``.
        name: The network's module that the node comes from, for messages.
        inputs: Names of the activations and constants that it reads.
        outputs: Names of the values that it makes.
        attributes: As ``OPERATORS`` lists them.

    Raises:
        CannotLower: If the operator is unknown, or its attributes have other names or types.
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
        expected = self.operator.attributes
        if set(self.attributes) != set(expected):
            raise CannotLower(
                f"{self.name}: {self.op} has attributes {sorted(self.attributes)}; expected "
                f"{sorted(expected)}"
            )
        for attribute, kind in expected.items():
            if not _is_of(self.attributes[attribute], kind):
                raise CannotLower(
                    f"{self.name}: {self.op} has {attribute}={self.attributes[attribute]!r}; "
                    f"expected {_KINDS[kind]}"
                )

    @property
    def operator(self) -> Operator:
        """The entry of the operator in ``OPERATORS``."""
        return OPERATORS[self.op]

    @property
    def operands(self) -> tuple[str, ...]:
        """Names of the inputs without the constants that belong to the operator."""
        return self.inputs[: len(self.inputs) - len(self.operator.constants)]

    @property
    def output(self) -> str:
        """The only value this node makes."""
        (output,) = self.outputs
        return output

    def integer(self, attribute: str) -> int:
        """Return an attribute that is an integer."""
        value = self.attributes[attribute]
        assert isinstance(value, int)
        return value

    def number(self, attribute: str) -> float:
        """Return an attribute that is a real number."""
        value = self.attributes[attribute]
        assert isinstance(value, (int, float))
        return float(value)

    def text(self, attribute: str) -> str:
        """Return an attribute that is a string."""
        value = self.attributes[attribute]
        assert isinstance(value, str)
        return value

    def sizes(self) -> tuple[int, ...]:
        """Return the channel counts a Split makes."""
        return self._extents("sizes")

    def shape(self) -> tuple[int, ...]:
        """Return the shape of the kernel that a MixTemplates makes."""
        return self._extents("shape")

    def window(self) -> tuple[int, ...]:
        """Return height and width of the window that a MaxPool reads."""
        return self._extents("kernel")

    def sides(self, attribute: str) -> tuple[int, int, int, int]:
        """Return an attribute of four sides: pixels above, below, left and right."""
        above, below, left, right = self._extents(attribute)
        return above, below, left, right

    def _extents(self, attribute: str) -> tuple[int, ...]:
        value = self.attributes[attribute]
        assert isinstance(value, tuple)
        return value


def convolution_attributes(
    kernel: tuple[int, ...], stride: int, pads: tuple[int, ...], groups: int, dilation: int
) -> tuple[str, dict[str, Attribute]]:
    """Return the operator of a convolution, Conv if that can express it, and its attributes.

    Args:
        kernel: Height and width of the kernel.
        stride: As in ``GeneralConv``.
        pads: Zeros added above, below, left and right.
        groups: Number of groups.
        dilation: Pixels from one pixel of the kernel to the next.
    """
    height, width = kernel
    kept = height == width and height % 2 == 1 and set(pads) == {height // 2}
    if kept and stride == 1 and (dilation == 1 or height == 1):
        return "Conv", {"groups": groups}
    attributes: dict[str, Attribute] = {"groups": groups, "stride": stride}
    return "GeneralConv", {**attributes, "dilation": dilation, "pads": tuple(pads)}


_KINDS: Mapping[type, str] = {
    int: "an integer",
    float: "a number",
    str: "a string",
    tuple: "a tuple of integers",
}


def _is_of(value: object, kind: type) -> bool:
    if kind is tuple:
        return isinstance(value, tuple) and all(type(one) is int for one in value)
    return type(value) is kind or (kind is float and type(value) is int)
