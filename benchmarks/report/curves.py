"""Curves of training runs, from their TensorBoard logs: PSNR on held-out pictures against time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.atomic import replacing
from runtime.errors import UserError
from runtime.hidden_tensorflow import without_tensorflow
from training.catalogue import find_model, same_run, starts

PSNR, SECONDS = "psnr/x", "seconds"
"""Tags of a log: PSNR at each scale, and the seconds spent until the same step."""


@dataclass(frozen=True)
class Curve:
    """The held-out PSNR of one run at one scale.

    Attributes:
        name: Name of the run.
        scale: Upscaling factor.
        seconds: Seconds of optimizer steps until each validation.
        psnr: PSNR in dB at each validation.
    """

    name: str
    scale: int
    seconds: tuple[float, ...]
    psnr: tuple[float, ...]


def logged_runs(weights: Path) -> list[Path]:
    """Return the folders of the runs that a run began with, where they lie beside it, and its own.

    Runs are recognized by their records, because weights may have been published in the meantime.

    Args:
        weights: The run's weights, in the folder of its log.
    """
    beside = [
        find_model(str(one)) for one in sorted(weights.parent.parent.glob(f"*/{weights.name}"))
    ]
    logged = [one for one in beside if any(one.path.parent.glob("events.out.tfevents.*"))]

    def before(record: Mapping[str, Any]) -> Iterator[Path]:
        for start in starts(record):
            for model in logged:
                if same_run(model.record, start):
                    yield from before(model.training)
                    yield model.path.parent

    return list(dict.fromkeys([*before(find_model(str(weights)).training), weights.parent]))


def read_curves(run: Path) -> list[Curve]:
    """Read the curves of a run's folder, one for each scale.

    Raises:
        UserError: If the folder holds no validations.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with without_tensorflow():
        log = EventAccumulator(str(run), size_guidance={"scalars": 0})
        log.Reload()
    tags = log.Tags()["scalars"]
    if SECONDS not in tags:
        raise UserError(f"{run}: holds no TensorBoard log with validations; train there first")
    seconds = {point.step: float(point.value) for point in log.Scalars(SECONDS)}
    curves = []
    for tag in sorted(tag for tag in tags if tag.startswith(PSNR)):
        # A run that was stopped after a validation and resumed has validated that step twice.
        psnr = {point.step: float(point.value) for point in log.Scalars(tag)}
        steps = sorted(psnr.keys() & seconds.keys())
        curves.append(
            Curve(
                name=run.name,
                scale=int(tag.removeprefix(PSNR)),
                seconds=tuple(seconds[step] for step in steps),
                psnr=tuple(psnr[step] for step in steps),
            )
        )
    return curves


def draw_curves(curves: Sequence[Curve], path: Path) -> None:
    """Draw PSNR against hours as SVG, a panel for each scale; equal curves give equal bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    scales = sorted({curve.scale for curve in curves})
    figure = Figure(figsize=(4.2 * len(scales), 3.4))
    for index, scale in enumerate(scales):
        axes = figure.add_subplot(1, len(scales), index + 1)
        for curve in curves:
            if curve.scale == scale:
                hours = [seconds / 3600 for seconds in curve.seconds]
                axes.plot(hours, curve.psnr, marker="o", markersize=3, label=curve.name)
        axes.set_title(f"×{scale}")
        axes.set_xlabel("hours of optimizer steps")
        axes.set_ylabel("held-out PSNR, dB")
        axes.grid(alpha=0.3)
        axes.ticklabel_format(useOffset=False)
        axes.legend()
    figure.tight_layout()
    with (
        replacing(path) as temporary,
        matplotlib.rc_context({"svg.hashsalt": "reslite", "svg.fonttype": "none"}),
    ):
        figure.savefig(temporary, format="svg", metadata={"Date": None})
