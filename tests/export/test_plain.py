"""Networks trained on other pictures than RGB in [0, 1] take and return those."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from export.bundle import bundle_of
from export.capture.orders import fold_orders
from export.capture.torch_capture import capture
from export.execution import execute
from export.graph import Graph, Node
from export.sources.finding import find_network
from export.sources.options import Options
from export.sources.source import Source
from export.variants import Variant
from runtime.errors import UserError

Picture = Callable[[int, int], NDArray[np.float32]]

CODE = """
import torch
from torch import nn

class Levels(nn.Module):
    def __init__(self, skip=False):
        super().__init__()
        self.skip = skip
        self.head = nn.Conv2d(3, 4, 3, padding=1)
        self.tail = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x):
        restored = self.tail(torch.relu(self.head(x) - 40))
        return restored + x if self.skip else restored
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "levels.py"
    path.write_text(CODE)
    return path


def _expected(module: nn.Module, image: Tensor, peak: int, colour: str) -> Tensor:
    own = image.flip(1) if colour == "bgr" else image
    with torch.no_grad():
        restored: Tensor = module(own * peak) / peak
    return restored.flip(1) if colour == "bgr" else restored


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(("peak", "colour"), [(255, "rgb"), (1, "bgr"), (255, "bgr"), (1, "rgb")])
def test_plain_pictures_go_in_and_come_out(
    file: Path, picture: Picture, peak: int, colour: Any, skip: bool
) -> None:
    arguments = {"skip": skip}
    own = find_network(f"{file}:Levels", Options(None, arguments)).at_scale(1)
    found = find_network(f"{file}:Levels", Options(arguments=arguments, peak=peak, colour=colour))
    image = torch.from_numpy(picture(7, 6))
    expected = _expected(own, image, peak, colour)
    restored = found.at_scale(1)(image)
    torch.testing.assert_close(restored, expected, atol=1e-5, rtol=1e-5)
    graph = capture(found.at_scale(1))
    torch.testing.assert_close(execute(graph, image), expected, atol=1e-5, rtol=1e-5)
    # Without a shortcut around the kernels all of it is folded into them.
    ends = 0 if (peak, colour) == (1, "rgb") or not skip else 2
    assert graph.operators()["Conv"] == 2 + ends


def test_hash_and_manifest_tell_of_it(file: Path, tmp_path: Path) -> None:
    plain, *others = (
        find_network(f"{file}:Levels", options)
        for options in (Options(), Options(peak=255), Options(peak=255, colour="bgr"))
    )
    assert len({one.sha256 for one in (plain, *others)}) == 3
    assert "range" not in plain.provenance["source"]
    source = others[1].provenance["source"]
    assert (source["range"], source["colour"]) == (255, "bgr")
    manifest = bundle_of(Source.of(others[1], 1), [Variant("onnx", "float32")], tmp_path / "out")
    assert manifest.weights_sha256 == others[1].sha256
    assert Options(peak=255, colour="bgr").words == ("--range", "255", "--colour", "bgr")


def test_an_onnx_file_takes_them_too(file: Path, tmp_path: Path, picture: Picture) -> None:
    module = find_network(f"{file}:Levels", Options(arguments={"skip": False})).at_scale(1)
    path = tmp_path / "levels.onnx"
    torch.onnx.export(
        module, (torch.zeros(1, 3, 12, 10),), path, dynamo=True, opset_version=18, verbose=False
    )
    found = find_network(str(path), Options(peak=255, colour="bgr")).at_scale(1)
    image = torch.from_numpy(picture(12, 10))
    expected = _expected(module, image, 255, "bgr")
    torch.testing.assert_close(found(image), expected, atol=1e-5, rtol=1e-5)
    assert capture(found).operators()["Conv"] == 2


def test_networks_of_our_own_take_no_such_options() -> None:
    with pytest.raises(UserError, match="--range and --colour do not go with a network that resl"):
        find_network("carn-m", Options(peak=255, colour="bgr"))


def test_graphs_of_our_own_are_left_as_they_are(captured: Any) -> None:
    graph = captured("carn-m", 4).graph
    assert fold_orders(graph) is graph


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999), groups=st.sampled_from([1, 3]), readers=st.integers(1, 2))
def test_folding_changes_no_output(seed: int, groups: int, readers: int) -> None:
    """Orders before and behind convolutions, some grouped, some read elsewhere, too."""
    random = np.random.default_rng(seed)

    def array(*shape: int) -> NDArray[np.float32]:
        return random.normal(size=shape).astype(np.float32)

    def order(count: int) -> NDArray[np.float32]:
        scaled = np.eye(count, dtype=np.float32)[random.permutation(count)]
        return (scaled * random.uniform(0.5, 2, (count, 1)).astype(np.float32))[..., None, None]

    constants = {
        "p": order(3),
        "q": order(6),
        "w": array(6, 3 // groups, 3, 3),
        "b": array(6),
        "v": array(3, 6, 1, 1),
        "zero3": np.zeros(3, np.float32),
        "zero6": np.zeros(6, np.float32),
    }
    nodes = [
        Node("Conv", "p", ("image", "p", "zero3"), ("x",), {"groups": 1}),
        Node("Conv", "w", ("x", "w", "b"), ("y",), {"groups": groups}),
        Node("Conv", "q", ("y", "q", "zero6"), ("z",), {"groups": 1}),
        Node("Relu", "r", ("z",), ("u",)),
        Node("Conv", "v", ("u", "v", "zero3"), ("t",), {"groups": 1}),
        Node("Add", "a", ("t", "x" if readers == 2 else "t"), ("restored_image",)),
    ]
    graph = Graph(tuple(nodes), constants).check()
    image = torch.from_numpy(random.random((1, 3, 5, 4), np.float32))
    folded = fold_orders(graph)
    torch.testing.assert_close(execute(folded, image), execute(graph, image), atol=1e-4, rtol=1e-4)
    left = 2 * (groups == 3) or (readers == 2)
    assert folded.operators()["Conv"] == 2 + left
