"""Tensors that somebody else's trainer saved, read without running code from the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from runtime.errors import UserError
from training.checkpoint import load_tensors, non_finite

SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")

_LARGEST = 2**30
"""Bytes. Files of mobile networks are a hundredth of this."""

_WRAPPERS = ("params_ema", "params-ema", "model_state_dict", "state_dict", "params", "model", "net")
"""Keys that trainers keep the weights under; averaged weights come first."""

_PREFIXES = ("module.", "netG.")
"""What training on several devices, and training against a discriminator, put before all names."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, half precision as float32.

    Args:
        path: A .safetensors file or what ``torch.save`` wrote: a state dict, or a dictionary that
            holds one.

    Raises:
        UserError: If the file is missing, damaged, too large, brings code, or holds no tensors or
            some that are not finite.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: not a checkpoint; expected one of {', '.join(SUFFIXES)}")
    if path.stat().st_size > _LARGEST:
        raise UserError(
            f"{path}: {path.stat().st_size / 1e9:.1f} GB; checkpoints of networks that run on a "
            f"phone are far below {_LARGEST / 1e9:.0f} GB (does it hold an optimizer, too? save "
            "the weights alone)"
        )
    tensors = {
        name: value.float() if value.is_floating_point() else value
        for name, value in _unwrapped(_content(path)).items()
        if isinstance(value, Tensor)
    }
    if not tensors:
        raise UserError(f"{path}: holds no tensors; expected a checkpoint of a network")
    if damaged := non_finite(tensors):
        raise UserError(f"{path}: {damaged} holds values that are not finite numbers; train again")
    return tensors


def _content(path: Path) -> Mapping[str, Any]:
    if path.suffix.lower() == ".safetensors":
        return load_tensors(path)[0]
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
    return found if isinstance(found, Mapping) else {}


def _unwrapped(found: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the state dict inside what a trainer saved, without a prefix that all names share."""
    inner = next((found[key] for key in _WRAPPERS if isinstance(found.get(key), Mapping)), None)
    if inner is None and len(found) == 1:
        (only,) = found.values()
        inner = only if isinstance(only, Mapping) else None
    state = {str(name): value for name, value in (found if inner is None else inner).items()}
    for prefix in _PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def load(module: nn.Module, tensors: Mapping[str, Tensor], path: Path, title: str) -> None:
    """Give a module its weights; every tensor must have its place.

    Args:
        module: The network.
        tensors: The weights by name.
        path: The file they are from, for errors.
        title: What errors call the network.

    Raises:
        UserError: If names or shapes differ.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in tensors]
    unexpected = [key for key in tensors if key not in own]
    misshapen = [
        f"{key} {tuple(tensors[key].shape)} instead of {tuple(value.shape)}"
        for key, value in own.items()
        if key in tensors and tensors[key].shape != value.shape
    ]
    lists = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    if any(lists.values()):
        found = "; ".join(f"{len(one)} {what}: {_few(one)}" for what, one in lists.items() if one)
        raise UserError(f"{path}: its tensors are not those of {title}: {found}")
    module.load_state_dict(tensors)


def _few(names: list[str], most: int = 3) -> str:
    return ", ".join([*names[:most], *(["…"] if len(names) > most else [])])
