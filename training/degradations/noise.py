"""White Gaussian noise, the same in the whole picture."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from training.data.pictures import Picture
from training.degradations.degradation import (
    RANDOM_VERSIONS,
    Degradation,
    DegradationStep,
    Degraded,
)


class Noise(DegradationStep):
    """Noise of a deviation that is drawn for each picture, uniformly between two.

    Equal deviations are the papers' single levels, for example 25 (Zhang et al., "Beyond a Gaussian
    denoiser", TIP 2017).
    """

    kind: Literal["noise"] = "noise"
    least: float = Field(ge=0, description="least standard deviation, in levels of 255")
    largest: float = Field(gt=0, description="largest standard deviation, in levels of 255")

    @model_validator(mode="after")
    def _in_order(self) -> Noise:
        if self.least > self.largest:
            raise ValueError(f"least {self.least:g} is larger than largest {self.largest:g}")
        return self

    def degradation(self) -> Degradation:
        """Return the noise; the result is clipped and rounded to 8 bits."""

        def degrade(picture: Picture, scale: int, random: np.random.Generator) -> Degraded:
            deviation = random.uniform(self.least, self.largest)
            noisy = picture + deviation * random.standard_normal(picture.shape, np.float32)
            return Degraded(np.rint(np.clip(noisy, 0, 255)).astype(np.uint8))

        name = f"noise-{self.least:g}-{self.largest:g}"
        return Degradation(name, degrade, versions=RANDOM_VERSIONS)
