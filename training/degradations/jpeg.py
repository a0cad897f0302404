"""JPEG artefacts."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from training.data.pictures import Picture
from training.degradations.degradation import (
    RANDOM_VERSIONS,
    Degradation,
    DegradationStep,
    Degraded,
)


class Jpeg(DegradationStep):
    """Pictures are stored as JPEG, at a quality that is drawn for each, uniformly between two."""

    kind: Literal["jpeg"] = "jpeg"
    least: int = Field(ge=1, le=100, description="least quality of libjpeg's scale")
    largest: int = Field(ge=1, le=100, description="largest quality of libjpeg's scale")
    chroma: Literal["4:4:4", "4:2:2", "4:2:0"] = Field(
        default="4:2:0", description="subsampling of the colours"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Jpeg:
        if self.least > self.largest:
            raise ValueError(f"least {self.least} is larger than largest {self.largest}")
        return self

    def degradation(self) -> Degradation:
        """Return what Pillow's JPEG makes of a picture."""

        def degrade(picture: Picture, scale: int, random: np.random.Generator) -> Degraded:
            quality = int(random.integers(self.least, self.largest, endpoint=True))
            file = io.BytesIO()
            Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling=self.chroma)
            return Degraded(np.array(Image.open(file)))

        name = f"jpeg-{self.least}-{self.largest}"
        return Degradation(name, degrade, versions=RANDOM_VERSIONS)
