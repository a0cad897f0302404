"""What is wrong with attributes and operands of a node, whose number is right.

Each check takes the attributes and the shapes of the operands, and returns a few words, or an empty
string if nothing is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Shape = tuple[int, ...]

Shapes = Sequence[Shape]
"""Shapes of operands, in order. Constants and kernels have their full shape; an activation has the
shape of one pixel, 1 × C × 1 × 1, because height and width are symbolic."""

Attributes = Mapping[str, Any]
"""Attributes by name, of the types that ``Operator.attributes`` lists."""

PADDING = ("zeros", "reflect", "edge")
"""What Pad adds: zeros, the pixels inside the edge mirrored at it, or the pixel of the edge."""

INTERPOLATIONS: Mapping[str, int] = {"linear": 1, "cubic": 2}
"""How many pixels on either side of a pixel count, by the kind of interpolation."""


def channels_of(shape: Shape) -> int:
    """Return the channels of an operand that is broadcast to 1 × C × H × W."""
    return shape[-3] if len(shape) >= 3 else 1


def fits(attributes: Attributes, shapes: Shapes) -> str:
    """Accept all attributes and operands: return an empty string."""
    return ""


def convolution(attributes: Attributes, shapes: Shapes) -> str:
    """Check an odd square kernel, its groups and its bias."""
    kernel = shapes[1]
    if len(kernel) != 4 or kernel[2] != kernel[3] or kernel[2] % 2 == 0:
        return f"a kernel of shape {kernel}; expected output × input/groups × k × k with an odd k"
    return _groups(attributes, shapes)


def general_convolution(attributes: Attributes, shapes: Shapes) -> str:
    """Check a kernel of any sides with stride, dilation and pads."""
    kernel, pads = shapes[1], attributes["pads"]
    if len(kernel) != 4:
        return f"a kernel of shape {kernel}; expected output × input/groups × height × width"
    if min(attributes["stride"], attributes["dilation"]) < 1:
        return f"stride {attributes['stride']} and dilation {attributes['dilation']}"
    if len(pads) != 4 or min(pads) < 0:
        return f"pads {pads}; expected four, none negative"
    return _groups(attributes, shapes)


def _groups(attributes: Attributes, shapes: Shapes) -> str:
    (_, channels, *_), kernel, bias = shapes
    if attributes["groups"] < 1 or kernel[0] % attributes["groups"]:
        return f"{attributes['groups']} groups of {kernel[0]} output channels"
    if kernel[1] * attributes["groups"] != channels:
        return f"a kernel of shape {kernel} in {attributes['groups']} groups on {channels} channels"
    return _bias(bias, kernel[0])


def transposed_convolution(attributes: Attributes, shapes: Shapes) -> str:
    """Check a kernel, its stride, crops, groups and bias."""
    (_, channels, *_), kernel, bias = shapes
    if len(kernel) != 4:
        return f"a kernel of shape {kernel}; expected input × output/groups × height × width"
    if attributes["stride"] < 1 or min(kernel[2:]) < attributes["stride"]:
        return f"a kernel of shape {kernel} with stride {attributes['stride']}"
    if len(attributes["crops"]) != 4 or min(attributes["crops"]) < 0:
        return f"crops {attributes['crops']}; expected four, none negative"
    if attributes["groups"] < 1 or channels % attributes["groups"]:
        return f"{attributes['groups']} groups of {channels} channels"
    if kernel[0] != channels:
        return f"a kernel of shape {kernel} on {channels} channels"
    return _bias(bias, kernel[1] * attributes["groups"])


def _bias(bias: Shape, channels: int) -> str:
    return "" if bias == (channels,) else f"a bias of shape {bias} for {channels} channels"


def slopes(attributes: Attributes, shapes: Shapes) -> str:
    """Check one slope per channel."""
    channels, slope = shapes[0][1], shapes[1]
    return "" if slope == (channels,) else f"slopes of shape {slope} for {channels} channels"


def broadcast(attributes: Attributes, shapes: Shapes) -> str:
    """Check operands that are repeated to each other."""
    for shape in shapes:
        if math.prod(shape) != channels_of(shape):
            return f"a constant of shape {shape}; expected one value per channel, C × 1 × 1"
    counts = [channels_of(shape) for shape in shapes]
    return "" if len({*counts} - {1}) <= 1 else f"operands of {counts} channels"


def split(attributes: Attributes, shapes: Shapes) -> str:
    """Check that parts make up the whole."""
    sizes, channels = attributes["sizes"], shapes[0][1]
    return "" if sum(sizes) == channels else f"sizes {sizes} of {channels} channels"


def shuffle(attributes: Attributes, shapes: Shapes) -> str:
    """Check blocks made of channels."""
    block, channels = attributes["block"], shapes[0][1]
    if attributes["mode"] not in {"CRD", "DCR", "ROWS"}:
        return f"mode {attributes['mode']}; expected CRD, DCR or ROWS"
    if block < 1 or channels % block**2:
        return f"blocks of {block} × {block} from {channels} channels"
    return ""


def pad(attributes: Attributes, shapes: Shapes) -> str:
    """Check a mode and four sides."""
    pads, mode = attributes["pads"], attributes["mode"]
    if mode not in PADDING:
        return f"mode {mode}; expected one of {', '.join(PADDING)}"
    if len(pads) != 4:
        return f"pads {pads}; expected four"
    if mode != "zeros" and min(pads) < 0:
        return f"pads {pads}; only zeros are added at one edge while another is cut off"
    return ""


def pool(attributes: Attributes, shapes: Shapes) -> str:
    """Check a window, its stride and pads."""
    kernel, stride, pads = attributes["kernel"], attributes["stride"], attributes["pads"]
    if len(kernel) != 2 or min(*kernel, stride) < 1:
        return f"a window of {kernel} with stride {stride}"
    if len(pads) != 4 or min(pads) < 0 or max(pads[:2]) >= kernel[0] or max(pads[2:]) >= kernel[1]:
        return f"pads {pads}; expected four, each smaller than the window of {kernel}"
    return ""


def unshuffle(attributes: Attributes, shapes: Shapes) -> str:
    """Check blocks turned into channels."""
    if attributes["mode"] not in {"CRD", "DCR"}:
        return f"mode {attributes['mode']}; expected CRD or DCR"
    return "" if attributes["block"] >= 1 else f"blocks of {attributes['block']} pixels"


def mixture(attributes: Attributes, shapes: Shapes) -> str:
    """Check coefficients and templates of a kernel."""
    coefficients, templates = shapes
    if templates == (math.prod(coefficients), math.prod(attributes["shape"])):
        return ""
    return f"coefficients {coefficients} and templates {templates} for {attributes['shape']}"


def normalization(attributes: Attributes, shapes: Shapes) -> str:
    """Check factors, shifts, epsilon and groups."""
    channels = shapes[0][1]
    if any(shape != (channels,) for shape in shapes[1:]):
        return f"factors {shapes[1]} and shifts {shapes[2]} for {channels} channels"
    if attributes["epsilon"] <= 0:
        return f"an epsilon of {attributes['epsilon']}; expected a positive number"
    groups = attributes.get("groups", 1)
    return f"{groups} groups of {channels} channels" if groups < 1 or channels % groups else ""


def interpolation(attributes: Attributes, shapes: Shapes) -> str:
    """Check mode and factor."""
    if attributes["mode"] not in INTERPOLATIONS:
        return f"mode {attributes['mode']}; expected one of {', '.join(INTERPOLATIONS)}"
    return "" if attributes["factor"] >= 2 else f"factor {attributes['factor']}; expected 2 or more"
