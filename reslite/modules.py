"""Networks that are handed over in Python: ``reslite.ship`` and ``reslite.export``."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from torch import nn

from export.bundle import bundle_of
from export.sources.finding import find_network
from export.sources.foreign import Foreign
from export.sources.options import Colour, Options
from export.sources.plain import in_plain_pictures
from export.sources.python_file import of_module
from export.sources.source import Source, Trained
from export.variants import Variant
from quantize import load_scales
from quantize.calibration import few_photographs
from quantize.simulator import int8_reference
from reslite.scales import found_scales
from runtime.errors import UserError, first_line
from runtime.formats import USUAL_FORMATS, Format, Precision
from runtime.manifest import Manifest
from training.catalogue import Model


def found(
    module: nn.Module | str,
    name: str | None,
    scale: int | None,
    peak: int | None,
    colour: Colour | None,
) -> tuple[Trained, int]:
    """Return a network and its scale.

    Args:
        module: A torch module, of which a copy is taken, or a name or file.
        name: What the files of a module are named after; None for its class.
        scale: The scale that is wanted; None for the only one.
        peak: White in the pictures that it takes and returns; None for 1.
        colour: Its colours; None for RGB, or for Y if it has one channel.

    Raises:
        UserError: If there is no such network, it does not turn one picture into one, or has no
            such scale.
    """
    options = Options(peak=peak, colour=colour)
    if isinstance(module, str):
        if name is not None:
            raise UserError(f"{module}: has a name of its own; leave name={name!r} out")
        network = find_network(module, options)
    else:
        network = in_plain_pictures(_network_of(module, name), options)
    return network, network.chosen_scale(scale)


def _network_of(module: object, name: str | None) -> Foreign:
    kind = type(module).__name__
    if not isinstance(module, nn.Module):
        raise UserError(f"{kind}: expected a module of torch, or the name or file of a network")
    try:
        own = copy.deepcopy(module)
    except RuntimeError as error:
        raise UserError(f"{kind}: cannot be copied: {first_line(error)}") from error
    try:
        file = Path(inspect.getsourcefile(type(module)) or kind).name
    except (TypeError, OSError):  # defined at a prompt
        file = kind
    known = {"class": kind, "weights": "as handed over in Python"}
    return of_module(own, name=name or kind, path=Path(file), title=kind, known=known)


def export_network(
    network: Trained,
    scale: int,
    out: Path,
    *,
    formats: Sequence[Format] | None,
    precisions: Sequence[Precision],
    calibration: Path | None,
    tune: float | None,
    size: tuple[int, int] | None,
    overwrite: bool,
) -> Manifest:
    """Export a network at one scale; the arguments are those of ``reslite.export``."""
    for chosen, known in ((formats or (), get_args(Format)), (precisions, get_args(Precision))):
        if wrong := [one for one in chosen if one not in known]:
            raise UserError(f"{wrong[0]}: expected some of {', '.join(known)}")
    source = Source.of(network, scale)
    table = None
    if "int8" in precisions:
        if isinstance(network, Model) and calibration is None:
            table = load_scales(network.name, scale)
        else:
            table = found_scales(source, calibration, tune, again=overwrite)
    variants = [
        Variant(kind, precision, size=size)
        for kind in formats or USUAL_FORMATS
        for precision in precisions
    ]
    photographs = partial(few_photographs, network.task, scale, calibration)
    return bundle_of(
        source, variants, out, table, int8_reference, overwrite, photographs=photographs
    )
