"""Core AI assets, written and executed with Apple's own library, which is an extra."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from export.graph import Graph
from export.lowering import lower
from export.profiles import DEFAULT_PROFILES, PROFILES
from export.scales import ScaleTable
from runtime.errors import UserError
from runtime.formats import Precision
from runtime.manifest import TensorInfo, size_of

pytest.importorskip("coreai", reason="Core AI is beta and an extra: pip install 'reslite[coreai]'")

from export.writers.coreai_writer import write_coreai
from runtime.engines.coreai_engine import open_engine

Image = NDArray[np.float32]
Picture = Callable[[int, int], Image]
Capture = Callable[[str, int], Any]
Calibrate = Callable[..., ScaleTable]
Simulate = Callable[[Graph, ScaleTable, Image], Image]

SIZES = [(37, 51), (8, 8), (1, 1), (1, 7)]
TOLERANCE = {"float32": 1e-5, "float16": 5e-3}


def _lowered(graph: Graph, precision: Precision) -> Graph:
    return lower(graph, PROFILES[DEFAULT_PROFILES["coreai"]].rewrites(precision))


def _opened(path: Path) -> Callable[[Image], Image]:
    engine = open_engine(path, 1)

    def run(image: Image) -> Image:
        engine.feed("image", image)
        engine.invoke()
        return engine.fetch("restored_image")

    return run


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize(
    ("model", "scale"),
    [("carn-m", 4), ("carn-m", 3), pytest.param("carn", 2, marks=pytest.mark.slow)],
)
def test_a_network_computes_what_torch_does_at_any_size(
    scale: int,
    model: str,
    precision: Precision,
    tmp_path: Path,
    captured: Capture,
    picture: Picture,
) -> None:
    network, path = captured(model, scale), tmp_path / "network.aimodel"
    write_coreai(_lowered(network.graph, precision), path, precision)
    run = _opened(path)
    for size in SIZES:
        image = picture(*size)
        np.testing.assert_allclose(
            run(image), network.restore(image), atol=TOLERANCE[precision], rtol=0
        )


def test_an_int8_network_strays_from_the_simulation_in_few_values(
    tmp_path: Path,
    captured: Capture,
    picture: Picture,
    calibrated: Calibrate,
    simulated: Simulate,
) -> None:
    # Sums in float32 that are nearly half a quantum round to either side, in the simulation of
    # conftest.py as well; what follows enlarges a quantum.
    graph, path = _lowered(captured("carn-m", 4).graph, "int8"), tmp_path / "network.aimodel"
    table = calibrated(graph, picture(24, 24))
    write_coreai(graph, path, "int8", table)
    run = _opened(path)
    for size in SIZES:
        apart = np.abs(run(picture(*size)) - simulated(graph, table, picture(*size))) * 255
        assert apart.max() < 8.01 and (apart > 2.01).mean() < 0.005 and apart.mean() < 0.5


def test_a_fixed_size_is_the_only_one(tmp_path: Path, captured: Capture, picture: Picture) -> None:
    network, path = captured("carn-m", 4), tmp_path / "network.aimodel"
    written = write_coreai(network.graph, path, "float32", size=(6, 9))
    engine = open_engine(path, 1)
    assert engine.inputs == (written.input,)
    assert engine.outputs == (written.output,)
    assert written.input == TensorInfo("image", "NCHW", "float32", (1, 3, 6, 9))
    assert written.output == TensorInfo("restored_image", "NCHW", "float32", (1, 3, 24, 36))
    engine.close()
    expected = network.restore(picture(6, 9))
    np.testing.assert_allclose(_opened(path)(picture(6, 9)), expected, atol=1e-5, rtol=0)
    # No sizes are computed when the network runs.
    assert "get_shape" not in written.operators


def test_an_asset_holds_the_nodes_of_the_graph(tmp_path: Path, captured: Capture) -> None:
    graph = _lowered(captured("carn-m", 4).graph, "float16")
    written = write_coreai(graph, tmp_path / "a.aimodel", "float16")
    # The figures of ECCV 2018: 9 residual blocks of 3 convolutions, 12 fusions, entry, exit, 2 up;
    # every convolution adds its bias, every residual block its input. Two shapes of
    # shuffles are put together twice each.
    assert written.operators["conv2d"] == 43
    assert written.operators["broadcasting_add"] == 43 + 9
    assert written.operators["relu"] == 41
    assert written.operators["concat"] == 12 + 4
    assert written.operators["transpose"] == 2
    assert "constant" not in written.operators


def test_shared_weights_are_stored_once(
    tmp_path: Path, captured: Capture, picture: Picture, calibrated: Calibrate
) -> None:
    # 294,147 parameters; beside them an asset holds its program.
    for precision, width in (("float32", 4), ("float16", 2), ("int8", 1)):
        graph, path = _lowered(captured("carn-m", 4).graph, precision), tmp_path / "a.aimodel"
        table = calibrated(graph, picture(2, 2)) if precision == "int8" else None
        write_coreai(graph, path, precision, table)
        assert 0 < size_of(path) - 294_147 * width < 250_000


def test_equal_networks_make_equal_bytes_in_another_process(
    tmp_path: Path, small_graph: Graph
) -> None:
    here, there = tmp_path / "here.aimodel", tmp_path / "there.aimodel"
    write_coreai(small_graph, here, "float32")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.export.conftest import OPERATOR_CASES\n"
        "from export.writers.coreai_writer import write_coreai\n"
        "graph = OPERATOR_CASES['DepthToSpace CRD'].graph\n"
        "write_coreai(graph, Path(sys.argv[1]), 'float32')\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(there)], capture_output=True, text=True, cwd=root
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    names = sorted(file.name for file in here.iterdir())
    assert names == ["main.hash", "main.mlirb", "metadata.json"]
    for name in names:
        assert (here / name).read_bytes() == (there / name).read_bytes(), name
    assert "creationDate" not in json.loads((here / "metadata.json").read_text())


def test_a_mistake_is_named_and_leaves_nothing_behind(tmp_path: Path, small_graph: Graph) -> None:
    with pytest.raises(UserError, match="int8 needs a table of scales"):
        write_coreai(small_graph, tmp_path / "a.aimodel", "int8")
    with pytest.raises(UserError, match=r"must be called \*\.aimodel"):
        write_coreai(small_graph, tmp_path / "a.mlpackage", "float32")
    assert not list(tmp_path.iterdir())


def test_damaged_assets_are_named(tmp_path: Path, small_graph: Graph) -> None:
    path = tmp_path / "a.aimodel"
    path.mkdir()
    with pytest.raises(UserError, match="holds no Core AI program"):
        open_engine(path, 1)
    write_coreai(small_graph, path, "float32")
    program = (path / "main.mlirb").read_bytes()
    (path / "main.mlirb").write_bytes(program[:-1])
    with pytest.raises(UserError, match="its program is damaged"):
        open_engine(path, 1)
    (path / "main.mlirb").write_bytes(program)
    (path / "metadata.json").write_text("{")
    with pytest.raises(UserError, match="Core AI cannot read it"):
        open_engine(path, 1)


def test_other_versions_of_the_library_are_refused(
    tmp_path: Path, small_graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.aimodel"
    write_coreai(small_graph, path, "float32")
    monkeypatch.setattr(metadata, "version", lambda name: "1.0.0")
    for act in (lambda: open_engine(path, 1), lambda: write_coreai(small_graph, path, "float32")):
        with pytest.raises(UserError, match=r"coreai-core 1\.0\.0 is installed; .*==1\.0\.0b3"):
            act()


def test_a_missing_library_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(UserError, match=r"pip install 'reslite\[coreai\]'"):
        open_engine(tmp_path / "a.aimodel", 1)
