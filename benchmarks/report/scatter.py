"""The chart of MultAdds against latency, as inline SVG that takes its colours from the page.

Both axes are logarithmic, so that points on a diagonal have the same effective rate. A line joins
the models of a series: where it is flatter than the diagonals, latency falls less than MultAdds.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

# Placeholders for the page's colours; no other part of the chart uses them.
_TEXT, _GRID, _PAGE = "#010203", "#040506", "#070809"
_PAGE_COLOURS = {_TEXT: "currentColor", _GRID: "var(--line)", _PAGE: "var(--page)"}

_COLOURS = {"float32": "#3b7dd8", "float16": "#159e82", "int8": "#e0702b", "npu": "#a259c4"}
_MARKERS = {"TFLite": "o", "ONNX": "s", "OpenVINO": "^", "Core ML": "D", "Core AI": "P"}
_NPU_MARKERS = "osD^vP"

_STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": _TEXT,
    "axes.labelcolor": _TEXT,
    "axes.edgecolor": _GRID,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
}

_WIDTH, _HEIGHT = 8.6, 4.9
# Smallest distance of two labels, as a fraction of the axes' height.
_LABEL_STEP = 0.048


@dataclass(frozen=True)
class Point:
    """A measured or estimated latency.

    Attributes:
        model: Model name.
        series: Format, runtime or NPU.
        kind: ``float32``, ``float16``, ``int8`` or ``npu``; decides the colour.
        multadds: MultAdds of the network at the size that was run.
        milliseconds: Latency of one inference.
    """

    model: str
    series: str
    kind: str
    multadds: float
    milliseconds: float


def scatter_svg(name: str, points: Sequence[Point]) -> str:
    """Draw the chart.

    Args:
        name: Name of the chart and prefix of its SVG ids, which must be unique in a page.
        points: At least one point.

    Returns:
        An ``<svg>`` element; equal points give equal text.
    """
    settings: Any = {**_STYLE, "svg.hashsalt": name}
    with mpl.rc_context(settings):
        figure = Figure(figsize=(_WIDTH, _HEIGHT))
        axes = figure.add_axes((0.07, 0.14, 0.7, 0.78))
        _set_limits(axes, points)
        _draw_rates(axes)
        _draw_models(axes, points)
        _draw_series(axes, points)
        stream = io.StringIO()
        figure.savefig(
            stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    return _embeddable(stream.getvalue(), name)


def spread_out(wanted: Sequence[float], step: float) -> list[float]:
    """Move positions apart so that neighbours are at least ``step`` apart, as little as possible.

    Args:
        wanted: Positions in any order.
        step: Smallest distance.

    Returns:
        The new positions in the order of ``wanted``; the order along the axis is kept.
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    # Clusters of labels that touch, each centred on the mean of its wanted positions.
    clusters: list[list[int]] = []
    for index in order:
        clusters.append([index])
        while len(clusters) > 1:
            below, above = clusters[-2], clusters[-1]
            if (
                _centre(above, wanted) - _centre(below, wanted)
                >= step * (len(below) + len(above)) / 2
            ):
                break
            clusters[-2:] = [below + above]
    placed = [0.0] * len(wanted)
    for cluster in clusters:
        start = _centre(cluster, wanted) - step * (len(cluster) - 1) / 2
        for rank, index in enumerate(cluster):
            placed[index] = start + step * rank
    return placed


def _centre(cluster: Sequence[int], wanted: Sequence[float]) -> float:
    return sum(wanted[index] for index in cluster) / len(cluster)


def _set_limits(axes: Axes, points: Sequence[Point]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    for set_limits, values, margin in (
        (axes.set_xlim, [point.multadds for point in points], 1.35),
        (axes.set_ylim, [point.milliseconds for point in points], 1.5),
    ):
        set_limits(min(values) / margin, max(values) * margin)
    axes.set_xlabel("MultAdds of the network", labelpad=20)
    axes.set_ylabel("milliseconds")
    axes.xaxis.set_major_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.tick_params(length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_axisbelow(True)


def _draw_rates(axes: Axes) -> None:
    """Draw the diagonals of equal effective rate, each labelled where it enters the chart."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    slowest, fastest = left / top * 1000, right / bottom * 1000
    for rate in LogLocator(subs=(1, 3)).tick_values(slowest, fastest):
        start = max(left, bottom * rate / 1000)
        if start * 1.25 > right or start / rate * 1000 * 1.25 > top:
            continue
        ends = np.array([start, right])
        axes.plot(
            ends,
            ends / rate * 1000,
            color=_TEXT,
            linewidth=0.8,
            alpha=0.3,
            linestyle=(0, (1, 3)),
            zorder=1,
        )
        axes.annotate(
            f"{_si(rate)}/s",
            (start, start / rate * 1000),
            rotation=_slope(axes),
            rotation_mode="anchor",
            xytext=(5, 6),
            textcoords="offset points",
            fontsize=7.5,
            alpha=0.6,
        )


def _slope(axes: Axes) -> float:
    """Return the angle of the diagonals on the page, in degrees."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    box = axes.get_position()
    across = box.width * _WIDTH / np.log10(right / left)
    up = box.height * _HEIGHT / np.log10(top / bottom)
    return float(np.degrees(np.arctan2(up, across)))


def _draw_models(axes: Axes, points: Sequence[Point]) -> None:
    """Mark the MultAdds of each model; models of about equal MultAdds share a mark."""
    left, right = axes.get_xlim()
    too_near = (right / left) ** 0.1
    places: list[tuple[float, list[str]]] = []
    for multadds, model in sorted({(point.multadds, point.model) for point in points}):
        if not places or multadds > places[-1][0] * too_near:
            places.append((multadds, [model]))
        elif model not in places[-1][1]:
            places[-1][1].append(model)
    for multadds, models in places:
        axes.axvline(multadds, color=_GRID, linewidth=0.8, zorder=0)
        axes.annotate(
            _si(multadds),
            (multadds, 0),
            xycoords=("data", "axes fraction"),
            xytext=(0, -4),
            textcoords="offset points",
            ha="center",
            va="top",
        )
        axes.annotate(
            " · ".join(models),
            (multadds, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=10.5,
            fontweight="bold",
        )


def _draw_series(axes: Axes, points: Sequence[Point]) -> None:
    """Draw each series with its label to the right, at the height of its last point."""
    series: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        series.setdefault((point.series, point.kind), []).append(point)
    bottom, top = np.log(axes.get_ylim())
    heights = []
    for rank, ((name, kind), members) in enumerate(series.items()):
        members.sort(key=lambda point: point.multadds)
        marker = (
            _NPU_MARKERS[rank % len(_NPU_MARKERS)] if kind == "npu" else _MARKERS.get(name, "v")
        )
        axes.plot(
            [point.multadds for point in members],
            [point.milliseconds for point in members],
            color=_COLOURS[kind],
            linewidth=1.2,
            marker=marker,
            markersize=7.5,
            markeredgecolor=_PAGE,
            markeredgewidth=1,
            zorder=3,
        )
        heights.append(float((np.log(members[-1].milliseconds) - bottom) / (top - bottom)))
    labels = spread_out(heights, _LABEL_STEP)
    for ((name, kind), members), height in zip(series.items(), labels, strict=True):
        last = members[-1]
        words = [name] if kind == "npu" else [name, kind]
        axes.annotate(
            f"{' '.join(words)}  {_milliseconds(last.milliseconds)}",
            (last.multadds, last.milliseconds),
            xytext=(1.015, height),
            textcoords="axes fraction",
            va="center",
            fontsize=9.5,
            color=_COLOURS[kind],
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": _COLOURS[kind],
                "linewidth": 0.7,
                "alpha": 0.5,
                "shrinkA": 2,
                "shrinkB": 6,
            },
        )


def _si(value: float) -> str:
    """Return a number of operations with three digits and an SI prefix: 32.5 G."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.3g}"


def _milliseconds(value: float) -> str:
    """Return a time with three digits and never an exponent."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f} ms"


def _embeddable(document: str, name: str) -> str:
    """Return the ``<svg>`` element with prefixed ids and the page's colours."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    for stand_in, colour in _PAGE_COLOURS.items():
        svg = svg.replace(stand_in, colour)
    return svg
