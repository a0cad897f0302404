"""reslite: image restoration from training to the phone, with measured proof.

import reslite
restorer = reslite.load("carn-m", scale=4)
large = restorer.restore(small)          # uint8, H × W × 3
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reslite.packages import check_packages

if TYPE_CHECKING:
    from reslite.loading import Restorer
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
