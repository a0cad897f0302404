"""LPIPS, the distance of two pictures in the features of a network (0 if they are equal).

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018,
version 0.1 on AlexNet, whose five maps behind ReLUs are compared: channels of unit length at each
position, squared differences weighted by channel, the mean over positions, the sum over maps.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from training.checkpoint import load_tensors
from training.given_weights import given_weights
from training.metrics.metric import Compared, Measure, Metric

LEAST_SIDE = 31
"""A smaller picture has no pixel left behind AlexNet's second pooling."""

_ALEXNET, _HEADS = "alexnet_features.safetensors", "lpips_v0.1_alex_linear.safetensors"
_CONVOLUTIONS = ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1))
"""Place, stride and padding of AlexNet's convolutions; pooling stands before the two next ones."""
_POOLED_BEFORE = (3, 6)
_SHIFT, _SPREAD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Mean and deviation of ImageNet's colours in [-1, 1], as the authors round them."""
_FLOOR = 1e-10


def _build() -> Measure:
    """Return the distance.

    Raises:
        UserError: If a file of weights is missing or damaged.
    """
    alexnet, heads = (load_tensors(given_weights(name, "LPIPS"))[0] for name in (_ALEXNET, _HEADS))

    def measure(pictures: Compared) -> float | None:
        if min(pictures.original.shape[:2]) < LEAST_SIDE:
            return None
        with torch.inference_mode():
            maps = zip(
                _maps(pictures.restored, alexnet), _maps(pictures.original, alexnet), strict=True
            )
            distances = [
                F.conv2d((ours - theirs).square(), heads[f"lin{place}.model.1.weight"]).mean()
                for place, (ours, theirs) in enumerate(maps)
            ]
            return float(torch.stack(distances).sum())

    return measure


def _maps(picture: NDArray[np.uint8], weights: dict[str, Tensor]) -> Iterator[Tensor]:
    """Yield the five maps of an H × W × 3 picture, 1 × C × h × w, channels of unit length."""
    values = torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
    shift, spread = (torch.tensor(one).view(1, 3, 1, 1) for one in (_SHIFT, _SPREAD))
    features = (values - shift) / spread
    for place, stride, padding in _CONVOLUTIONS:
        if place in _POOLED_BEFORE:
            features = F.max_pool2d(features, 3, 2)
        kernel, bias = (weights[f"features.{place}.{one}"] for one in ("weight", "bias"))
        features = F.relu(F.conv2d(features, kernel, bias, stride, padding))
        yield features / (features.square().sum(1, keepdim=True).sqrt() + _FLOOR)


LPIPS = Metric(
    "lpips",
    "LPIPS",
    of_planes=False,
    lower_is_better=True,
    decimals=4,
    build=_build,
)
