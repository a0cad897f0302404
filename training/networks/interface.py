"""The contracts of networks and their configurations, for trainer, export and measurements."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

from torch import Tensor, nn

RGB_MEANS = (0.4488, 0.4371, 0.4040)
"""Mean colour of DIV2K in [0, 1], subtracted from the input and added to the output."""

Reader: TypeAlias = tuple[nn.Conv2d, int]
"""A convolution that reads a layer, and the index of its input channel that reads channel 0."""


@dataclass(frozen=True)
class HiddenLayer:
    """Channels behind a ReLU.

    Attributes:
        observed: The module that returns the channels, before or after the ReLU.
        writer: The convolution that computes the channels.
        readers: The convolutions that read the channels; without shortcuts, and without shared
            convolutions, whose weights also read other layers.
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
        """Restore pictures of several scales, the keys, in one pass where that is faster.

        The result equals that of ``forward`` at each scale.
        """
        return {scale: self(picture, scale) for scale, picture in pictures.items()}

    @abstractmethod
    def at_scale(self, scale: int) -> nn.Module:
        """Return the module that is exported and measured: its only input is the picture."""

    def train_masked_dense(self, enabled: bool) -> None:
        """Choose whether grouped convolutions, if any, train as masked dense convolutions."""

    def hidden_layers(self) -> Iterator[HiddenLayer]:
        """Yield the layers whose dead channels can be revived (``training.revival``)."""
        yield from ()


class NetworkConfig(Protocol):
    """The shape of a network: a frozen dataclass, which a recipe holds under ``network``.

    Its ``__pydantic_config__`` forbids unknown keys; values that do not go together raise
    ``ValueError`` when the configuration is made.
    """

    @property
    def family(self) -> str:
        """Name of the family, as in ``training.networks.families.CONFIGS``."""
        ...

    @property
    def scales(self) -> tuple[int, ...]:
        """Upscaling factors the network is built for; 1 keeps the size."""
        ...

    @property
    def colours(self) -> int:
        """Channels of pictures: 3 for RGB; 1 for luma, which is for counting and not trained."""
        ...

    @property
    def groups(self) -> int:
        """Groups of the grouped convolutions, which may train as masked dense; 1 for none."""
        ...

    @property
    def revivable(self) -> bool:
        """Whether the network names hidden layers whose dead channels can be revived."""
        ...

    @property
    def mixes_kernels(self) -> bool:
        """Whether ``restore_scales`` mixes all kernels in one product, ``forward`` one by one."""
        ...

    def build(self) -> RestorationNetwork:
        """Return the network, freshly initialized."""
        ...


class UsualConfig:
    """What a configuration says (``NetworkConfig``) unless its network is another kind."""

    # Read by pydantic when a recipe is checked: a misspelt key must not pass.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    @property
    def colours(self) -> int:
        """3: pictures are RGB."""
        return 3

    @property
    def groups(self) -> int:
        """1: no convolution trains as a masked dense one."""
        return 1

    @property
    def revivable(self) -> bool:
        """False: no hidden layers are named."""
        return False

    @property
    def mixes_kernels(self) -> bool:
        """False: every convolution owns its kernel."""
        return False
