"""Weights of others that metrics and losses need; they do not ship with reslite."""

from __future__ import annotations

from pathlib import Path

from runtime.errors import UserError
from training.data.pictures import data_folder


def given_weights(name: str, needed_by: str) -> Path:
    """Return the path of a file in the folder ``weights`` of ``RESLITE_DATA``.

    Args:
        name: Name of the file.
        needed_by: What needs it, for the message.

    Raises:
        UserError: If it is missing.
    """
    folder = data_folder()
    if folder is None:
        raise UserError(
            f"{needed_by} needs {name}, which does not ship with reslite: set RESLITE_DATA to a "
            "folder that holds it in weights/"
        )
    path = folder / "weights" / name
    if not path.is_file():
        raise UserError(f"{path}: no such file; {needed_by} needs it: copy it there")
    return path
