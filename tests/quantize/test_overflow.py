"""Limits make rounding finer where it matters, and no channel reaches beyond its places."""

from __future__ import annotations

from collections import Counter

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.graph import Graph
from export.lowering import lower
from export.profiles import QUANTIZED_FORM
from export.rewrites.overflow import surroundings, with_overflow
from export.scales import Overflow
from quantize.overflow import Around, Kernel, overflowing, with_least_noise
from quantize.sensitivity import effect_of_noise


def _around(channels: int, blocks: int = 1, *, most: int = 1, variance: float = 0.0) -> Around:
    kernel = Kernel(torch.ones(3, channels), 1, 9, torch.ones(3))
    return Around(torch.full((channels,), variance), blocks, most, (kernel,))


@settings(deadline=None, max_examples=50)
@given(
    reach=st.lists(st.floats(0.1, 50), min_size=16, max_size=16),
    effect=st.lists(st.floats(0, 10), min_size=16, max_size=16),
    blocks=st.sampled_from([1, 2, 4]),
    variance=st.sampled_from([0.0, 1e-4, 1.0]),
)
def test_nothing_reaches_beyond_its_places(
    reach: list[float], effect: list[float], blocks: int, variance: float
) -> None:
    gains, overflow = with_least_noise(
        torch.tensor(reach),
        torch.tensor(effect),
        _around(16, blocks, most=2 // blocks, variance=variance),
    )

    times = Counter[int]() if overflow is None else Counter(overflow.channels)
    limit = max(reach) if overflow is None else overflow.limit
    for channel, (far, gain) in enumerate(zip(reach, gains, strict=True)):
        if overflow is not None or gain < 1:
            assert far * gain <= limit * (1 + times[channel]) * 1.0001
    by_block = Counter(channel // (16 // blocks) for channel in times.elements())
    assert len(set(by_block.values())) <= 1 and len(by_block) in {0, blocks}
    assert sum(times.values()) <= 2


_REACH = torch.tensor([4.0, 1, 4, 1, 1, 1, 1, 1])


def test_the_channel_that_matters_overflows_and_the_others_are_shrunk() -> None:
    effect = torch.tensor([90.0, 9, 0.01, 9, 9, 9, 9, 9])

    gains, overflow = with_least_noise(_REACH, effect, _around(8))

    assert overflow is not None
    assert overflow.channels == (0,)
    assert gains[0] == gains[1] == 1 and gains[2] < 1
    assert overflow.limit <= 2.01


def test_channels_that_vary_much_stay_for_divided_weights_would_be_coarse() -> None:
    effect = torch.tensor([0.01, 9, 0.01, 9, 9, 9, 9, 9])

    without, _ = with_least_noise(_REACH, effect, _around(8))
    gains, _ = with_least_noise(_REACH, effect, _around(8, variance=1e4))

    assert min(without) < 1
    assert min(gains) == 1


def test_a_dead_activation_stays() -> None:
    assert with_least_noise(torch.zeros(4), torch.ones(4), _around(4)) == ((1.0,) * 4, None)


def test_as_many_channels_may_be_added_as_cost_a_fifth_of_the_multadds_at_x2(graph: Graph) -> None:
    lowered, image = lower(graph, QUANTIZED_FORM), torch.rand(1, 3, 16, 16)
    names = surroundings(lowered)
    found = overflowing(lowered, names, effect_of_noise(lowered, [image]), [image])
    before = lowered.multadds(64, 64)

    def grown_by(name: str, added: int) -> float:
        size = names[name].channels // names[name].blocks
        channels = [block * size for block in range(names[name].blocks) for _ in range(added)]
        overflow = {lowered.origin(name): Overflow(1.0, tuple(channels))}
        return with_overflow(lowered, overflow).multadds(64, 64) / before - 1

    assert found
    for name, one in found.items():
        size = names[name].channels // one.blocks
        assert one.most <= size
        assert not one.most or grown_by(name, one.most) <= 0.2
        assert one.most + 1 > size or grown_by(name, one.most + 1) > 0.2
