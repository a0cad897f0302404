"""Opening a model by name or by file, ready to restore pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from numpy.typing import NDArray

import runtime
from runtime.cache import cache_folder
from runtime.errors import UserError
from runtime.formats import BY_SUFFIX, Precision
from runtime.session import check_picture
from runtime.tiling import restore_tiled

if TYPE_CHECKING:
    from export.sources.source import Trained
    from runtime.session import Session


class Restorer:
    """Restores pictures in memory with an open session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    @property
    def scale(self) -> int:
        """Upscaling factor."""
        return self.session.scale

    def restore(self, picture: NDArray[Any], tile: int | None = None) -> NDArray[Any]:
        """Restore a picture.

        Args:
            picture: RGB, H × W × 3, uint8 or uint16.
            tile: Side of the tiles in pixels; None chooses by the size of the picture.

        Returns:
            scale·H × scale·W × 3 of the same type.

        Raises:
            UserError: If it is no array, has no pixels, or another shape or type.
        """
        check_picture(picture, ("uint8", "uint16"))
        return restore_tiled(self.session, picture, tile)


def open_model(
    model: str,
    scale: int | None = None,
    precision: str | None = None,
    verify: bool = True,
    runtime_name: str | None = None,
    threads: int | None = None,
) -> Session:
    """Open an artifact by path, or a shipped model by name.

    A model given by name is exported to TFLite, in float32 unless ``precision`` is given, and kept
    in the user's cache folder.

    Raises:
        UserError: If there is no such model, file, scale or precision; the message lists the known
            ones.
    """
    path = Path(model)
    if precision is not None and precision not in get_args(Precision):
        known = ", ".join(get_args(Precision))
        raise UserError(f"{precision}: no such precision; choose one of {known}")
    if path.suffix.lower() in BY_SUFFIX:
        if precision is not None:
            raise UserError(f"{model}: the precision of a file is fixed; leave the precision out")
        session = runtime.open(path, verify=verify, runtime=runtime_name, threads=threads)
        if scale not in (None, session.scale):
            session.close()
            raise UserError(f"{model}: restores ×{session.scale}, not ×{scale}")
        return session
    exported = _cached_export(model, scale, cast("Precision", precision or "float32"))
    return runtime.open(exported, verify=verify, runtime=runtime_name, threads=threads)


def cached_bundle(model: Trained, scale: int) -> Path:
    """Return the cache folder for the files of one network at one scale."""
    from training.catalogue import file_stem

    return cache_folder() / f"{file_stem(model.name, scale)}_{model.sha256[:12]}"


def _cached_export(model: str, scale: int | None, precision: Precision) -> Path:
    from export.bundle import bundle_of
    from export.bundle_manifest import holds
    from export.sources.source import Source
    from export.variants import Variant
    from quantize import load_scales
    from training.catalogue import find_model

    found = find_model(model)
    scale = found.chosen_scale(scale)
    folder = cached_bundle(found, scale)
    variant = Variant("tflite", precision)
    file = variant.file_name(found.name, scale)
    table = load_scales(found.name, scale) if precision == "int8" else None
    if not holds(folder, file, table):
        bundle_of(Source.of(found, scale), [variant], folder, table, overwrite=True)
    return folder / file
