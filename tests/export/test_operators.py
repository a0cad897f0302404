"""The vocabulary: facts that entries must state, and every stage's results against torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray
from torch import Tensor

from export import execution
from export.errors import CannotLower
from export.graph import Graph, Node
from export.operators import OPERATORS, Operator, Trait
from export.scales import ScaleTable
from export.writers import coreml_writer, onnx_writer, tflite_writer
from quantize import simulator
from runtime.formats import Precision

Image = NDArray[np.float32]
Fixture = Callable[..., Any]
TOLERANCE = {"float32": 1e-5, "float16": 2e-3}


def test_an_operator_that_is_not_pointwise_says_how_far_it_reaches() -> None:
    # Without a reach its halo would be 0, and tiles would be wrong at their edges.
    with pytest.raises(ValueError, match="Blur: expected the pixels it reads, or POINTWISE"):
        Operator("Blur", traits=frozenset({Trait.PER_CHANNEL}))


@pytest.mark.parametrize(
    "stage",
    [execution, simulator, onnx_writer, tflite_writer, coreml_writer],
    ids=lambda m: m.__name__,
)
def test_every_operator_is_handled_or_refused(stage: ModuleType) -> None:
    assert set(stage.HANDLERS) | set(stage.REFUSED) == set(OPERATORS)
    assert not set(stage.HANDLERS) & set(stage.REFUSED)


def test_core_ai_handles_or_refuses_every_operator() -> None:
    pytest.importorskip("coreai", reason="Core AI is beta and an extra")
    from export.writers import coreai_writer

    test_every_operator_is_handled_or_refused(coreai_writer)


def test_every_operator_has_a_case(operator_graphs: Mapping[str, Graph]) -> None:
    assert {node.op for one in operator_graphs.values() for node in one.nodes} == set(OPERATORS)


class _Recorder(execution.Interpreter):
    """Keeps every node with its operands."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.seen: list[tuple[Node, list[Tensor]]] = []

    def apply(self, node: Node, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
        self.seen.append((node, list(operands)))
        return super().apply(node, operands)


def fitting(graph: Graph, height: int, width: int) -> tuple[int, int]:
    """Return the least sides of at least height × width that ``graph`` takes."""
    return graph.sides.fitting(height), graph.sides.fitting(width)


def test_traits_are_true(operator_case: Any, picture: Fixture) -> None:
    recorder = _Recorder(operator_case.graph)
    recorder(torch.from_numpy(picture(*fitting(operator_case.graph, 5, 7))))
    for node, operands in recorder.seen:
        count = len(operands) - len(node.operator.constants)
        values, constants, traits = operands[:count], operands[count:], node.operator.traits

        def compute(*changed: Tensor, node: Node = node) -> Tensor:
            return torch.cat(execution.HANDLERS[node.op](node, changed), 1)

        result = compute(*operands)
        if Trait.HOMOGENEOUS in traits:
            doubled = compute(*(2 * value for value in values), *constants)
            torch.testing.assert_close(doubled, 2 * result)
        if Trait.PER_CHANNEL in traits:
            flipped = compute(values[0].flip(1), *(one.flip(0) for one in constants))
            # Not equal to the bit: torch computes vectors of pixels and single ones differently.
            torch.testing.assert_close(flipped, result.flip(1), atol=1e-6, rtol=0)
        if Trait.MOVES in traits:
            copied = {0.0}.union(*(value.flatten().tolist() for value in values))
            assert copied.issuperset(result.flatten().tolist())
        if Trait.POINTWISE in traits:
            touched = [value.clone() for value in values]
            for value in touched:
                if value.shape[2:] == result.shape[2:]:
                    value[..., -1, -1] += 1
            different = (compute(*touched, *constants) != result).any(1)[0]
            assert not different[:-1].any() and not different[:, :-1].any()


def test_channels_resolutions_and_halo_are_those_of_the_tensors(
    operator_case: Any, picture: Fixture
) -> None:
    graph = operator_case.graph
    height, width = fitting(graph, 12, 12)
    image = torch.from_numpy(picture(height, width))
    recorder = _Recorder(graph)
    recorder(image)
    shapes, sizes = graph.shapes(), graph.sizes()
    for node, operands in recorder.seen:
        for name, operand in zip(node.inputs, operands, strict=True):
            expected = shapes[name]
            if name in sizes:
                rows, columns = sizes[name]
                expected = (*expected[:2], rows.of(height), columns.of(width))
            assert tuple(operand.shape) == expected


def test_what_is_further_than_the_halo_does_not_matter(
    operator_case: Any, picture: Fixture
) -> None:
    graph = operator_case.graph
    halo, multiple, scale = graph.halo(), graph.multiple, max(graph.scale, 1)
    # A block of pixels, far from the edges.
    start = -(-(halo + graph.sides.minimum + 12) // multiple) * multiple
    side = 2 * start + multiple
    image = torch.from_numpy(picture(side, side)).double()
    restored = execution.execute(graph, image)
    if graph.pools_globally:
        return

    def changes(rows: slice, columns: slice) -> bool:
        touched = image.clone()
        touched[..., rows, columns] += 1
        block = slice(scale * start, scale * (start + multiple))
        return bool((execution.execute(graph, touched) != restored)[..., block, block].any())

    whole, last = slice(None), start + multiple + halo
    outside = (slice(0, start - halo), slice(last, side))
    assert not any(changes(one, whole) or changes(whole, one) for one in outside)
    if any(extent.offset < 0 for size in graph.sizes().values() for extent in size):
        return  # Where activations are cropped, a tile must hold what is cut off, too.
    # Not one less, so that a smaller halo would be wrong.
    edges = (slice(start - halo, start - halo + 1), slice(last - 1, last))
    assert any(changes(one, whole) or changes(whole, one) for one in edges)


@dataclass(frozen=True)
class Job:
    """The input of a stage: a graph in one precision, and an empty folder for its file."""

    graph: Graph
    path: Path
    precision: Precision
    table: ScaleTable
    open_package: Callable[[Path], Callable[[Image], Image]]


def _executed(job: Job, image: Image) -> Image:
    restored: Image = execution.execute(job.graph, torch.from_numpy(image)).numpy()
    return restored


def _simulated(job: Job, image: Image) -> Image:
    restored: Image = simulator.Simulator(job.graph, job.table)(torch.from_numpy(image)).numpy()
    return restored


def _onnx(job: Job, image: Image) -> Image:
    onnx_writer.write_onnx(job.graph, job.path, job.precision, job.table)
    options = ort.SessionOptions()
    # Exact sums on CPUs without VNNI, too; as runtime.engines.onnxruntime_engine asks for.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(job.path, options, providers=["CPUExecutionProvider"])
    restored: Image = session.run(["restored_image"], {"image": image})[0]
    return restored


def _tflite(
    job: Job, image: Image, kernels: Any = OpResolverType.AUTO, float_io: bool = False
) -> Image:
    size = image.shape[2:] if "ConvTranspose" in job.graph.operators() else None
    tflite_writer.write_tflite(job.graph, job.path, job.precision, job.table, size, float_io)
    litert = Interpreter(str(job.path), num_threads=1, experimental_op_resolver_type=kernels)
    (source,), (target,) = litert.get_input_details(), litert.get_output_details()
    fed = np.ascontiguousarray(image.transpose(0, 2, 3, 1))
    if source["dtype"] == np.int8:
        scale, zero_point = source["quantization"]
        fed = np.clip(np.rint(fed / scale) + zero_point, -128, 127).astype(np.int8)
    litert.resize_tensor_input(source["index"], fed.shape)
    litert.allocate_tensors()
    litert.set_tensor(source["index"], fed)
    litert.invoke()
    restored: Image = litert.get_tensor(target["index"]).transpose(0, 3, 1, 2)
    if target["dtype"] == np.int8:
        scale, zero_point = target["quantization"]
        restored = (restored.astype(np.float32) - zero_point) * np.float32(scale)
    return restored


def _coreml(job: Job, image: Image) -> Image:
    coreml_writer.write_coreml(job.graph, job.path, job.precision, job.table)
    return job.open_package(job.path)(image)


def _coreai(job: Job, image: Image) -> Image:
    from export.writers.coreai_writer import write_coreai
    from runtime.engines.coreai_engine import open_engine

    path = job.path.with_suffix(".aimodel")
    write_coreai(job.graph, path, job.precision, job.table)
    engine = open_engine(path, 1)
    engine.feed("image", image)
    engine.invoke()
    restored: Image = engine.fetch("restored_image")
    engine.close()
    return restored


_NEEDS_COREAI = pytest.mark.skipif(
    find_spec("coreai") is None,
    reason="Core AI is beta and an extra: pip install 'reslite[coreai]'",
)
_PLAIN = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
STAGES: Mapping[str, Callable[[Job, Image], Image]] = {
    "torch": _executed,
    "simulator": _simulated,
    "onnx": _onnx,
    "tflite": _tflite,
    "tflite without XNNPACK": partial(_tflite, kernels=_PLAIN),
    "tflite of float pictures": partial(_tflite, float_io=True),
    "coreml": _coreml,
    "coreai": _coreai,
}
FLOATS = [
    ("torch", "float32"),
    *product(["onnx", "tflite", "tflite without XNNPACK", "coreml"], ["float32", "float16"]),
    *(pytest.param("coreai", one, marks=_NEEDS_COREAI) for one in ("float32", "float16")),
]
INT8 = [
    pytest.param(stage, marks=_NEEDS_COREAI) if stage == "coreai" else stage
    for stage in STAGES
    if stage != "torch"
]


@pytest.fixture
def job_of(
    tmp_path: Path, calibrated: Fixture, open_package: Fixture
) -> Callable[[Graph, Precision, Image], Job]:
    """Return a function that makes the job of a graph, its scales those of a picture."""

    def job_of(graph: Graph, precision: Precision, image: Image) -> Job:
        table = calibrated(graph, image, output=None)
        path = tmp_path / "file.mlpackage"
        return Job(graph, path, precision, table, open_package)

    return job_of


def _refuses(case: Any, stage: str, job: Job, image: Image) -> bool:
    """Tell whether a stage is to refuse a case; check that it does."""
    message = case.refusal(stage.split()[0], job.precision)
    if message is not None:
        with pytest.raises(CannotLower, match=message):
            STAGES[stage](job, image)
        assert not list(job.path.parent.iterdir())
    return message is not None


@pytest.mark.parametrize(("stage", "precision"), FLOATS)
def test_every_stage_computes_what_torch_does(
    operator_case: Any, stage: str, precision: Precision, picture: Fixture, job_of: Fixture
) -> None:
    graph = operator_case.graph.check()
    job = job_of(graph, precision, picture(*fitting(graph, 5, 7)))
    for image in (picture(*fitting(graph, 5, 7)), picture(*fitting(graph, 1, 1))):
        if not _refuses(operator_case, stage, job, image):
            expected = operator_case.restore(image)
            tolerance = TOLERANCE[precision] * max(1, np.abs(expected).max())
            found = STAGES[stage](job, image)
            np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("stage", INT8)
def test_every_stage_computes_the_integers_of_the_table(
    operator_case: Any, stage: str, picture: Fixture, job_of: Fixture, simulated: Fixture
) -> None:
    image = picture(*fitting(operator_case.graph, 6, 9))
    job = job_of(operator_case.graph, "int8", image)
    if _refuses(operator_case, stage, job, image):
        return
    quantum = job.table.of("restored_image").scale
    expected = np.rint(simulated(job.graph, job.table, image) / quantum)
    found = np.rint(STAGES[stage](job, image) / quantum)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2)
    assert np.ptp(expected) > 100  # Most of the 256 integers are in use.
    # Intermediate rounding moves values by a few quanta; another function would be further off.
    np.testing.assert_allclose(found, operator_case.restore(image) / quantum, rtol=0, atol=8)
