"""Reading all 16 bits of samples in PNG and TIFF, which Pillow does for grey pictures only.

Pillow decodes 16-bit colour but returns the high byte of each sample. Its unpackers exist for both
byte orders, so decoding again with the other order returns the low byte. Pillow also does the
decompression, filters and interlacing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin
from PIL.ImageFile import ImageFile

from runtime.errors import UserError

_BIG, _LITTLE = "B", "L"
_NATIVE = _LITTLE if sys.byteorder == "little" else _BIG
_OTHER_ORDER = {_BIG: _LITTLE, _LITTLE: _BIG, "N": _BIG if _NATIVE == _LITTLE else _LITTLE}

# Pillow has no little-endian unpacker for grey with alpha, but its four bytes can be unpacked as an
# 8-bit RGBA pixel.
_GREY_ALPHA, _AS_FOUR_BYTES = "LA;16B", "RGBA"

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # TIFF tags
_WHITE_IS_ZERO = 0


def has_sixteen_bits(image: ImageFile) -> bool:
    """Tell whether the file of an opened, not yet decoded picture has over 8 bits a sample."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits: tuple[int, ...] = image.tag_v2.get(_BITS_PER_SAMPLE, (1,))
        return max(bits) > 8
    return image.mode.startswith("I;16") or unpacker(image).endswith(";16B")


def read_samples(
    image: ImageFile, path: Path, opened: Callable[[], AbstractContextManager[ImageFile]]
) -> NDArray[np.uint16]:
    """Decode a 16-bit picture.

    Args:
        image: The opened picture, for which ``has_sixteen_bits`` holds.
        path: The picture's file, for messages.
        opened: Opens the picture again, to decode the low bytes.

    Returns:
        H × W × C, uint16: grey, grey and alpha, RGB, or RGB and alpha.

    Raises:
        UserError: If the layout of the samples is not known to decode exactly.
    """
    inverted = False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        if set(image.tag_v2[_BITS_PER_SAMPLE]) != {16}:
            raise _unreadable(path)
        inverted = image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint16)[..., np.newaxis]
        return ~grey if inverted else grey
    layout = unpacker(image)
    if layout == _GREY_ALPHA:
        return _decoded_with(_AS_FOUR_BYTES, opened).view(">u2").astype(np.uint16)
    kind, _, order = layout.partition(";16")
    if kind not in ("RGB", "RGBA") or order not in _OTHER_ORDER:
        raise _unreadable(path)
    high = np.asarray(image).astype(np.uint16)
    high <<= 8
    high |= _decoded_with(f"{kind};16{_OTHER_ORDER[order]}", opened)
    return high


def _decoded_with(
    unpacker: str, opened: Callable[[], AbstractContextManager[ImageFile]]
) -> NDArray[np.uint8]:
    """Decode a picture with another unpacker than Pillow chose."""
    with opened() as image:
        image.tile = [tile._replace(args=_renamed(tile.args, unpacker)) for tile in image.tile]
        return np.asarray(image)


def _renamed(arguments: Any, unpacker: str) -> Any:
    return (unpacker, *arguments[1:]) if isinstance(arguments, tuple) else unpacker


def unpacker(image: ImageFile) -> str:
    """Return Pillow's unpacker for the samples of a picture that is not decoded yet."""
    arguments: Any = image.tile[0].args if image.tile else ""
    return arguments[0] if isinstance(arguments, tuple) else str(arguments)


def _unreadable(path: Path) -> UserError:
    return UserError(
        f"{path}: samples of 16 or 32 bits in a layout that cannot be read exactly; save it as a "
        "PNG, or as a TIFF with 16 bits per channel, interleaved"
    )
