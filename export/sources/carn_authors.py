"""Checkpoints of CARN and PCARN by their authors, told by the names of the tensors.

The two networks have equal shapes and compute different things, so shapes alone never decide.
CARN's convolutions stand in sequences (``b1.c1.body.0``), PCARN's have names (``b1.b1.conv1``).
The tensors go into reslite's own network (``training.networks.carn``) of the same structure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from export.sources.foreign import Foreign, plain_name
from export.sources.options import Architecture
from export.sources.tensors import load
from export.sources.trial import tried
from runtime.errors import UserError
from runtime.manifest import sha256_of
from training.networks.carn import CarnConfig
from training.networks.interface import RGB_MEANS

_OF_CARN, _OF_PCARN = "b1.c1.body.0.weight", "b1.c1.weight"

_IN_SEQUENCES = (
    (re.compile(r"\.conv1\."), ".body.0."),
    (re.compile(r"\.conv2\."), ".body.2."),
    (re.compile(r"\.pw\."), ".body.4."),
    (re.compile(r"(^|\.)c(\d)\.(?=weight|bias)"), r"\1c\2.body.0."),
)
"""PCARN's names, and what they are in CARN."""

_BY_NAMES: Mapping[tuple[bool, bool], Architecture] = {
    (True, False): "carn",
    (True, True): "carn-m",
    (False, False): "pcarn",
    (False, True): "pcarn-m",
}
"""The network by whether names are CARN's, and whether there are residual-E blocks."""

_SHIFT = re.compile(r"(sub|add)_mean\.shifter\.(weight|bias)")
_SAME_SHIFT = 5e-4
"""Largest difference that half precision makes to the means."""


def is_of_authors(tensors: Mapping[str, Tensor]) -> bool:
    """Tell whether tensors have the names that CARN's or PCARN's authors gave them."""
    return {"entry.weight", "exit.weight"} <= tensors.keys() and bool(
        tensors.keys() & {_OF_CARN, _OF_PCARN}
    )


def read_of_authors(
    path: Path, tensors: Mapping[str, Tensor], architecture: Architecture | None
) -> Foreign:
    """Build the network of a checkpoint of CARN's or PCARN's authors.

    Args:
        path: The file.
        tensors: What it holds.
        architecture: What the person says it is of; None goes by the names.

    Raises:
        UserError: If the tensors have other names or shapes, another mean is subtracted than that
            of DIV2K, or they are not of ``architecture``.
    """
    if not is_of_authors(tensors):
        found = ", ".join([*tensors][:3])
        raise UserError(
            f"{path}: --as is for checkpoints with the names of CARN's authors (entry, b1.b1, "
            f"b1.c1, …, exit); found {found}, …"
        )
    named = _OF_CARN in tensors
    _check_shifts(path, tensors)
    own = _in_sequences({key: one for key, one in tensors.items() if not _SHIFT.fullmatch(key)})
    efficient = "b1.b1.body.4.weight" in own
    architecture = architecture or _BY_NAMES[named, efficient]
    if efficient != architecture.endswith("-m"):
        does = "have" if efficient else "lack"
        raise UserError(
            f"{path}: is no {architecture}: its residual blocks {does} the 1×1 convolution of "
            "residual-E; leave --as out or name the other"
        )
    own, recursive = _shared(own)
    scales = _scales(path, own)
    perceptual = architecture.startswith("pcarn")
    try:
        config = CarnConfig(
            channels=len(own["entry.weight"]),
            blocks=_count(own, r"c(\d+)\."),
            units=_count(own, r"b1\.c(\d+)\."),
            groups=len(own["entry.weight"]) // own["b1.b1.body.0.weight"].shape[1],
            efficient=efficient,
            recursive=recursive,
            fusion_relu=not perceptual,
            global_residual=perceptual,
            scales=scales,
        )
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{path}: no whole {architecture}: {error}") from error
    network, title = config.build(), architecture.upper()
    load(network, {_renamed(key, scales): one for key, one in own.items()}, path, title)
    network.eval().requires_grad_(False)
    modules = {scale: network.at_scale(scale).eval() for scale in scales}
    for module in modules.values():
        tried(module, dict(module.named_parameters()), f"{path}: {title}", "copy it again")
    return Foreign(
        name=plain_name(path.stem, scales[0] if len(scales) == 1 else None),
        path=path,
        sha256=sha256_of(path),
        architecture=title,
        known={"groups": config.groups, "recursive": recursive},
        modules=modules,
    )


def _check_shifts(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Check that the network subtracts and adds the means that reslite's own does.

    Raises:
        UserError: If it does not.
    """
    means = torch.tensor(RGB_MEANS)
    expected = {
        "sub_mean.shifter.weight": torch.eye(3).reshape(3, 3, 1, 1),
        "sub_mean.shifter.bias": -means,
        "add_mean.shifter.weight": torch.eye(3).reshape(3, 3, 1, 1),
        "add_mean.shifter.bias": means,
    }
    for key, shift in expected.items():
        same = (
            key in tensors
            and tensors[key].shape == shift.shape
            and torch.allclose(tensors[key], shift, rtol=0, atol=_SAME_SHIFT)
        )
        if not same:
            raise UserError(
                f"{path}: {key} is {'another' if key in tensors else 'missing'}; expected a shift "
                f"by the mean of DIV2K, {RGB_MEANS} (a network that was trained with another "
                "enters as a Python file)"
            )


def _in_sequences(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors by the names that CARN has for them."""

    def renamed(name: str) -> str:
        for pattern, replacement in _IN_SEQUENCES:
            name = pattern.sub(replacement, name)
        return name

    return {renamed(name): tensor for name, tensor in tensors.items()}


def _shared(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """Return tensors without copies of shared residual blocks, and whether blocks are shared.

    CARN-M names the block of a cascading block once, PCARN-M as often as it is used.
    """
    further = {
        name: re.sub(r"^(b\d+)\.b\d+\.", r"\1.b1.", name)
        for name in tensors
        if re.match(r"b\d+\.b([2-9]|\d\d+)\.", name)
    }
    same = all(
        first in tensors and torch.equal(tensors[name], tensors[first])
        for name, first in further.items()
    )
    return {name: one for name, one in tensors.items() if not same or name not in further}, same


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    return max((int(found[1]) for name in tensors if (found := re.match(pattern, name))), default=0)


def _scales(path: Path, tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Return the scales that a network has upsamplers for."""
    found = {found[1] for name in tensors if (found := re.match(r"upsample\.up(\d?)\.body", name))}
    if found != {""}:
        return tuple(sorted(int(one or 0) for one in found))
    kernels = [tensors.get(f"upsample.up.body.{place}.weight") for place in (0, 3)]
    if kernels[0] is None:
        raise UserError(f"{path}: its upsampler begins with no convolution; copy the file again")
    factor = round((len(kernels[0]) / len(tensors["entry.weight"])) ** 0.5)
    return (factor if kernels[1] is None else factor**2,)


def _renamed(name: str, scales: tuple[int, ...]) -> str:
    """Return the name that reslite's own network has for a tensor of CARN."""

    def place(text: str) -> int:
        return int(text) - 1

    name = re.sub(r"^upsample\.up\.body\.", f"upsamplers.x{scales[0]}.", name)
    name = re.sub(r"^upsample\.up(\d)\.body\.", r"upsamplers.x\1.", name)
    name = re.sub(r"^c(\d+)\.body\.0\.", lambda m: f"body.fusions.{place(m[1])}.", name)
    name = re.sub(
        r"^b(\d+)\.c(\d+)\.body\.0\.",
        lambda m: f"body.stages.{place(m[1])}.fusions.{place(m[2])}.",
        name,
    )
    return re.sub(
        r"^b(\d+)\.b(\d+)\.", lambda m: f"body.stages.{place(m[1])}.stages.{place(m[2])}.", name
    )
