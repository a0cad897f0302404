"""Networks of one channel restore luma; chroma is enlarged, and grey stays grey."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from torch import Tensor, nn

import runtime
from benchmarks.accuracy import network_restorer, score
from benchmarks.pairs import pairs_in
from export.bundle import bundle_of
from export.capture.torch_capture import capture
from export.execution import execute
from export.sources.finding import find_network
from export.sources.foreign import Foreign
from export.sources.options import Colour, Options
from export.sources.source import Source
from export.variants import Variant
from quantize.ptq import find_scales
from quantize.simulator import int8_reference
from runtime.errors import UserError
from runtime.tiling import restore_tiled

Array = NDArray[np.float64]
Picture = Callable[[int, int], NDArray[np.float32]]

CODE = """
import torch
from torch import nn
from torch.nn import functional as F

class ESPCN(nn.Module):
    def __init__(self, scale=2):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 5, padding=2)
        self.last = nn.Conv2d(8, scale**2, 3, padding=1)
        self.scale = scale

    def forward(self, y):
        made = F.pixel_shuffle(self.last(torch.tanh(self.first(y))), self.scale)
        return made + F.interpolate(y, scale_factor=self.scale, mode="nearest")

class SRCNN(ESPCN):
    def forward(self, y):
        y = F.interpolate(y, scale_factor=2, mode="bicubic")
        return y + self.last(torch.relu(self.first(y)))[:, :1]

class Denoiser(ESPCN):
    def forward(self, y):
        return y - self.last(torch.relu(self.first(y)))[:, :1]

class Nothing(nn.Module):
    def forward(self, y):
        return 0 * y[:, :1] if y.shape[1] == 1 else y[:, :1]

class Level(nn.Module):
    def forward(self, y):
        if y.shape[1] != 1:
            raise ValueError("takes luma")
        return y
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "luma.py"
    path.write_text(CODE)
    return path


def _enlarged(plane: Array, factor: int) -> Array:
    """Return a plane enlarged by Keys' cubic with a = −0.75 between pixel centres, edges repeated.

    Pixel by pixel, from his paper's formula (IEEE ASSP 29, 1981, eq. 15).
    """

    def weight(s: float) -> float:
        a, s = -0.75, abs(s)
        if s <= 1:
            return (a + 2) * s**3 - (a + 3) * s**2 + 1
        return a * s**3 - 5 * a * s**2 + 8 * a * s - 4 * a if s < 2 else 0.0

    def along_rows(rows: Array) -> Array:
        made = []
        for place in range(factor * len(rows)):
            centre = (place + 0.5) / factor - 0.5
            first = math.floor(centre) - 1
            taken = [
                (min(max(i, 0), len(rows) - 1), weight(centre - i)) for i in range(first, first + 4)
            ]
            made.append(sum(by * rows[i] for i, by in taken))
        return np.array(made)

    return along_rows(along_rows(plane).T).T


def _independent(network: nn.Module, image: Array, scale: int, colour: Colour, peak: int) -> Array:
    """Restore a picture, 3 × H × W, by way of Y, Cb and Cr as ITU-R BT.601 writes them."""
    red, green, blue = image
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    cb, cr = (blue - luma) / 1.772, (red - luma) / 1.402
    black, span = (16 / 255, 219 / 255) if colour == "y-video" else (0, 1)
    taken = torch.from_numpy((black + span * luma) * peak)[None, None]
    with torch.no_grad():
        restored = network.double()(taken)[0, 0].numpy() / peak
    luma = (restored - black) / span
    cb, cr = _enlarged(cb, scale), _enlarged(cr, scale)
    green = luma - 0.344136286 * cb - 0.714136286 * cr
    return np.stack([luma + 1.402 * cr, green, luma + 1.772 * cb])


NETWORKS = (("ESPCN", 2), ("SRCNN", 2), ("Denoiser", 1), ("Level", 1))


@pytest.mark.parametrize(("name", "scale"), NETWORKS)
@pytest.mark.parametrize(("colour", "peak"), [(None, None), ("y-video", None), ("y", 255)])
def test_luma_is_restored_and_chroma_enlarged(
    file: Path, picture: Picture, name: str, scale: int, colour: Colour | None, peak: int | None
) -> None:
    found = find_network(f"{file}:{name}", Options(colour=colour, peak=peak))
    module = found.at_scale(scale)
    own = _own(found, scale)
    image = torch.from_numpy(picture(9, 7))
    expected = _independent(own, image[0].double().numpy(), scale, colour or "y", peak or 1)
    own.float()
    with torch.no_grad():
        np.testing.assert_allclose(module(image)[0].numpy(), expected, atol=2e-6)
        graph = capture(module)
        np.testing.assert_allclose(execute(graph, image)[0].numpy(), expected, atol=2e-6)


def _own(found: Foreign, scale: int) -> nn.Module:
    """Return the person's module, inside what gives it colours."""
    network = found.modules[scale].network
    assert isinstance(network, nn.Module)
    return network


def test_an_onnx_file_of_luma_is_read_and_given_colours(
    file: Path, tmp_path: Path, picture: Picture
) -> None:
    own = _own(find_network(f"{file}:ESPCN"), 2)
    free = {2: torch.export.Dim("height", min=2), 3: torch.export.Dim("width", min=2)}
    torch.onnx.export(
        own,
        (torch.zeros(1, 1, 12, 10),),
        tmp_path / "luma.onnx",
        dynamo=True,
        dynamic_shapes=(free,),
        verbose=False,
    )
    for colour, peak in ((None, None), ("y-video", 255)):
        found = find_network(str(tmp_path / "luma.onnx"), Options(colour=colour, peak=peak))
        image = torch.from_numpy(picture(8, 11))
        expected = _independent(own, image[0].double().numpy(), 2, colour or "y", peak or 1)
        own.float()
        restored = found.at_scale(2)(image)[0].numpy()
        np.testing.assert_allclose(restored, expected, atol=2e-6)


def test_the_manifest_tells_the_cost_of_enlarging_chroma(file: Path, tmp_path: Path) -> None:
    source = Source.of(find_network(f"{file}:ESPCN"), 2)
    (artifact,) = bundle_of(source, [Variant("onnx", "float32")], tmp_path / "out").artifacts
    pixels = 640 * 360
    # Two channels of chroma, of which each of four pixels is made of 5 × 5.
    assert artifact.interpolation_multadds == 2 * 4 * 2 * 25 * pixels
    colours = 3 * pixels + 2 * 3 * pixels + 2 * 3 * 4 * pixels
    assert artifact.multadds == (8 * 25 + 8 * 4 * 9) * pixels + colours


def test_luma_is_that_of_pillow(file: Path) -> None:
    # A network that returns black leaves chroma, which is the picture without its luma.
    module = find_network(f"{file}:Nothing", Options(colour="y")).at_scale(1)
    photo = data.astronaut()[60:180, 160:280]
    chroma = module(_image(photo))[0].permute(1, 2, 0).numpy()
    luma = photo - 255 * chroma
    expected = np.array(Image.fromarray(photo).convert("L"))[..., None]
    assert np.abs(luma - expected).max() < 0.51


def test_colours_that_do_not_go_with_a_network_are_refused(file: Path) -> None:
    with pytest.raises(UserError, match=r"1 channel, so --colour bgr is wrong; .* y or y-video"):
        find_network(f"{file}:ESPCN", Options(colour="bgr"))
    other = file.with_name("rgb.py")
    other.write_text(
        "from torch import nn\nclass Net(nn.Conv2d):\n"
        "    def __init__(self): super().__init__(3, 3, 1)\n"
    )
    with pytest.raises(UserError, match=r"3 channels, so --colour y is wrong; .* rgb or bgr"):
        find_network(f"{other}:Net", Options(colour="y"))


VARIANTS = [
    Variant(kind, precision)
    for kind in ("tflite", "onnx")
    for precision in ("float32", "float16", "int8")
]


@pytest.mark.parametrize(("name", "scale"), [("ESPCN", 2), ("Denoiser", 1)])
def test_files_keep_grey_grey_and_tiles_whole(
    file: Path, tmp_path: Path, name: str, scale: int
) -> None:
    network = find_network(f"{file}:{name}")
    source = Source.of(network, scale)
    Image.fromarray(data.astronaut()[:96, 100:196]).save(tmp_path / "astronaut.png")
    table = find_scales(source, tmp_path, method="min-max", concatenations="tied")
    bundle_of(source, VARIANTS, tmp_path / "out", table, int8_reference)
    photo = data.astronaut()[90:131, 200:237]
    grey = photo[..., :1].repeat(3, axis=2)
    expected = source.module(_image(photo))[0].permute(1, 2, 0).clamp(0, 1).numpy()
    for variant in VARIANTS:
        path = tmp_path / "out" / variant.file_name(network.name, scale)
        with runtime.open(path) as session:
            restored = restore_tiled(session, grey, 200)
            np.testing.assert_array_equal(restored, restored[..., :1].repeat(3, axis=2))
            whole, tiled = (restore_tiled(session, photo, tile) for tile in (200, 16))
            np.testing.assert_array_equal(whole, tiled)
            # Rounding of chroma to 8 bits twice is within two levels; luma has its own scale.
            error = float(np.sqrt(np.square(whole / 255 - expected).mean()))
            assert error < (1.5 / 255 if variant.precision == "int8" else 0.3 / 255)


def test_scores_are_those_of_the_restored_picture(file: Path, tmp_path: Path) -> None:
    network = find_network(f"{file}:SRCNN")
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(data.astronaut()[:64, 100:164]).save(folder / "one.png")
    pairs = pairs_in(folder, network.task, 2)
    scores = score(network_restorer(network.at_scale(2)), pairs)
    (pair,) = pairs
    own = _own(network, 2)
    image = pair.low.transpose(2, 0, 1) / 255
    restored = _independent(own, image, 2, "y", 1).transpose(1, 2, 0)
    levels: Any = np.rint(255 * restored.clip(0, 1)).astype(np.uint8)
    assert scores.psnr == pytest.approx(network.task.scoring.psnr(levels, pair.high, 2), abs=0.01)


def _image(photo: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(photo.transpose(2, 0, 1)[None] / np.float32(255))
