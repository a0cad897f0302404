"""What every network offers to the trainer, the export and the measurements."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor, nn

RGB_MEANS = (0.4488, 0.4371, 0.4040)
"""Mean colour of DIV2K in [0, 1], subtracted from the input and added to the output."""

Reader: TypeAlias = tuple[nn.Conv2d, int]
"""A convolution that reads a layer, and which input channel of its the first one is."""


@dataclass(frozen=True)
class HiddenLayer:
    """Channels behind a ReLU.

    Attributes:
        observed: The module that returns them, or what the ReLU is applied to.
        writer: The convolution that makes them.
        readers: The convolutions that read them and nothing else in their place; shortcuts and
            shared convolutions are not among these.
    """

    observed: nn.Module
    writer: nn.Conv2d
    readers: tuple[Reader, ...]


class RestorationNetwork(nn.Module):
    """A network that restores pictures at one or several scales; scale 1 keeps the size."""

    @abstractmethod
    def forward(self, picture: Tensor, scale: int) -> Tensor:
        """Restore pictures.

        Args:
            picture: N × 3 × H × W, RGB in [0, 1].
            scale: Upscaling factor, one of those the network was built for.

        Returns:
            N × 3 × scale·H × scale·W, RGB, not clamped.
        """

    def restore_scales(self, pictures: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Restore pictures of several scales, the key, in one pass where that is faster.

        The result is that of ``forward`` at each scale.
        """
        return {scale: self(picture, scale) for scale, picture in pictures.items()}

    @abstractmethod
    def at_scale(self, scale: int) -> nn.Module:
        """Return the module that is exported and measured: it takes pictures alone."""

    def train_masked_dense(self, enabled: bool) -> None:
        """Choose whether grouped convolutions train as masked dense ones, where there are some."""

    def hidden_layers(self) -> Iterator[HiddenLayer]:
        """Yield the layers whose dead channels can be revived (``training.revival``)."""
        yield from ()
