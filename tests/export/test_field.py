"""The networks of the field become graphs that compute what they do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from benchmarks.field import FIELD
from export.capture.torch_capture import capture
from export.execution import execute
from training.recipe import Recipe

QUICK = ("selnet", "fsrcnn")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(entry.recipe, marks=[] if entry.recipe in QUICK else [pytest.mark.slow])
        for entry in FIELD
    ],
)
def test_a_graph_computes_what_its_network_does(
    name: str, field_recipe: Callable[[str], Recipe]
) -> None:
    config = field_recipe(name).network
    torch.manual_seed(0)
    module = config.build().at_scale(config.scales[-1]).eval()
    graph = capture(module)
    for size in ((9, 7), (1, 1)):
        image = torch.rand(1, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(execute(graph, image), module(image), atol=1e-6, rtol=1e-5)
