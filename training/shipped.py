"""What is known of the networks that ship with reslite, read without torch.

The base installation lists networks, too: names and scores are in the headers of the weights, and
what a network costs is in ``weights/costs.json``, which ``python -m tools.network_costs`` writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import UserError
from runtime.records import read_record, write_record

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
COSTS_SCHEMA = 1
UNTRAINED = ("pcarn", "pcarn-m")
"""Networks of the thesis that ship as recipes, without weights yet."""
_LENGTH = 8  # bytes of the number before the header


@dataclass(frozen=True)
class Costs:
    """What a network takes.

    Attributes:
        parameters: Of the network at each scale, and of ``all`` scales together.
        multadds_720p: At an output of 1280 × 720, of each scale.
    """

    parameters: dict[str, int]
    multadds_720p: dict[str, int]


@dataclass(frozen=True)
class CostTable:
    """The costs of all networks that ship with reslite, trained or not, by name."""

    networks: dict[str, Costs]

    def write(self, path: Path) -> None:
        """Write the table as the file that ``shipped_networks`` reads."""
        write_record(path, self, COSTS_SCHEMA)


@dataclass(frozen=True)
class ShippedNetwork:
    """A network that ships with reslite.

    Attributes:
        name: Name on the command line, for example ``carn-m``.
        costs: Parameters and MultAdds.
        psnr: PSNR in dB by evaluation set and scale; empty if untrained.
        trained: Whether weights ship; if not, only the recipe does.
    """

    name: str
    costs: Costs
    psnr: Mapping[str, Any]
    trained: bool = True


def costs_path() -> Path:
    """Return the path of the costs."""
    return WEIGHTS_FOLDER / "costs.json"


def shipped_networks() -> list[ShippedNetwork]:
    """Return the networks that ship with reslite, by the names of their files; untrained ones last.

    Raises:
        UserError: If weights or costs are damaged, or the costs of a network are missing.
    """
    path = costs_path()
    remedy = "'python -m tools.network_costs' makes it anew"
    table = read_record(path, CostTable, COSTS_SCHEMA, remedy)
    found = []
    for weights in sorted(WEIGHTS_FOLDER.glob("*.safetensors")):
        metadata = metadata_of(weights)
        name = str(json_object(weights, metadata["recipe"]).get("name"))
        psnr = json_object(weights, metadata.get("training", "{}")).get("psnr", {})
        found.append((name, psnr))
    trained = {name for name, _ in found}
    found += [(name, {}) for name in UNTRAINED if name not in trained]
    for name, _ in found:
        if name not in table.networks:
            raise UserError(f"{path}: holds no costs of {name}; {remedy}")
    return [
        ShippedNetwork(name, table.networks[name], psnr, name in trained) for name, psnr in found
    ]


def metadata_of(path: Path) -> dict[str, str]:
    """Return the metadata in the header of weights trained by reslite.

    Raises:
        UserError: If this is no whole safetensors file, or holds no recipe.
    """
    metadata = header_of(path)
    if "recipe" not in metadata:
        raise UserError(f"{path}: holds no recipe; only weights trained by reslite can be loaded")
    return metadata


def header_of(path: Path) -> dict[str, str]:
    """Return the metadata in the header of a safetensors file, whoever wrote it.

    The format is a little-endian uint64, the length of the header, the header as JSON, and the
    tensors at the offsets that the header gives.

    Raises:
        UserError: If this is no whole safetensors file.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such weights file")
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH), "little")
            size = path.stat().st_size
            if length > size:
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
        if size != _LENGTH + length + end:
            raise ValueError("the tensors do not end with the file")
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not a safetensors file, or damaged; train or copy it again"
        ) from error
    found: dict[str, str] = metadata
    return found


def json_object(path: Path, text: str) -> dict[str, Any]:
    """Return a JSON object in the metadata of weights.

    Raises:
        UserError: If the text is none; the message names the file.
    """
    try:
        record = json.loads(text)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise UserError(f"{path}: its recipe or training record is damaged; copy it again")
    return record
