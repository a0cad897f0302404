from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import color
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from runtime.errors import UserError
from runtime.pictures.files import picture_paths
from training.data.pictures import read_rgb
from training.degradations import bicubic
from training.metrics.kinds import METRICS
from training.metrics.lpips import LEAST_SIDE
from training.metrics.psnr import psnr
from training.metrics.scoring import LUMA, RGB, luma
from training.metrics.ssim import ssim

# Bicubic ×4, PSNR-Y as every paper prints it (Ahn et al. 2018, Table 1). The Set14 that is handed
# around since has another 'man' and 'baboon' than the papers', hence its tolerance.
PUBLISHED_BICUBIC_X4 = {"set5": (28.42, 0.01), "set14": (26.00, 0.1), "b100": (25.96, 0.01)}


@pytest.fixture(scope="module")
def pair(astronaut: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    reference = astronaut[:128, :160]
    return bicubic.enlarge(bicubic.reduce(reference, 4), 4), reference


def test_luma_is_bt601_studio_range_rounded(pair: tuple[NDArray[np.uint8], ...]) -> None:
    expected = np.round(color.rgb2ycbcr(pair[1])[..., 0])
    np.testing.assert_array_equal(luma(pair[1]), expected)
    assert luma(np.zeros((1, 1, 3), np.uint8)) == 16
    assert luma(np.full((1, 1, 3), 255, np.uint8)) == 235


def test_psnr_and_ssim_agree_with_scikit_image(pair: tuple[NDArray[np.uint8], ...]) -> None:
    restored, reference = (luma(picture)[4:-4, 4:-4] for picture in pair)
    expected_psnr = peak_signal_noise_ratio(reference, restored, data_range=255)
    expected_ssim = structural_similarity(
        reference,
        restored,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
    )
    assert LUMA.psnr(*pair, 4) == pytest.approx(expected_psnr, abs=1e-9)
    assert LUMA.ssim(*pair, 4) == pytest.approx(expected_ssim, abs=1e-6)


def test_a_known_error_gives_the_psnr_done_by_hand() -> None:
    reference = np.zeros((8, 8))
    assert psnr(reference + 16, reference) == pytest.approx(24.0484, abs=1e-4)
    assert psnr(reference, reference) == float("inf")


def test_equal_pictures_have_ssim_one(pair: tuple[NDArray[np.uint8], ...]) -> None:
    assert LUMA.ssim(pair[1], pair[1], 1) == pytest.approx(1.0)


def test_a_plane_of_exactly_the_window_has_an_ssim() -> None:
    plane = np.arange(121).reshape(11, 11)
    assert ssim(plane, plane) == pytest.approx(1.0)


def test_pictures_of_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="different sizes"):
        psnr(np.zeros((3, 4)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="at least 11×11"):
        ssim(np.zeros((10, 40)), np.zeros((10, 40)))


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED_BICUBIC_X4)
def test_bicubic_scores_are_the_published_ones(standard_data: Path, name: str) -> None:
    scores = []
    for path in picture_paths(standard_data / name / "HR"):
        reference = bicubic.crop_to_multiple(read_rgb(path), 4)
        enlarged = bicubic.enlarge(bicubic.reduce(reference, 4), 4)
        scores.append(LUMA.psnr(enlarged, reference, 4))
    published, tolerance = PUBLISHED_BICUBIC_X4[name]
    assert np.mean(scores) == pytest.approx(published, abs=tolerance)


# The authors' package, lpips 0.1.4, with torchvision's AlexNet, on the same pictures.
@pytest.mark.parametrize(("scale", "published"), [(2, 0.0803251), (4, 0.2164717)])
def test_lpips_is_that_of_its_authors_package(
    given_weights_folder: Path, astronaut: NDArray[np.uint8], scale: int, published: float
) -> None:
    reference = astronaut[:128, :160]
    restored = bicubic.enlarge(bicubic.reduce(reference, scale), scale)
    measure = METRICS["lpips"].build()
    assert measure(RGB.compared(restored, reference, 1)) == pytest.approx(published, abs=1e-5)
    assert measure(RGB.compared(reference, reference, 1)) == 0


def test_lpips_takes_pictures_as_small_as_it_says(given_weights_folder: Path) -> None:
    measure = METRICS["lpips"].build()
    picture = np.arange(LEAST_SIDE**2 * 3, dtype=np.uint32).astype(np.uint8)
    picture = picture.reshape(LEAST_SIDE, LEAST_SIDE, 3)
    assert measure(RGB.compared(255 - picture, picture, 1)) is not None
    assert measure(RGB.compared(255 - picture[1:], picture[1:], 1)) is None


def test_niqe_of_baboon_is_what_matlab_says(
    standard_data: Path, given_weights_folder: Path
) -> None:
    """BasicSR prints the 5.72957338 of the authors' code, run by MATLAB R2021a."""
    picture = read_rgb(standard_data / "set14" / "HR" / "baboon.png")
    found = METRICS["niqe"].build()(RGB.compared(picture, picture, 1))
    assert found == pytest.approx(5.72957338, abs=1e-3)


def test_niqe_is_that_of_basicsr(given_weights_folder: Path, astronaut: NDArray[np.uint8]) -> None:
    """Its procedure, written out once with SciPy's convolution, block by block."""
    measure = METRICS["niqe"].build()
    blurred = bicubic.enlarge(bicubic.reduce(astronaut, 4), 4)
    assert measure(LUMA.compared(astronaut, astronaut, 4)) == pytest.approx(3.020724, abs=1e-5)
    assert measure(RGB.compared(blurred, astronaut, 1)) == pytest.approx(6.967121, abs=1e-5)


def test_niqe_needs_two_blocks_that_are_not_flat(
    given_weights_folder: Path, astronaut: NDArray[np.uint8]
) -> None:
    measure = METRICS["niqe"].build()

    def of(picture: NDArray[np.uint8]) -> float | None:
        return measure(RGB.compared(picture, picture, 1))

    assert of(astronaut[:96, :191]) is None
    assert of(astronaut[:96, :192]) is not None
    assert of(np.full((192, 192, 3), 7, np.uint8)) is None
    half_flat = astronaut[:192, :384].copy()
    half_flat[:, :192] = 7
    found = of(half_flat)
    assert found is not None and np.isfinite(found)


@pytest.mark.parametrize("name", ["lpips", "niqe"])
def test_missing_weights_of_a_metric_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.delenv("RESLITE_DATA", raising=False)
    with pytest.raises(UserError, match=r"does not ship with reslite: set RESLITE_DATA"):
        METRICS[name].build()
    monkeypatch.setenv("RESLITE_DATA", str(tmp_path))
    with pytest.raises(UserError, match=rf"no such file; {name.upper()} needs it"):
        METRICS[name].build()
    (tmp_path / "weights").mkdir()
    for file in ("alexnet_features.safetensors", "niqe_pris_params.npz"):
        (tmp_path / "weights" / file).write_bytes(b"no weights")
    with pytest.raises(UserError, match="not"):
        METRICS[name].build()


def test_scores_are_shown_with_their_digits() -> None:
    assert METRICS["psnr"].text(33.9903) == "33.99 dB"
    assert METRICS["psnr"].text(float("inf")) == "equal"
    assert METRICS["lpips"].text(0.28914) == "0.2891"
    assert METRICS["niqe"].text(None) == "-"
