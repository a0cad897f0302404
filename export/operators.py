"""The vocabulary: what each operator of a graph is, in one place.

An entry of ``OPERATORS`` holds the facts that are the same in every stage: attributes, constant
operands, traits, channels, the pixels it reads and makes, and MultAdds. Every stage handles an
operator in its ``HANDLERS``, or its ``REFUSED`` says what to do instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from export import misfits
from export.formulas import FORMULAS
from export.misfits import INTERPOLATIONS, Attributes, Shape, Shapes, channels_of
from export.sampling import (
    AVERAGED,
    KEPT,
    Samplings,
    Size,
    enlarged,
    interpolated,
    padded,
    reduced,
    spread,
    windows,
)


class Trait(Enum):
    """A property of an operator that rewrites and quantization may rely on.

    Traits need not be complete: an operator may have a property without the trait.
    """

    POINTWISE = 1
    """Each output pixel depends on the same input pixel alone."""
    PER_CHANNEL = 2
    """Reads one activation and commutes with a permutation of its channels, if constants, whose
    first axis is that of channels, are permuted as well."""
    HOMOGENEOUS = 3
    """f(a · x) = a · f(x) for a > 0, where x is all activations that f reads."""
    MOVES = 4
    """Copies 8-bit values unchanged, zeros beside them at most, so that inputs and outputs must
    share one scale."""
    BROADCASTS = 5
    """Repeats operands of one channel or one pixel, and accepts constants as operands."""
    FUSES_RELU = 6
    """Can apply a Relu that directly follows, in every format."""
    KERNEL = 7
    """Makes a kernel from constants and no activation."""
    GLOBAL = 8
    """Depends on the whole picture in every pixel, beside the pixels that it reads."""


def like_operands(attributes: Attributes, shapes: Shapes) -> tuple[int, ...]:
    """Return the channel count of the only output: that of the widest operand."""
    return (max(channels_of(shape) for shape in shapes),)


@dataclass(frozen=True)
class Operator:
    """One operator of the vocabulary.

    Attributes:
        name: Its name in graphs.
        attributes: Type of each attribute; ``tuple`` stands for a tuple of integers.
        operands: Number of activations that it reads before its constants; None for one or more.
        constants: Names of its constant operands, which come last.
        traits: What rewrites and quantization may rely on.
        channels: Channel count of each output.
        sampling: The pixels that it reads and makes, along height and width; None only if
            ``POINTWISE``.
        multadds: Multiply-accumulates per pixel of the first operand, or of the output if that is
            coarser.
        misfit: Says what is wrong with attributes and operands, whose number is right; an empty
            string if nothing is.
    """

    name: str
    attributes: Mapping[str, type] = field(default_factory=dict)
    operands: int | None = 1
    constants: tuple[str, ...] = ()
    traits: frozenset[Trait] = frozenset()
    channels: Callable[[Attributes, Shapes], tuple[int, ...]] = like_operands
    sampling: Callable[[Attributes, Shapes], Samplings] | None = None
    multadds: Callable[[Attributes, Shapes], int] = lambda attributes, shapes: 0
    misfit: Callable[[Attributes, Shapes], str] = misfits.fits

    def __post_init__(self) -> None:
        if self.sampling is None and not self.traits & {Trait.POINTWISE, Trait.KERNEL}:
            raise ValueError(f"{self.name}: expected the pixels it reads, or POINTWISE")

    def output_shapes(self, attributes: Attributes, shapes: Shapes) -> list[Shape]:
        """Return the shape of each output, in the form of ``Shapes``."""
        if Trait.KERNEL in self.traits:
            return [attributes["shape"]]
        return [(1, count, 1, 1) for count in self.channels(attributes, shapes)]

    def samplings(self, attributes: Attributes, shapes: Shapes) -> Samplings:
        """Return the pixels that it reads and makes (see ``sampling``)."""
        return KEPT if self.sampling is None else self.sampling(attributes, shapes)

    def output_size(self, attributes: Attributes, shapes: Shapes, operand: Size) -> Size:
        """Return the size of the outputs, from that of the operands that are no pooled value."""
        rows, columns = self.samplings(attributes, shapes)
        return rows.extent(operand[0]), columns.extent(operand[1])


def by_name(*operators: Operator) -> Mapping[str, Operator]:
    """Return operators by their names."""
    return {operator.name: operator for operator in operators}


_ACTIVATION = frozenset({Trait.POINTWISE, Trait.PER_CHANNEL})
_BINARY = frozenset({Trait.POINTWISE, Trait.BROADCASTS})

OPERATORS: Mapping[str, Operator] = by_name(
    # Stride 1 and zero padding that keeps the size; the kernel is output × input/groups × k × k.
    Operator(
        "Conv",
        {"groups": int},
        constants=("weight", "bias"),
        traits=frozenset({Trait.FUSES_RELU}),
        channels=lambda attributes, shapes: (shapes[1][0],),
        sampling=lambda attributes, shapes: windows(shapes[1][2:], 1, 1, (shapes[1][-1] // 2,) * 4),
        multadds=lambda attributes, shapes: math.prod(shapes[1]),
        misfit=misfits.convolution,
    ),
    # Any stride and dilation, with zeros added above, below, left and right; the kernel is output ×
    # input/groups × height × width.
    Operator(
        "GeneralConv",
        {"groups": int, "stride": int, "dilation": int, "pads": tuple},
        constants=("weight", "bias"),
        traits=frozenset({Trait.FUSES_RELU}),
        channels=lambda attributes, shapes: (shapes[1][0],),
        sampling=lambda attributes, shapes: windows(
            shapes[1][2:], attributes["stride"], attributes["dilation"], attributes["pads"]
        ),
        multadds=lambda attributes, shapes: math.prod(shapes[1]),
        misfit=misfits.general_convolution,
    ),
    # The kernel is input × output/groups × height × width, at least as large as the stride; crops
    # are pixels cut off above, below, left and right.
    Operator(
        "ConvTranspose",
        {"stride": int, "groups": int, "crops": tuple},
        constants=("weight", "bias"),
        channels=lambda attributes, shapes: (shapes[1][1] * attributes["groups"],),
        sampling=lambda attributes, shapes: spread(
            shapes[1][2:], attributes["stride"], attributes["crops"]
        ),
        multadds=lambda attributes, shapes: math.prod(shapes[1]),
        misfit=misfits.transposed_convolution,
    ),
    Operator("Relu", traits=_ACTIVATION | {Trait.HOMOGENEOUS}),
    Operator("LeakyRelu", {"slope": float}, traits=_ACTIVATION | {Trait.HOMOGENEOUS}),
    # max(x, 0) + slope · min(x, 0), with a slope per channel.
    Operator(
        "PRelu",
        constants=("slope",),
        traits=_ACTIVATION | {Trait.HOMOGENEOUS},
        misfit=misfits.slopes,
    ),
    Operator("Clip", {"minimum": float, "maximum": float}, traits=_ACTIVATION),
    Operator("Sigmoid", traits=_ACTIVATION),
    # Silu, Gelu, Tanh and their like: functions that int8 files hold as tables.
    *(Operator(name, traits=_ACTIVATION) for name in FORMULAS),
    Operator(
        "Add",
        operands=2,
        traits=_BINARY | {Trait.HOMOGENEOUS, Trait.FUSES_RELU},
        misfit=misfits.broadcast,
    ),
    Operator(
        "Sub",
        operands=2,
        traits=_BINARY | {Trait.HOMOGENEOUS, Trait.FUSES_RELU},
        misfit=misfits.broadcast,
    ),
    Operator("Mul", operands=2, traits=_BINARY, misfit=misfits.broadcast),
    Operator("Div", operands=2, traits=_BINARY, misfit=misfits.broadcast),
    Operator("Max", operands=2, traits=_BINARY | {Trait.HOMOGENEOUS}, misfit=misfits.broadcast),
    Operator("Min", operands=2, traits=_BINARY | {Trait.HOMOGENEOUS}, misfit=misfits.broadcast),
    # Each pixel's channels, brought to mean 0 and variance 1, times a factor plus a shift.
    Operator(
        "ChannelNorm",
        {"epsilon": float},
        constants=("scale", "bias"),
        traits=frozenset({Trait.POINTWISE}),
        misfit=misfits.normalization,
    ),
    # The same for each group of channels over the whole picture.
    Operator(
        "GroupNorm",
        {"groups": int, "epsilon": float},
        constants=("scale", "bias"),
        traits=frozenset({Trait.GLOBAL}),
        sampling=lambda attributes, shapes: KEPT,
        misfit=misfits.normalization,
    ),
    # Concat and Split work on channels.
    Operator(
        "Concat",
        operands=None,
        traits=frozenset({Trait.POINTWISE, Trait.HOMOGENEOUS, Trait.MOVES}),
        channels=lambda attributes, shapes: (sum(shape[1] for shape in shapes),),
    ),
    Operator(
        "Split",
        {"sizes": tuple},
        traits=frozenset({Trait.POINTWISE, Trait.HOMOGENEOUS, Trait.MOVES}),
        channels=lambda attributes, shapes: attributes["sizes"],
        misfit=misfits.split,
    ),
    # Mode CRD is PyTorch's order of channels, DCR that of TFLite; ROWS is DCR that TFLite files of
    # a fixed size compute without their operator for it.
    Operator(
        "DepthToSpace",
        {"block": int, "mode": str},
        traits=frozenset({Trait.HOMOGENEOUS, Trait.MOVES}),
        channels=lambda attributes, shapes: (shapes[0][1] // attributes["block"] ** 2,),
        sampling=lambda attributes, shapes: enlarged(attributes["block"]),
        misfit=misfits.shuffle,
    ),
    # The opposite of DepthToSpace, with its orders of channels.
    Operator(
        "SpaceToDepth",
        {"block": int, "mode": str},
        traits=frozenset({Trait.HOMOGENEOUS, Trait.MOVES}),
        channels=lambda attributes, shapes: (shapes[0][1] * attributes["block"] ** 2,),
        sampling=lambda attributes, shapes: reduced(attributes["block"]),
        misfit=misfits.unshuffle,
    ),
    # Pixels added above, below, left and right, or cut off where negative.
    Operator(
        "Pad",
        {"pads": tuple, "mode": str},
        traits=frozenset({Trait.PER_CHANNEL, Trait.HOMOGENEOUS, Trait.MOVES}),
        sampling=lambda attributes, shapes: padded(
            attributes["pads"], attributes["mode"] == "reflect"
        ),
        misfit=misfits.pad,
    ),
    # The largest value of a window, in which added pixels do not count.
    Operator(
        "MaxPool",
        {"kernel": tuple, "stride": int, "pads": tuple},
        traits=frozenset({Trait.PER_CHANNEL, Trait.HOMOGENEOUS, Trait.MOVES}),
        sampling=lambda attributes, shapes: windows(
            attributes["kernel"], attributes["stride"], 1, attributes["pads"]
        ),
        misfit=misfits.pool,
    ),
    # Repeats every pixel factor × factor times (nearest neighbour).
    Operator(
        "Resize",
        {"factor": int},
        traits=frozenset({Trait.PER_CHANNEL, Trait.HOMOGENEOUS}),
        sampling=lambda attributes, shapes: enlarged(attributes["factor"]),
        misfit=lambda attributes, shapes: (
            "" if attributes["factor"] >= 1 else f"factor {attributes['factor']}"
        ),
    ),
    # Enlarges by interpolation between the centres of pixels, edges repeated, as torch does with
    # align_corners=False; the cubic has a = −0.75.
    Operator(
        "Interpolate",
        {"factor": int, "mode": str},
        traits=frozenset({Trait.PER_CHANNEL, Trait.HOMOGENEOUS}),
        sampling=lambda attributes, shapes: interpolated(
            attributes["factor"], INTERPOLATIONS[attributes["mode"]]
        ),
        misfit=misfits.interpolation,
    ),
    # All pixels share one pooled value, which needs no halo. Pooling is homogeneous as well, but
    # lacks the trait because tables of scales have no gains for pooled activations.
    Operator(
        "GlobalAveragePool",
        sampling=lambda attributes, shapes: AVERAGED,
    ),
    # The largest value of each channel over the picture, and of each pixel over its channels.
    Operator(
        "GlobalMaxPool",
        traits=frozenset({Trait.MOVES, Trait.GLOBAL}),
        sampling=lambda attributes, shapes: AVERAGED,
    ),
    Operator(
        "ChannelMax",
        traits=frozenset({Trait.POINTWISE, Trait.MOVES}),
        channels=lambda attributes, shapes: (1,),
    ),
    # A kernel of ``shape`` from coefficients (T) and templates (T × the kernel's size).
    Operator(
        "MixTemplates",
        {"shape": tuple},
        operands=0,
        constants=("coefficients", "templates"),
        traits=frozenset({Trait.KERNEL}),
        misfit=misfits.mixture,
    ),
    # The identity on real numbers: marks where an 8-bit value changes its scale.
    Operator("Requantize", traits=_ACTIVATION),
)


CONVOLUTIONS = frozenset({"Conv", "GeneralConv"})
"""Operators that sum a window of all channels of a group; their first axis is that of outputs."""


def operators_with(*traits: Trait) -> frozenset[str]:
    """Return the names of the operators that have all of ``traits``."""
    return frozenset(name for name, one in OPERATORS.items() if one.traits.issuperset(traits))
