"""Names mean nothing: whatever values are called, tables and pictures are the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from export.execution import execute
from export.graph import Array, Graph, Node
from export.lowering import int8_form, lower
from export.profiles import PROFILES
from export.rewrites.additions import Additions
from export.rewrites.corrections import with_corrected_biases
from export.rewrites.requantization import with_requantization
from export.scales import ScaleTable
from quantize.ptq import quantize_network
from quantize.simulator import run_int8
from runtime.manifest import Calibration

_CROPS = [
    np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8) for seed in (0, 1)
]
_IMAGE = torch.rand(1, 3, 9, 7, generator=torch.Generator().manual_seed(0))


def _network() -> Graph:
    """A network for every rewrite: means, a concatenation, a gate, a grouped convolution, shuffles.

    Its first kernel and bias are used twice: on the picture minus its mean, for which a rewrite
    adds a channel, and on features.
    """
    random = np.random.default_rng(0)
    constants: dict[str, Array] = {"mean": np.float32([0.4, 0.5, 0.6]).reshape(1, 3, 1, 1)}
    nodes = [Node("Sub", "centre", ("image", "mean"), ("centred",))]

    def convolve(
        value: str, output: str, shape: tuple[int, ...], kernel: str = "", groups: int = 1
    ) -> None:
        names = (f"{kernel or output}.weight", f"{kernel or output}.bias")
        if names[0] not in constants:
            kernels = random.normal(0, 1.2 / np.sqrt(np.prod(shape[1:])), shape)
            constants[names[0]] = kernels.astype(np.float32)
            constants[names[1]] = random.normal(0, 0.1, shape[0]).astype(np.float32)
        nodes.append(Node("Conv", output, (value, *names), (output,), {"groups": groups}))

    def add(op: str, output: str, *inputs: str, **attributes: int | str) -> None:
        nodes.append(Node(op, output, inputs, (output,), attributes))

    convolve("centred", "entry", (6, 3, 3, 3))
    add("Relu", "first", "entry")
    convolve("first", "colours", (3, 6, 1, 1))
    convolve("colours", "again", (6, 3, 3, 3), kernel="entry")
    convolve("first", "larger", (4, 6, 1, 1))
    constants["larger.weight"] *= 8  # Hence a gain: it shares the scale of the other two.
    add("Concat", "all", "first", "again", "larger")
    convolve("all", "fused", (6, 16, 1, 1))
    add("GlobalAveragePool", "average", "fused")
    convolve("average", "squeezed", (6, 6, 1, 1))
    add("Sigmoid", "gate", "squeezed")
    add("Mul", "weighed", "fused", "gate")
    convolve("weighed", "wide", (16, 3, 3, 3), groups=2)
    add("DepthToSpace", "large", "wide", block=2, mode="CRD")
    convolve("large", "exit", (3, 4, 3, 3))
    nodes.append(Node("Add", "shift", ("exit", "mean"), ("restored_image",)))
    return Graph(tuple(nodes), constants)


_NETWORK = _network()


def _int8(graph: Graph) -> tuple[ScaleTable, torch.Tensor]:
    """Return the scales of a network and the picture that its int8 file restores."""
    table = quantize_network(
        graph,
        _CROPS,
        model="names",
        scale=2,
        weights_sha256="",
        calibration=Calibration((), ""),
        method="measured",
        concatenations="requantized",
    )
    int8 = with_corrected_biases(int8_form(graph, table), table)
    lowered = lower(int8, PROFILES["litert-cpu"].further_int8)
    return table, run_int8(with_requantization(lowered, table), table, _IMAGE)


@pytest.fixture(scope="module")
def expected() -> tuple[ScaleTable, torch.Tensor]:
    return _int8(_NETWORK)


def test_the_network_needs_every_part_of_a_table(
    expected: tuple[ScaleTable, torch.Tensor],
) -> None:
    table, restored = expected

    assert table.gains and table.corrections and table.requantized
    names = {*table.activations, *table.gains, *table.roundings, *table.corrections}
    assert names <= _NETWORK.names
    # The kernel for the picture has one input channel more than the kernel for features.
    one, other = table.roundings["entry.weight"]
    assert len(one) > len(other)
    difference = restored - execute(_NETWORK, _IMAGE).clamp(0, 1)
    assert float(difference.square().mean().sqrt()) < 0.02


def _renamed(graph: Graph, names: Mapping[str, str]) -> Graph:
    def new(name: str) -> str:
        return names.get(name, name)

    return dataclasses.replace(
        graph,
        nodes=tuple(
            dataclasses.replace(
                node, inputs=tuple(map(new, node.inputs)), outputs=tuple(map(new, node.outputs))
            )
            for node in graph.nodes
        ),
        constants={new(name): array for name, array in graph.constants.items()},
    )


_PARTS = ("", "image", "ones", "gains", "rounded", "dcr", "0", "from.image", "append_ones.weight")
_OLD = sorted(_NETWORK.names - {"image", "restored_image"})


@settings(deadline=None, max_examples=5, phases=[Phase.generate])
@given(
    names=st.lists(
        st.lists(st.sampled_from(_PARTS), min_size=1, max_size=4).map("/".join).filter(bool),
        min_size=len(_OLD),
        max_size=len(_OLD),
        unique=True,
    ).filter(lambda names: "image" not in names)
)
def test_captured_names_may_be_any(
    names: list[str], expected: tuple[ScaleTable, torch.Tensor]
) -> None:
    new = dict(zip(_OLD, names, strict=True))

    table, restored = _int8(_renamed(_NETWORK, new))

    assert torch.equal(restored, expected[1])
    new |= {name: name for name in ("image", "restored_image")}
    for part in ("activations", "gains", "roundings", "corrections"):
        known = getattr(expected[0], part)
        assert getattr(table, part) == {new[name]: one for name, one in known.items()}
    assert table.requantized == tuple((new[a], new[b]) for a, b in expected[0].requantized)


def test_rewrites_may_call_what_they_add_anything(
    monkeypatch: pytest.MonkeyPatch, expected: tuple[ScaleTable, torch.Tensor]
) -> None:
    constant, activation = Additions.constant, Additions.activation

    def other(name: str) -> str:
        return name[::-1].replace("/", "|")

    monkeypatch.setattr(Additions, "constant", lambda at, name, *of: constant(at, other(name), *of))
    monkeypatch.setattr(
        Additions, "activation", lambda at, name, origin: activation(at, other(name), origin)
    )

    table, restored = _int8(_NETWORK)

    assert table == expected[0]
    assert torch.equal(restored, expected[1])
