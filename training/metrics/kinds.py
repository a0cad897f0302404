"""The list of metrics; a new metric is a module and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

from training.metrics.lpips import LPIPS
from training.metrics.metric import Metric
from training.metrics.niqe import NIQE
from training.metrics.psnr import PSNR
from training.metrics.ssim import SSIM

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        PSNR,
        SSIM,
        LPIPS,
        NIQE,
    )
}
"""The metrics that a recipe and ``reslite evaluate`` can name."""

if TYPE_CHECKING:
    MetricName: TypeAlias = str
else:  # a type made from the list, which mypy cannot read
    MetricName = Literal[tuple(METRICS)]
"""The name of a metric in a recipe."""
