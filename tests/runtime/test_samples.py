"""Only memory that an encoder can really take as it is may be called padded."""

from __future__ import annotations

import numpy as np

from runtime.pictures.samples import BAND_ROWS, bands, empty_padded, with_padding


def test_padded_memory_is_recognized() -> None:
    picture = empty_padded(5, 7)
    picture[:] = 9

    memory = with_padding(picture)

    assert picture.shape == (5, 7, 3)
    assert memory is not None
    assert memory.shape == (5, 7, 4)
    assert (memory[..., :3] == 9).all()


def test_any_other_memory_is_not() -> None:
    picture = empty_padded(6, 6)
    others = [
        np.zeros((6, 6, 3), np.uint8),
        np.zeros((6, 6, 4), np.uint16)[..., :3],
        np.zeros((6, 6, 4), np.uint8)[..., 1:],
        np.zeros((6, 6, 4), np.uint8)[::-1, :, :3],
        np.zeros((6, 6, 4), np.uint8).transpose(1, 0, 2)[..., :3],
        picture[1:],
        picture[:, 1:],
        picture[::2],
        np.rot90(picture),
    ]

    assert [with_padding(one) for one in others] == [None] * len(others)


def test_bands_put_alpha_behind_the_colours() -> None:
    random = np.random.default_rng(0)
    samples = random.integers(0, 256, (2 * BAND_ROWS + 3, 5, 4)).astype(np.uint8)

    pieces = list(bands(samples[..., :3], samples[..., 3:]))

    assert [len(piece) for piece in pieces] == [BAND_ROWS, BAND_ROWS, 3]
    assert all(piece.flags.c_contiguous for piece in pieces)
    np.testing.assert_array_equal(np.concatenate(pieces), samples)
