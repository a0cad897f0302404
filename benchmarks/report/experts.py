"""The activity of a MEPSNet's experts: a picture, its restoration and a map for each expert.

After Figure 7.7 of the thesis. A map shows the mean magnitude of an expert's features at every
pixel, weighed by the gate of the fusion, as the reconstruction receives them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from quantize.ptq import as_image
from runtime.atomic import replacing
from runtime.errors import UserError
from training.data.pictures import Picture
from training.networks.interface import RestorationNetwork
from training.networks.mepsnet import Mepsnet

LARGEST = 1_000_000
"""Largest number of pixels of a picture: features of all experts are in memory at once."""


@dataclass(frozen=True)
class Explanation:
    """A picture, its restoration and the activity of the experts.

    Attributes:
        picture: H × W × 3, uint8.
        restored: H × W × 3, uint8.
        maps: Mean absolute value of each expert's weighed features, H × W each.
    """

    picture: Picture
    restored: Picture
    maps: tuple[NDArray[np.float32], ...]


def explain(network: RestorationNetwork, name: str, picture: Picture) -> Explanation:
    """Restore a picture and map the activity of the experts.

    Args:
        network: A MEPSNet.
        name: Name of the network in messages.
        picture: H × W × 3, uint8.

    Raises:
        UserError: If the network has no experts or the picture is too large.
    """
    if not isinstance(network, Mepsnet):
        raise UserError(f"{name}: has no experts to look at; choose a MEPSNet")
    height, width = picture.shape[:2]
    if height * width > LARGEST:
        raise UserError(
            f"{width}×{height}: too large to hold the features of all experts; cut out at most "
            f"{LARGEST // 1_000_000} megapixel"
        )
    with torch.inference_mode():
        features = torch.cat(network.expert_features(as_image(picture)), dim=1)
        weighed = network.fusion(features)
        restored = network.restored(weighed)[0].clamp(0, 1).mul(255).round().to(torch.uint8)
        maps = weighed[0].abs().unflatten(0, (network.config.experts, -1)).mean(1)
    return Explanation(picture, restored.permute(1, 2, 0).numpy(), tuple(maps.numpy()))


def draw(explanation: Explanation, path: Path) -> None:
    """Draw the picture, its restoration and the maps, each map from 0 to its largest value."""
    from matplotlib.figure import Figure

    panels: list[tuple[str, NDArray[Any]]] = [
        ("picture", explanation.picture),
        ("restored", explanation.restored),
    ]
    panels += [(f"expert {index + 1}", one) for index, one in enumerate(explanation.maps)]
    height, width = explanation.picture.shape[:2]
    columns = min(len(panels), 3 if width > height else 5)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.2 * columns, (3.2 * height / width + 0.3) * rows), dpi=150)
    for index, (title, pixels) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, index + 1)
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
        axes.imshow(pixels, cmap="inferno", vmin=0)  # the colour map applies to the maps only
    figure.tight_layout(pad=0.4)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
