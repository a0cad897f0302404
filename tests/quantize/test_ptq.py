"""Tables of scales: tied scales are equal, measured choices are better, and the loss is small."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from export.capture.torch_capture import capture
from export.graph import Graph, Node
from export.integers import quantized_bias
from export.lowering import int8_form, lower
from export.profiles import QUANTIZED_FORM
from export.rewrites.requantization import with_requantization
from export.scales import PIXELS, Quantization, ScaleTable
from export.sources.source import Source
from quantize import load_scales, ptq, scales_path
from quantize.arithmetic import ARITHMETIC, Arithmetic
from quantize.calibration import calibration_crops, calibration_pictures, calibration_record
from quantize.observers import OBSERVERS
from quantize.ptq import (
    Method,
    as_image,
    estimated_loss,
    find_scales,
    output_error,
    quantize_network,
)
from quantize.scale_classes import Concatenations, scale_classes
from quantize.simulator import run_int8
from runtime.errors import UserError
from runtime.formats import Format
from runtime.manifest import Calibration, sha256_of
from training.catalogue import find_model
from training.checkpoint import save_tensors
from training.data.pictures import read_rgb
from training.degradations import bicubic
from training.metrics import LUMA
from training.metrics.psnr import psnr
from training.networks.carn import AtScale, Carn, CarnConfig
from training.recipe_reading import load_recipe
from training.tasks import SUPER_RESOLUTION

Crops = list[NDArray[np.uint8]]


def _quantize(
    graph: Graph,
    crops: Crops,
    method: Method = "mse",
    concatenations: Concatenations | Literal["measured"] = "tied",
) -> ScaleTable:
    return quantize_network(
        graph,
        crops,
        model="small",
        scale=2,
        weights_sha256="ab",
        calibration=Calibration(("one.png",), "cd"),
        method=method,
        concatenations=concatenations,
    )


def test_a_table_does_not_depend_on_the_number_of_threads(photographs: list[Path]) -> None:
    graph, threads = capture(find_model("carn-m").at_scale(2)), torch.get_num_threads()
    crops = calibration_crops(photographs, SUPER_RESOLUTION, 2, count=4)
    try:
        tables = []
        for count in (1, 2):
            torch.set_num_threads(count)
            tables.append(_quantize(graph, crops))
    finally:
        torch.set_num_threads(threads)
    assert tables[0] == tables[1]


@pytest.mark.parametrize("concatenations", get_args(Concatenations))
def test_tied_values_share_their_scale_exactly(
    graph: Graph, crops: Crops, concatenations: Concatenations
) -> None:
    table = _quantize(graph, crops, concatenations=concatenations)

    classes = scale_classes(lower(graph, QUANTIZED_FORM), concatenations)
    for members in classes.classes:
        assert len({table.activations[value] for value in members}) == 1
    assert table.requantized == classes.requantized
    assert table.activations["image"] == table.activations["restored_image"] == PIXELS
    covered = {value for members in (*classes.classes, classes.pixels) for value in members}
    assert set(table.activations) == covered


def test_the_table_says_where_it_comes_from(graph: Graph, crops: Crops) -> None:
    table = _quantize(graph, crops, "percentile")

    assert (table.model, table.scale, table.weights_sha256) == ("small", 2, "ab")
    assert table.method == "percentile, concatenations tied"
    assert table.calibration == Calibration(("one.png",), "cd")


def test_methods_differ_and_least_squares_has_the_least_error_inside(
    graph: Graph, crops: Crops
) -> None:
    lowered = lower(graph, QUANTIZED_FORM)
    images = [as_image(crop) for crop in crops]
    tables = {method: _quantize(graph, crops, method) for method in get_args(Method)}

    assert set(tables) == {*OBSERVERS, "measured"}
    # Two may end at the same ranges, because saturated colours need them.
    assert len({str(table.activations) for table in tables.values()}) >= 4
    errors = {name: output_error(lowered, table, images) for name, table in tables.items()}
    assert errors["mse"] <= 1.1 * min(errors.values())


def test_the_output_error_is_that_of_the_simulation(
    graph: Graph, network: AtScale, crops: Crops
) -> None:
    table = dataclasses.replace(_quantize(graph, crops), roundings={})
    lowered = lower(graph, QUANTIZED_FORM)
    image = as_image(crops[0])

    with torch.no_grad():
        difference = run_int8(int8_form(graph, table), table, image) - network(image).clamp(0, 1)

    expected = float(difference.square().mean())
    assert output_error(lowered, table, [image]) == pytest.approx(expected, rel=1e-3)


def test_the_estimated_loss_is_that_of_noise_on_a_typical_restoration() -> None:
    random = np.random.default_rng(0)
    truth = random.uniform(60, 200, 400_000)
    restored = truth + random.normal(0, 255 * 10 ** (-32 / 20), truth.size)
    noise = random.normal(0, 2, truth.size)

    lost = psnr(restored, truth) - psnr(restored + noise, truth)

    assert estimated_loss((2 / 255) ** 2) == pytest.approx(lost, rel=0.02)
    assert estimated_loss(0) == 0


@pytest.mark.parametrize(
    ("gain_db", "choice"),
    [
        ({"onnx": -0.1, "tflite": -0.1}, "tied"),
        ({"onnx": 0.004, "tflite": 0.006}, "tied"),
        ({"onnx": 0.006, "tflite": 0.004}, "tied"),
        ({"onnx": 0.006, "tflite": 0.007}, "requantized"),
    ],
)
def test_requantizing_must_pay_for_its_time(
    graph: Graph,
    crops: Crops,
    monkeypatch: pytest.MonkeyPatch,
    gain_db: dict[Format, float],
    choice: Concatenations,
) -> None:
    def measured(
        lowered: Graph, table: ScaleTable, images: object, arithmetic: Arithmetic
    ) -> float:
        (file,) = (name for name in gain_db if ARITHMETIC[name] is arithmetic)
        loss = 0.2 - gain_db[file] if table.requantized else 0.2
        return float((10 ** (loss / 10) - 1) / 10**3.2)

    monkeypatch.setattr(ptq, "output_error", measured)

    assert _quantize(graph, crops, concatenations="measured") == _quantize(
        graph, crops, concatenations=choice
    )


def test_measuring_keeps_the_better_of_the_two(graph: Graph, crops: Crops) -> None:
    lowered, images = lower(graph, QUANTIZED_FORM), [as_image(crop) for crop in crops]
    tied, requantized, chosen = (
        estimated_loss(output_error(lowered, _quantize(graph, crops, "mse", choice), images))
        for choice in ("tied", "requantized", "measured")
    )

    assert chosen <= min(tied, requantized) + 0.005


def test_a_network_without_concatenations_has_nothing_to_measure(
    crops: Crops, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = _convolutions(np.float32([0.1, -0.2, 0.3]))
    monkeypatch.delattr(ptq, "output_error")

    table = _quantize(graph, crops, concatenations="measured")

    assert table.requantized == ()


def _convolutions(bias: NDArray[np.float32]) -> Graph:
    """Two 3×3 convolutions with a ReLU between them."""
    random = np.random.default_rng(5)
    constants = {
        "w1": random.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32),
        "b1": random.normal(0, 0.1, 4).astype(np.float32),
        "w2": random.normal(0, 0.3, (3, 4, 3, 3)).astype(np.float32),
        "b2": bias,
    }
    return Graph(
        (
            Node("Conv", "first", ("image", "w1", "b1"), ("a",), {"groups": 1}),
            Node("Relu", "relu", ("a",), ("b",)),
            Node("Conv", "second", ("b", "w2", "b2"), ("restored_image",), {"groups": 1}),
        ),
        constants,
    )


def test_an_activation_that_is_always_zero_leaves_room_for_biases(crops: Crops) -> None:
    graph = _convolutions(np.float32([0.25, 0.5, 0.75]))
    dead = dict(graph.constants) | {
        "w1": np.zeros((4, 3, 3, 3), np.float32),
        "b1": -np.ones(4, "f4"),
    }
    graph = dataclasses.replace(graph, constants=dead)

    table = _quantize(graph, crops)

    biases = quantized_bias(dead["b2"], dead["w2"], table.of("b"))
    assert np.abs(biases).max() <= 2**28
    restored = run_int8(graph, table, as_image(crops[0]))
    for channel, level in enumerate((0.25, 0.5, 0.75)):
        assert float((restored[0, channel] - level).abs().max()) <= 0.6 / 255


def test_bad_options_are_refused_with_what_would_do(graph: Graph, crops: Crops) -> None:
    with pytest.raises(UserError, match="entropy: no such method; choose one of cautious"):
        _quantize(graph, crops, "entropy")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no crops"):
        _quantize(graph, [])


def test_damaged_weights_are_refused(crops: Crops) -> None:
    graph = _convolutions(np.float32([0.1, np.nan, 0.3]))

    with pytest.raises(UserError, match="not finite"):
        _quantize(graph, crops)


def test_scales_of_a_weights_file_from_a_folder_of_pictures(
    noise_folder: Path, tmp_path: Path
) -> None:
    config = CarnConfig(channels=4, blocks=1, units=1, scales=(2,))
    recipe = load_recipe("carn").model_copy(update={"name": "tiny", "network": config})
    path = tmp_path / "tiny.safetensors"
    save_tensors(path, Carn(config).state_dict(), {"recipe": recipe.model_dump_json()})

    table = find_scales(Source.of(find_model(str(path)), 2), noise_folder, "percentile", "tied")

    assert (table.model, table.scale, table.weights_sha256) == ("tiny", 2, sha256_of(path))
    assert table.calibration == calibration_record(calibration_pictures(noise_folder))
    assert table.of("restored_image") == PIXELS


def test_tables_have_file_names_of_artifacts() -> None:
    assert scales_path("carn-m", 4).name == "carn_m_x4.json"
    with pytest.raises(UserError, match=r"nothing ×7: no table of scales .* --scale 7' makes one"):
        load_scales("nothing", 7)


@pytest.mark.parametrize(
    "path", sorted(scales_path("", 0).parent.glob("*.json")), ids=lambda p: p.stem
)
def test_tables_that_ship_belong_to_the_weights_that_ship(path: Path) -> None:
    stem, scale = path.stem.rsplit("_x", 1)
    table = load_scales(stem.replace("_", "-"), int(scale))

    assert scales_path(table.model, table.scale) == path
    assert len(table.calibration.pictures) >= 32
    assert table.of("image") == table.of("restored_image") == PIXELS
    assert all(isinstance(one, Quantization) for one in table.activations.values())


def test_int8_costs_little_on_photographs(
    graph: Graph, network: AtScale, photographs: list[Path]
) -> None:
    # Calibrated and judged on different photographs.
    table = quantize_network(
        graph,
        calibration_crops(photographs[2:], SUPER_RESOLUTION, 2, count=16, size=24),
        model="small",
        scale=2,
        weights_sha256="",
        calibration=calibration_record(photographs[2:]),
    )
    lowered = with_requantization(int8_form(graph, table), table)
    low = bicubic.reduce(read_rgb(photographs[0])[:256, :256], 2)

    with torch.no_grad():
        real = network(as_image(low))
        quantized = run_int8(lowered, table, as_image(low))

    assert LUMA.psnr(_pixels(quantized), _pixels(real), scale=2) > 38


def _pixels(restored: torch.Tensor) -> NDArray[np.uint8]:
    levels = restored[0].clamp(0, 1).mul(255).round().permute(1, 2, 0)
    pixels: NDArray[np.uint8] = levels.to(torch.uint8).numpy()
    return pixels
