"""Post-training quantization: a table of scales from a float network and a few pictures."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from export.execution import execute
from export.graph import Graph
from export.integers import output_axis, weight_scales
from export.lowering import lower
from export.profiles import QUANTIZED_FORM
from export.rewrites.gains import combined_gains, with_gains
from export.rewrites.overflow import with_overflow
from export.rewrites.requantization import with_requantization
from export.scales import PIXELS, Quantization, ScaleTable
from export.sources.source import Source
from export.writers.writing import check_int8
from quantize.arithmetic import ARITHMETIC, EXACT, Arithmetic
from quantize.bias_correction import bias_corrections
from quantize.calibration import (
    calibration_crops,
    calibration_pictures,
    calibration_record,
    small_crops,
)
from quantize.colour_ranges import colour_safe_ranges, restorable_pictures
from quantize.equalization import channel_gains
from quantize.gain_choice import choose_gains
from quantize.gates import sigmoid_scales
from quantize.methods import Method
from quantize.observers import (
    OBSERVERS,
    Range,
    least_squares_range,
    min_max_range,
    observe,
)
from quantize.range_choice import less_harmful_ranges
from quantize.saturation import unsaturated
from quantize.scale_classes import Concatenations, ScaleClasses, moved, rectified, scale_classes
from quantize.sensitivity import effect_of_noise
from quantize.simulator import CONVOLUTIONS, Simulator
from quantize.tuning import Limit, tuned
from quantize.weight_rounding import weight_roundings
from runtime.errors import UserError
from runtime.manifest import Calibration
from training.data.pictures import Picture

_WORTH_REQUANTIZING = 0.005  # dB; a smaller gain is not worth the run time of requantizing
_TYPICAL_PSNR = 32.0  # dB; super-resolution ×4, the level at which noise is converted to a loss
_LARGEST_BIAS = 2.0**28  # an eighth of int32; accumulators and rewritten kernels need the rest


def find_scales(
    source: Source,
    folder: Path | None = None,
    method: Method | None = None,
    concatenations: Concatenations | Literal["measured"] = "measured",
    progress: bool = False,
    tuning: Limit | None = None,
) -> ScaleTable:
    """Choose the scales of a trained model from the pictures of a folder.

    Args:
        source: The trained network.
        folder: Calibration pictures; see ``calibration_pictures`` for the default.
        method: As in ``quantize_network``; None for the ``range_method`` of the model's task.
        concatenations: As in ``quantize_network``.
        progress: Show a progress bar.
        tuning: As in ``quantize_network``.
    """
    paths = calibration_pictures(folder)
    scale = source.scale
    return quantize_network(
        source.graph,
        calibration_crops(paths, source.model.task, scale),
        model=source.model.name,
        scale=scale,
        weights_sha256=source.model.sha256,
        calibration=calibration_record(paths),
        method=method or cast(Method, source.model.task.range_method),
        concatenations=concatenations,
        progress=progress,
        tuning=tuning,
    )


def quantize_network(
    graph: Graph,
    crops: Sequence[Picture],
    *,
    model: str,
    scale: int,
    weights_sha256: str,
    calibration: Calibration,
    method: Method = "mse",
    concatenations: Concatenations | Literal["measured"] = "measured",
    progress: bool = False,
    tuning: Limit | None = None,
) -> ScaleTable:
    """Choose the scale of every activation, round weights and correct biases.

    Args:
        graph: The captured network.
        crops: Low-resolution calibration crops, H × W × 3 uint8.
        model: Name of the model, for the table.
        scale: Its upscaling factor.
        weights_sha256: SHA-256 of its weights.
        calibration: The pictures that the crops come from.
        method: How the range of an activation is chosen.
        concatenations: ``tied`` or ``requantized`` (see ``scale_classes``), or ``measured``:
            tied, unless requantizing improves the output by more than 0.005 dB.
        progress: Show a progress bar.
        tuning: How long to train weights, biases and scales (see ``quantize.tuning``); None for
            not at all.

    Raises:
        CannotLower: If the graph has no int8 form.
        UserError: If there are no crops or the method is unknown.
    """
    if method not in get_args(Method):
        raise UserError(f"{method}: no such method; choose one of {', '.join(get_args(Method))}")
    if not crops:
        raise UserError("no crops to calibrate on; expected at least one, better 32 or more")
    lowered = lower(graph, QUANTIZED_FORM)
    check_int8(lowered)
    sides = lowered.sides
    images = [as_image(sides.reflected(crop)) for crop in crops]
    # In float64, so that tables do not depend on the number of threads.
    exact = [image.double() for image in images]
    shown = {
        name: [*map(sides.reflected, pictures)]
        for name, pictures in restorable_pictures(lowered).items()
    }
    # Mirrored as well, so that tones cross in both ways.
    shown["mirrored"] = [chequers[:, ::-1].copy() for chequers in shown["chequers"]]
    colours = [as_image(one).double() for pictures in shown.values() for one in pictures]
    small = small_crops(exact, sides)
    effects = effect_of_noise(lowered, small)
    by_channel, overflow = channel_gains(lowered, effects, exact, colours)
    even = with_overflow(with_gains(lowered, by_channel), overflow)
    photographed = observe(even, tqdm(exact, "observing", disable=None if progress else True))
    coloured = observe(even, [*exact[:1], *colours])
    full = {name: min_max_range(seen.merged(coloured[name])) for name, seen in photographed.items()}
    observer = OBSERVERS.get(method, least_squares_range)
    limits = {value: (0.0, one.limit) for value, one in overflow.items()}
    narrow = {name: observer(seen) for name, seen in photographed.items()} | limits
    full = unsaturated(even, full | limits, narrow)
    narrow = {name: _within(span, full[name]) for name, span in narrow.items()}
    effect: dict[str, float] = defaultdict(float)
    for name, by in effects.items():
        gains = torch.tensor(by_channel.get(lowered.origin(name), (1.0,)))
        effect[lowered.origin(name)] += float((by / gains**2).sum())
    effect |= dict.fromkeys(moved(lowered), 0.0)  # it is rounded before
    outputs = sum(image.numel() for image in small) * scale**2
    safe = colour_safe_ranges(even, narrow, full, effect, outputs)
    sigmoids = sigmoid_scales(even, full)

    def table_with(choice: Concatenations) -> ScaleTable:
        classes = scale_classes(lowered, choice)
        factors = choose_gains(even, classes.classes, safe, effect)
        gains = combined_gains(by_channel, factors)
        scaled = with_overflow(with_gains(lowered, gains), overflow)

        def chosen(ranges: Mapping[str, Range]) -> dict[str, Quantization]:
            return _activations(scaled, classes, ranges, factors, sigmoids)

        activations = chosen(safe)
        if method == "measured":
            activations = less_harmful_ranges(
                scaled, classes.classes, chosen(full), activations, images
            )
        return ScaleTable(
            model=model,
            scale=scale,
            weights_sha256=weights_sha256,
            method=f"{method}, concatenations {choice}",
            activations=activations,
            requantized=classes.requantized,
            calibration=calibration,
            gains=gains,
            overflow=overflow,
        )

    tied, requantized = (scale_classes(lowered, choice) for choice in get_args(Concatenations))
    if concatenations != "measured":
        table = table_with(concatenations)
    elif tied == requantized:
        table = table_with("tied")  # Both choices are the same; there is nothing to measure.
    else:
        table = _cheaper(lowered, table_with("tied"), table_with("requantized"), images, progress)
    scaled = with_overflow(with_gains(lowered, table.gains), overflow)
    if tuning is None:
        table = dataclasses.replace(table, roundings=weight_roundings(scaled, exact))
    table = dataclasses.replace(table, corrections=bias_corrections(scaled, table, exact))
    return table if tuning is None else tuned(graph, table, images, colours, tuning, progress)


def _cheaper(
    graph: Graph,
    tied: ScaleTable,
    requantized: ScaleTable,
    images: Sequence[Tensor],
    progress: bool,
) -> ScaleTable:
    """Return the tied table, unless requantizing improves the output enough for its run time.

    The larger loss of the ONNX and the TFLite file counts, so that a lucky rounding of one runtime
    does not decide.
    """

    def loss(table: ScaleTable, name: str) -> float:
        def error(arithmetic: Arithmetic) -> float:
            shown = tqdm(images, f"measuring {name}", disable=None if progress else True)
            return output_error(graph, table, shown, arithmetic)

        return estimated_loss(max(error(ARITHMETIC["onnx"]), error(ARITHMETIC["tflite"])))

    losses = loss(tied, "tied"), loss(requantized, "requantized")
    return requantized if losses[1] < losses[0] - _WORTH_REQUANTIZING else tied


def as_image(picture: Picture) -> Tensor:
    """Turn an H × W × 3 uint8 picture into 1 × 3 × H × W float in [0, 1]."""
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float().div(255)


def output_error(
    graph: Graph,
    table: ScaleTable,
    images: Iterable[Tensor],
    arithmetic: Arithmetic = EXACT,
) -> float:
    """Return the mean squared error of the int8 output, clamped to [0, 1].

    Args:
        graph: After the rewrites of ``export.profiles.QUANTIZED_FORM``.
        table: The scales and gains; its roundings and corrections are not applied.
        images: 1 × 3 × H × W in [0, 1].
        arithmetic: The arithmetic of the runtime.
    """
    graph = with_overflow(with_gains(graph, table.gains), table.overflow)
    simulator = Simulator(with_requantization(graph, table), table, arithmetic=arithmetic)
    with torch.inference_mode():
        errors = [
            float((simulator(image) - execute(graph, image).clamp(0, 1)).square().mean())
            for image in images
        ]
    return float(np.mean(errors))


def estimated_loss(error: float) -> float:
    """Return the loss in dB that noise of this mean square causes at a typical PSNR."""
    return float(10 * np.log10(1 + error * 10 ** (_TYPICAL_PSNR / 10)))


def _within(inner: Range, outer: Range) -> Range:
    return max(inner[0], outer[0]), min(inner[1], outer[1])


def _activations(
    graph: Graph,
    classes: ScaleClasses,
    ranges: Mapping[str, Range],
    factors: Mapping[str, float],
    sigmoids: Mapping[str, Quantization],
) -> dict[str, Quantization]:
    """Return the quantization of each class, which spans the ranges of its members times factors.

    Sigmoids by themselves have scales of their own. What is only moved, as by a concatenation, has
    the range of what it is moved from, and a value that only a Relu reads may be clipped.
    """
    chosen = dict.fromkeys(classes.pixels, PIXELS)
    unread = moved(graph) | rectified(graph).keys()
    for members in classes.classes:
        if sigmoids.keys() >= set(members):
            coarsest = max((sigmoids[value] for value in members), key=lambda one: one.scale)
            chosen.update(dict.fromkeys(members, coarsest))
            continue
        spans = [
            (factors.get(value, 1.0) * ranges[value][0], factors.get(value, 1.0) * ranges[value][1])
            for value in members
            if value not in unread
        ]
        # The picture is of no class; what it is requantized for must hold all of it.
        spans += [
            ranges[value]
            for value, joined in classes.requantized
            if value in classes.pixels and joined in members
        ]
        span = min(low for low, _ in spans), max(high for _, high in spans)
        low, high = _with_room_for_biases(graph, members, span)
        chosen.update(dict.fromkeys(members, Quantization.of_range(low, high)))
    return chosen


def _with_room_for_biases(graph: Graph, members: Sequence[str], chosen: Range) -> Range:
    """Widen a range until the biases of the convolutions that read it fit int32 at its scale.

    Only activations that are almost always zero need a wider range.
    """
    low, high = min(chosen[0], 0.0), max(chosen[1], 0.0)
    for node in graph.nodes:
        if node.op in CONVOLUTIONS and graph.origin(node.inputs[0]) in members:
            _, weight, bias = node.inputs
            scales = weight_scales(graph.constants[weight], output_axis(node))
            least = float(np.abs(graph.constants[bias] / scales).max()) / _LARGEST_BIAS
            high = max(high, low + 255 * least)
    return low, high
