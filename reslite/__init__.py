"""reslite: image restoration from training to the phone, with measured proof.

import reslite
restorer = reslite.load("carn-m", scale=4)
large = restorer.restore(small)          # uint8, H × W × 3

reslite.ship(my_module, out="dist")      # a torch module: files, proof and report
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reslite.packages import check_packages

if TYPE_CHECKING:
    from torch import nn

    from export.sources.options import Colour
    from reslite.loading import Restorer
    from reslite.shipping import Shipment
    from runtime.formats import Format, Precision
    from runtime.manifest import Manifest
    from training.catalogue import Model


def load(model: str, scale: int | None = None, precision: str | None = None) -> Restorer:
    """Open a trained network or an exported file for restoring pictures.

    Args:
        model: A shipped model's name (``reslite models`` lists them) or an artifact's path.
        scale: Upscaling factor; needed with the name of a network that has several.
        precision: Precision of a model given by name: ``float32`` (the default), ``float16`` or
            ``int8``.

    Raises:
        runtime.errors.UserError: If there is no such model, scale or file.
    """
    check_packages()
    from reslite.loading import Restorer, open_model

    return Restorer(open_model(model, scale, precision))


def list_models() -> list[Model]:
    """Return the trained networks that ship with reslite (needs the ``train`` extra)."""
    check_packages()
    from training.catalogue import list_models as shipped

    return shipped()


def ship(
    module: nn.Module | str,
    scale: int | None = None,
    out: str | Path = "dist",
    *,
    name: str | None = None,
    peak: int | None = None,
    colour: Colour | None = None,
    calibration: str | Path | None = None,
    tune: float | None = None,
    data: str | Path | None = None,
    overwrite: bool = False,
    rounds: int = 15,
    threads: int | None = None,
    sizes: Sequence[tuple[int, int]] = (),
    image_io: bool = False,
    latency_size: tuple[int, int] = (128, 128),
    apps: Sequence[str] = (),
) -> Shipment:
    """Export, prove, measure and report a network, as the command ``reslite ship`` does.

    Needs the ``demo`` extra.

    Args:
        module: A torch module from N × 3 × H × W RGB pictures in [0, 1], or N × 1 × H × W luma, to
            restored ones, which stays as it is; or a name or file as on the command line.
        scale: Upscaling factor; None finds it by a trial picture.
        out: Folder of the bundle and its report.
        name: What the files of a module are named after; None for its class.
        peak: White in the pictures that a module or the network of a file takes and returns; None
            for 1. Exported files take RGB in [0, 1] all the same.
        colour: Its colours, as ``--colour``; None for RGB, or for Y if it has one channel.
        calibration: Folder of pictures to find int8 scales on; None for scikit-image's, or the
            committed scales of a network of reslite's own.
        tune: Minutes of training that int8 scales and weights get where scales are found; None for
            1.5 where the network is not reslite's own, and else none.
        data: Folder of pictures to score on; None for crops of scikit-image's.
        overwrite: Export again even files that exist and are valid, and tune int8 again.
        rounds: Timed inferences of each file.
        threads: CPU threads of the latency measurement; None for all.
        sizes: Heights and widths to fix the input to, in further files of the same bundle.
        image_io: Whether to write Core ML packages that take and return images of 8 bits, too.
        latency_size: Height and width of the inputs of the latency measurement.
        apps: Languages to write a sample app in: some of ``kotlin``, ``swift``, ``js``, ``python``.

    Returns:
        The manifest, the report, and the files beside the bundle.

    Raises:
        runtime.errors.UserError: If the module does not turn one picture into one, cannot be
            captured, or restores another scale.
        export.parity.ParityError: If a file fails its proof.
    """
    check_packages()
    from reslite.apps.languages import language_named
    from reslite.modules import found
    from reslite.shipping import ship_network

    return ship_network(
        *found(module, name, scale, peak, colour),
        Path(out),
        data=None if data is None else Path(data),
        calibration=None if calibration is None else Path(calibration),
        tune=tune,
        overwrite=overwrite,
        rounds=rounds,
        threads=threads,
        sizes=sizes,
        image_io=image_io,
        latency_size=latency_size,
        apps=[language_named(one) for one in apps],
    )


def export(
    module: nn.Module | str,
    scale: int | None = None,
    out: str | Path = "dist",
    *,
    name: str | None = None,
    peak: int | None = None,
    colour: Colour | None = None,
    formats: Sequence[Format] | None = None,
    precisions: Sequence[Precision] = ("float32", "float16"),
    calibration: str | Path | None = None,
    tune: float | None = None,
    size: tuple[int, int] | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Write and prove files of a network, as the command ``reslite export`` does.

    Needs the ``export`` extra.

    Args:
        module: A torch module, name or file, as for ``ship``.
        scale: As for ``ship``.
        out: Folder of the bundle.
        name: As for ``ship``.
        peak: As for ``ship``.
        colour: As for ``ship``.
        formats: File formats; None for all.
        precisions: Number formats. Scales of int8 files are found on ``calibration``.
        calibration: Folder of pictures to find int8 scales on, as for ``ship``.
        tune: Minutes of training of int8, as for ``ship``.
        size: Height and width to fix the input to; None for any size.
        overwrite: Export again even files that exist and are valid, and tune int8 again.

    Returns:
        The manifest of all files in the folder.

    Raises:
        runtime.errors.UserError: As for ``ship``.
        export.parity.ParityError: If a file fails its proof.
    """
    check_packages()
    from reslite.modules import export_network, found

    return export_network(
        *found(module, name, scale, peak, colour),
        Path(out),
        formats=formats,
        precisions=precisions,
        calibration=None if calibration is None else Path(calibration),
        tune=tune,
        size=size,
        overwrite=overwrite,
    )
