"""Checkpoints and trained weights: safetensors only, written atomically.

A safetensors file holds tensors and a flat dictionary of strings, and running it cannot execute
code. Pickles are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from runtime.atomic import replacing
from runtime.errors import UserError


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata to ``path``; a reader sees the old file or the new one."""
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        # Not 'save_file', whose files only their owner may read.
        temporary.write_bytes(save(contiguous, dict(metadata)))


def non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor that holds an infinity or a NaN, or None."""
    return next((name for name, one in tensors.items() if not one.isfinite().all()), None)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file.

    Raises:
        UserError: If the file is missing, damaged or of another kind, a pickle for instance.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such checkpoint") from error
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: not a safetensors file; checkpoints are .safetensors (pickles such as .pth "
            "can run code and are refused)"
        ) from error
