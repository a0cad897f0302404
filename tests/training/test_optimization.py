from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from training.networks.carn import Carn, CarnConfig
from training.networks.mepsnet import Mepsnet, MepsnetConfig
from training.optimization import Optimizer, OptimizerOptions, orthogonalized

MUON = OptimizerOptions(
    kind="muon", learning_rate=0.01, adam_learning_rate=0.001, clip_norm=1.0, warmup=0
)
CARN = CarnConfig(channels=8, blocks=1, units=1, groups=2, efficient=True, scales=(2, 3))
MEPSNET = MepsnetConfig(extraction=(8,), channels=4, experts=1, srirs=1, blocks=1, templates=3)


def _step(network: nn.Module, optimizer: Optimizer) -> None:
    optimizer.zero_grad()
    scale = 2 if isinstance(network, Carn) else 1
    loss = network(torch.rand(1, 3, 6, 6), scale).square().mean()
    torch.autograd.backward(loss)
    optimizer.step(1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_group_of_a_kernel_moves_by_a_matrix_with_equal_singular_values(
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(0)
    network = Carn(CARN)
    kernel = network.body.stages[0].stages[0].body[0].weight  # 8 × 4 × 3 × 3 in two groups
    before = kernel.detach().clone()
    _step(network, Optimizer(network, MUON, dtype))
    for change in (before - kernel.detach()).reshape(2, 4, 36):
        # Newton and Schulz's iteration brings singular values near 1, not to it; the step is that
        # times the rate and 0.2 · √36.
        values = torch.linalg.svdvals(change) / (0.01 * 0.2 * 6)
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_pixels_biases_and_other_scales_are_not_stepped_by_muon() -> None:
    torch.manual_seed(0)
    network = Carn(CARN)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    optimizer = Optimizer(network, MUON)
    _step(network, optimizer)
    changes = {
        name: (value.detach() - before[name]).abs().max().item()
        for name, value in network.named_parameters()
    }
    assert changes["entry.weight"] == pytest.approx(0.001, rel=1e-3)  # Adam's first step
    assert changes["entry.bias"] == pytest.approx(0.001, rel=1e-3)
    assert changes["upsamplers.x3.0.weight"] == 0
    state = optimizer.state()
    assert "muon.momentum.entry.weight" not in state
    assert "adam.exp_avg.entry.weight" in state
    assert "muon.momentum.upsamplers.x3.0.weight" not in state


@pytest.mark.parametrize("kind", ["adam", "muon"])
@pytest.mark.parametrize("config", [CARN, MEPSNET], ids=["carn", "mepsnet"])
def test_a_state_that_is_loaded_goes_on_as_the_one_that_was_saved(
    kind: str, config: CarnConfig | MepsnetConfig
) -> None:
    options = MUON.model_copy(update={"kind": kind})

    def fresh() -> tuple[nn.Module, Optimizer]:
        torch.manual_seed(1)
        network = Carn(config) if isinstance(config, CarnConfig) else Mepsnet(config)
        return network, Optimizer(network, options)

    network, optimizer = fresh()
    for step in range(3):
        torch.manual_seed(step)
        _step(network, optimizer)
    resumed, other = fresh()
    resumed.load_state_dict(network.state_dict())
    other.load(optimizer.state())
    for one, of in ((network, optimizer), (resumed, other)):
        torch.manual_seed(9)
        _step(one, of)
    for (name, ours), theirs in zip(network.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_a_bank_is_stepped_template_by_template() -> None:
    torch.manual_seed(0)
    network = Mepsnet(MEPSNET)
    assert network.bank is not None
    before = network.bank.templates.detach().clone()
    optimizer = Optimizer(network, MUON)
    _step(network, optimizer)
    assert optimizer.state()["muon.momentum.bank.templates"].shape == (3, 4, 36)
    values = torch.linalg.svdvals(before - network.bank.templates.detach()) / (0.01 * 0.2 * 6)
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_kernels_move_as_by_the_muon_of_torch() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(5, 7, 3))
    kernel = network[0]
    matrix = nn.Parameter(kernel.weight.detach().reshape(7, 45).clone())
    options = MUON.model_copy(update={"weight_decay": 0.1})
    ours = Optimizer(network, options)
    theirs = torch.optim.Muon(
        [matrix], options.learning_rate, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(4):
        before = kernel.weight.detach().clone()
        kernel.weight.grad, kernel.bias.grad = torch.randn(7, 5, 3, 3), torch.zeros(7)
        matrix.grad = kernel.weight.grad.reshape(7, 45).clone()
        ours.step(1.0)
        theirs.step()
        difference = kernel.weight.detach().reshape(7, 45) - matrix.detach()
        # torch's iterates in bfloat16.
        assert difference.norm() < 0.02 * (kernel.weight.detach() - before).norm()
        matrix.data.copy_(kernel.weight.detach().reshape(7, 45))


def test_large_kernels_take_turns_and_go_twice_as_far() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(*(nn.Conv2d(size, 256, 1) for size in (256, 288, 255)))
    kernels = [layer.weight for layer in network]
    for kernel in kernels:
        kernel.grad = torch.randn_like(kernel)
    options = MUON.model_copy(update={"large_kernels_every": 2})
    every_step, in_turns = Optimizer(network, MUON), Optimizer(network, options)

    def moves(optimizer: Optimizer, turn: int) -> list[Tensor]:
        before = [kernel.detach().clone() for kernel in kernels]
        optimizer.step(1.0, turn)
        return [was - kernel.detach() for was, kernel in zip(before, kernels, strict=True)]

    for turn, factors in enumerate([(2, 0, 1), (0, 2, 1), (2, 0, 1)]):
        whole = moves(every_step, turn)
        for factor, ours, theirs in zip(factors, moves(in_turns, turn), whole, strict=True):
            assert torch.allclose(ours, factor * theirs, atol=1e-6)


@given(shape=st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20)))
def test_matrices_are_orthogonalized_each_by_itself(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape, dtype=torch.float64) * 1e3
    found = orthogonalized(matrices)
    for matrix, one in zip(matrices, found, strict=True):
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        rotated = left.T @ one @ right.T
        diagonal = rotated.diagonal()
        assert torch.allclose(rotated, torch.diag(diagonal), atol=1e-9)
        well = values / values.norm() > 0.02  # five iterations bring these far enough
        assert torch.all((diagonal[well] > 0.5) & (diagonal[well] < 1.3))


@pytest.mark.parametrize("kind", ["adam", "muon"])
def test_decay_shrinks_parameters_and_reaches_no_moments(kind: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(5, 7, 3))
    options = MUON.model_copy(update={"kind": kind, "weight_decay": 0.1})
    optimizer = Optimizer(network, options)
    before = [one.detach().clone() for one in network.parameters()]
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(1.0)
    rates = (0.01, 0.001 if kind == "muon" else 0.01)  # of the kernel and of the biases
    for parameter, was, rate in zip(network.parameters(), before, rates, strict=True):
        torch.testing.assert_close(parameter.detach(), was * (1 - 0.1 * rate))
    assert not any(one.any() for name, one in optimizer.state().items() if "step" not in name)


def test_adam_alone_steps_at_the_learning_rate() -> None:
    network = nn.Sequential(nn.Conv2d(5, 7, 3))
    optimizer = Optimizer(network, MUON.model_copy(update={"kind": "adam"}))
    before = network[0].weight.detach().clone()
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step(1.0)
    torch.testing.assert_close(before - network[0].weight.detach(), torch.full_like(before, 0.01))
