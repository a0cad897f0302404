"""The schema of recipes: everything that determines a training run.

A recipe is made of sections. Degradation, augmentations and losses are lists of entries told apart
by ``kind``; each kind is described and implemented in a file of its own.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    field_validator,
    model_validator,
)

from training.augmentations.flips import Flips
from training.augmentations.kinds import AnyAugmentation
from training.configuration import Configuration
from training.degradations.bicubic import Bicubic
from training.degradations.kinds import AnyDegradationStep
from training.losses.distance import Distance
from training.losses.kinds import AnyLoss
from training.methods.kinds import AnyMethod
from training.methods.supervised import Supervised
from training.metrics.kinds import MetricName
from training.networks.families import AnyNetworkConfig
from training.optimization import OptimizerOptions
from training.tasks import Task, task_of


class Data(Configuration):
    """The pictures and the patches cut from them."""

    train: str = Field(default="train", description="folder of the pictures to learn from")
    valid: str = Field(default="valid", description="folder of the held-out pictures")
    sizes: tuple[PositiveFloat, ...] = Field(
        default=(1.0,), min_length=1, description="factors that every picture is resized by"
    )
    by_area: bool = Field(
        default=False, description="draw pictures in proportion to their area, not equally often"
    )
    any_phase: bool = Field(
        default=False,
        description="cut patches at any pixel, not only where the reduced picture has pixels",
    )


class Stage(Configuration):
    """A stretch of training with one patch size and batch size.

    Small patches in small batches learn fastest at first; larger patches refine at the end.
    """

    steps: int = Field(gt=0, description="optimizer steps")
    patch: int = Field(ge=8, description="side of the low-resolution patch in pixels")
    batch: int = Field(gt=0, description="patches of a step")


class Execution(Configuration):
    """How steps are computed; the result is the same up to rounding."""

    precision: Literal["auto", "bf16", "float32"] = Field(
        default="auto", description="auto selects the faster of the two by a short measurement"
    )
    masked_dense: bool = Field(
        default=False, description="compute grouped convolutions as dense ones with zeros"
    )
    compiled: bool = Field(
        default=False, description="train the network through torch.compile; pays on CUDA"
    )


class Validation(Configuration):
    """Scores on held-out pictures while a run goes on."""

    every: int = Field(default=5000, gt=0, description="steps between scores")
    metrics: tuple[MetricName, ...] = Field(
        default=("psnr",), min_length=1, description="what is logged"
    )


class Recipe(Configuration):
    """Everything that determines a training run, besides the pictures themselves."""

    version: Literal[2] = Field(description="of the recipe's form")
    name: str = Field(pattern=r"^\w[\w.-]*$", description="files are named after it")
    network: AnyNetworkConfig = Field(description="its family and shape")
    data: Data = Data()
    degradation: tuple[AnyDegradationStep, ...] = Field(
        default=(Bicubic(),), min_length=1, description="steps, taken one after another"
    )
    augment: tuple[AnyAugmentation, ...] = Field(
        default=(Flips(),), description="what is done to each patch, one after another"
    )
    losses: tuple[AnyLoss, ...] = Field(
        default=(Distance(),), min_length=1, description="their weighted sum is descended"
    )
    method: AnyMethod = Supervised()
    stages: tuple[Stage, ...] = Field(min_length=1)
    optimizer: OptimizerOptions
    validation: Validation = Validation()
    execution: Execution = Execution()
    seed: NonNegativeInt = Field(default=0, description="of the weights and of all patches")
    start: tuple[str, ...] = Field(
        default=(), description="models or weights files to begin with; several are averaged"
    )
    checkpoint_every: int = Field(default=1000, gt=0, description="steps between checkpoints")

    @field_validator("start", mode="before")
    @classmethod
    def _one_start_is_a_list_of_one(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value or ()

    @model_validator(mode="after")
    def _sections_go_together(self) -> Recipe:
        degradation = self.task.degradation
        if any((scale > 1) != degradation.reduces for scale in self.network.scales):
            does = "reduces pictures" if degradation.reduces else "keeps their size"
            raise ValueError(
                f"degradation '{degradation.name}' does not go with scales "
                f"{self.network.scales}: it {does}"
            )
        of_equal_sizes = [
            *(f"augment: {one.kind}" for one in self.augment if one.needs_equal_sizes),
            *("losses: identity_weight" for one in self.losses if one.asks_what_was_untouched),
        ]
        if degradation.reduces and of_equal_sizes:
            raise ValueError(
                f"{of_equal_sizes[0]} goes with degradations that keep the size, not with "
                f"'{degradation.name}'"
            )
        if degradation.of_windows is None and (self.data.sizes != (1,) or self.data.any_phase):
            raise ValueError(
                "data: sizes and any_phase go with degradations of patches, not with "
                f"'{degradation.name}', which degrades whole pictures"
            )
        if self.network.colours != 3:
            raise ValueError(
                f"network.colours={self.network.colours} is for counting MultAdds; pictures to "
                "train on are RGB: leave it at 3"
            )
        if self.method.revive_at and not self.network.revivable:
            raise ValueError(
                f"method.revive_at does not go with networks of the family {self.network.family}"
            )
        return self

    @model_validator(mode="after")
    def _scales_share_every_batch(self) -> Recipe:
        shares = self.method.shares(self.network.scales)
        if not self.method.all_scales:
            return self
        for stage in self.stages:
            sizes = [stage.batch * share for share in shares]
            if not all(math.isclose(size, round(size)) for size in sizes):
                raise ValueError(
                    f"the scales cannot share a batch of {stage.batch} by their weights "
                    f"{self.method.scale_weights}: choose a multiple of the weights' sum"
                )
        return self

    @property
    def task(self) -> Task:
        """What the network undoes, and how it is scored."""
        return task_of(self.degradation)

    def with_execution(self, **changes: Any) -> Recipe:
        """Return the same recipe with some of ``execution`` changed."""
        execution = self.execution.model_copy(update=changes)
        return self.model_copy(update={"execution": execution})

    @property
    def steps(self) -> int:
        """Optimizer steps of all stages together."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> Stage:
        """Return the stage that ``step`` (from 0) belongs to."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]
