from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from training.networks.carn import AtScale, Carn, CarnConfig, GroupedConv2d
from training.recipe_reading import load_recipe

# Ahn et al. 2018 and its thesis: parameters at ×2 / ×3 / ×4 and of the multi-scale network.
PARAMETERS = {
    "carn": ((964_163, 1_148_803, 1_111_875), 1_591_939),
    "carn-m": ((257_027, 303_427, 294_147), 414_787),
}
PARAMETERS |= {"pcarn": PARAMETERS["carn"], "pcarn-m": PARAMETERS["carn-m"]}


def _parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_the_published_ones(name: str) -> None:
    network = Carn(load_recipe(name).network)
    single, together = PARAMETERS[name]
    assert tuple(_parameters(AtScale(network, scale)) for scale in (2, 3, 4)) == single
    assert _parameters(network) == together


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_output_is_scale_times_larger_at_any_size(scale: int) -> None:
    network = Carn(CarnConfig(channels=8, groups=4, efficient=True)).eval()
    for height, width in ((1, 1), (5, 7)):
        restored = network(torch.rand(2, 3, height, width), scale)
        assert restored.shape == (2, 3, scale * height, scale * width)


def test_several_scales_in_one_pass_are_each_scale_by_itself() -> None:
    network = Carn(load_recipe("carn-m").network)
    pictures = {scale: torch.rand(scale, 3, 6, 6) for scale in (2, 3, 4)}
    with torch.no_grad():
        together = network.restore_scales(pictures)
        for scale, picture in pictures.items():
            assert torch.allclose(together[scale], network(picture, scale), atol=1e-6)


def test_one_scale_computes_what_the_whole_network_does() -> None:
    network = Carn(CarnConfig(channels=8)).eval()
    picture = torch.rand(1, 3, 6, 5)
    for scale in (2, 3, 4):
        assert torch.equal(AtScale(network, scale)(picture), network(picture, scale))


@pytest.mark.parametrize("perceptual", [False, True])
@pytest.mark.parametrize("efficient", [False, True])
def test_the_network_is_that_of_the_paper(efficient: bool, perceptual: bool) -> None:
    """The forward pass spelled out, Ahn et al. 2018, Fig. 2 and 3, and what PCARN changes."""
    torch.manual_seed(0)
    groups = 2 if efficient else 1
    config = CarnConfig(
        channels=8,
        blocks=2,
        units=2,
        groups=groups,
        efficient=efficient,
        fusion_relu=not perceptual,
        global_residual=perceptual,
    )
    network, picture = Carn(config).double().eval(), torch.rand(1, 3, 6, 7, dtype=torch.double)
    weights = dict(network.named_parameters())

    def convolve(x: Tensor, name: str, groups: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        padding = weight.shape[-1] // 2
        return F.conv2d(x, weight, weights[f"{name}.bias"], padding=padding, groups=groups)

    def residual(x: Tensor, name: str) -> Tensor:
        y = convolve(x, f"{name}.body.0", groups).relu()
        y = convolve(y, f"{name}.body.2", groups)
        y = convolve(y.relu(), f"{name}.body.4") if efficient else y
        return (y + x).relu()

    def cascading(x: Tensor, name: str, stage: Callable[[Tensor, str], Tensor]) -> Tensor:
        first = stage(x, f"{name}.stages.0")
        fused = activated(convolve(torch.cat([x, first], 1), f"{name}.fusions.0"))
        second = stage(fused, f"{name}.stages.1")
        return activated(convolve(torch.cat([x, first, second], 1), f"{name}.fusions.1"))

    def activated(x: Tensor) -> Tensor:
        return x if perceptual else x.relu()

    means = torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1)
    entered = convolve(picture - means, "entry")
    x = cascading(entered, "body", lambda x, name: cascading(x, name, residual))
    x = x + entered if perceptual else x
    for stage in ("0", "3"):
        x = F.pixel_shuffle(convolve(x, f"upsamplers.x4.{stage}", groups).relu(), 2)
    torch.testing.assert_close(network(picture, 4), convolve(x, "exit") + means)
    torch.testing.assert_close(network.at_scale(4)(picture), convolve(x, "exit") + means)


def test_only_channels_behind_a_relu_are_named_as_hidden() -> None:
    """Whatever a hidden layer observes must be zero where its channels are dead."""
    torch.manual_seed(0)
    for relu in (True, False):
        config = CarnConfig(channels=8, blocks=2, units=2, fusion_relu=relu, global_residual=True)
        network = Carn(config).eval()
        layers = list(network.hidden_layers())
        # Two blocks of two units, each with a hidden layer and an output; three pairs of fusions.
        assert len(layers) == (2 * (2 + 2 + 1 + 1) + 1 + 1 if relu else 2 * (2 + 2))
        for layer in layers if not relu else []:
            seen: list[Tensor] = []
            hook = layer.observed.register_forward_hook(lambda *found, s=seen: s.append(found[2]))
            network(torch.rand(1, 3, 6, 6), 2)
            hook.remove()
            assert all((one >= 0).all() for one in seen)


def test_pcarn_begins_as_its_authors_code_does() -> None:
    torch.manual_seed(0)
    network = load_recipe("pcarn-m").network.build()
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            assert layer.bias is not None
            assert not layer.bias.any()
            # Kaiming's uniform distribution with a = √5 ends at 1/√(fan in).
            limit = layer.weight[0].numel() ** -0.5
            assert 0.9 * limit < float(layer.weight.detach().abs().max()) <= limit
    carn = load_recipe("carn-m").network.build()
    assert all(layer.bias.any() for layer in carn.modules() if isinstance(layer, torch.nn.Conv2d))


def test_recursion_uses_one_block_three_times() -> None:
    plain = Carn(CarnConfig(channels=8, efficient=True))
    recursive = Carn(CarnConfig(channels=8, efficient=True, recursive=True))
    block = plain.body.stages[0].stages[0]  # type: ignore[union-attr, index]
    assert _parameters(plain) - _parameters(recursive) == 3 * 2 * _parameters(block)  # type: ignore[arg-type]


def test_the_means_are_subtracted_and_added_back() -> None:
    network = Carn(CarnConfig(channels=8)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    restored = network(torch.rand(1, 3, 4, 4), 2)
    expected = torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1).expand_as(restored)
    torch.testing.assert_close(restored, expected)


@settings(deadline=None, max_examples=15)
@given(groups=st.sampled_from([1, 2, 4, 8]), factor=st.integers(1, 4), seed=st.integers(0, 99))
def test_masked_dense_training_has_the_outputs_and_gradients_of_groups(
    groups: int, factor: int, seed: int
) -> None:
    torch.manual_seed(seed)
    convolution = GroupedConv2d(8, 8 * factor, groups).double().train()
    x = torch.rand(2, 8, 5, 6, dtype=torch.double)
    results = []
    for masked in (False, True):
        convolution.masked_dense = masked
        convolution.zero_grad()
        output = convolution(x)
        output.square().sum().backward()
        assert convolution.weight.grad is not None
        results.append((output.detach(), convolution.weight.grad.clone()))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"groups": 5}, "cannot be divided"), ({"scales": (5,)}, "expected some of 2, 3 and 4")],
)
def test_impossible_shapes_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CarnConfig(**arguments)  # type: ignore[arg-type]
