"""The losses that compare more than pixels: features of VGG-19, and structures at several sizes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from runtime.errors import UserError
from training.checkpoint import save_tensors
from training.degradations import bicubic
from training.losses.content import Content
from training.losses.loss import Loss, Patches
from training.losses.ms_ssim import MsSsim
from training.recipe_reading import load_recipe
from training.trainer import train

CPU = torch.device("cpu")


def _of(loss: Loss, restored: Tensor, original: Tensor) -> Tensor:
    return loss.build(CPU)(Patches(restored, original))


def _tensor(picture: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255


def _vgg19(widths: tuple[int, ...] = (64, 128, 256, 512, 512)) -> nn.Sequential:
    """VGG-19 without its head, layer by layer as torchvision numbers them."""
    layers: list[nn.Module] = []
    channels = 3
    for width, count in zip(widths, (2, 2, 4, 4, 4), strict=True):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


@pytest.fixture
def small_vgg(tmp_path: Path) -> tuple[nn.Sequential, Path]:
    """A VGG-19 of few channels as torchvision's, and its file."""
    torch.manual_seed(0)
    network = _vgg19((4, 4, 6, 6, 8))
    path = tmp_path / "vgg19.safetensors"
    tensors = {f"features.{name}": one for name, one in network.state_dict().items()}
    save_tensors(path, tensors, {})
    return network, path


@pytest.mark.parametrize(
    ("layer", "behind_relu", "layers"),
    # The last layer of torchvision's that is computed: 34 is PCARN's.
    [("5,4", False, 35), ("5,4", True, 36), ("1,2", True, 4), ("3,4", False, 17)],
)
def test_content_of_torchvisions_vgg(
    small_vgg: tuple[nn.Sequential, Path], layer: str, behind_relu: bool, layers: int
) -> None:
    network, path = small_vgg
    loss = Content.model_validate({"layer": layer, "behind_relu": behind_relu, "vgg": str(path)})
    restored, original = torch.rand(2, 2, 3, 32, 48)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    ours, theirs = (network[:layers]((one - mean) / deviation) for one in (restored, original))
    torch.testing.assert_close(_of(loss, restored, original), F.mse_loss(ours, theirs))


def test_content_of_caffes_vgg(given_weights_folder: Path, astronaut: NDArray[np.uint8]) -> None:
    network = _vgg19()
    with safe_open(given_weights_folder / "vgg19_features_uint8.safetensors", "np") as file:
        scales = {name: json.loads(text) for name, text in file.metadata().items()}
        for name, parameter in network.named_parameters():
            value = file.get_tensor(f"features.{name}").astype(np.float32)
            if name.endswith("weight"):
                scale, least = scales[f"features.{name}"]
                value = value * np.float32(scale) + np.float32(least)
            parameter.data = torch.from_numpy(value)
    original = astronaut[60:108, 200:248]
    blurred = bicubic.enlarge(bicubic.reduce(original, 4), 4)

    def features(picture: NDArray[np.uint8]) -> Tensor:
        centred = picture[..., ::-1].astype(np.float32) - (103.939, 116.779, 123.68)
        with torch.no_grad():
            return network[:35](torch.from_numpy(centred).float().permute(2, 0, 1)[None])

    expected = F.mse_loss(features(blurred), features(original))
    found = _of(Content(), _tensor(blurred), _tensor(original))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    assert float(found) > 1  # of features of a network for pictures of 255
    assert float(_of(Content(), _tensor(original), _tensor(original))) == 0


def test_content_teaches_the_restored_patch_alone(small_vgg: tuple[nn.Sequential, Path]) -> None:
    restored, original = (torch.rand(1, 3, 16, 16).requires_grad_() for _ in range(2))
    torch.autograd.backward(_of(Content(vgg=str(small_vgg[1])), restored, original))
    assert restored.grad is not None
    assert restored.grad.isfinite().all()
    assert restored.grad.any()
    assert original.grad is None


def test_content_says_what_it_lacks(
    small_vgg: tuple[nn.Sequential, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESLITE_DATA", str(tmp_path))
    with pytest.raises(UserError, match="no such file; the content loss needs it"):
        Content().build(CPU)
    patches = torch.rand(2, 1, 3, 15, 15)
    with pytest.raises(UserError, match=r"needs patches of 16 pixels .* found 15"):
        _of(Content(vgg=str(small_vgg[1])), *patches)
    other = tmp_path / "other.safetensors"
    save_tensors(other, {"features.0.weight": torch.zeros(1)}, {})
    with pytest.raises(UserError, match=r"no VGG-19 by torchvision's names .*'features.0.bias'"):
        Content(vgg=str(other)).build(CPU)
    for damage in ({}, {"features.0.weight": "[1]"}):
        kernel = {"features.0.weight": torch.zeros(1, dtype=torch.uint8)}
        save_tensors(other, kernel | {"features.0.bias": torch.zeros(1)}, damage)
        with pytest.raises(UserError, match="missing or damaged"):
            Content(vgg=str(other)).build(CPU)


# pytorch-msssim 1.0 on the same pictures; with fewer sizes, the weights of those divided by their
# sum.
@pytest.mark.parametrize(
    ("scale", "sizes", "expected"),
    [
        (2, 5, 0.9927049),
        (2, 3, 0.9884819),
        (4, 5, 0.9612583),
        (4, 3, 0.9395640),
        (4, 1, 0.7891227),
    ],
)
def test_ms_ssim_is_that_of_another_implementation(
    scale: int, sizes: int, expected: float, astronaut: NDArray[np.uint8]
) -> None:
    original = astronaut[:192, 100:292]
    restored = bicubic.enlarge(bicubic.reduce(original, scale), scale)
    found = _of(MsSsim(sizes=sizes), _tensor(restored), _tensor(original))
    assert float(found) == pytest.approx(1 - expected, abs=2e-5)


def test_ms_ssim_has_a_slope_even_at_the_worst() -> None:
    original = torch.rand(1, 3, 44, 44)
    for restored in (1 - original, original.clone()):
        restored.requires_grad_()
        torch.autograd.backward(_of(MsSsim(), restored, original))
        assert restored.grad is not None
        assert restored.grad.isfinite().all()
    with pytest.raises(UserError, match=r"ms-ssim of 3 sizes needs patches of 44 .* found 43"):
        _of(MsSsim(), original[..., 1:], original[..., 1:])


def test_a_run_descends_both(
    small_vgg: tuple[nn.Sequential, Path], tiny_recipe: Path, tiny_data: Path, tmp_path: Path
) -> None:
    losses = f"losses=[{{kind: content, vgg: '{small_vgg[1]}'}}, {{kind: ms-ssim, sizes: 1}}]"
    stages = "stages=[{steps: 3, patch: 8, batch: 2}]"
    recipe = load_recipe(str(tiny_recipe), [losses, stages])
    weights = train(recipe, tiny_data, tmp_path / "run", progress=False)
    with safe_open(weights, "pt") as file:
        assert json.loads(file.metadata()["recipe"])["losses"][0]["kind"] == "content"
