"""Core ML packages, executed by the interpreter of conftest.py: Core ML itself needs macOS."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from export.execution import activations_of
from export.graph import Graph, Node
from export.lowering import lower
from export.profiles import DEFAULT_PROFILES, PROFILES
from export.rewrites.pooling import cut_at_pooling
from export.rewrites.requantization import with_requantization
from export.scales import ScaleTable
from export.writers.coreml_writer import DEFAULT_SIZES, ct, write_coreml
from runtime.errors import UserError
from runtime.formats import Ports, Precision
from runtime.manifest import TensorInfo, size_of

Image = NDArray[np.float32]
Picture = Callable[[int, int], Image]
Capture = Callable[[str, int], Any]
Calibrate = Callable[..., ScaleTable]
Simulate = Callable[[Graph, ScaleTable, Image], Image]
Open = Callable[[Path], Callable[[Image], Image]]

SIZES = [(37, 51), (8, 8), (1, 1), (1, 7)]
TOLERANCE = {"float32": 1e-5, "float16": 2e-3}
QUANTA = 2


def _lowered(graph: Graph, precision: Precision) -> Graph:
    return lower(graph, PROFILES[DEFAULT_PROFILES["coreml"]].rewrites(precision))


def _specification(path: Path) -> Any:
    return ct.models.MLModel(str(path), skip_model_load=True).get_spec()


def _quanta_apart(found: Image, expected: Image, scale: float) -> NDArray[np.int64]:
    """Return the distances in quanta; float16 holds multiples of a scale only nearly."""
    return np.abs(np.rint(found / scale) - np.rint(expected / scale)).astype(np.int64)


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("model", ["carn", "carn-m"])
@pytest.mark.parametrize(
    "scale", [4, pytest.param(3, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_a_network_computes_what_torch_does_at_any_size(
    scale: int,
    model: str,
    precision: Precision,
    tmp_path: Path,
    captured: Capture,
    picture: Picture,
    open_package: Open,
) -> None:
    network, path = captured(model, scale), tmp_path / "network.mlpackage"
    write_coreml(_lowered(network.graph, precision), path, precision)
    run = open_package(path)
    for size in SIZES:
        image = picture(*size)
        np.testing.assert_allclose(
            run(image), network.restore(image), atol=TOLERANCE[precision], rtol=0
        )


@pytest.mark.parametrize("model", ["carn", "carn-m"])
@pytest.mark.parametrize("requantize", [False, True], ids=["tied", "requantized"])
def test_an_int8_network_agrees_with_the_simulation(
    model: str,
    requantize: bool,
    tmp_path: Path,
    captured: Capture,
    picture: Picture,
    calibrated: Calibrate,
    simulated: Simulate,
    open_package: Open,
) -> None:
    graph, path = _lowered(captured(model, 4).graph, "int8"), tmp_path / "network.mlpackage"
    concats = [node for node in graph.nodes if node.op == "Concat"]
    pairs = tuple((node.inputs[0], node.output) for node in concats) if requantize else ()
    table = calibrated(graph, picture(24, 24), requantized=pairs)
    graph = with_requantization(graph, table)
    assert ("Requantize" in graph.operators()) == requantize
    write_coreml(graph, path, "int8", table, arithmetic="float32")
    run = open_package(path)
    for size in SIZES:
        expected = simulated(graph, table, picture(*size))
        assert _quanta_apart(run(picture(*size)), expected, 1 / 255).max() <= QUANTA


@pytest.mark.parametrize("model", ["carn", "carn-m"])
def test_float16_arithmetic_strays_further_in_one_value_of_ten_thousand(
    model: str,
    tmp_path: Path,
    captured: Capture,
    picture: Picture,
    calibrated: Calibrate,
    simulated: Simulate,
    open_package: Open,
) -> None:
    graph, path = _lowered(captured(model, 4).graph, "int8"), tmp_path / "network.mlpackage"
    table = calibrated(graph, picture(24, 24))
    write_coreml(graph, path, "int8", table)
    expected = simulated(graph, table, picture(37, 51))
    quanta = _quanta_apart(open_package(path)(picture(37, 51)), expected, 1 / 255)
    assert quanta.max() <= QUANTA + 1 and (quanta > QUANTA).mean() < 1e-4


def test_a_package_says_what_it_is(tmp_path: Path, small_graph: Graph) -> None:
    path = tmp_path / "network.mlpackage"
    written = write_coreml(small_graph, path, "float16")
    assert written.input == TensorInfo("image", "NCHW", "float32", (1, 3, None, None))
    assert written.output == TensorInfo("restored_image", "NCHW", "float32", (1, 3, None, None))
    specification = _specification(path)
    description = specification.description
    assert description.metadata.author == "reslite"
    assert "3 times" in description.metadata.shortDescription
    (image,), (restored,) = description.input, description.output
    assert (image.name, restored.name) == ("image", "restored_image")
    assert "RGB in [0, 1]" in image.shortDescription
    assert "clamp" in restored.shortDescription
    float32 = ct.proto.FeatureTypes_pb2.ArrayFeatureType.FLOAT32
    assert image.type.multiArrayType.dataType == float32
    assert restored.type.multiArrayType.dataType == float32


@pytest.mark.parametrize(
    ("precision", "ports", "version", "systems"),
    [  # The specification versions are those of Apple's Model.proto.
        ("float32", "float32", 6, "iOS 15, macOS 12"),
        ("float16", "float32", 6, "iOS 15, macOS 12"),
        ("float16", "image", 6, "iOS 15, macOS 12"),
        ("float16", "float16", 7, "iOS 16, macOS 13"),
        ("int8", "float32", 8, "iOS 17, macOS 14"),
        ("int8", "float16", 8, "iOS 17, macOS 14"),
    ],
)
def test_a_package_asks_for_the_least_system_that_has_its_operations(
    precision: Precision,
    ports: Ports,
    version: int,
    systems: str,
    tmp_path: Path,
    small_graph: Graph,
    picture: Picture,
    calibrated: Calibrate,
) -> None:
    path = tmp_path / "network.mlpackage"
    table = calibrated(small_graph, picture(2, 2), None) if precision == "int8" else None
    written = write_coreml(small_graph, path, precision, table, ports=ports)
    specification = _specification(path)
    assert specification.specificationVersion == version
    assert specification.description.metadata.userDefined["requires"] == systems
    assert written.requires == systems


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_images_are_taken_and_given_in_whole_levels(
    precision: Precision,
    tmp_path: Path,
    captured: Capture,
    picture: Picture,
    calibrated: Calibrate,
    open_package: Open,
) -> None:
    network = captured("carn-m", 4)
    graph, image = _lowered(network.graph, precision), picture(37, 51)
    table = calibrated(graph, image) if precision == "int8" else None
    arrays, images = tmp_path / "arrays.mlpackage", tmp_path / "images.mlpackage"
    write_coreml(graph, arrays, precision, table)
    written = write_coreml(graph, images, precision, table, ports="image")
    added = {"clip": 1, "mul": 2, "round": 1}
    assert written.operators == {**_specification_operators(arrays), **added}

    levels = open_package(images)(np.rint(255 * image).astype(np.float32))
    np.testing.assert_array_equal(levels, np.rint(levels))
    # Float packages: one rounding to levels. int8 ones have levels already.
    expected = 255 * np.clip(open_package(arrays)(image), 0, 1)
    apart = np.abs(levels - expected)
    assert apart.max() <= {"float32": 0.501, "float16": 0.9, "int8": 0.1}[precision]
    if precision != "int8":
        assert np.abs(levels - 255 * np.clip(network.restore(image), 0, 1)).max() <= 1.01


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_images_that_overshoot_are_clamped(
    precision: Precision, tmp_path: Path, open_package: Open
) -> None:
    nodes = (
        Node("Mul", "mul", ("image", "three"), ("larger",)),
        Node("Sub", "sub", ("larger", "one"), ("restored_image",)),
    )
    constants = {"three": np.array(3, np.float32), "one": np.array(1, np.float32)}
    path = tmp_path / "network.mlpackage"
    write_coreml(Graph(nodes, constants), path, precision, ports="image")
    levels = np.arange(256, dtype=np.float32).repeat(3).reshape(1, 16, 16, 3).transpose(0, 3, 1, 2)
    expected = np.clip(3 * levels - 255, 0, 255)
    apart = np.abs(open_package(path)(levels) - expected)
    assert apart.max() <= (0 if precision == "float32" else 1)  # float16: a step of ⅛ from rint


def _specification_operators(path: Path) -> dict[str, int]:
    main = _specification(path).mlProgram.functions["main"]
    (block,) = main.block_specializations.values()
    found = Counter(one.type for one in block.operations if one.type != "const")
    return dict(sorted(found.items()))


@pytest.mark.parametrize("ports", ["image", "float16"])
def test_a_cut_network_has_the_same_ports(
    ports: Ports, tmp_path: Path, operator_graphs: Mapping[str, Graph]
) -> None:
    cut = cut_at_pooling(operator_graphs["Mul by a pooled value"])
    assert cut.pooling is not None
    path = tmp_path / "network.mlpackage"
    written = write_coreml(cut, path, "float16", ports=ports)
    kinds = {
        one.name: one.type.WhichOneof("Type") for one in _specification(path).description.input
    }
    picture = "imageType" if ports == "image" else "multiArrayType"
    assert kinds == {"image": picture, cut.pooling.pooled: "multiArrayType"}
    assert written.pooling is not None
    assert written.pooling.pooled.dtype == ("float32" if ports == "image" else "float16")


def test_images_of_listed_fixed_and_free_sizes(tmp_path: Path, small_graph: Graph) -> None:
    path = tmp_path / "network.mlpackage"
    written = write_coreml(small_graph, path, "float16", ports="image")
    tensor = TensorInfo("image", "NHWC", "uint8", (1, None, None, 3), scale=1 / 255, zero_point=0)
    assert written.input == tensor
    description = _specification(path).description
    taken, given = (one[0].type.imageType for one in (description.input, description.output))
    assert taken.colorSpace == given.colorSpace == taken.ColorSpace.Value("RGB")
    sizes = [(one.height, one.width) for one in taken.enumeratedSizes.sizes]
    assert sizes == list(DEFAULT_SIZES)
    assert "0, 1" not in description.input[0].shortDescription
    assert "8 bits" in description.metadata.userDefined["range"]

    write_coreml(small_graph, path, "float16", size=(6, 9), ports="image")
    description = _specification(path).description
    taken, given = (one[0].type.imageType for one in (description.input, description.output))
    assert (taken.height, taken.width, given.height, given.width) == (6, 9, 18, 27)

    write_coreml(small_graph, path, "float16", flexible=(16, 640), ports="image")
    free = _specification(path).description.input[0].type.imageType.imageSizeRange
    assert (free.heightRange.lowerBound, free.widthRange.upperBound) == (16, 640)


def test_float16_arrays_are_those_of_the_program(
    tmp_path: Path, captured: Capture, picture: Picture, open_package: Open
) -> None:
    path, graph = tmp_path / "network.mlpackage", captured("carn-m", 4).graph
    image = picture(8, 9).astype(np.float16).astype(np.float32)
    write_coreml(graph, path, "float16")
    expected = open_package(path)(image)
    written = write_coreml(graph, path, "float16", ports="float16")
    assert "cast" not in written.operators
    assert written.input.dtype == written.output.dtype == "float16"
    half = ct.proto.FeatureTypes_pb2.ArrayFeatureType.FLOAT16
    assert _array_type(path).dataType == half
    np.testing.assert_array_equal(open_package(path)(image), expected)
    with pytest.raises(UserError, match="float16 arrays are for float16 files"):
        write_coreml(graph, path, "float32", ports="float16")


def _array_type(path: Path) -> Any:
    return _specification(path).description.input[0].type.multiArrayType


def test_by_default_a_package_takes_the_listed_sizes(tmp_path: Path, small_graph: Graph) -> None:
    path = tmp_path / "network.mlpackage"
    write_coreml(small_graph, path, "float32")
    array = _array_type(path)
    assert tuple(array.shape) == (1, 3, *DEFAULT_SIZES[0])
    found = {tuple(shape.shape) for shape in array.enumeratedShapes.shapes}
    assert found == {(1, 3, *size) for size in DEFAULT_SIZES}


def test_a_range_of_sizes_on_request(tmp_path: Path, small_graph: Graph) -> None:
    path = tmp_path / "network.mlpackage"
    write_coreml(small_graph, path, "float32", flexible=(16, 640))
    ranges = _array_type(path).shapeRange.sizeRanges
    assert [(one.lowerBound, one.upperBound) for one in ranges[2:]] == [(16, 640), (16, 640)]


def test_a_range_is_of_sides_that_the_network_takes(tmp_path: Path, small_graph: Graph) -> None:
    path, stepped = tmp_path / "network.mlpackage", dataclasses.replace(small_graph, step=24)
    write_coreml(stepped, path, "float32", flexible=(16, 640))
    ranges = _array_type(path).shapeRange.sizeRanges
    assert [(one.lowerBound, one.upperBound) for one in ranges[2:]] == [(24, 624), (24, 624)]
    with pytest.raises(UserError, match=r"multiples of 24 pixels from 24 up; .* be 48 or more"):
        write_coreml(stepped, path, "float32", flexible=(25, 40))


def test_a_fixed_size_is_the_only_one(
    tmp_path: Path, captured: Capture, picture: Picture, open_package: Open
) -> None:
    network, path = captured("carn-m", 4), tmp_path / "network.mlpackage"
    written = write_coreml(network.graph, path, "float32", size=(6, 9))
    assert written.input.shape == (1, 3, 6, 9)
    assert written.output.shape == (1, 3, 24, 36)
    description = _specification(path).description
    assert _array_type(path).WhichOneof("ShapeFlexibility") is None
    assert tuple(description.input[0].type.multiArrayType.shape) == (1, 3, 6, 9)
    assert tuple(description.output[0].type.multiArrayType.shape) == (1, 3, 24, 36)
    expected = network.restore(picture(6, 9))
    np.testing.assert_allclose(open_package(path)(picture(6, 9)), expected, atol=1e-5, rtol=0)


def test_a_program_holds_the_nodes_of_the_graph_and_its_casts(
    tmp_path: Path, captured: Capture
) -> None:
    written = write_coreml(captured("carn-m", 4).graph, tmp_path / "a.mlpackage", "float16")
    # The figures of ECCV 2018: 9 residual blocks of 3 convolutions, 12 fusions, entry, exit, 2 up.
    assert written.operators == {
        "add": 10,
        "cast": 2,
        "concat": 12,
        "conv": 43,
        "pixel_shuffle": 2,
        "relu": 41,
        "sub": 1,
    }


def test_shared_weights_are_stored_once(
    tmp_path: Path, captured: Capture, picture: Picture, calibrated: Calibrate
) -> None:
    # 294,147 parameters; beside them a package holds its program, below 250 kB.
    sizes = {}
    for precision in ("float32", "float16", "int8"):
        graph, path = _lowered(captured("carn-m", 4).graph, precision), tmp_path / "a.mlpackage"
        table = calibrated(graph, picture(2, 2)) if precision == "int8" else None
        written = write_coreml(graph, path, precision, table)
        sizes[precision] = size_of(path)
    for precision, width in (("float32", 4), ("float16", 2), ("int8", 1)):
        assert 0 < sizes[precision] - 294_147 * width < 250_000
    # A recursive block has one kernel for its three uses.
    assert written.operators["constexpr_affine_dequantize"] == 28 < written.operators["conv"]


def test_int8_programs_round_where_the_simulation_does(
    tmp_path: Path, captured: Capture, picture: Picture, calibrated: Calibrate
) -> None:
    graph, path = _lowered(captured("carn-m", 4).graph, "int8"), tmp_path / "a.mlpackage"
    with torch.no_grad():
        held = activations_of(graph, torch.from_numpy(picture(2, 2)))
    written = write_coreml(graph, path, "int8", calibrated(graph, picture(2, 2)))
    assert written.operators["quantize"] == written.operators["dequantize"] == len(held)


def test_the_package_names_its_program(tmp_path: Path, small_graph: Graph) -> None:
    write_coreml(small_graph, tmp_path / "a.mlpackage", "float32")
    manifest = json.loads((tmp_path / "a.mlpackage" / "Manifest.json").read_text())
    root = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]
    assert (tmp_path / "a.mlpackage" / "Data" / root["path"]).is_file()


def test_a_package_replaces_the_one_before(tmp_path: Path, small_graph: Graph) -> None:
    path = tmp_path / "network.mlpackage"
    write_coreml(small_graph, path, "float32", size=(8, 8))
    write_coreml(small_graph, path, "float32", size=(9, 9))
    assert tuple(_array_type(path).shape) == (1, 3, 9, 9)
    assert [entry.name for entry in tmp_path.iterdir()] == ["network.mlpackage"]


@pytest.mark.parametrize(
    ("name", "precision", "flexible", "message"),
    [
        ("a.mlpackage", "int8", None, "int8 needs a table of scales"),
        ("a.mlmodel", "float32", None, r"must be called \*\.mlpackage"),
        ("a.mlpackage", "float32", (64, 32), "least and a greatest size"),
        ("a.mlpackage", "float32", (0, 32), "least and a greatest size"),
    ],
)
def test_a_mistake_is_named_and_leaves_nothing_behind(
    name: str,
    precision: Precision,
    flexible: tuple[int, int] | None,
    message: str,
    tmp_path: Path,
    small_graph: Graph,
) -> None:
    with pytest.raises(UserError, match=message):
        write_coreml(small_graph, tmp_path / name, precision, flexible=flexible)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_writing_prints_nothing_and_does_not_import_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from export.writers.coreml_writer import write_coreml\n"
        "from export.graph import Graph, Node\n"
        "graph = Graph((Node('Relu', 'relu', ('image',), ('restored_image',)),), {})\n"
        "write_coreml(graph, Path(sys.argv[1]), 'float32')\n"
        "assert sys.modules.get('tensorflow') is None, 'TensorFlow was imported'\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.mlpackage")]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "a.mlpackage" / "Manifest.json").is_file()
