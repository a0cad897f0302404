"""What overflows into further channels changes nothing in real numbers, and nothing in 8 bits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.execution import activations_of, execute
from export.graph import Graph, Node
from export.lowering import int8_form
from export.rewrites.overflow import leave_limits_to_rounding, surroundings, with_overflow
from export.scales import PIXELS, Overflow, Quantization, ScaleTable
from quantize.simulator import run_int8
from runtime.errors import UserError
from runtime.manifest import Calibration


def _graph(before: int, after: int, block: int, seed: int = 0) -> Graph:
    """A convolution of 8 channels for a Relu, and one that reads them, perhaps shuffled."""
    random = np.random.default_rng(seed)

    def constant(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    many, made = 8 * block**2, 3 if after == 1 else after
    constants = {"i": constant(4, 3, 3, 3), "j": constant(4)}
    constants |= {"w": constant(many, 4 // before, 3, 3), "b": constant(many)}
    constants |= {"v": constant(made, 8 // after, 3, 3), "c": constant(made)}
    constants |= {"o": constant(3, made, 1, 1), "p": constant(3)}
    seen = "y" if block == 1 else "z"
    nodes = [
        Node("Conv", "zero", ("image", "i", "j"), ("s",), {"groups": 1}),
        Node("Conv", "one", ("s", "w", "b"), ("x",), {"groups": before}),
        Node("Relu", "two", ("x",), ("y",)),
        Node("DepthToSpace", "three", ("y",), ("z",), {"block": block, "mode": "CRD"}),
        Node("Conv", "four", (seen, "v", "c"), ("u",), {"groups": after}),
        Node("Conv", "five", ("u", "o", "p"), ("restored_image",), {"groups": 1}),
    ]
    return Graph(tuple(one for one in nodes if block > 1 or one.name != "three"), constants).check()


@settings(deadline=None, max_examples=40)
@given(
    before=st.sampled_from([1, 2, 4]),
    after=st.sampled_from([1, 2, 4]),
    block=st.sampled_from([1, 2, 3]),
    limit=st.floats(0.5, 8),
    seed=st.integers(0, 99),
)
def test_the_output_is_the_same_in_any_groups(
    before: int, after: int, block: int, limit: float, seed: int
) -> None:
    graph, image = _graph(before, after, block, seed), torch.rand(1, 3, 5, 4)
    with torch.inference_mode():
        reach = activations_of(graph, image)["y"].amax((0, 2, 3)).reshape(8, -1).amax(1)
    times = np.ceil(reach.numpy() / limit).clip(1).astype(int) - 1
    channels = tuple(one for one in range(8) for _ in range(times.max())) if times.max() else (0, 7)
    if not times.max() and max(before, after) > 1:
        channels = tuple(range(8))

    overflowing = with_overflow(graph, {"y": Overflow(limit, channels)}).check()

    with torch.inference_mode():
        found = activations_of(overflowing, image)
        expected = execute(graph, image)
    assert float(found["y"].max()) <= np.float32(limit) and float(found["y"].min()) >= 0
    assert overflowing.channels()["y"] == (8 + len(channels)) * block**2
    torch.testing.assert_close(found["restored_image"], expected, rtol=1e-4, atol=1e-3)


def _table(graph: Graph, overflow: Overflow) -> ScaleTable:
    wide = Quantization.of_range(-60.0, 60.0)
    scales = {"image": PIXELS, "s": wide, "u": wide, "restored_image": PIXELS}
    scales |= dict.fromkeys(("y", "z"), Quantization.of_range(0, overflow.limit))
    return ScaleTable(
        "some",
        graph.scale,
        "0" * 64,
        "by hand",
        scales,
        (),
        Calibration((), "0" * 64),
        overflow={"y": overflow},
    )


@pytest.mark.parametrize("block", [1, 2])
def test_a_range_that_ends_at_the_limit_clips_by_itself(block: int) -> None:
    graph, overflow = _graph(2, 2, block), Overflow(2.5, (0, 0, 1, 5, 6, 7))
    table, image = _table(graph, overflow), torch.rand(1, 3, 6, 6)

    kept = with_overflow(graph, table.overflow)
    left = int8_form(graph, table)

    assert "Clip" in {node.op for node in kept.nodes}
    assert "Clip" not in {node.op for node in left.nodes}
    assert left.origin("y") == "y"
    torch.testing.assert_close(
        run_int8(left, table, image), run_int8(kept, table, image), rtol=0, atol=0
    )


def test_a_range_beyond_the_limit_keeps_the_clip() -> None:
    graph, overflow = _graph(1, 1, 1), Overflow(2.5, (0,))
    table = _table(graph, overflow)
    wider = {**table.activations, "y": Quantization.of_range(0, 2.6)}

    kept = with_overflow(graph, table.overflow)

    assert leave_limits_to_rounding(kept, dataclasses.replace(table, activations=wider)) == kept


def test_only_what_a_relu_made_and_convolutions_read_may_overflow() -> None:
    graph = _graph(2, 4, 2)
    (around,) = surroundings(graph).values()
    assert (around.channels, around.blocks) == (8, 4)
    added = Node("Add", "six", ("y", "y"), ("twice",))
    assert surroundings(dataclasses.replace(graph, nodes=(*graph.nodes, added))) == {}


@pytest.mark.parametrize(
    ("value", "channels", "message"),
    [
        ("s", (0, 1), "'s' overflow, which this network cannot do"),
        ("y", (0, 1), "expected equally many of each of 2 groups"),
        ("y", (0, 9), "of 'y' overflow, which has 8"),
    ],
)
def test_a_table_of_another_network_is_refused(
    value: str, channels: tuple[int, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        with_overflow(_graph(2, 1, 1), {value: Overflow(1.0, channels)})
    assert "run 'reslite quantize' again" in str(caught.value)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_is_positive(limit: float) -> None:
    with pytest.raises(ValueError, match="positive number expected"):
        Overflow(limit, (0,))
