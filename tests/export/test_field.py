"""The networks of the field become graphs that compute what they do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from export.capture.torch_capture import capture
from export.errors import CannotLower
from export.execution import execute
from training.recipe import Recipe

CAPTURED = ["selnet", "span"]
CAPTURED_TOO = [
    *("srresnet", "edsr-baseline", "edsr", "mdsr", "rcan"),
    *("rdn", "dncnn", "espcn", "btsrn", "imdn"),
]
WAITING = {
    **dict.fromkeys(("srcnn", "vdsr", "drcn", "drrn", "memnet"), "bicubic interpolation"),
    **dict.fromkeys(("fsrcnn", "lapsrn", "srdensenet"), "transposed convolutions"),
}
"""Networks with operators that the vocabulary does not have yet."""


@pytest.mark.parametrize(
    "name",
    [
        *CAPTURED,
        *(pytest.param(name, marks=pytest.mark.slow) for name in CAPTURED_TOO),
        *(
            pytest.param(
                name, marks=[pytest.mark.slow, pytest.mark.xfail(raises=CannotLower, reason=reason)]
            )
            for name, reason in WAITING.items()
        ),
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
