"""The scales of int8 networks: calibration, ranges, simulation, and the tables that ship."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import UserError

if TYPE_CHECKING:
    from export.scales import ScaleTable

SCALES_FOLDER = Path(__file__).parent / "scales"


def scales_path(model: str, scale: int) -> Path:
    """Return the path of a shipped model's table, whether or not the file exists."""
    from training.catalogue import file_stem

    return SCALES_FOLDER / f"{file_stem(model, scale)}.json"


def load_scales(model: str, scale: int) -> ScaleTable:
    """Read the table of scales that ships with a model.

    Raises:
        UserError: If no table ships with the model, or the table is damaged.
    """
    from export.scales import read_scale_table

    path = scales_path(model, scale)
    if not path.is_file():
        raise UserError(
            f"{model} ×{scale}: no table of scales ships with reslite; 'reslite quantize WEIGHTS "
            f"--scale {scale}' makes one for 'reslite export --scales', 'reslite ship "
            "--calibration' makes and uses it"
        )
    return read_scale_table(path)
