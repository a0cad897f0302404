"""Content: how far restored patches are from their originals in the features of VGG-19."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from runtime.errors import UserError
from training.checkpoint import load_tensors
from training.given_weights import given_weights
from training.losses.loss import Loss, LossFunction, Patches

_FILE = "vgg19_features_uint8.safetensors"
_BLOCKS = ((0, 2), (5, 7), (10, 12, 14, 16), (19, 21, 23, 25), (28, 30, 32, 34))
"""Places of the convolutions of VGG-19, by torchvision's names; pooling ends every block."""
_CAFFE_MEANS = (103.939, 116.779, 123.68)
"""Of blue, green and red, of 255."""
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of red, green and blue, of 1."""

Features: TypeAlias = Callable[[Tensor], Tensor]


class Content(Loss):
    """The mean squared distance of features of VGG-19, instead of pixels.

    The layer is named (block, convolution); ``5,4`` is the last, as in SRGAN (Ledig et al., CVPR
    2017) and PCARN. Features are taken in front of the layer's ReLU, as in the code of PCARN and
    ESRGAN, or behind it. ``vgg`` names a .safetensors of torchvision's VGG-19. Without it the loss
    reads ``weights/vgg19_features_uint8.safetensors`` of ``RESLITE_DATA``, Caffe's network, whose
    pictures reach to 255: its features, and the loss, are much larger than torchvision's, so that
    ``weight`` has to be chosen for the one or the other.
    """

    kind: Literal["content"] = "content"
    layer: Literal["1,2", "2,2", "3,4", "4,4", "5,4"] = Field(
        default="5,4", description="block and convolution"
    )
    behind_relu: bool = Field(default=False, description="features are taken behind the ReLU")
    vgg: str | None = Field(default=None, description="weights; Caffe's of RESLITE_DATA if none")

    def build(self, device: torch.device) -> LossFunction:
        """Return the distance, with the network on the device.

        Raises:
            UserError: If the file of weights is missing or no VGG-19, or patches are too small.
        """
        features = self._features(device)

        def content(patches: Patches) -> Tensor:
            side = min(patches.original.shape[2:])
            if side < self._least_side:
                raise UserError(
                    f"losses: content of layer {self.layer} needs patches of {self._least_side} "
                    f"pixels or more of the original; found {side}: name an earlier layer"
                )
            with torch.no_grad():
                expected = features(patches.original)
            return F.mse_loss(features(patches.restored), expected)

        return content

    @property
    def _block(self) -> int:
        """Number of the layer's block, from 1."""
        return int(self.layer[0])

    @property
    def _least_side(self) -> int:
        return int(2 ** (self._block - 1))

    def _features(self, device: torch.device) -> Features:
        path = Path(self.vgg) if self.vgg else given_weights(_FILE, "the content loss")
        weights, caffe = _read(path, [place for one in self._places for place in one])
        weights = {name: tensor.to(device) for name, tensor in weights.items()}
        means, spread = _convention(caffe, device)

        def features(pictures: Tensor) -> Tensor:
            """Return the features of N × 3 × H × W pictures, RGB in [0, 1]."""
            values = ((pictures.flip(1) if caffe else pictures) - means) / spread
            for number, places in enumerate(self._places):
                values = F.max_pool2d(values, 2) if number else values
                for place in places:
                    kernel, bias = weights[f"{place}.weight"], weights[f"{place}.bias"]
                    values = F.conv2d(values, kernel, bias, padding=1)
                    last = place == self._places[-1][-1]
                    values = values if last and not self.behind_relu else F.relu(values)
            return values

        return features

    @property
    def _places(self) -> tuple[tuple[int, ...], ...]:
        return _BLOCKS[: self._block]


def _read(path: Path, places: list[int]) -> tuple[dict[str, Tensor], bool]:
    """Return kernels and biases as float32 by place, and whether they are Caffe's.

    Caffe's are those of 8 bits, with their scales and least values in the metadata.

    Raises:
        UserError: If the file is no VGG-19.
    """
    tensors, metadata = load_tensors(path)
    found: dict[str, Tensor] = {}
    try:
        for place in places:
            kernel = tensors[f"features.{place}.weight"]
            found[f"{place}.weight"] = _as_float(kernel, metadata, f"features.{place}.weight")
            found[f"{place}.bias"] = tensors[f"features.{place}.bias"].float()
        caffe = tensors["features.0.weight"].dtype == torch.uint8
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{path}: no VGG-19 by torchvision's names (features.0.weight to features.34.bias): "
            f"{error} is missing or damaged"
        ) from error
    return found, caffe


def _as_float(kernel: Tensor, metadata: Mapping[str, str], name: str) -> Tensor:
    if kernel.dtype != torch.uint8:
        return kernel.float()
    scale, least = json.loads(metadata[name])
    return kernel.float() * float(scale) + float(least)


def _convention(caffe: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return what is subtracted from pictures in [0, 1], and what they are divided by."""
    means, spread = torch.tensor(_IMAGENET, device=device).view(2, 1, 3, 1, 1)
    if caffe:
        means = torch.tensor(_CAFFE_MEANS, device=device).view(1, 3, 1, 1) / 255
        spread = torch.full_like(means, 1 / 255)
    return means, spread
