"""Networks between two networks: each parameter on the line from one to the other.

Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks", 2018, §3.4: from a
network that was taught by discriminators back towards the one that it began with, artefacts go
before the textures do.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from runtime.errors import UserError
from training.catalogue import Model
from training.checkpoint import save_tensors
from training.recipe import Recipe


def interpolated(first: Model, second: Model, alpha: float) -> dict[str, Tensor]:
    """Return ``(1 - alpha) · first + alpha · second`` of all parameters.

    Raises:
        UserError: If the two are not of one network.
    """
    if _structure(first) != _structure(second):
        raise UserError(
            f"{second.name}: is of another network than {first.name}; name weights of one network, "
            "of which one was trained from the other"
        )
    ours, theirs = first.network().state_dict(), second.network().state_dict()
    return {name: ours[name].lerp(theirs[name], alpha) for name in ours}


def save_interpolated(first: Model, second: Model, alpha: float, path: Path) -> None:
    """Write the network between two as a weights file, named after the file.

    The recipe is that of the second. The training record holds those of both as its start.

    Raises:
        UserError: If the two are not of one network, or the file's name cannot be a network's.
    """
    tensors = interpolated(first, second, alpha)
    try:
        recipe = Recipe.model_validate(second.recipe.model_dump(mode="json") | {"name": path.stem})
    except ValidationError as error:
        raise UserError(
            f"{path}: the network is named after its file: use letters, digits, -, _ and ."
        ) from error
    record: dict[str, Any] = {
        "steps": 0,
        "hours": 0.0,
        "interpolation": {"alpha": alpha},
        "start": [first.record, second.record],
    }
    metadata = {"recipe": recipe.model_dump_json(), "training": json.dumps(record)}
    save_tensors(path, tensors, metadata)


def _structure(model: Model) -> tuple[object, object]:
    """Return the shape of a network and what it undoes."""
    return model.recipe.network, model.task.name
