"""The list of what can enter the line: networks that ship with reslite, and files."""

from __future__ import annotations

from pathlib import Path

from export.sources.checkpoint import SUFFIXES, read_checkpoint
from export.sources.onnx_file import SUFFIX as ONNX
from export.sources.onnx_file import read_onnx
from export.sources.source import Trained
from training.catalogue import find_model
from training.shipped import header_of


def find_network(name_or_path: str) -> Trained:
    """Return a network by the name it ships under, or from a file.

    Args:
        name_or_path: A name, weights that reslite trained, a checkpoint of others (.pth, .pt,
            .ckpt, .safetensors), or an ONNX file.

    Raises:
        UserError: If there is none, or the file cannot be read.
    """
    path = Path(name_or_path)
    if path.suffix.lower() == ONNX:
        return read_onnx(path)
    if path.suffix.lower() not in SUFFIXES:
        return find_model(name_or_path)
    if path.suffix == ".safetensors" and "recipe" in header_of(path):
        return find_model(name_or_path)
    return read_checkpoint(path)
