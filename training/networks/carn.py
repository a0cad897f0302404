"""CARN and CARN-M, cascading residual networks for super-resolution, and PCARN's generators.

Ahn, Kang and Sohn, "Fast, Accurate, and Lightweight Super-Resolution with Cascading Residual
Network", ECCV 2018. PCARN, of the same shape and number of parameters, adds the entry's features to
those of the body and has no ReLU behind fusions ("Efficient Deep Neural Network for
Photo-realistic Image Super-Resolution", the same authors). In its published code biases begin at
zero.

One network serves several scales: entry, body and exit are shared, and each scale has an upsampler
of its own. Every convolution has a bias and keeps PyTorch's default initialization, U(±1/√fan_in);
of kernels this is Kaiming's uniform one with a = √5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.blocks import check_scales, upsampling_factors
from training.networks.interface import (
    RGB_MEANS,
    HiddenLayer,
    Reader,
    RestorationNetwork,
    UsualConfig,
)


@dataclass(frozen=True)
class CarnConfig(UsualConfig):
    """The shape of a CARN.

    Attributes:
        family: Name of the family.
        channels: Width of the body.
        blocks: Cascading blocks.
        units: Residual blocks in each cascading block.
        groups: Groups of the 3×3 convolutions of body and upsamplers (1 is a plain convolution).
        efficient: Use the residual-E block (two grouped 3×3 and a 1×1) instead of the plain block.
        recursive: Use one residual block ``units`` times in each cascading block.
        fusion_relu: A ReLU follows every 1×1 fusion; PCARN has none.
        global_residual: The upsamplers take body plus entry, as in PCARN, instead of the body.
        zero_biases: Biases begin at zero, as in PCARN.
        scales: The upscaling factors that have an upsampler, each 2, 3 or 4.
    """

    family: Literal["carn"] = "carn"
    channels: int = 64
    blocks: int = 3
    units: int = 3
    groups: int = 1
    efficient: bool = False
    recursive: bool = False
    fusion_relu: bool = True
    global_residual: bool = False
    zero_biases: bool = False
    scales: tuple[int, ...] = (2, 3, 4)

    def __post_init__(self) -> None:
        if min(self.channels, self.blocks, self.units, self.groups) < 1:
            raise ValueError("channels, blocks, units and groups: expected 1 or more of each")
        if self.channels % self.groups:
            raise ValueError(
                f"channels={self.channels} cannot be divided into groups={self.groups}; "
                "choose a number of groups that divides the channels"
            )
        check_scales(self.scales)

    @property
    def revivable(self) -> bool:
        """True: every layer of the body can be revived."""
        return True

    def build(self) -> Carn:
        """Return the network, freshly initialized."""
        return Carn(self)


class GroupedConv2d(nn.Conv2d):
    """A grouped 3×3 convolution that can train as a dense one with a block-diagonal kernel.

    Where grouped kernels are slow to train (CPUs with AMX, CUDA), the dense kernel with zeros off
    its diagonal blocks gives the same outputs and gradients faster. The parameters stay grouped.
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, groups=groups)
        self.masked_dense = False

    def forward(self, input: Tensor) -> Tensor:
        """Convolve N × C × H × W features, keeping their size."""
        if not (self.training and self.masked_dense):
            return super().forward(input)
        return F.conv2d(input, self.dense_weight(), self.bias, padding=1)

    def dense_weight(self) -> Tensor:
        """Return the block-diagonal kernel, out × in × 3 × 3."""
        kernels = self.weight.reshape(self.groups, -1, *self.weight.shape[1:])
        diagonal = torch.eye(self.groups, dtype=kernels.dtype, device=kernels.device)
        dense = torch.einsum("goihw,gd->godihw", kernels, diagonal)
        return dense.reshape(self.out_channels, self.in_channels, 3, 3)


class ResidualBlock(nn.Module):
    """conv–ReLU–conv, plus the input, ReLU; residual-E has a body of its own."""

    ends_with_relu = True

    def __init__(self, body: nn.Sequential) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Refine N × C × H × W features."""
        return F.relu(self.body(x) + x)

    def writer(self) -> nn.Conv2d:
        """Return the convolution that computes the channels of the output."""
        return self._convolutions()[-1]

    def readers(self) -> Iterator[Reader]:
        """Yield the convolutions that read the channels of the input; the shortcut also does."""
        yield self._convolutions()[0], 0

    def hidden_layers(self) -> Iterator[HiddenLayer]:
        """Yield the hidden layers of the body."""
        activations = [layer for layer in self.body if isinstance(layer, nn.ReLU)]
        for activation, (writer, reader) in zip(
            activations, pairwise(self._convolutions()), strict=True
        ):
            yield HiddenLayer(activation, writer, ((reader, 0),))

    def _convolutions(self) -> list[nn.Conv2d]:
        return [layer for layer in self.body if isinstance(layer, nn.Conv2d)]


def plain_body(channels: int, groups: int) -> nn.Sequential:
    """Return conv–ReLU–conv, the body of CARN's residual block."""
    return nn.Sequential(
        GroupedConv2d(channels, channels, groups),
        nn.ReLU(),
        GroupedConv2d(channels, channels, groups),
    )


def efficient_body(channels: int, groups: int) -> nn.Sequential:
    """Return two grouped 3×3 convolutions and a 1×1, the body of residual-E."""
    return nn.Sequential(
        GroupedConv2d(channels, channels, groups),
        nn.ReLU(),
        GroupedConv2d(channels, channels, groups),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 1),
    )


class Cascade(nn.Module):
    """Stages in a row, each fed by a 1×1 convolution over the input and all outputs so far.

    CARN uses it twice, over residual blocks (locally) and over cascading blocks (globally).
    A stage that stands several times in ``stages`` shares its parameters.
    """

    def __init__(
        self, stages: Sequence[ResidualBlock | Cascade], channels: int, fusion_relu: bool
    ) -> None:
        super().__init__()
        self.channels = channels
        self.fusion_relu = fusion_relu
        self.stages = nn.ModuleList(dict.fromkeys(stages))
        self.repeats = len(stages) // len(self.stages)
        self.fusions = nn.ModuleList(
            nn.Conv2d(channels * (index + 2), channels, 1) for index in range(len(stages))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Refine N × C × H × W features."""
        outputs, current = [x], x
        for stage, fusion in zip(self._in_order(), self.fusions, strict=True):
            outputs.append(stage(current))
            fused = fusion(torch.cat(outputs, dim=1))
            current = F.relu(fused) if self.fusion_relu else fused
        return current

    def writer(self) -> nn.Conv2d:
        """Return the convolution that computes the channels of the output."""
        return self._fusions()[-1]

    def readers(self) -> Iterator[Reader]:
        """Yield the convolutions that read the channels of the input; shortcuts also do."""
        yield from self._in_order()[0].readers()
        for fusion in self._fusions():
            yield fusion, 0

    @property
    def ends_with_relu(self) -> bool:
        """Whether channels of the output can be dead."""
        return self.fusion_relu

    def hidden_layers(self) -> Iterator[HiddenLayer]:
        """Yield the outputs of stages and of fusions, and the hidden layers of the stages.

        Those without a ReLU are left out.
        """
        stages, fusions = self._in_order(), self._fusions()
        for stage in dict.fromkeys(stages):
            readers = [
                (fusion, (place + 1) * self.channels)
                for place, other in enumerate(stages)
                for fusion in fusions[place:]
                if other is stage
            ]
            if stage.ends_with_relu:
                yield HiddenLayer(stage, stage.writer(), tuple(readers))
            yield from stage.hidden_layers()
        for fusion, stage in zip(fusions, stages[1:], strict=False):
            if not self.fusion_relu:
                break
            # A shared stage reads other features with the same weights, which must not be zeroed.
            forgetting = tuple(stage.readers()) if stages.count(stage) == 1 else ()
            yield HiddenLayer(fusion, fusion, forgetting)

    def _in_order(self) -> list[ResidualBlock | Cascade]:
        stages = [cast(ResidualBlock | Cascade, stage) for stage in self.stages]
        return [stage for stage in stages for _ in range(self.repeats)]

    def _fusions(self) -> list[nn.Conv2d]:
        return [cast(nn.Conv2d, fusion) for fusion in self.fusions]


def upsampler(channels: int, scale: int, groups: int) -> nn.Sequential:
    """Return conv–ReLU–shuffle for ×2 and ×3, and twice the ×2 stage for ×4."""
    layers: list[nn.Module] = []
    for factor in upsampling_factors(scale):
        layers += [
            GroupedConv2d(channels, channels * factor**2, groups),
            nn.ReLU(),
            nn.PixelShuffle(factor),
        ]
    return nn.Sequential(*layers)


class Carn(RestorationNetwork):
    """CARN (ECCV 2018, Fig. 2) or CARN-M (Sec. 3.3), as ``config`` says."""

    means: Tensor

    def __init__(self, config: CarnConfig) -> None:
        super().__init__()
        self.config = config
        channels, groups = config.channels, config.groups
        self.register_buffer("means", torch.tensor(RGB_MEANS).view(1, 3, 1, 1), persistent=False)
        self.entry = nn.Conv2d(3, channels, 3, padding=1)
        blocks = [self._cascading_block() for _ in range(config.blocks)]
        self.body = Cascade(blocks, channels, config.fusion_relu)
        self.upsamplers = nn.ModuleDict(
            {f"x{scale}": upsampler(channels, scale, groups) for scale in config.scales}
        )
        self.exit = nn.Conv2d(channels, 3, 3, padding=1)
        if config.zero_biases:
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, picture: Tensor, scale: int) -> Tensor:
        """Restore pictures.

        Args:
            picture: N × 3 × H × W, RGB in [0, 1].
            scale: Upscaling factor, one of ``config.scales``.

        Returns:
            N × 3 × scale·H × scale·W, RGB, not clamped.
        """
        return self._enlarged(self._features(picture), scale)

    def restore_scales(self, pictures: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Restore pictures of one size at several scales; entry and body see them all at once."""
        features = self._features(torch.cat(list(pictures.values())))
        shares = torch.split(features, [len(picture) for picture in pictures.values()])
        return {
            scale: self._enlarged(share, scale)
            for scale, share in zip(pictures, shares, strict=True)
        }

    def at_scale(self, scale: int) -> AtScale:
        """Return the network reduced to one of its scales."""
        return AtScale(self, scale)

    def train_masked_dense(self, enabled: bool) -> None:
        """Choose whether grouped convolutions train as masked dense ones."""
        for module in self.modules():
            if isinstance(module, GroupedConv2d) and module.groups > 1:
                module.masked_dense = enabled

    def hidden_layers(self) -> Iterator[HiddenLayer]:
        """Yield the layers of the body; channels of upsamplers are shuffled and left out."""
        yield from self.body.hidden_layers()
        upsamplers = [cast(nn.Sequential, one) for one in self.upsamplers.values()]
        readers = tuple((cast(nn.Conv2d, upsampler[0]), 0) for upsampler in upsamplers)
        if self.body.ends_with_relu:
            yield HiddenLayer(self.body.writer(), self.body.writer(), readers)

    def _features(self, picture: Tensor) -> Tensor:
        entered = self.entry(picture - self.means)
        features: Tensor = self.body(entered)
        return features + entered if self.config.global_residual else features

    def _enlarged(self, features: Tensor, scale: int) -> Tensor:
        restored: Tensor = self.exit(self.upsamplers[f"x{scale}"](features)) + self.means
        return restored

    def _cascading_block(self) -> Cascade:
        config = self.config
        body = efficient_body if config.efficient else plain_body
        count = 1 if config.recursive else config.units
        units = [ResidualBlock(body(config.channels, config.groups)) for _ in range(count)]
        return Cascade(units * (config.units // count), config.channels, config.fusion_relu)


class AtScale(nn.Module):
    """A multi-scale network reduced to one scale: the module that is exported and measured."""

    def __init__(self, network: Carn, scale: int) -> None:
        super().__init__()
        self.means: Tensor
        self.register_buffer("means", network.means, persistent=False)
        self.entry = network.entry
        self.body = network.body
        self.upsampler = network.upsamplers[f"x{scale}"]
        self.exit = network.exit
        self.global_residual = network.config.global_residual

    def forward(self, image: Tensor) -> Tensor:
        """Restore N × 3 × H × W pictures in [0, 1] at the one scale."""
        entered = self.entry(image - self.means)
        features = self.body(entered)
        if self.global_residual:
            features = features + entered
        restored: Tensor = self.exit(self.upsampler(features)) + self.means
        return restored
