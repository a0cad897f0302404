"""The networks of the field compute, train and refuse as their papers and contracts say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from runtime.errors import UserError
from training.data.batches import Batch
from training.networks.blocks import FieldConfig
from training.networks.dncnn import DncnnConfig
from training.networks.drcn import DrcnConfig
from training.networks.drrn import DrrnConfig
from training.networks.espcn import EspcnConfig
from training.networks.families import CONFIGS
from training.networks.imdn import ImdnConfig
from training.networks.interface import RestorationNetwork
from training.networks.lapsrn import LapsrnConfig
from training.networks.mdsr import MdsrConfig
from training.networks.memnet import MemnetConfig
from training.networks.span import SpanConfig
from training.networks.srcnn import SrcnnConfig
from training.networks.vdsr import VdsrConfig
from training.recipe import Recipe
from training.recipe_reading import load_recipe, recipe_names
from training.run import Run
from training.stepping import train_step

FAMILIES = [name for name, one in CONFIGS.items() if issubclass(one, FieldConfig)]
RECIPES = [name for name in recipe_names() if load_recipe(name).network.family in FAMILIES]

FieldRecipe = Callable[[str], Recipe]


def _built(config: FieldConfig) -> RestorationNetwork:
    torch.manual_seed(0)
    return config.build().eval()


def test_every_family_has_a_recipe() -> None:
    assert {load_recipe(name).network.family for name in RECIPES} == set(FAMILIES)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("colours", [1, 3])
def test_a_network_restores_pictures_of_any_size(
    name: str, colours: int, field_recipe: FieldRecipe
) -> None:
    config = replace(field_recipe(name).network, colours=colours)
    network = _built(config)
    for scale in config.scales:
        picture = torch.rand(2, colours, 5, 1)
        with torch.no_grad():
            restored = network(picture, scale)
            assert restored.shape == (2, colours, 5 * scale, scale)
            torch.testing.assert_close(network.at_scale(scale)(picture), restored)


@pytest.mark.parametrize("name", RECIPES)
def test_a_network_trains_every_parameter(name: str, field_recipe: FieldRecipe) -> None:
    recipe = field_recipe(name).with_execution(precision="float32")
    run, random = Run.fresh(recipe), torch.Generator().manual_seed(0)
    before = {key: value.clone() for key, value in run.network.state_dict().items()}
    for scale in recipe.network.scales:  # parts of MDSR belong to one scale
        windows = torch.randint(0, 256, (2, 48, 48, 3), generator=random, dtype=torch.uint8)
        pairs = (windows,) if scale > 1 else (windows, windows.flip(0))
        loss = train_step(run, [Batch(scale, recipe.task.degradation, pairs)])
        assert loss.isfinite()
    unchanged = [key for key, value in run.network.state_dict().items() if before[key].equal(value)]
    assert not unchanged
    assert run.averaged_network().state_dict().keys() == before.keys()


def _with_zeros(network: RestorationNetwork) -> RestorationNetwork:
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    return network


@pytest.mark.parametrize(
    "config",
    [
        VdsrConfig(channels=4, layers=3),
        DrcnConfig(channels=4, recursions=2),
        DrrnConfig(channels=4, units=2),
        MemnetConfig(channels=4, blocks=2, recursions=2),
        DncnnConfig(channels=4, layers=3, scales=(2, 3, 4)),
    ],
    ids=lambda config: config.family,
)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_networks_that_enlarge_first_predict_what_the_enlarged_picture_lacks(
    config: FieldConfig, scale: int
) -> None:
    picture = torch.rand(1, 3, 5, 6)
    restored = _with_zeros(config.build())(picture, scale)
    size = (5 * scale, 6 * scale)
    torch.testing.assert_close(restored, F.interpolate(picture, size, mode="bicubic"))


def test_srcnn_is_three_convolutions_over_the_enlarged_picture() -> None:
    network, picture = _built(SrcnnConfig(widths=(4, 3))), torch.rand(1, 3, 5, 6)
    first, second, third = (network.get_submodule(f"body.{index}") for index in (0, 2, 4))
    features = F.interpolate(picture, scale_factor=2, mode="bicubic")
    for layer, half in ((first, 4), (second, 2), (third, 2)):
        features = F.conv2d(features, layer.weight, layer.bias, padding=half)
        features = features if layer is third else features.relu()
    torch.testing.assert_close(network(picture, 2), features)


def test_lapsrn_begins_as_bilinear_interpolation() -> None:
    network = LapsrnConfig(channels=4, layers=1, scale=2).build()
    for level in network.levels:
        torch.nn.init.zeros_(level.residual.weight)
        torch.nn.init.zeros_(level.residual.bias)
    picture = torch.rand(1, 3, 5, 6)
    expected = F.interpolate(picture, scale_factor=2, mode="bilinear")
    inside = (..., slice(1, -1), slice(1, -1))  # outside, zeros are interpolated with
    torch.testing.assert_close(network(picture)[inside], expected[inside])


def test_drrn_uses_one_unit_over_the_first_convolution() -> None:
    network, picture = _built(DrrnConfig(channels=4, units=3)), torch.rand(1, 3, 5, 6)
    block = network.get_submodule("body.0")
    first = features = block.entry(picture)
    for _ in range(3):
        change = block.unit[3](F.relu(block.unit[1](F.relu(features))))
        features = first + change
    last = network.get_submodule("body.2")
    torch.testing.assert_close(network.refined(picture), picture + last(F.relu(features)))


def test_memnet_gates_read_every_recursion_and_every_earlier_block() -> None:
    network = MemnetConfig().build()
    widths = [block.gate[1].in_channels for block in network.blocks]
    assert widths == [64 * (6 + memories) for memories in (1, 2, 3, 4, 5, 6)]


def test_mdsr_trains_the_parts_of_the_scale_at_hand_alone() -> None:
    network = MdsrConfig(channels=4, blocks=1).build()
    network(torch.rand(1, 3, 4, 4), 3).sum().backward()
    trained = {name for name, one in network.named_parameters() if one.grad is not None}
    assert not any("x2" in name or "x4" in name for name in trained)
    assert {"entry.weight", "exit.bias", "body.body.0.body.0.weight"} <= trained
    assert any(name.startswith("heads.x3") for name in trained)


def test_imdn_weighs_channels_by_contrast() -> None:
    attention = ImdnConfig(channels=8, blocks=1, reduction=4).build().blocks[0].attention
    features = torch.rand(2, 8, 5, 6)
    contrast = features.std((2, 3), correction=0) + features.mean((2, 3))
    weights = attention.weights(contrast[:, :, None, None])
    torch.testing.assert_close(attention(features), features * weights)


def test_span_weighs_features_by_themselves() -> None:
    block = SpanConfig(channels=4, blocks=1).build().blocks[0]
    for layer in (block.first, block.second):
        torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(block.third.weight)
    torch.nn.init.constant_(block.third.bias, 2.0)
    features: Tensor = torch.rand(1, 4, 5, 6)
    gate = torch.sigmoid(torch.tensor(2.0)) - 0.5
    torch.testing.assert_close(block(features)[0], (features + 2) * gate)


# Bad input


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("vdsr", "layers=0", "layers=0: expected 1 or more"),
        ("fsrcnn", "scale=5", r"scales=\(5,\): expected some of 2, 3 and 4"),
        ("lapsrn", "scale=3", "every level doubles a picture; expected 2 or 4"),
        ("imdn", "channels=6", "expected a multiple of 4"),
        ("srcnn", "widths=[0, 4]", r"widths=\(0, 4\): expected 1 or more"),
        ("espcn", "widths=[]", "widths: expected at least one"),
        ("mdsr", "scales=[2, 2]", "each once"),
        ("edsr", "colours=1", "pictures to train on are RGB: leave it at 3"),
        ("edsr", "colours=2", "colours"),
        ("rcan", "reduktion=4", "unknown key 'network.reduktion'; did you mean 'reduction'"),
        ("rcan", "colour=3", "did you mean 'colours'"),
        ("dncnn", "scales=[1, 2]", "does not go with scales"),
        ("srcnn", "family=srccn", "did you mean 'srcnn'"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(name: str, change: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        load_recipe(name, [f"network.{change}"])


def test_widths_of_espcn_are_those_asked_for() -> None:
    network = EspcnConfig(widths=(8, 6, 4), scale=3).build()
    kernels = [tuple(one.shape) for one in network.parameters() if one.ndim == 4]
    assert kernels == [(8, 3, 5, 5), (6, 8, 3, 3), (4, 6, 3, 3), (27, 4, 3, 3)]
