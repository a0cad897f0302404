"""What files say of themselves, read by the readers that apps have."""

from __future__ import annotations

import struct
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import coremltools
import flatbuffers.table
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from ai_edge_litert import schema_py_generated as schema

from export.artifacts import description_of
from export.graph import Graph
from export.lowering import lower
from export.profiles import PROFILES
from export.sources.source import Source
from export.writers.coreml_writer import write_coreml
from export.writers.description import Description
from export.writers.onnx_writer import write_onnx
from export.writers.tflite_writer import write_tflite
from runtime.sides import Sides
from training.catalogue import find_model

TOLD = Description("small", 3, 7, Sides(4, 16), "a1b2", "CC0")
FACTS = {
    "model": "small",
    "scale": "3",
    "halo": "7",
    "tiles": "read 7 pixels beside a tile where the picture has them, and cut their results off: "
    "what remains is exact",
    "sides": "multiples of 4, 16 or more",
    "range": "RGB in [0, 1]; the restored picture may overshoot, so clamp it",
    "source_sha256": "a1b2",
    "licence": "CC0",
    "reslite": metadata.version("reslite"),
}


def test_the_facts_are_those_of_the_network() -> None:
    model = find_model("carn-m")
    source = Source(model, 4, *_captured(model.at_scale(4)))
    facts = description_of(source).facts()
    assert (facts["model"], facts["scale"], facts["halo"]) == ("carn-m", "4", str(_halo(source)))
    assert facts["source_sha256"] == model.sha256
    assert "sides" not in facts
    assert "Apache-2.0" in facts["licence"]


def _captured(module: Any) -> tuple[Any, Graph]:
    from export.capture.torch_capture import capture

    return module, capture(module)


def _halo(source: Source) -> int:
    return source.graph.halo()


def test_a_network_that_takes_whole_pictures_says_so() -> None:
    facts = Description("whole", 1).facts()
    assert facts["tiles"] == "none: it takes whole pictures" and "halo" not in facts


def test_onnx(tmp_path: Path, small_graph: Graph) -> None:
    path = tmp_path / "a.onnx"
    write_onnx(small_graph, path, "float32", description=TOLD)
    found = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).get_modelmeta()
    assert found.custom_metadata_map == FACTS
    assert found.producer_name == "reslite"
    assert onnx.load(path).producer_version == FACTS["reslite"]


def test_core_ml(tmp_path: Path, small_graph: Graph) -> None:
    path = tmp_path / "a.mlpackage"
    write_coreml(small_graph, path, "float32", description=TOLD)
    model = coremltools.models.MLModel(str(path), skip_model_load=True)
    assert (model.author, model.license, model.version) == ("reslite", "CC0", FACTS["reslite"])
    assert FACTS.items() <= dict(model.user_defined_metadata).items()


def test_core_ai(tmp_path: Path, small_graph: Graph) -> None:
    pytest.importorskip("coreai", reason="Core AI is beta and an extra")
    from coreai.authoring import AIModelAsset

    from export.writers.coreai_writer import write_coreai

    path = tmp_path / "a.aimodel"
    write_coreai(small_graph, path, "float32", description=TOLD)
    found = AIModelAsset.load(path).metadata
    assert (found.author, found.license) == ("reslite", "CC0")
    assert "3 times" in found.model_description
    assert found.creation_date is None


class _Table:
    """A table of a flatbuffer, read by the numbers of its fields in the published schema."""

    def __init__(self, content: bytes, place: int) -> None:
        self._table = flatbuffers.table.Table(content, place)

    def _field(self, number: int) -> int:
        offset = self._table.Offset(4 + 2 * number)
        assert offset, f"field {number} is missing"
        return int(offset + self._table.Pos)

    def has(self, number: int) -> bool:
        return bool(self._table.Offset(4 + 2 * number))

    def text(self, number: int) -> str:
        return bytes(self._table.String(self._field(number))).decode()

    def byte(self, number: int) -> int:
        return int(self._table.Bytes[self._field(number)])

    def number(self, number: int) -> int:
        return int(struct.unpack_from("<I", self._table.Bytes, self._field(number))[0])

    def table(self, number: int) -> _Table:
        return _Table(self._table.Bytes, self._table.Indirect(self._field(number)))

    def tables(self, number: int) -> list[_Table]:
        start, count = self._vector(number)
        places = (self._table.Indirect(start + 4 * index) for index in range(count))
        return [_Table(self._table.Bytes, place) for place in places]

    def floats(self, number: int) -> list[float]:
        start, count = self._vector(number)
        return list(struct.unpack_from(f"<{count}f", self._table.Bytes, start))

    def _vector(self, number: int) -> tuple[int, int]:
        offset = self._field(number) - self._table.Pos
        return self._table.Vector(offset), self._table.VectorLen(offset)


def _entry(path: Path) -> _Table:
    content = path.read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    (entry,) = (one for one in model.metadata if one.name == b"TFLITE_METADATA")
    found = bytes(model.buffers[entry.buffer].data)
    assert found[4:8] == b"M001"
    return _Table(found, struct.unpack_from("<I", found)[0])


def _tflite_graph(graph: Graph, precision: Any) -> Graph:
    return lower(graph, PROFILES["litert-cpu"].rewrites(precision))


def test_tflite(tmp_path: Path, small_graph: Graph) -> None:
    path = tmp_path / "a.tflite"
    graph = _tflite_graph(small_graph, "float32")
    write_tflite(graph, path, "float32", size=(6, 9), description=TOLD)
    model = _entry(path)
    assert (model.text(0), model.text(2), model.text(4), model.text(5), model.text(7)) == (
        *("small", FACTS["reslite"], "reslite", "CC0", "1.0.0"),
    )
    summary, *lines = model.text(1).splitlines()
    assert summary == "Restores a picture at 3 times its size."
    assert dict(line.split(": ", 1) for line in lines) == FACTS
    (subgraph,) = model.tables(3)
    (image,), (restored,) = subgraph.tables(2), subgraph.tables(3)
    for tensor, name, size in ((image, "image", (6, 9)), (restored, "restored_image", (18, 27))):
        assert tensor.text(0) == name
        assert "RGB in [0, 1]" in tensor.text(1)
        content = tensor.table(3)
        assert content.byte(0) == 2  # ImageProperties
        picture = content.table(1)
        assert picture.byte(0) == 1  # RGB
        assert (picture.table(1).number(1), picture.table(1).number(0)) == size
    (unit,) = image.tables(4)
    assert unit.byte(0) == 1  # NormalizationOptions
    assert (unit.table(1).floats(0), unit.table(1).floats(1)) == ([0.0], [255.0])
    assert (image.table(5).floats(1), image.table(5).floats(0)) == ([0.0], [1.0])
    assert not restored.has(4) and not restored.has(5)


@pytest.mark.parametrize("float_io", [False, True])
def test_int8_tflite_says_what_its_bytes_are(
    float_io: bool, tmp_path: Path, small_graph: Graph, picture: Callable[..., Any], calibrated: Any
) -> None:
    path, graph = tmp_path / "a.tflite", _tflite_graph(small_graph, "int8")
    write_tflite(graph, path, "int8", calibrated(graph, picture(5, 7), None), float_io=float_io)
    description = schema.Model.GetRootAs(path.read_bytes(), 0).Description().decode()
    (subgraph,) = _entry(path).tables(3)
    (image,) = subgraph.tables(2)
    assert image.text(1) in description
    assert ("RGB in [0, 1]" in description) == float_io
    assert ("the pixel of 0 to 255 minus 128" in description) != float_io
    limits = (0.0, 1.0) if float_io else (-128.0, 127.0)
    assert (*image.table(5).floats(1), *image.table(5).floats(0)) == limits
    # And they are: 128 is the pixel of integer 0.
    if not float_io:
        from ai_edge_litert.interpreter import Interpreter

        (given,) = Interpreter(str(path)).get_input_details()
        scale, zero = given["quantization"]
        assert np.rint((0 - zero) * scale * 255) == 128
