"""The papers' own numbers, from the module and from the graph, layer by layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from benchmarks.multadds import LayerCost, layers_of_graph, layers_of_module, total
from export.capture.torch_capture import capture
from export.graph import Graph, Node
from export.lowering import lower
from runtime.manifest import HD
from training.networks.carn import AtScale, Carn, CarnConfig

CARN = CarnConfig()
CARN_M = CarnConfig(groups=4, efficient=True, recursive=True)


# Ahn et al. 2018, Table 1 (MultAdds in G), and the parameters of the published weights.
@pytest.mark.parametrize(
    ("config", "scale", "parameters", "gigas"),
    [
        (CARN, 2, 964_163, 222.8),
        (CARN, 3, 1_148_803, 118.8),
        (CARN, 4, 1_111_875, 90.9),
        (CARN_M, 2, 257_027, 91.2),
        (CARN_M, 3, 303_427, 46.1),
        (CARN_M, 4, 294_147, 32.5),
    ],
)
def test_module_costs_what_the_paper_says(
    config: CarnConfig, scale: int, parameters: int, gigas: float
) -> None:
    cost = total(layers_of_module(AtScale(Carn(config), scale), scale))

    assert cost.parameters == parameters
    assert round(cost.multadds / 1e9, 1) == gigas


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "scale"), [(CARN, 3), (CARN_M, 4)], ids=["CARN ×3", "CARN-M ×4"]
)
def test_graph_and_module_agree_on_every_layer(config: CarnConfig, scale: int) -> None:
    module = AtScale(Carn(config), scale)

    of_graph = layers_of_graph(capture(module))
    of_module = layers_of_module(module, scale)

    assert {row.name: row for row in of_graph} == {row.name: row for row in of_module}
    assert len(of_graph) == len(of_module)


def test_recursive_block_counts_multadds_per_use_and_parameters_once() -> None:
    once = CarnConfig(channels=8, blocks=1, units=1, scales=(2,))
    thrice = CarnConfig(channels=8, blocks=1, units=3, recursive=True, scales=(2,))
    name = "body.stages.0.stages.0.body.0"

    rows = [
        {row.name: row for row in layers_of_module(AtScale(Carn(config), 2), 2)}[name]
        for config in (once, thrice)
    ]

    assert rows[1].multadds == 3 * rows[0].multadds
    assert rows[1].parameters == rows[0].parameters == 8 * 8 * 9 + 8


def test_counting_leaves_the_network_alone() -> None:
    module = AtScale(Carn(CarnConfig(channels=8, blocks=1, units=1, scales=(2,))), 2).train()

    layers_of_module(module, 2)

    assert module.training
    assert all(tensor.device.type == "cpu" for tensor in module.parameters())
    assert not any(part._forward_hooks for part in module.modules())


class _Pooled(nn.Module):
    """A cost for every pixel, a cost whatever the size, and a convolution without a module."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.Conv2d(3, 4, 3, padding=1)
        self.gate = nn.Conv2d(4, 4, 1)
        self.kernel = nn.Parameter(torch.zeros(5, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        features = self.entry(x)
        gated = features * torch.sigmoid(self.gate(features.mean((2, 3), keepdim=True)))
        return nn.functional.conv2d(gated, self.kernel)


def test_costs_after_global_pooling_do_not_grow_with_the_picture() -> None:
    rows = {row.name: row for row in layers_of_module(_Pooled(), 1, output=(30, 20))}

    assert rows["entry"] == LayerCost("entry", 3 * 4 * 9 + 4, 600 * 3 * 4 * 9)
    assert rows["gate"] == LayerCost("gate", 4 * 4 + 4, 4 * 4)
    assert rows[""] == LayerCost("", 5 * 4, 600 * 4 * 5)


def test_lowered_graph_counts_what_is_executed() -> None:
    ones = torch.ones
    graph = Graph(
        (
            Node("Conv", "body", ("image", "w", "b"), ("x",), {"groups": 3}),
            Node(
                "DepthToSpace", "shuffle", ("x",), ("restored_image",), {"block": 2, "mode": "CRD"}
            ),
        ),
        {"w": ones(12, 1, 3, 3).numpy(), "b": ones(12).numpy()},
    )
    pixels = HD[0] * HD[1] // 4

    def cost(*rewrites: str) -> int:
        return total(layers_of_graph(lower(graph, rewrites))).multadds

    assert cost() == pixels * 12 * 9
    assert cost("make_convolutions_dense") == pixels * 12 * 3 * 9
    # As a transposed convolution, each of the 12 values meets 3 channels of 2 × 2.
    assert cost("use_transposed_convolutions") == pixels * (12 * 9 + 12 * 3 * 4)
