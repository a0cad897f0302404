"""A file is kept if it differs from its reference by no more than is allowed, and refused if not.

The references here are wrong by a known distance, a little less or more than is allowed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from export.bundle import bundle_of
from export.capture.torch_capture import capture
from export.graph import Graph
from export.parity import ParityError, Restore, check_parity
from export.scales import ScaleTable
from export.sources.source import Source
from export.variants import Variant
from quantize.ptq import quantize_network
from quantize.simulator import int8_reference
from runtime.formats import Format, Precision
from runtime.manifest import Calibration, read_manifest
from training.catalogue import Model
from training.recipe_reading import load_recipe

Open = Callable[[Path], Callable[[NDArray[np.float32]], NDArray[np.float32]]]

FILES: list[tuple[Format, Precision, float]] = [
    ("onnx", "float32", 1e-5),
    ("tflite", "float32", 1e-5),
    ("coreml", "float32", 1e-5),
    ("onnx", "float16", 2e-3),
    ("tflite", "float16", 2e-3),
    ("coreml", "float16", 2e-3),
    ("onnx", "int8", 2.01 / 255),
    ("tflite", "int8", 2.01 / 255),
    ("coreml", "int8", 3.01 / 255),
    ("coreai", "float32", 1e-5),
    ("coreai", "float16", 5e-3),
    ("coreai", "int8", 8.01 / 255),
]


class _Network(nn.Module):
    """A convolution whose outputs lie in [0.31, 0.71], far from where they are clamped.

    Args:
        distance: By how much every output is too large.
    """

    def __init__(self, distance: float = 0.0) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1)
        with torch.no_grad():
            nn.init.dirac_(self.layer.weight).mul_(0.4)
            self.layer.bias.fill_(0.31)
        self.distance = distance

    def forward(self, image: Tensor) -> Tensor:
        restored: Tensor = self.layer(image)
        return restored + self.distance if self.distance else restored


@pytest.fixture(scope="module")
def graph() -> Graph:
    return capture(_Network().eval())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    path.write_bytes(b"weights")
    return Model("tiny", path, load_recipe("carn-m"), {})


@pytest.fixture(scope="module")
def table(graph: Graph, model: Model) -> ScaleTable:
    crop = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    return quantize_network(
        graph,
        [crop],
        model=model.name,
        scale=1,
        weights_sha256=model.sha256,
        calibration=Calibration((), ""),
    )


@pytest.fixture(autouse=True)
def _core_ml_runs_here(monkeypatch: pytest.MonkeyPatch, open_package: Open) -> None:
    """Let the interpreter of conftest.py play the part of Core ML, which needs macOS."""
    importlib.import_module("psutil")  # chooses its system when it is imported
    importlib.import_module("export.writers.coreml_writer")  # quietens coremltools
    import coremltools

    class Predicting(coremltools.models.MLModel):  # type: ignore[misc]
        def __init__(self, path: str, **_: object) -> None:
            super().__init__(path, skip_model_load=True)
            self._run = lambda image: open_package(Path(path))(image)

        def predict(self, data: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
            return {"restored_image": self._run(data["image"])}

    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("platform.mac_ver", lambda: ("15.1", ("", "", ""), "arm64"))
    monkeypatch.setattr(coremltools.models, "MLModel", Predicting)


@pytest.mark.parametrize(("kind", "precision", "allowed"), FILES)
def test_a_file_is_kept_or_refused_on_either_side_of_what_is_allowed(
    kind: Format,
    precision: Precision,
    allowed: float,
    graph: Graph,
    model: Model,
    table: ScaleTable,
    tmp_path: Path,
) -> None:
    variant = Variant(kind, precision)
    file = variant.file_name("tiny", 1)

    def export(distance: float) -> Path:
        """Export beside a reference whose every output is too large by ``distance``."""

        def simulate(graph: Graph, table: ScaleTable, kind: Format) -> Restore:
            exact = int8_reference(graph, table, kind)
            return lambda picture: exact(picture) + np.float32(distance)

        folder = tmp_path / str(distance)
        source = Source(model, 1, _Network(distance).eval(), graph)
        bundle_of(source, [variant], folder, table, simulate)
        return folder

    far = min(10 * allowed, 0.25)  # a picture beyond white would be cut off
    with pytest.raises(ParityError) as far_off:
        export(far)
    own = far_off.value.difference - far  # the file's own rounding adds to the distance

    assert (export(0.97 * allowed - own) / file).exists()
    with pytest.raises(ParityError) as refused:
        export(1.03 * allowed - own)
    assert refused.value.file == file
    assert refused.value.allowed == allowed
    assert refused.value.difference == pytest.approx(1.03 * allowed, rel=0.02)
    folder = tmp_path / str(1.03 * allowed - own)
    manifest = read_manifest(folder)
    assert manifest is not None
    assert manifest.artifacts == () and not (folder / file).exists()


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_a_package_of_images_is_compared_in_whole_levels(
    precision: Precision,
    graph: Graph,
    model: Model,
    table: ScaleTable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    open_package: Open,
) -> None:
    import coremltools

    class Predicting(coremltools.models.MLModel):  # type: ignore[misc,name-defined]
        def predict(self, data: dict[str, Any]) -> dict[str, Any]:
            picture = np.asarray(data["image"], np.float32).transpose(2, 0, 1)[np.newaxis]
            (restored,) = self._run(picture)
            return {"restored_image": Image.fromarray(restored.transpose(1, 2, 0).astype("uint8"))}

    monkeypatch.setattr(coremltools.models, "MLModel", Predicting)
    source = Source(model, 1, _Network().eval(), graph)
    variant = Variant("coreml", precision, ports="image")
    manifest = bundle_of(source, [variant], tmp_path, table, int8_reference)
    (artifact,) = manifest.artifacts
    assert artifact.file == f"tiny_x1_{precision}_image_io.mlpackage"
    assert artifact.takes_images and artifact.requires is not None
    difference = artifact.measured.max_abs_diff
    assert difference is not None and difference > 0.4 / 255
    wrong = Source(model, 1, _Network(3.6 / 255).eval(), graph)
    reference = dict.fromkeys(["float32", "float16"], int8_reference).get(precision)
    with pytest.raises(ParityError):
        bundle_of(wrong, [variant], tmp_path / "wrong", table, reference or _off)


def _off(graph: Graph, table: ScaleTable, kind: Format) -> Restore:
    exact = int8_reference(graph, table, kind)
    return lambda picture: exact(picture) + np.float32(3.6 / 255)


@pytest.mark.parametrize(("kind", "precision", "allowed"), FILES)
def test_what_is_allowed(kind: Format, precision: Precision, allowed: float) -> None:
    check_parity("a.file", kind, precision, 0.0)
    check_parity("a.file", kind, precision, 0.999 * allowed)
    for difference in (1.001 * allowed, float("inf"), float("nan")):
        with pytest.raises(ParityError, match=rf"^a\.file: .* {difference:.3g}, .* {allowed:.3g} "):
            check_parity("a.file", kind, precision, difference)
