from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import color
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from runtime.pictures.files import picture_paths
from training import metrics
from training.data.pictures import read_rgb
from training.degradations import bicubic

# Bicubic ×4, PSNR-Y as every paper prints it (Ahn et al. 2018, Table 1). The Set14 that is handed
# around since has another 'man' and 'baboon' than the papers', hence its tolerance.
PUBLISHED_BICUBIC_X4 = {"set5": (28.42, 0.01), "set14": (26.00, 0.1), "b100": (25.96, 0.01)}


@pytest.fixture(scope="module")
def pair(astronaut: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    reference = astronaut[:128, :160]
    return bicubic.enlarge(bicubic.reduce(reference, 4), 4), reference


def test_luma_is_bt601_studio_range_rounded(pair: tuple[NDArray[np.uint8], ...]) -> None:
    expected = np.round(color.rgb2ycbcr(pair[1])[..., 0])
    np.testing.assert_array_equal(metrics.luma(pair[1]), expected)
    assert metrics.luma(np.zeros((1, 1, 3), np.uint8)) == 16
    assert metrics.luma(np.full((1, 1, 3), 255, np.uint8)) == 235


def test_psnr_and_ssim_agree_with_scikit_image(pair: tuple[NDArray[np.uint8], ...]) -> None:
    restored, reference = (metrics.luma(picture)[4:-4, 4:-4] for picture in pair)
    psnr = peak_signal_noise_ratio(reference, restored, data_range=255)
    ssim = structural_similarity(
        reference,
        restored,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
    )
    assert metrics.LUMA.psnr(*pair, 4) == pytest.approx(psnr, abs=1e-9)
    assert metrics.LUMA.ssim(*pair, 4) == pytest.approx(ssim, abs=1e-6)


def test_a_known_error_gives_the_psnr_done_by_hand() -> None:
    reference = np.zeros((8, 8))
    assert metrics.psnr(reference + 16, reference) == pytest.approx(24.0484, abs=1e-4)
    assert metrics.psnr(reference, reference) == float("inf")


def test_equal_pictures_have_ssim_one(pair: tuple[NDArray[np.uint8], ...]) -> None:
    assert metrics.LUMA.ssim(pair[1], pair[1], 1) == pytest.approx(1.0)


def test_a_plane_of_exactly_the_window_has_an_ssim() -> None:
    plane = np.arange(121).reshape(11, 11)
    assert metrics.ssim(plane, plane) == pytest.approx(1.0)


def test_pictures_of_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="different sizes"):
        metrics.psnr(np.zeros((3, 4)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="at least 11×11"):
        metrics.ssim(np.zeros((10, 40)), np.zeros((10, 40)))


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED_BICUBIC_X4)
def test_bicubic_scores_are_the_published_ones(standard_data: Path, name: str) -> None:
    scores = []
    for path in picture_paths(standard_data / name / "HR"):
        reference = bicubic.crop_to_multiple(read_rgb(path), 4)
        enlarged = bicubic.enlarge(bicubic.reduce(reference, 4), 4)
        scores.append(metrics.LUMA.psnr(enlarged, reference, 4))
    published, tolerance = PUBLISHED_BICUBIC_X4[name]
    assert np.mean(scores) == pytest.approx(published, abs=tolerance)
