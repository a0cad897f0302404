"""SPAN's weights from ncnn files: the checkpoint computes what the folded convolutions do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from export.sources.finding import find_network
from export.sources.options import Options
from runtime.errors import UserError
from tools.span_ncnn import read_span

_BLOCKS = [f"block_{block}/c{conv}_r" for block in range(1, 7) for conv in (1, 2, 3)]
_CHANNELS = 8


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """A SPAN ×2 of 8 channels as ncnn holds it, and its convolutions by name."""
    random = np.random.default_rng(0)
    sizes = {f"{one}/eval_conv": (_CHANNELS, _CHANNELS, 3) for one in [*_BLOCKS, "conv_2"]}
    sizes = {"conv_1/eval_conv": (_CHANNELS, 3, 3)} | sizes
    sizes |= {"conv_cat": (_CHANNELS, 4 * _CHANNELS, 1)}
    sizes |= {"upsampler/upsampler.0": (12, _CHANNELS, 3)}
    lines = ["7767517", "3 3", "MemoryData mean 0 1 mean 0=1 1=1 2=3"]
    content = np.zeros(3, "<f4").tobytes()
    made = {}
    for name, (outputs, inputs, side) in sizes.items():
        kernel = random.normal(0, 0.2, (outputs, inputs, side, side)).astype("<f2")
        bias = random.normal(0, 0.2, outputs).astype("<f4")
        said = f"0={outputs} 1={side} 4={side // 2} 5=1 6={kernel.size}"
        lines.append(f"Convolution /{name}/Conv 1 1 a b {said}")
        padding = b"\0" * (-kernel.nbytes % 4)
        content += (0x01306B47).to_bytes(4, "little") + kernel.tobytes() + padding + bias.tobytes()
        made[name] = (torch.from_numpy(kernel.astype(np.float32)), torch.from_numpy(bias))
    param = tmp_path / "span.param"
    param.write_text("\n".join(lines) + "\n")
    param.with_suffix(".bin").write_bytes(content)
    return param, made


def test_the_checkpoint_restores_as_the_convolutions_do(
    files: tuple[Path, dict[str, tuple[torch.Tensor, torch.Tensor]]], tmp_path: Path
) -> None:
    param, made = files
    save_file(read_span(param), tmp_path / "span.safetensors")
    module = find_network(str(tmp_path / "span.safetensors"), Options()).at_scale(2)
    image = torch.rand(1, 3, 9, 11, generator=torch.Generator().manual_seed(0))

    def conv(name: str, value: torch.Tensor) -> torch.Tensor:
        kernel, bias = made[name]
        return functional.conv2d(value, kernel, bias, padding=kernel.shape[-1] // 2)

    mean = torch.tensor([0.4488, 0.4371, 0.4040])[:, None, None]
    first = value = conv("conv_1/eval_conv", (image - mean) * 255)
    kept = []
    for block in range(1, 7):
        one = functional.silu(conv(f"block_{block}/c1_r/eval_conv", value))
        two = functional.silu(conv(f"block_{block}/c2_r/eval_conv", one))
        three = conv(f"block_{block}/c3_r/eval_conv", two)
        value = (three + value) * (torch.sigmoid(three) - 0.5)
        kept.append((value, one))
    joined = [first, conv("conv_2/eval_conv", value), kept[0][0], kept[5][1]]
    features = conv("conv_cat", torch.cat(joined, 1))
    expected = functional.pixel_shuffle(conv("upsampler/upsampler.0", features), 2)

    with torch.no_grad():
        assert torch.allclose(module(image), expected, rtol=1e-4, atol=1e-4 * expected.abs().max())


def test_a_cut_file_is_refused(files: tuple[Path, object]) -> None:
    param, _ = files
    binary = param.with_suffix(".bin")
    binary.write_bytes(binary.read_bytes()[:-8])

    with pytest.raises((UserError, ValueError)):
        read_span(param)
