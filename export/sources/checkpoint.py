"""Checkpoints of others, whose architecture spandrel tells from names and shapes of the tensors.

Tensors alone are read, as safetensors or by torch's loader of weights; a file that brings code is
refused. Blocks that were trained with several branches are folded into one convolution.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from runtime.errors import UserError
from runtime.manifest import sha256_of
from training.checkpoint import load_tensors, non_finite
from training.tasks import SHDD, SUPER_RESOLUTION, Task

SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")

_LARGEST = 2**30
"""Bytes. Files of mobile networks are a hundredth of this."""


@dataclass(frozen=True)
class Checkpoint:
    """A network that somebody else trained.

    Attributes:
        path: The file of the weights.
        sha256: SHA-256 of the file.
        architecture: Its name, as spandrel spells it.
        tags: What else the tensors tell of it, for example ``64nf``.
        scale: Upscaling factor.
        module: The network, from N × 3 × H × W pictures in [0, 1] to restored ones.
    """

    path: Path
    sha256: str
    architecture: str
    tags: tuple[str, ...]
    scale: int
    module: nn.Module

    @property
    def name(self) -> str:
        """The name of the file, in small letters and digits and without the scale at its end."""
        plain = re.sub(r"[^a-z0-9]+", "-", self.path.stem.lower()).strip("-")
        return plain.removesuffix(f"-x{self.scale}") or "network"

    @property
    def task(self) -> Task:
        """Enlarging, or restoring at the same size: nothing else is known."""
        return SUPER_RESOLUTION if self.scale > 1 else SHDD["moderate"]

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The file, its hash and the architecture."""
        known = {"architecture": self.architecture, "tags": list(self.tags)}
        return {"source": {"file": self.path.name, "sha256": self.sha256, **known}}

    def chosen_scale(self, scale: int | None) -> int:
        """Return the network's only scale.

        Raises:
            UserError: If another one is asked for.
        """
        if scale not in (None, self.scale):
            raise UserError(f"{self.path}: restores ×{self.scale}, not ×{scale}; leave --scale out")
        return self.scale

    def at_scale(self, scale: int) -> nn.Module:
        """Return the network."""
        self.chosen_scale(scale)
        return self.module


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a network from a checkpoint that reslite did not write.

    Raises:
        UserError: If the file is missing, damaged, too large, brings code, holds no tensors or some
            that are not finite, or is of an architecture that spandrel does not know or that does
            not turn one picture into one.
    """
    tensors = _read_tensors(path)
    if damaged := non_finite(tensors):
        raise UserError(f"{path}: {damaged} holds values that are not finite numbers; train again")
    found = _described(path, tensors)
    with torch.no_grad():
        module = _Restoring(_folded(found.model), found.call).float().eval()
    _check(path, found, module)
    return Checkpoint(path, sha256_of(path), found.architecture, found.tags, found.scale, module)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, in float32."""
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    if path.stat().st_size > _LARGEST:
        raise UserError(
            f"{path}: {path.stat().st_size / 1e9:.1f} GB; checkpoints of networks that run on a "
            f"phone are far below {_LARGEST / 1e9:.0f} GB (does it hold an optimizer, too? save "
            "the weights alone)"
        )
    if path.suffix == ".safetensors":
        return _floats(load_tensors(path)[0])
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        if "Weights only load failed" not in str(error) or "GLOBAL" not in str(error):
            raise UserError(
                f"{path}: not a checkpoint of torch, or damaged; copy it again"
            ) from error
        raise UserError(
            f"{path}: holds Python objects beside tensors, and loading those can run code; save "
            "the weights alone: torch.save(network.state_dict(), …)"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise UserError(f"{path}: not a checkpoint of torch, or damaged; copy it again") from error
    return _floats(found) if isinstance(found, Mapping) else {}


def _floats(found: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors inside what a trainer saved, half precision as float32."""
    return {
        str(name): value.float() if value.is_floating_point() else value
        for name, value in import_spandrel().canonicalize_state_dict(dict(found)).items()
        if isinstance(value, Tensor)
    }


@dataclass(frozen=True)
class _Described:
    """What spandrel says of a network."""

    model: nn.Module
    call: Callable[[nn.Module, Tensor], Tensor]
    architecture: str
    tags: tuple[str, ...]
    scale: int
    channels: tuple[int, int]
    multiple: int


def _described(path: Path, tensors: Mapping[str, Tensor]) -> _Described:
    spandrel = import_spandrel()
    names = ", ".join(f"{name} {tuple(one.shape)}" for name, one in [*tensors.items()][:3])
    if not tensors:
        raise UserError(f"{path}: holds no tensors; expected a checkpoint of a network")
    try:
        found = spandrel.ModelLoader().load_from_state_dict(dict(tensors))
    except spandrel.UnsupportedModelError as error:
        raise UserError(
            f"{path}: {len(tensors)} tensors of no architecture that spandrel knows ({names}, …); "
            "docs/own-network.md lists those that become files"
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
        multiple=found.size_requirements.multiple_of,
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


_SIDES = (6, 9)
"""Height and width in pixels of the picture that a network is tried on."""


def _check(path: Path, found: _Described, module: nn.Module) -> None:
    """Check that a network restores pictures, and reads all its weights.

    Raises:
        UserError: If it does not.
    """
    if found.channels != (3, 3):
        raise UserError(
            f"{path}: {found.architecture} takes {found.channels[0]} channels and returns "
            f"{found.channels[1]}; reslite restores RGB pictures, three and three"
        )
    if found.multiple > 1:
        raise UserError(
            f"{path}: {found.architecture} takes sides that are multiples of {found.multiple} "
            "pixels; reslite exports networks for pictures of any size"
        )
    image = torch.linspace(0, 1, 3 * _SIDES[0] * _SIDES[1]).reshape(1, 3, *_SIDES)
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    try:
        restored = module(image)
        expected = (1, 3, *(found.scale * side for side in _SIDES))
        if tuple(restored.shape) != expected:
            raise UserError(
                f"{path}: restores {_SIDES} pixels to {tuple(restored.shape[2:])}, not to "
                f"{expected[2:]}, as ×{found.scale} should"
            )
        restored.sum().backward()
        unread = [name for name, one in module.named_parameters() if one.grad is None]
    finally:
        module.zero_grad(set_to_none=True)
        module.requires_grad_(False)
    if unread:
        raise UserError(
            f"{path}: {found.architecture} never reads {len(unread)} of its tensors "
            f"({unread[0].removeprefix('model.')}, …); it may be another network than its names say"
        )
