"""The proof that an ONNX file was read right: ONNX Runtime runs the file, and the graph agrees.

The file is run as it is, before anything was folded or recognized, by a program that shares no code
with the reading.
"""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from export.execution import execute
from export.graph import Graph
from export.parity import parity_pictures
from runtime.errors import UserError, first_line

Size = tuple[int, int]

SINGLE, HALF = 1e-4, 1e-2
"""Largest difference allowed between a file and its graph, as a part of the range of the restored
values, by the file's precision. In half precision it rounds every activation; the graph does not.
"""

_LARGEST_STEP = 96

_LARGE = 128 * 128
"""Pixels of a picture that takes long to restore."""

_WHOLE = 0.51 / 255
"""The same where a file hands out whole levels: what rounding takes away, and a little."""

_SIZES: tuple[Size, ...] = ((17, 22), (24, 40))
"""Height and width of the pictures that a file of any size is tried on."""


@dataclass(frozen=True)
class Ends:
    """How a file takes a picture and hands out the restored one.

    Attributes:
        image: Name of the input.
        restored: Name of the output.
        dtype: Type of the input's values.
        channels_last: Whether it takes N × H × W × C.
        size: The height and the width that it takes; None for any.
        colours: Channels of the picture, 3 or 1.
    """

    image: str
    restored: str
    dtype: np.dtype[Any]
    channels_last: bool
    size: tuple[int | None, int | None]
    colours: int

    def fitted(self, size: Size) -> Size:
        """Return the height and width that it takes, or those of ``size`` where any will do."""
        height, width = self.size
        return height or size[0], width or size[1]

    def shape(self, size: Size) -> tuple[int, int, int, int]:
        """Return the shape of the input for pictures as ``fitted``."""
        height, width = self.fitted(size)
        planes = self.colours
        return (1, height, width, planes) if self.channels_last else (1, planes, height, width)


def proven(path: Path, model: onnx.ModelProto, ends: Ends, graph: Graph, tolerance: float) -> Graph:
    """Compare a file with its graph on small pictures, of two sizes where the file takes any.

    Args:
        path: The file, for messages.
        model: What it holds, weights included.
        ends: How it takes and hands out pictures.
        graph: What was read from it.
        tolerance: ``SINGLE`` or ``HALF``.

    Returns:
        The graph, with the ``step`` of sides at which it is the file: a network that pads pictures
        to a multiple of some pixels was read at a size where nothing is padded.

    Raises:
        UserError: If ONNX Runtime cannot run the file, or they differ.
    """
    height, width = ends.fitted(_SIZES[0])
    if height * width > _LARGE:
        # The same file at a small size is as good a proof, unless its own size is written in it.
        with contextlib.suppress(UserError):
            free = dataclasses.replace(ends, size=(None, None))
            return _proven_at_steps(path, _of_any_size(model, free), free, graph, tolerance)
    return _proven_at_steps(path, model, ends, graph, tolerance)


def _proven_at_steps(
    path: Path, model: onnx.ModelProto, ends: Ends, graph: Graph, tolerance: float
) -> Graph:
    """Return the graph with the least step of sides at which it is the file."""
    session, refused = _opened(path, model), None
    step = graph.multiple
    while step <= _LARGEST_STEP:
        stepped = dataclasses.replace(graph, step=step)
        try:
            _compare(path, session, ends, stepped, tolerance)
        except UserError as error:
            refused = refused or error
        else:
            return stepped
        step *= 2
    raise refused or UserError(f"{path}: takes multiples of {step} pixels; expected fewer")


def _of_any_size(model: onnx.ModelProto, ends: Ends) -> onnx.ModelProto:
    """Return a file of a fixed size, declared for any."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    del copied.graph.value_info[:]
    for value in copied.graph.input:
        if value.name == ends.image:
            for axis in (1, 2) if ends.channels_last else (2, 3):
                value.type.tensor_type.shape.dim[axis].Clear()
    for value in copied.graph.output:
        value.type.tensor_type.ClearField("shape")
    return copied


def _compare(
    path: Path, session: onnxruntime.InferenceSession, ends: Ends, graph: Graph, tolerance: float
) -> None:
    """Compare a file with its graph.

    Raises:
        UserError: If ONNX Runtime cannot run the file, or they differ.
    """
    sides = graph.sides
    wanted = ((sides.fitting(height), sides.fitting(width)) for height, width in _SIZES)
    for height, width in dict.fromkeys(map(ends.fitted, wanted)):
        if not sides.fit((height, width)):
            raise UserError(
                f"{path}: takes {height}×{width} pixels, but its operators need multiples of "
                f"{sides.multiple}, {sides.minimum} or more; export it at such a size"
            )
        picture = np.round(parity_pictures((height, width))[0] * 255) / np.float32(255)
        picture = picture.transpose(2, 0, 1)[None, : ends.colours]
        restored = _run(path, session, ends, picture)
        expected = _in_unit_range(restored)
        with torch.inference_mode():
            found = execute(graph, torch.from_numpy(np.ascontiguousarray(picture))).numpy()
        if found.shape != expected.shape:
            raise UserError(
                f"{path}: turns {height}×{width} pixels into {_pixels(expected)}, but as it was "
                f"read into {_pixels(found)}; what it computes depends on the size in a way that "
                "reslite does not know"
            )
        whole = np.issubdtype(restored.dtype, np.integer)
        allowed = _WHOLE if whole else tolerance * max(float(np.ptp(expected)), 1e-6)
        difference = float(np.abs(found - expected).max())
        if not difference <= allowed:
            raise UserError(
                f"{path}: as it was read it differs from ONNX Runtime's result by {difference:.2g} "
                f"at {height}×{width} pixels, at most {allowed:.2g} is allowed"
                + (", what rounding takes away" if whole else "; please report this network")
            )


def _opened(path: Path, model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors also arrive as exceptions
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its exceptions share no other base class
        raise UserError(f"{path}: ONNX Runtime cannot open it: {first_line(error)}") from error


def _run(
    path: Path, session: onnxruntime.InferenceSession, ends: Ends, picture: NDArray[np.float32]
) -> NDArray[Any]:
    """Restore a picture, N × C × H × W, with the file."""
    levels = np.round(picture * 255) if ends.dtype == np.uint8 else picture
    fed = levels.astype(ends.dtype)
    if ends.channels_last:
        fed = fed.transpose(0, 2, 3, 1)
    try:
        (restored,) = session.run([ends.restored], {ends.image: np.ascontiguousarray(fed)})
    except Exception as error:
        height, width = picture.shape[2:]
        raise UserError(
            f"{path}: ONNX Runtime cannot run it on {height}×{width} pixels: {first_line(error)}"
        ) from error
    found: NDArray[Any] = restored
    if found.ndim == 4 and found.shape[1] != ends.colours and found.shape[3] == ends.colours:
        found = found.transpose(0, 3, 1, 2)
    return found


def _in_unit_range(restored: NDArray[Any]) -> NDArray[np.float32]:
    """Return what a file hands out as real numbers, whole levels divided by their number."""
    levels = 255 if restored.dtype == np.uint8 else 1
    return restored.astype(np.float32) / np.float32(levels)


def _pixels(restored: NDArray[np.float32]) -> str:
    return "×".join(str(side) for side in restored.shape[2:])
