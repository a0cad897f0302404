"""MEPSNet: a mixture of experts with parameter sharing, for pictures damaged region by region.

Kim, Ahn and Sohn, "Restoring Spatially-Heterogeneous Distortions using Mixture of Experts
Network", ACCV 2020; chapter 7 of the thesis. Extraction, experts side by side, attentive fusion
and reconstruction. Each 3×3 convolution inside the experts owns only a few coefficients: its kernel
is the weighted sum of templates that all these convolutions share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.interface import RGB_MEANS, RestorationNetwork, UsualConfig

Mix: TypeAlias = Callable[[Tensor], Tensor]
"""Turns coefficients into a kernel."""


@dataclass(frozen=True)
class MepsnetConfig(UsualConfig):
    """The shape of a MEPSNet.

    Attributes:
        family: Name of the family.
        extraction: Output channels of the convolutions before the experts.
        channels: Width of the experts.
        experts: Number of experts.
        srirs: Shared residual-in-residual blocks in each expert.
        blocks: Shared residual blocks, of two convolutions, in each residual-in-residual block.
        templates: Kernels in the bank.
        sharing: Mix kernels from the bank; otherwise every convolution owns its kernel.
        initial_gain: Standard deviation of all initial kernels, relative to He's initialization.
        last_gain: Standard deviation of the last kernel in each residual branch and each expert,
            relative to the others: sums over dozens of blocks grow too large at 1.
    """

    family: Literal["mepsnet"] = "mepsnet"
    extraction: tuple[int, ...] = (128, 256, 256)
    channels: int = 64
    experts: int = 3
    srirs: int = 3
    blocks: int = 12
    templates: int = 16
    sharing: bool = True
    initial_gain: float = 1.0
    last_gain: float = 0.1

    def __post_init__(self) -> None:
        counts = (self.channels, self.experts, self.srirs, self.blocks, self.templates)
        if not self.extraction or min(*counts, *self.extraction) < 1:
            raise ValueError("extraction, channels, experts, srirs, blocks, templates: at least 1")
        if self.fused_channels % 2:
            raise ValueError(
                f"{self.experts} experts of {self.channels} channels: the fusion halves their "
                "number; choose an even one"
            )

    @property
    def scales(self) -> tuple[int, ...]:
        """The only scale: MEPSNet keeps the size of a picture."""
        return (1,)

    @property
    def mixes_kernels(self) -> bool:
        """True if kernels are mixed from the bank."""
        return self.sharing

    def build(self) -> Mepsnet:
        """Return the network, freshly initialized."""
        return Mepsnet(self)

    @property
    def fused_channels(self) -> int:
        """Channels of all experts together."""
        return self.experts * self.channels


class TemplateBank(nn.Module):
    """The kernels that all shared convolutions mix, templates × C × (C · 3 · 3)."""

    def __init__(self, config: MepsnetConfig) -> None:
        super().__init__()
        channels = config.channels
        self.templates = nn.Parameter(torch.empty(config.templates, channels, 9 * channels))
        nn.init.normal_(self.templates, std=config.initial_gain * math.sqrt(2 / (9 * channels)))

    def mixed(self, coefficients: Tensor) -> Tensor:
        """Return Σ coefficientₖ · templateₖ: C × C × 3 × 3, or one such kernel for every row."""
        channels = self.templates.shape[1]
        kernels = torch.matmul(coefficients, self.templates.flatten(1))
        return kernels.view(*coefficients.shape[:-1], channels, channels, 3, 3)


class SharedConv2d(nn.Module):
    """SConv: a 3×3 convolution without bias, whose kernel is mixed from a bank of templates."""

    def __init__(self, config: MepsnetConfig, gain: float = 1.0) -> None:
        super().__init__()
        # With this deviation, mixed kernels have the deviation of the templates.
        self.coefficients = nn.Parameter(torch.empty(config.templates))
        nn.init.normal_(self.coefficients, std=gain / math.sqrt(config.templates))

    def forward(self, features: Tensor, mix: Mix | None) -> Tensor:
        """Convolve N × C × H × W features with the kernel that ``mix`` makes."""
        assert mix is not None
        return F.conv2d(features, mix(self.coefficients), padding=1)


class OwnConv2d(nn.Module):
    """A 3×3 convolution that owns its kernel, for comparison with shared convolutions."""

    def __init__(self, config: MepsnetConfig, gain: float = 1.0) -> None:
        super().__init__()
        channels = config.channels
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        nn.init.normal_(self.weight, std=gain * config.initial_gain * math.sqrt(2 / (9 * channels)))

    def forward(self, features: Tensor, mix: Mix | None) -> Tensor:
        """Convolve N × C × H × W features."""
        return F.conv2d(features, self.weight, padding=1)


class SharedResidual(nn.Module):
    """SResidual: SConv–ReLU–SConv, plus the input."""

    def __init__(self, config: MepsnetConfig) -> None:
        super().__init__()
        convolution = SharedConv2d if config.sharing else OwnConv2d
        self.first = convolution(config)
        self.second = convolution(config, config.last_gain)

    def forward(self, features: Tensor, mix: Mix | None) -> Tensor:
        """Refine N × C × H × W features."""
        refined: Tensor = self.second(F.relu(self.first(features, mix)), mix)
        return refined + features


class ResidualInResidual(nn.Module):
    """SRIR: shared residual blocks in a row, plus the input."""

    def __init__(self, config: MepsnetConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(SharedResidual(config) for _ in range(config.blocks))

    def forward(self, features: Tensor, mix: Mix | None) -> Tensor:
        """Refine N × C × H × W features."""
        refined = features
        for block in self.blocks:
            refined = block(refined, mix)
        return refined + features


class Expert(nn.Module):
    """One of the parallel paths from the extracted features to the fusion."""

    def __init__(self, config: MepsnetConfig) -> None:
        super().__init__()
        gain = config.initial_gain
        self.head = _convolution(config.extraction[-1], config.channels, gain)
        self.srirs = nn.ModuleList(ResidualInResidual(config) for _ in range(config.srirs))
        self.tail = _convolution(config.channels, config.channels, gain * config.last_gain)

    def forward(self, features: Tensor, mix: Mix | None) -> Tensor:
        """Turn N × extraction × H × W into N × C × H × W features."""
        head = self.head(features)
        refined = head
        for srir in self.srirs:
            refined = srir(refined, mix)
        result: Tensor = self.tail(refined + head)
        return result


class AttentiveFusion(nn.Module):
    """Weighs the channels of all experts by their averages over the whole picture.

    Squeeze and excitation (Hu et al., CVPR 2018) with a reduction of 2.
    """

    def __init__(self, channels: int, gain: float) -> None:
        super().__init__()
        self.squeeze = _convolution(channels, channels // 2, gain, size=1)
        self.excite = _convolution(channels // 2, channels, gain, size=1)

    def forward(self, features: Tensor) -> Tensor:
        """Weigh N × C × H × W features."""
        pooled = features.mean((2, 3), keepdim=True)
        return features * torch.sigmoid(self.excite(F.relu(self.squeeze(pooled))))


class Mepsnet(RestorationNetwork):
    """MEPSNet, as ``config`` says."""

    means: Tensor

    def __init__(self, config: MepsnetConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("means", torch.tensor(RGB_MEANS).view(1, 3, 1, 1), persistent=False)
        widths, gain = (3, *config.extraction), config.initial_gain
        self.extraction = nn.Sequential(
            *(
                layer
                for inputs, outputs in zip(widths, config.extraction, strict=False)
                for layer in (_convolution(inputs, outputs, gain), nn.ReLU())
            )
        )
        self.bank = TemplateBank(config) if config.sharing else None
        self.experts = nn.ModuleList(Expert(config) for _ in range(config.experts))
        fused = config.fused_channels
        self.fusion = AttentiveFusion(fused, gain)
        self.reconstruction = nn.Sequential(
            _convolution(fused, fused // 2, gain), nn.ReLU(), _convolution(fused // 2, 3, gain)
        )

    def forward(self, picture: Tensor, scale: int = 1, mix: Mix | None = None) -> Tensor:
        """Restore N × 3 × H × W pictures in [0, 1]; their size stays (``scale`` is 1)."""
        return self.restored(self.fusion(torch.cat(self.expert_features(picture, mix), dim=1)))

    def restore_scales(self, pictures: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Restore pictures; one matrix product mixes the kernels of all shared convolutions.

        A product for each convolution costs up to a fifth of a training step on small patches.
        """
        mix = self._mixed_together(self.bank) if self.bank is not None else None
        return {scale: self(picture, scale, mix) for scale, picture in pictures.items()}

    def expert_features(self, picture: Tensor, mix: Mix | None = None) -> list[Tensor]:
        """Return each expert's features of N × 3 × H × W pictures, N × C × H × W each."""
        if mix is None and self.bank is not None:
            mix = self.bank.mixed
        features = self.extraction(picture - self.means)
        return [expert(features, mix) for expert in self.experts]

    def restored(self, fused: Tensor) -> Tensor:
        """Turn the weighed features of all experts, N × experts·C × H × W, into pictures."""
        restored: Tensor = self.reconstruction(fused) + self.means
        return restored

    def at_scale(self, scale: int) -> nn.Module:
        """Return the network itself."""
        return self

    def _mixed_together(self, bank: TemplateBank) -> Mix:
        shared: list[Tensor] = [
            one.coefficients for one in self.modules() if isinstance(one, SharedConv2d)
        ]
        kernels = bank.mixed(torch.stack(shared)).unbind()
        return dict(zip(shared, kernels, strict=True)).__getitem__


def _convolution(inputs: int, outputs: int, gain: float, size: int = 3) -> nn.Conv2d:
    """Return a convolution with a bias, initialized as He says times ``gain``."""
    convolution = nn.Conv2d(inputs, outputs, size, padding=size // 2)
    nn.init.normal_(convolution.weight, std=gain * math.sqrt(2 / (size**2 * inputs)))
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution
