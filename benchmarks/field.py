"""The field: the networks that CARN is compared with, their costs, and the published ones.

Published are the figures of the thesis' Table 2.4 (§2.4.2), or of another source that is named.
They count as the thesis does: the weights of each convolution, without biases, times the pixels of
its output at 1280 × 720; a transposed convolution thus costs stride² times what it computes. Most
networks of the table restore luma alone. Here all restore RGB, which adds to the first and the last
convolution. CNF (Ren et al., CVPRW 2017), 337K and 311.0G in the table, is not built: it fuses
several SRCNNs whose widths and kernels the table's two figures do not tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.multadds import layers_of_module, total
from runtime.manifest import HD
from training.networks.blocks import FieldConfig
from training.recipe_reading import load_recipe


@dataclass(frozen=True)
class Published:
    """Figures in print.

    Attributes:
        scales: The scales that they hold for.
        parameters: As printed, for example ``57K`` or ``15.6M``; empty if there are none.
        multadds: At 1280 × 720, as printed, for example ``52.7G``; empty if there are none.
    """

    scales: tuple[int, ...]
    parameters: str
    multadds: str = ""


@dataclass(frozen=True)
class FieldNetwork:
    """A network of the field.

    Attributes:
        recipe: Name of its recipe.
        source: Where the figures are printed.
        colours: Channels of the pictures that they count.
        published: The figures.
        remark: Why the count differs from them; empty if it does not.
    """

    recipe: str
    source: str
    colours: Literal[1, 3]
    published: tuple[Published, ...]
    remark: str = ""


_ALL = (2, 3, 4)
_TABLE = "Table 2.4"

FIELD: tuple[FieldNetwork, ...] = (
    FieldNetwork("srcnn", _TABLE, 1, (Published(_ALL, "57K", "52.7G"),)),
    FieldNetwork(
        "fsrcnn",
        _TABLE,
        1,
        (
            Published((2,), "12K", "6.0G"),
            Published((3,), "12K", "5.0G"),
            Published((4,), "12K", "4.6G"),
        ),
    ),
    FieldNetwork(
        "espcn",
        "survey of lecture B",
        1,
        (Published((4,), "20k"),),
        "the survey's 20k is below the paper's own three layers at any scale",
    ),
    FieldNetwork("vdsr", _TABLE, 1, (Published(_ALL, "665K", "612.6G"),)),
    FieldNetwork("drcn", _TABLE, 1, (Published(_ALL, "1,774K", "17,974.3G"),)),
    FieldNetwork("drrn", _TABLE, 1, (Published(_ALL, "297K", "6,796.9G"),)),
    FieldNetwork(
        "lapsrn",
        _TABLE,
        1,
        (Published((2,), "813K", "29.9G"), Published((4,), "813K", "149.4G")),
        "the table's ×2 is the first of the two levels of ×4, at an output of 640 × 360, with the "
        "parameters of both",
    ),
    FieldNetwork(
        "btsrn",
        _TABLE,
        1,
        (
            Published((2,), "410K", "207.7G"),
            Published((3,), "410K", "176.2G"),
            Published((4,), "410K", "165.2G"),
        ),
        "the table counts the ten residual blocks (409,600 weights) and hardly more; entry, exit "
        "and transposed convolutions come on top",
    ),
    FieldNetwork(
        "memnet",
        _TABLE,
        1,
        (Published(_ALL, "677K", "2,662.4G"),),
        "the table has 0.002 % more than the convolutions: 2,662.348G",
    ),
    FieldNetwork(
        "selnet",
        _TABLE,
        3,
        (
            Published((2,), "974K", "225.7G"),
            Published((3,), "1,159K", "120.0G"),
            Published((4,), "1,417K", "83.1G"),
        ),
    ),
    FieldNetwork(
        "srdensenet",
        _TABLE,
        1,
        (Published((4,), "2,015K", "389.9G"),),
        "no reading of its structure that we tried gives both figures; ours has the paper's "
        "blocks, growth and bottleneck, and transposed convolutions of 3×3",
    ),
    FieldNetwork("srresnet", "Tables 2.5-2.7", 3, (Published((4,), "1,543K", "127.8G"),)),
    FieldNetwork("edsr-baseline", "EDSR slides", 3, (Published((4,), "1.5M"),)),
    FieldNetwork("edsr", "EDSR slides", 3, (Published((4,), "43M"),)),
    FieldNetwork("mdsr", "EDSR slides", 3, (Published((4,), "8M"),)),
    FieldNetwork("rcan", "chapter 4", 3, (Published((4,), "15.6M"),)),
    FieldNetwork(
        "rdn",
        "chapter 4",
        3,
        (Published((4,), "22.0M"),),
        "chapter 4 restores at the same size, without the upsampler of 0.3M",
    ),
    FieldNetwork(
        "dncnn",
        "survey of lecture B",
        1,
        (Published((1,), "566k"),),
        "the paper's 17 layers have 554K weights, with biases 555K",
    ),
    FieldNetwork("imdn", "the paper", 3, (Published((4,), "715K"),)),
    FieldNetwork("span", "the paper", 3, (Published((4,), "426K"),)),
)
"""The networks, in the order of their years."""


@dataclass(frozen=True)
class FieldRow:
    """The costs of a network of the field, beside the published ones.

    Attributes:
        name: Name of its recipe.
        scales: The scales that the row holds for.
        parameters: Of the network of the recipe, for all its scales together.
        multadds_720p: Of the network of the recipe, at an output of 1280 × 720.
        weights_as_published: Weights of its convolutions, with the published picture channels.
        multadds_as_published: MultAdds of that network as the thesis counts them.
        published_parameters: As printed.
        published_multadds: As printed.
        source: Where they are printed.
        agrees: Whether every printed figure is the counted one, rounded.
        remark: Why one is not.
    """

    name: str
    scales: tuple[int, ...]
    parameters: int
    multadds_720p: int
    weights_as_published: int
    multadds_as_published: int
    published_parameters: str
    published_multadds: str
    source: str
    agrees: bool
    remark: str


def field_rows() -> Iterator[FieldRow]:
    """Count every network of the field."""
    for entry in FIELD:
        for published in entry.published:
            yield _row(entry, published)


def _row(entry: FieldNetwork, published: Published) -> FieldRow:
    scale = published.scales[-1]
    config = field_config(entry.recipe, scale)
    with torch.device("meta"):
        network = config.build()
        counted = replace(config, colours=entry.colours).build()
    weights = sum(one.weight.numel() for one in counted.modules() if isinstance(one, _CONVOLUTIONS))
    parameters = sum(one.numel() for one in counted.parameters())
    multadds = multadds_at_outputs(counted.at_scale(scale), scale, entry.colours)
    agrees = published.parameters in {
        printed_like(published.parameters, weights),
        printed_like(published.parameters, parameters),  # some sources count biases
    } and published.multadds in {"", printed_like(published.multadds, multadds)}
    return FieldRow(
        entry.recipe,
        published.scales,
        sum(one.numel() for one in network.parameters()),
        total(layers_of_module(network.at_scale(scale), scale)).multadds,
        weights,
        multadds,
        published.parameters,
        published.multadds,
        entry.source,
        agrees,
        "" if agrees else entry.remark,
    )


def field_config(recipe: str, scale: int) -> FieldConfig:
    """Return the network of a recipe of the field, built for ``scale``."""
    config = load_recipe(recipe).network
    if scale not in config.scales:
        config = load_recipe(recipe, [f"network.scale={scale}"]).network
    assert isinstance(config, FieldConfig)
    return config


def printed_like(example: str, value: float) -> str:
    """Return ``value`` rounded as ``example`` is printed, for example ``12K`` or ``6.0G``."""
    found = re.fullmatch(r"[\d,]+(?:\.(\d+))?([kKMG])", example)
    if found is None:
        return ""
    decimals, unit = len(found[1] or ""), found[2]
    return f"{value / _UNITS[unit.upper()]:,.{decimals}f}{unit}"


_UNITS = {"K": 1e3, "M": 1e6, "G": 1e9}
_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def multadds_at_outputs(
    module: nn.Module, scale: int, colours: int, output: tuple[int, int] = HD
) -> int:
    """Count as the thesis does: weights times output pixels, for each use of a convolution.

    Args:
        module: Takes N × C × H × W pictures; enlarges them ``scale`` times.
        scale: Upscaling factor.
        colours: Channels of the picture.
        output: Width and height of the restored picture.
    """
    small, large = (_weights_at_outputs(module, side, colours) for side in (8, 16))
    pixels = Fraction(output[0] * output[1], scale**2)
    return round(small + Fraction(large - small, 16**2 - 8**2) * (pixels - 8**2))


def _weights_at_outputs(module: nn.Module, side: int, colours: int) -> int:
    counted = 0

    def count(part: nn.Module, inputs: object, output: Tensor) -> None:
        nonlocal counted
        weight: Tensor = part.get_parameter("weight")
        counted += weight.numel() * output.shape[2] * output.shape[3]

    network = module.to("meta").eval()
    hooks = [
        part.register_forward_hook(count)
        for part in network.modules()
        if isinstance(part, _CONVOLUTIONS)
    ]
    try:
        with torch.no_grad():
            network(torch.empty(1, colours, side, side, device="meta"))
    finally:
        for hook in hooks:
            hook.remove()
    return counted
