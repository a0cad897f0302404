"""Checkpoints of others, whose architecture spandrel tells from names and shapes of the tensors.

Blocks that were trained with several branches are folded into one convolution.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from export.sources.foreign import Foreign, plain_name
from export.sources.trial import tried
from runtime.errors import UserError
from runtime.manifest import sha256_of


def read_checkpoint(path: Path, tensors: Mapping[str, Tensor]) -> Foreign:
    """Build the network of a checkpoint that reslite did not write.

    Args:
        path: The file.
        tensors: What it holds (``export.sources.tensors``).

    Raises:
        UserError: If the tensors are of an architecture that spandrel does not know or that does
            not turn one picture into one.
    """
    found = _described(path, tensors)
    with torch.no_grad():
        module = _Restoring(_folded(found.model), found.call).float().eval()
    module.requires_grad_(False)
    _check(path, found, module)
    return Foreign(
        name=plain_name(path.stem, found.scale),
        path=path,
        sha256=sha256_of(path),
        architecture=found.architecture,
        known={"tags": list(found.tags)},
        modules={found.scale: module},
        colours=found.channels[0],
    )


@dataclass(frozen=True)
class _Described:
    """What spandrel says of a network."""

    model: nn.Module
    call: Callable[[nn.Module, Tensor], Tensor]
    architecture: str
    tags: tuple[str, ...]
    scale: int
    channels: tuple[int, int]


def _described(path: Path, tensors: Mapping[str, Tensor]) -> _Described:
    spandrel = import_spandrel()
    names = ", ".join(f"{name} {tuple(one.shape)}" for name, one in [*tensors.items()][:3])
    try:
        found = spandrel.ModelLoader().load_from_state_dict(dict(tensors))
    except spandrel.UnsupportedModelError as error:
        raise UserError(
            f"{path}: {len(tensors)} tensors of no architecture that spandrel knows ({names}, …); "
            "docs/networks.md lists those that become files"
        ) from error
    except (RuntimeError, KeyError, ValueError, AssertionError) as error:
        # torch lists the tensors behind a line that says no more than this message.
        first, *others = (line.strip() for line in f"{error}".splitlines() if line.strip())
        reason = others[0] if others else first
        raise UserError(f"{path}: the tensors do not fit their architecture: {reason}") from error
    if not isinstance(found, spandrel.ImageModelDescriptor) or found.purpose == "FaceSR":
        raise UserError(
            f"{path}: {found.architecture.name} is for {found.purpose}; expected a network that "
            "turns one picture into one"
        )
    return _Described(
        model=found.model,
        call=found._call_fn,  # No public name gives it without padding and clamping.
        architecture=found.architecture.name,
        tags=tuple(found.tags),
        scale=found.scale,
        channels=(found.input_channels, found.output_channels),
    )


def import_spandrel() -> Any:
    """Import spandrel, also where torchvision is missing or built for another torch.

    spandrel reads three names of torchvision, for two architectures that are no restoration
    networks. torchvision's wheels are built for CUDA and cannot be imported beside the CPU build of
    torch.
    """
    stand_ins: dict[str, ModuleType] = {}
    if "spandrel" not in sys.modules:
        try:
            importlib.import_module("torchvision")
        except (ImportError, RuntimeError):
            names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
            stand_ins = {name: ModuleType(name) for name in names}
            for name in ("InterpolationMode", "rotate", "normalize"):
                setattr(stand_ins[names[-1]], name, None)
    hidden = {name: sys.modules[name] for name in stand_ins if name in sys.modules}
    sys.modules.update(stand_ins)
    try:
        return importlib.import_module("spandrel")
    finally:
        # torch's exporter looks for torchvision by itself, and must not find these.
        for name in stand_ins:
            del sys.modules[name]
        sys.modules.update(hidden)


class _Restoring(nn.Module):
    """A network as spandrel calls it."""

    def __init__(self, model: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self._call = call

    def forward(self, image: Tensor) -> Tensor:
        return self._call(self.model, image)


def _folded(model: nn.Module) -> nn.Module:
    """Replace blocks that were trained with several branches by the convolution they amount to.

    SPAN computes that convolution in every forward, from the branches; the copy in the file may be
    of another step of the training and is not used.
    """
    for name, child in model.named_children():
        update = getattr(child, "update_params", None)  # a method of SPAN's Conv3XC
        if callable(update) and isinstance(child.eval_conv, nn.Conv2d):
            update()
            after = [nn.LeakyReLU(0.05)] if child.has_relu else []
            setattr(model, name, nn.Sequential(child.eval_conv, *after))
        else:
            _folded(child)
    return model


def _check(path: Path, found: _Described, module: nn.Module) -> None:
    """Check that a network restores pictures, and reads all its weights.

    Raises:
        UserError: If it does not.
    """
    if found.channels not in {(3, 3), (1, 1)}:
        raise UserError(
            f"{path}: {found.architecture} takes {found.channels[0]} channels and returns "
            f"{found.channels[1]}; reslite restores RGB pictures, three and three, or luma, one "
            "and one"
        )
    scale = tried(
        module,
        dict(found.model.named_parameters()),
        f"{path}: {found.architecture}",
        "it may be another network than its names say",
        found.channels[:1],
    ).scale
    if scale != found.scale:
        raise UserError(
            f"{path}: {found.architecture} restores ×{scale}, though its tensors say ×{found.scale}"
        )
