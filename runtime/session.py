"""Restoring pictures with one artifact, on any engine.

A session takes a float32 picture H × W × 3 (RGB, [0, 1]) and returns the restored picture; it hides
layouts, half floats and 8-bit scales. ``run`` calls ``prepare``, ``invoke`` and ``result`` in turn,
so that a benchmark can time ``invoke`` alone. A session is used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from runtime.engines.engine import Engine
from runtime.errors import UserError, first_line
from runtime.manifest import PoolingTensors, TensorInfo
from runtime.sides import ANY_SIDES, Sides

FloatPicture = NDArray[np.float32]

_TYPES = ("float32", "float16", "int8", "uint8")
_FLOATS = ("float32", "float16", "float64")


def check_picture(picture: object, types: Sequence[str], channels: Sequence[int] = (3,)) -> None:
    """Check that an argument is a picture.

    Args:
        picture: What the caller gave.
        types: Names of the accepted NumPy types.
        channels: The accepted numbers of channels.

    Raises:
        UserError: If it is no array, has no pixels, or another shape or type.
    """
    depths = " or ".join(map(str, channels))
    expected = f"a picture is an array H × W × {depths} of {' or '.join(types)}"
    if not isinstance(picture, np.ndarray):
        raise UserError(
            f"{expected}; found {type(picture).__name__}: numpy.asarray makes an array of pixels"
        )
    fits = picture.ndim == 3 and picture.shape[2] in channels and picture.dtype.name in types
    if not fits or picture.size == 0:
        without = " without pixels" if picture.size == 0 else ""
        raise UserError(
            f"{expected}; found {picture.dtype} {_size(picture.shape)}{without}: convert it first"
        )


class Session:
    """An artifact ready to run; ``runtime.open`` makes one.

    Attributes:
        scale: Upscaling factor; 1 for networks that keep the size.
        halo: Input pixels around a tile that the tile's output depends on; None without a manifest,
            and where tiles cannot be restored.
        whole: Whether the network takes whole pictures only, as its manifest says.
        fixed_size: Height and width of the input if the artifact fixes them; None if they are free.
        runtime_name: Runtime, version and device that actually run the artifact.
        pooling: The additional tensors of a file that was cut at its global pooling (see
            ``PoolingTensors``); None for other files.
        open_tiled: Opens the file to restore tiles with, if this file's network pools over the
            whole picture; None if this file restores tiles itself.
        sides: The heights and widths that the network takes; other pictures are reflected.
    """

    def __init__(
        self,
        file: str,
        engine: Engine,
        scale: int,
        halo: int | None = None,
        pooling: PoolingTensors | None = None,
        open_tiled: Callable[[], Session] | None = None,
        whole: bool = False,
        sides: Sides = ANY_SIDES,
    ) -> None:
        """Check that ``engine`` takes one RGB picture and returns one.

        Raises:
            UserError: If the engine has further inputs or outputs besides the tensors of
                ``pooling``, or tensors of an unsupported type; the message names ``file``.
        """
        self.scale, self.halo, self.pooling, self.open_tiled = scale, halo, pooling, open_tiled
        self.whole, self.runtime_name = whole, engine.name
        self.sides = sides
        self._engine = engine
        self._size: tuple[int, ...] = ()
        beside = {pooling.features.name, pooling.pooled.name} if pooling else set()
        inputs = [one for one in engine.inputs if one.name not in beside]
        outputs = [one for one in engine.outputs if one.name not in beside]
        self.fixed_size = _fixed_size(file, inputs, outputs)
        self._image, self._restored = inputs[0], outputs[0]
        tensors = (*engine.inputs, *engine.outputs)
        self._beside = {one.name: one for one in tensors if one.name in beside}
        for tensor in tensors:
            _check_type(file, tensor)

    def run(self, image: FloatPicture) -> FloatPicture:
        """Restore a picture.

        Args:
            image: H × W × 3, float32, RGB in [0, 1].

        Returns:
            scale·H × scale·W × 3, float32, not clamped.

        Raises:
            UserError: If this is no such picture, if the artifact has a fixed size and the picture
                another size, or if the runtime cannot run the artifact at the picture's size.
        """
        self.prepare(image)
        self.invoke()
        return self.result()

    def run_pooled(
        self, image: FloatPicture, pooled: FloatPicture | None
    ) -> tuple[FloatPicture, FloatPicture]:
        """Run a file that was cut at its global pooling.

        Args:
            image: H × W × 3, a tile.
            pooled: C, the features' average over the whole picture; None in the first pass, which
                computes the average.

        Returns:
            The restored tile, and the tile's features, H × W × C.
        """
        assert self.pooling is not None
        vector = self._beside[self.pooling.pooled.name]
        features = self._beside[self.pooling.features.name]
        values = np.zeros(vector.channels, np.float32) if pooled is None else pooled
        self.prepare(image)
        self._engine.feed(vector.name, _encoded(values[np.newaxis, np.newaxis], vector))
        self.invoke()
        found = _decoded(self._engine.fetch(features.name), features)
        return self.result(), self._cut(found, 1)

    def prepare(self, image: FloatPicture) -> None:
        """Convert a picture and pass it to the runtime, which allocates for its size if needed."""
        check_picture(image, _FLOATS)
        if self.fixed_size not in (None, image.shape[:2]):
            raise UserError(
                f"this artifact takes pictures of {_size(self.fixed_size)} only; got "
                f"{_size(image.shape[:2])}; restore with tiles or export it without a fixed size"
            )
        encoded = _encoded(self.sides.reflected(image), self._image)
        self._size = image.shape[:2]
        try:
            self._engine.feed(self._image.name, encoded)
        except (ValueError, RuntimeError) as error:
            raise self._refusal(error) from error

    def invoke(self) -> None:
        """Run the network on the prepared picture.

        Raises:
            UserError: If the runtime cannot run the network at the picture's size.
        """
        try:
            self._engine.invoke()
        except MemoryError:
            raise
        except Exception as error:  # the runtimes' exceptions share no other base class
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> UserError:
        return UserError(
            f"{self.runtime_name} cannot run this artifact at {_size(self._size)} "
            f"({first_line(error)}); export it again, or restore in tiles of another size"
        )

    def result(self) -> FloatPicture:
        """Return the restored picture of the last ``invoke``."""
        restored = _decoded(self._engine.fetch(self._restored.name), self._restored)
        return self._cut(restored, self.scale)

    def _cut(self, values: FloatPicture, scale: int) -> FloatPicture:
        """Cut off what was made of reflected pixels."""
        if self.sides.fit(self._size):
            return values
        height, width = (scale * side for side in self._size)
        return values[:height, :width]

    def close(self) -> None:
        """Release the runtime's memory."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _fixed_size(
    file: str, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]
) -> tuple[int, int] | None:
    """Return height and width of the picture if they are fixed, None if both are free.

    Raises:
        UserError: If the network does not take one RGB picture and return one.
    """
    for role, tensors in (("input", inputs), ("output", outputs)):
        if len(tensors) != 1:
            raise UserError(
                f"{file}: {len(tensors)} {role}s found, one picture expected; export it again"
            )
        (tensor,) = tensors
        shape = tensor.shape
        is_one = len(shape) == 4 and shape[0] in (None, 1)
        found = "×".join("?" if extent is None else str(extent) for extent in shape)
        if is_one and tensor.layout == "NCHW" and shape[1] != 3 and shape[3] == 3:
            raise UserError(
                f"{file}: its {role} is {found}, channels last (NHWC); expected channels first, "
                "1×3×H×W (NCHW): export it in that layout"
            )
        if not is_one or _picture_extents(tensor)[2] not in (None, 3):
            raise UserError(
                f"{file}: its {role} is {found}, expected one RGB picture ({tensor.layout}); "
                "export a network for RGB pictures"
            )
    height, width, _ = _picture_extents(inputs[0])
    if height is None and width is None:
        return None
    if height is None or width is None:
        raise UserError(
            f"{file}: only one of height and width is fixed; export it with both fixed or both free"
        )
    return height, width


def _picture_extents(tensor: TensorInfo) -> tuple[int | None, ...]:
    """Return height, width and channels of a tensor of four dimensions."""
    _, *extents = tensor.shape
    return tuple(extents[1:] + extents[:1] if tensor.layout == "NCHW" else extents)


def _check_type(file: str, tensor: TensorInfo) -> None:
    if tensor.dtype not in _TYPES:
        raise UserError(
            f"{file}: tensor '{tensor.name}' is {tensor.dtype}, expected float32, float16, int8 or "
            "uint8; export it again"
        )
    if np.dtype(tensor.dtype).kind in "iu" and tensor.scale is None:
        raise UserError(
            f"{file}: tensor '{tensor.name}' is {tensor.dtype} without a scale; export it again"
        )


def _encoded(image: FloatPicture, tensor: TensorInfo) -> NDArray[Any]:
    """Convert a picture H × W × C to a tensor's layout and type, contiguous.

    Integers: q = clip(round(x / scale) + zero point), half to even.
    """
    values = np.asarray(image, np.float32)
    values = values.transpose(2, 0, 1) if tensor.layout == "NCHW" else values
    dtype = np.dtype(tensor.dtype)
    if dtype.kind != "f":
        limits = np.iinfo(dtype)
        quantized = np.rint(values / np.float32(tensor.scale)) + np.float32(tensor.zero_point)
        values = np.clip(quantized, limits.min, limits.max)
    return np.ascontiguousarray(values[np.newaxis], dtype)


def _decoded(tensor_values: NDArray[Any], tensor: TensorInfo) -> FloatPicture:
    """Convert a tensor to a picture H × W × C; integers: x = (q − zero point) · scale."""
    values = tensor_values[0].astype(np.float32, copy=False)
    if tensor_values.dtype.kind != "f":
        values = (values - np.float32(tensor.zero_point)) * np.float32(tensor.scale)
    restored: FloatPicture = values.transpose(1, 2, 0) if tensor.layout == "NCHW" else values
    return restored


def _size(size: Sequence[int] | None) -> str:
    return "×".join(map(str, size or ()))
