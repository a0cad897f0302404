"""How many pixels activations have, and which pixels of its operand an operator reads.

Both are exact for pictures whose sides are multiples of ``Graph.multiple``, along one axis at a
time.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Extent:
    """The pixels of an activation along one axis, ``factor · n + offset`` for a picture of n.

    Attributes:
        factor: Its resolution as a multiple of the picture's; 0 if it is one for all pictures.
        offset: Pixels that it has beside these.
    """

    factor: Fraction = Fraction(1)
    offset: int = 0

    def of(self, picture: int) -> int:
        """Return the number of pixels for a picture of ``picture`` pixels."""
        return int(self.factor * picture) + self.offset

    def sized(self, side: str) -> str:
        """Return how it is written as a function of a side; equal texts mean equal extents."""
        factor = self.factor
        times = "" if factor.numerator == 1 else f"{factor.numerator}*"
        parts = "" if factor.denominator == 1 else f"/{factor.denominator}"
        return f"{times}{side}{parts}{self.offset:+}" if self.offset else f"{times}{side}{parts}"


Size = tuple[Extent, Extent]
"""Height and width of an activation."""

PICTURE: Size = (Extent(), Extent())
"""The size of the picture itself."""

POOLED: Size = (Extent(Fraction(0), 1),) * 2
"""One pixel for the whole picture."""


@dataclass(frozen=True)
class Reach:
    """The pixels of an activation that a block of the restored picture depends on, along one axis.

    The block is that of any block of the picture whose ends are multiples of ``Graph.multiple``.

    Attributes:
        before: Pixels needed before the place of the block in this activation; negative if its
            first pixels are not needed.
        after: Pixels needed behind it.
    """

    before: int = 0
    after: int = 0

    def merged(self, other: Reach | None) -> Reach:
        """Return what both need together."""
        if other is None:
            return self
        return Reach(max(self.before, other.before), max(self.after, other.after))


@dataclass(frozen=True)
class Sampling:
    """What an operator reads and makes along one axis.

    From n pixels it makes (up · n + extra) / down, rounded down. Its output pixel y reads the
    operand's pixels i with first ≤ up · i − down · y ≤ last.

    Attributes:
        up: How much finer its output is; 0 if it makes one pixel of the whole operand.
        down: How much coarser its output is.
        first: See above.
        last: See above.
        extra: See above.
        least: The fewest pixels that the operand may have.
    """

    up: int = 1
    down: int = 1
    first: int = 0
    last: int = 0
    extra: int = 0
    least: int = 1

    def extent(self, operand: Extent) -> Extent:
        """Return the extent of the output."""
        factor = operand.factor * self.up / self.down
        return Extent(factor, (self.up * operand.offset + self.extra) // self.down)

    def reach(self, needed: Reach) -> Reach:
        """Return what is needed of the operand for what is needed of the output.

        The whole operand is not counted where one pixel is made of it, which all blocks share.
        """
        if self.up == 0:
            return Reach()
        before = (self.down * needed.before - self.first) // self.up
        after = (self.down * (needed.after - 1) + self.last) // self.up + 1
        return Reach(before, after)


Samplings = tuple[Sampling, Sampling]
"""What an operator does along height and width."""

KEPT: Samplings = (Sampling(), Sampling())
"""Each output pixel depends on the same input pixel alone."""

AVERAGED: Samplings = (Sampling(up=0, extra=1),) * 2
"""One pixel of all."""


def enlarged(factor: int) -> Samplings:
    """Blocks of factor × factor pixels are made of each pixel."""
    return (Sampling(up=factor, first=1 - factor),) * 2


def interpolated(factor: int, reach: int) -> Samplings:
    """Blocks of factor × factor pixels are made of each pixel and those around it.

    Args:
        factor: Height and width of a block.
        reach: Pixels on either side that count; one less on the side that is farther.
    """
    half = factor // 2
    first, last = half - 1 + reach * factor, factor - half
    sampling = Sampling(up=factor, first=-first, last=reach * factor - last)
    return (sampling,) * 2


def reduced(factor: int) -> Samplings:
    """One pixel is made of each block of factor × factor pixels."""
    return (Sampling(down=factor, last=factor - 1, least=factor),) * 2


def windows(
    kernel: tuple[int, ...], stride: int, dilation: int, pads: tuple[int, ...]
) -> Samplings:
    """Each pixel is made of a window.

    Args:
        kernel: Height and width of the window.
        stride: Pixels from window to window.
        dilation: Pixels from one pixel of the window to the next.
        pads: Pixels added above, below, left and right.
    """

    def along(size: int, before: int, after: int) -> Sampling:
        span = dilation * (size - 1)
        extra = before + after - span - 1 + stride
        least = max(1, span + 1 - before - after)
        return Sampling(1, stride, -before, span - before, extra, least)

    return along(kernel[0], *pads[:2]), along(kernel[1], *pads[2:])


def pads_as_usual(
    operand: Size,
    multiple: int,
    kernel: tuple[int, ...],
    stride: int,
    dilation: int,
    pads: tuple[int, ...],
) -> bool:
    """Tell whether windows are padded as TFLite and others pad them, or not at all.

    Usual is that every stride of pixels gets a window, and that the odd pixel is added behind.

    Args:
        operand: Size of what the windows are read from.
        multiple: A number of which the picture's sides are multiples.
        kernel: As in ``windows``, as the others.
        stride: See there.
        dilation: See there.
        pads: See there.
    """

    def usual(extent: Extent, size: int, before: int, after: int) -> bool:
        total = max(dilation * (size - 1) + 1 - stride, 0)
        strides = extent.factor * multiple / stride
        whole = strides.denominator == 1 and extent.offset % stride == 0
        return whole and (before, after) == (total // 2, total - total // 2)

    return not any(pads) or (
        usual(operand[0], kernel[0], *pads[:2]) and usual(operand[1], kernel[1], *pads[2:])
    )


def spread(kernel: tuple[int, ...], stride: int, crops: tuple[int, ...]) -> Samplings:
    """Each pixel is spread over a window, as transposed convolutions do.

    Args:
        kernel: Height and width of the window.
        stride: Pixels from window to window.
        crops: Pixels cut off above, below, left and right.
    """

    def along(size: int, before: int, after: int) -> Sampling:
        extra = size - stride - before - after
        least = max(1, -((extra - 1) // stride))
        return Sampling(stride, 1, before - size + 1, before, extra, least)

    return along(kernel[0], *crops[:2]), along(kernel[1], *crops[2:])


def padded(pads: tuple[int, ...], reflected: bool) -> Samplings:
    """Pixels are added at the edges, or cut off.

    Args:
        pads: Pixels above, below, left and right; negative ones are cut off.
        reflected: Whether the added pixels reflect those inside the edge.
    """

    def along(before: int, after: int) -> Sampling:
        least = max(before, after) + 1 if reflected else 1 - before - after
        return Sampling(1, 1, -before, -before, before + after, max(1, least))

    return along(*pads[:2]), along(*pads[2:])
