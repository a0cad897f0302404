"""The list of what can enter the line: networks that ship with reslite, and files."""

from __future__ import annotations

from pathlib import Path

from export.sources.carn_authors import is_of_authors, read_of_authors
from export.sources.checkpoint import read_checkpoint
from export.sources.onnx_file import SUFFIX as ONNX
from export.sources.onnx_file import read_onnx
from export.sources.options import Options
from export.sources.plain import in_plain_pictures
from export.sources.python_file import is_python, read_python
from export.sources.source import Trained
from export.sources.tensors import SUFFIXES, read_tensors
from training.catalogue import find_model
from training.shipped import header_of

NOTHING_SAID = Options()

_OF_PICTURES = ("--range", "--colour")


def find_network(name_or_path: str, options: Options = NOTHING_SAID) -> Trained:
    """Return a network by the name it ships under, or from a file.

    Args:
        name_or_path: A name, weights that reslite trained, a checkpoint of others (.pth, .pt,
            .ckpt, .safetensors), an ONNX file, or a class or function in Python
            (``my_net.py:MyNet``, ``package.module:MyNet``).
        options: What else the person says of the network.

    Raises:
        UserError: If there is none, it cannot be read, or the options do not go with it.
    """
    if is_python(name_or_path):
        allowed = ("--weights", "--with", *_OF_PICTURES)
        options.check(name_or_path, "a network from Python", allowed)
        return in_plain_pictures(read_python(name_or_path, options), options)
    path = Path(name_or_path)
    if path.suffix.lower() == ONNX:
        options.check(name_or_path, "an ONNX file", _OF_PICTURES)
        return in_plain_pictures(read_onnx(path), options)
    ours = path.suffix == ".safetensors" and "recipe" in header_of(path)
    if ours or path.suffix.lower() not in SUFFIXES:
        options.check(name_or_path, "a network that reslite trained")
        return find_model(name_or_path)
    options.check(name_or_path, "a checkpoint", ("--as", *_OF_PICTURES))
    tensors = read_tensors(path)
    if options.architecture is not None or is_of_authors(tensors):
        network = read_of_authors(path, tensors, options.architecture)
    else:
        network = read_checkpoint(path, tensors)
    return in_plain_pictures(network, options)
