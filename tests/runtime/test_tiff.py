"""TIFF files are decoded by tifffile, which shares no code with the writer."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from runtime.pictures.tiff import write_tiff


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (150, 33)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_come_back(dtype: type, size: tuple[int, int], channels: int) -> None:
    random = np.random.default_rng(channels)
    samples = random.integers(0, np.iinfo(dtype).max + 1, (*size, channels)).astype(dtype)
    colours = channels - (channels in (2, 4))
    stream = io.BytesIO()

    alpha = samples[..., colours:] if colours < channels else None
    write_tiff(stream, samples[..., :colours], alpha)

    stream.seek(0)
    with tifffile.TiffFile(stream) as file:
        page = file.pages[0]
        assert page.photometric.name == ("MINISBLACK" if colours == 1 else "RGB")
        assert [extra.name for extra in page.extrasamples] == ["UNASSALPHA"] * (channels - colours)
        decoded = page.asarray()
    assert decoded.dtype == dtype
    np.testing.assert_array_equal(decoded.reshape(samples.shape), samples)


def test_profile_is_stored() -> None:
    stream = io.BytesIO()
    write_tiff(stream, np.zeros((3, 5, 3), np.uint8), icc=b"a profile")

    stream.seek(0)
    assert Image.open(stream).info["icc_profile"] == b"a profile"


def test_the_directory_begins_at_an_even_byte_as_the_format_wants_it() -> None:
    stream = io.BytesIO()
    write_tiff(stream, np.zeros((1, 1, 1), np.uint8))

    (start,) = struct.unpack("<I", stream.getvalue()[4:8])
    assert start % 2 == 0
