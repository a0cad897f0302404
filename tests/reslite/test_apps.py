"""The sample apps of ``reslite ship --app`` prove themselves, and notice what an app does wrong."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import reslite
import runtime
from export.bundle import bundle_of
from export.sources.source import Source
from export.variants import Variant
from quantize import load_scales
from quantize.ptq import quantize_network
from quantize.simulator import int8_reference
from reslite.apps.golden import golden_picture, tolerance_of
from reslite.apps.languages import LANGUAGES, language_named
from reslite.apps.writing import check_apps, chosen, write_app
from reslite.modules import found
from runtime.errors import UserError
from runtime.manifest import Calibration, HalfPrecision, Manifest
from runtime.tiling import restore_tiled
from training.catalogue import find_model

Cli = Callable[..., Any]

SIZE = (64, 56)
SAMPLES = Path(__file__).parent / "samples"
NODE_MODULES = os.environ.get("RESLITE_NODE_MODULES")
"""A folder node_modules with onnxruntime-node, onnxruntime-web and kotlin-compiler."""


@dataclasses.dataclass(frozen=True)
class Bundle:
    source: Source
    manifest: Manifest
    folder: Path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """CARN-M ×2 in files of fixed size."""
    source, folder = Source.of(find_model("carn-m"), 2), tmp_path_factory.mktemp("dist")
    variants = [
        Variant("tflite", "int8", size=SIZE),
        Variant("tflite", "float32", size=SIZE),
        Variant("onnx", "float32", size=SIZE),
        Variant("coreml", "float16", size=SIZE),
    ]
    table = load_scales("carn-m", 2)
    return Bundle(source, bundle_of(source, variants, folder, table, int8_reference), folder)


@pytest.fixture(scope="module")
def lossy(bundle: Bundle) -> Manifest:
    """The manifest of a bundle whose int8 files lose more than a decibel."""
    any_size = [
        dataclasses.replace(
            one,
            file=one.file.replace("_64x56", ""),
            input=dataclasses.replace(one.input, shape=(1, None, None, 3)),
            measured=dataclasses.replace(one.measured, psnr_loss=1.2),
        )
        for one in bundle.manifest.artifacts
        if one.precision == "int8"
    ]
    artifacts = (*bundle.manifest.artifacts, *any_size)
    return dataclasses.replace(bundle.manifest, artifacts=artifacts)


@pytest.fixture
def write(bundle: Bundle, tmp_path: Path, astronaut: NDArray[np.uint8]) -> Callable[[str], Path]:
    """Return a function that writes an app beside a copy of the bundle."""
    out = tmp_path / "dist"
    shutil.copytree(bundle.folder, out)

    def write(name: str) -> Path:
        picture = astronaut[:50, :300]
        return write_app(LANGUAGES[name], bundle.source, bundle.manifest, out, picture, [SIZE])

    return write


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(one) for one in command], cwd=cwd, capture_output=True, text=True)


def changed(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_the_sample_in_python_proves_itself(write: Callable[[str], Path]) -> None:
    app = write("python")
    tree = ast.parse((app / "restore.py").read_text())
    modules = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert modules == {"__future__", "pathlib", "typing", "numpy.typing", "PIL"} | {
        "ai_edge_litert.interpreter"
    }
    assert json.loads((app / "app.json").read_text())["window"] == list(SIZE)
    done = run(sys.executable, "-I", app / "restore.py", "--self-test")
    assert (done.returncode, done.stdout) == (
        0,
        "passed: largest difference 0, 2 of 255 levels allowed\n",
    )


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("app.json", '"halo": 21', '"halo": 0'),
        ("app.json", '"zero_point": -128', '"zero_point": -120'),
        ("restore.py", "window.astype(", "window[..., ::-1].astype("),
        ("restore.py", "scale * (y.keep_start - y.start)", "0"),
    ],
)
def test_the_self_test_notices_what_an_app_does_wrong(
    write: Callable[[str], Path], file: str, before: str, after: str
) -> None:
    app = write("python")
    changed(app / file, before, after)
    done = run(sys.executable, "-I", app / "restore.py", "--self-test")
    assert done.returncode == 1
    assert done.stdout.startswith("FAILED: largest difference ") or "Error" in done.stderr


def test_the_self_test_notices_values_that_wrap_around(
    bundle: Bundle, lossy: Manifest, tmp_path: Path, astronaut: NDArray[np.uint8]
) -> None:
    out = tmp_path / "dist"
    shutil.copytree(bundle.folder, out)
    app = write_app(LANGUAGES["python"], bundle.source, lossy, out, astronaut, [SIZE])
    command = (sys.executable, "-I", app / "restore.py", "--self-test")
    assert run(*command).stdout == "passed: largest difference 0, 1 of 255 levels allowed\n"
    clamped = 'np.clip(self._get(self.facts["output"]), 0, 1)'
    changed(app / "restore.py", clamped, 'self._get(self.facts["output"])')
    changed(app / "restore.py", "np.rint(restored * 255)", "np.rint(restored * 255).astype(int)")
    assert run(*command).stdout.startswith("FAILED: largest difference 255,")


def imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("sample", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("precision", ["int8", "float32"])
@pytest.mark.parametrize("size", [(30, 41), (64, 57), (111, 20), (1, 130)])
def test_the_sample_in_python_restores_what_reslite_restores(
    bundle: Bundle,
    lossy: Manifest,
    tmp_path: Path,
    astronaut: NDArray[np.uint8],
    precision: str,
    size: tuple[int, int],
) -> None:
    manifest, out = bundle.manifest if precision == "int8" else lossy, tmp_path / "dist"
    shutil.copytree(bundle.folder, out)
    app = write_app(LANGUAGES["python"], bundle.source, manifest, out, astronaut, [SIZE])
    facts = json.loads((app / "app.json").read_text())
    file = f"carn_m_x2_{precision}_64x56.tflite"
    assert facts["file"] == f"../../{file}"
    sample = imported(app / "restore.py")

    picture = astronaut[: size[0], : size[1]]
    restored = sample.restore(sample.Network(facts), picture)

    with runtime.open(out / file) as session:
        assert np.array_equal(restored, restore_tiled(session, picture))


def test_golden_pictures_are_larger_than_a_tile_and_have_pure_colours(
    astronaut: NDArray[np.uint8],
) -> None:
    for picture in (astronaut, astronaut[:3, :2]):
        golden = golden_picture(picture, (128, 64))
        assert golden.shape == (149, 102, 3)
        assert [tuple(golden[8, x]) for x in (8, 24, 56, 88)] == [
            (0, 0, 0),
            (0, 0, 255),
            (0, 255, 255),
            (255, 0, 255),
        ]
    assert np.array_equal(golden_picture(astronaut, (128, 64))[16:], astronaut[16:149, :102])


def test_tolerances_are_those_of_the_proof(bundle: Bundle) -> None:
    int8, float32, onnx, coreml = (
        next(one for one in bundle.manifest.artifacts if (one.format, one.precision) == kind)
        for kind in (
            ("tflite", "int8"),
            ("tflite", "float32"),
            ("onnx", "float32"),
            ("coreml", "float16"),
        )
    )
    assert (tolerance_of(int8), tolerance_of(float32), tolerance_of(onnx)) == (2, 1, 1)
    amplifying = dataclasses.replace(float32.measured, max_abs_diff=0.009)
    assert tolerance_of(dataclasses.replace(float32, measured=amplifying)) == 3
    half = HalfPrecision(40.0, 1600.0, "body.3", 48.0, 66.0, 11)
    # 48 dB is a deviation of 1.015 levels.
    assert tolerance_of(dataclasses.replace(coreml, float16=half)) == 9


def test_changed_sources_are_kept_unless_told_otherwise(
    bundle: Bundle, tmp_path: Path, astronaut: NDArray[np.uint8]
) -> None:
    out, told = tmp_path / "dist", list[str]()
    shutil.copytree(bundle.folder, out)
    arguments = (LANGUAGES["python"], bundle.source, bundle.manifest, out, astronaut, [SIZE])
    app = write_app(*arguments)
    (app / "restore.py").write_text("mine")
    write_app(*arguments, announce=told.append)
    assert (app / "restore.py").read_text() == "mine"
    assert told[0].endswith("restore.py (changed; --overwrite replaces it)")
    write_app(*arguments, overwrite=True)
    assert (app / "restore.py").read_bytes() == LANGUAGES["python"].sources()["restore.py"]


# Networks that average over the whole picture


class Averaging(torch.nn.Module):
    """Features are weighed by a gate that the average of the whole picture's features opens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.head, self.tail = (torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
        with torch.no_grad():
            self.head.weight.mul_(4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.head(image)
        gate = torch.sigmoid(4 * features.mean((2, 3), keepdim=True))
        restored: torch.Tensor = self.tail(features * gate) + image
        return restored


WINDOW = (24, 20)


@pytest.fixture(scope="module")
def averaging(tmp_path_factory: pytest.TempPathFactory, astronaut: NDArray[np.uint8]) -> Bundle:
    """Files of fixed size of a network that averages, with the companions that restore tiles."""
    network, scale = found(Averaging().eval(), "averaging", 1, None, None)
    source, folder = Source.of(network, scale), tmp_path_factory.mktemp("averaging")
    crops = [astronaut[:40, :40], astronaut[200:240, 100:140], astronaut[300:340, 200:240]]
    table = quantize_network(
        source.graph,
        crops,
        model=network.name,
        scale=1,
        weights_sha256=source.model.sha256,
        calibration=Calibration((), ""),
    )
    variants = [
        Variant("tflite", "int8", size=WINDOW),
        Variant("onnx", "float32", size=WINDOW),
        Variant("coreml", "float16", size=WINDOW),
        Variant("coreml", "float16", size=WINDOW, ports="image"),
    ]
    return Bundle(source, bundle_of(source, variants, folder, table, int8_reference), folder)


@pytest.fixture
def write_averaging(
    averaging: Bundle, tmp_path: Path, astronaut: NDArray[np.uint8]
) -> Callable[[str], Path]:
    out = tmp_path / "averaging"
    shutil.copytree(averaging.folder, out)
    language, picture = LANGUAGES.__getitem__, astronaut[150:210, 180:280]
    source, manifest = averaging.source, averaging.manifest
    return lambda name: write_app(language(name), source, manifest, out, picture, [WINDOW])


def test_the_sample_in_python_averages_over_the_whole_picture(
    write_averaging: Callable[[str], Path],
) -> None:
    app = write_averaging("python")
    facts = json.loads((app / "app.json").read_text())
    assert facts["file"] == "../../averaging_x1_int8_tiled_24x20.tflite"
    assert facts["pooling"]["channels"] == 3
    command = (sys.executable, "-I", app / "restore.py", "--self-test")
    done = run(*command)
    assert (done.returncode, done.stdout) == (
        0,
        "passed: largest difference 0, 2 of 255 levels allowed\n",
    ), done.stderr
    changed(app / "restore.py", "(size[0] * size[1])", "(2 * size[0] * size[1])")
    assert run(*command).stdout.startswith("FAILED: largest difference ")


@pytest.mark.parametrize("size", [(24, 20), (24, 21), (50, 41), (7, 9), (70, 12)])
def test_the_sample_in_python_averages_as_reslite_does(
    write_averaging: Callable[[str], Path], astronaut: NDArray[np.uint8], size: tuple[int, int]
) -> None:
    app = write_averaging("python")
    facts = json.loads((app / "app.json").read_text())
    sample, picture = imported(app / "restore.py"), astronaut[: size[0], : size[1]]
    restored = sample.restore(sample.Network(facts), picture)
    with runtime.open(app / facts["file"]) as session:
        assert np.array_equal(restored, restore_tiled(session, picture))


@pytest.mark.parametrize("name", ["onnxruntime-node", "onnxruntime-web"])
def test_the_sample_in_javascript_averages_over_the_whole_picture(
    write_averaging: Callable[[str], Path], name: str
) -> None:
    modules = in_node_modules(name).parent
    app = write_averaging("js")
    (app / "node_modules").symlink_to(modules)
    done = run("node", app / "selftest.mjs", name)
    assert done.returncode == 0, done.stdout + done.stderr
    changed(app / "restore.mjs", "(taken[0] * taken[1])", "(2 * taken[0] * taken[1])")
    done = run("node", app / "selftest.mjs", name)
    assert (done.returncode, done.stdout[:6]) == (1, "FAILED")


def test_the_sample_in_swift_opens_images_where_the_bundle_has_them(
    averaging: Bundle, write_averaging: Callable[[str], Path]
) -> None:
    facts = json.loads((write_averaging("swift") / "app.json").read_text())
    assert facts["file"] == "../../averaging_x1_float16_image_io_tiled_24x20.mlpackage"
    assert (facts["input"]["dtype"], facts["output"]["dtype"]) == ("uint8", "uint8")
    assert facts["pooling"]["pooled"]["dtype"] == "float32"
    arrays = tuple(one for one in averaging.manifest.artifacts if not one.takes_images)
    manifest = dataclasses.replace(averaging.manifest, artifacts=arrays)
    file = "averaging_x1_float16_24x20.mlpackage"
    assert chosen(LANGUAGES["swift"], manifest, [WINDOW]).file == file


# What other languages than Python are tested with


def in_node_modules(name: str) -> Path:
    """Return the folder of an npm package; the test is skipped where there is none."""
    if shutil.which("node") is None:
        pytest.skip("needs Node")
    if NODE_MODULES is None or not (Path(NODE_MODULES) / name).is_dir():
        pytest.skip(f"set RESLITE_NODE_MODULES to a folder node_modules with {name}")
    return Path(NODE_MODULES) / name


@pytest.mark.parametrize("name", ["onnxruntime-node", "onnxruntime-web"])
def test_the_sample_in_javascript_proves_itself(write: Callable[[str], Path], name: str) -> None:
    modules = in_node_modules(name).parent
    app = write("js")
    (app / "node_modules").symlink_to(modules)
    done = run("node", app / "selftest.mjs", name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("passed: largest difference ")
    changed(app / "app.json", '"halo": 21', '"halo": 0')
    done = run("node", app / "selftest.mjs", name)
    assert done.returncode == 1
    assert done.stdout.startswith("FAILED: largest difference ")


@pytest.mark.slow
def test_the_page_in_javascript_proves_itself_in_a_browser(write: Callable[[str], Path]) -> None:
    modules = in_node_modules("onnxruntime-web").parent
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("needs Chromium")
    app = write("js")
    (app / "node_modules").symlink_to(modules)
    handler = partial(QuietHandler, directory=f"{app.parents[1]}")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        page = f"http://127.0.0.1:{server.server_port}/app/js/index.html"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=90000"]
        done = run(browser, *options, "--dump-dom", page)
        server.shutdown()
    assert "self-test passed: largest difference " in done.stdout, done.stdout + done.stderr


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def test_the_page_in_javascript_takes_and_gives_the_colours_of_a_canvas(
    write: Callable[[str], Path],
) -> None:
    if shutil.which("node") is None:
        pytest.skip("needs Node")
    app = write("js")
    (app / "colours.mjs").write_text(
        'import { fromImageData, toImageData } from "./restore.mjs";\n'
        "globalThis.ImageData = class { constructor(data) { this.data = data; } };\n"
        "const data = new Uint8ClampedArray([1, 2, 3, 255, 4, 5, 6, 255]);\n"
        "const picture = fromImageData({ data, height: 1, width: 2 });\n"
        "console.log(JSON.stringify([[...picture.pixels], [...toImageData(picture).data]]));\n"
    )
    done = run("node", app / "colours.mjs")
    assert json.loads(done.stdout) == [[1, 2, 3, 4, 5, 6], [1, 2, 3, 255, 4, 5, 6, 255]]


@pytest.mark.parametrize("name", ["kotlin", "swift"])
def test_the_other_samples_are_well_formed(name: str) -> None:
    tree_sitter = pytest.importorskip("tree_sitter", reason="needs tree-sitter")
    grammar = pytest.importorskip(f"tree_sitter_{name}", reason=f"needs tree-sitter-{name}")
    parser = tree_sitter.Parser(tree_sitter.Language(grammar.language()))
    sources = LANGUAGES[name].sources()
    assert sources
    for content in sources.values():
        assert not parser.parse(content).root_node.has_error
        assert parser.parse(content.replace(b"{", b"(")).root_node.has_error


Invoke = Callable[[bytes], bytes]


def over_pipe(command: Sequence[str | Path], window: int, invoke: Invoke) -> tuple[int, str]:
    """Run a sample whose network is at the other end of its pipe.

    Args:
        command: The program; it writes one window after another and reads what was restored.
        window: Bytes of a window.
        invoke: The network.

    Returns:
        The exit code, and what was said on the standard error.
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([str(one) for one in command], **pipes)
    assert process.stdin and process.stdout and process.stderr
    while len(given := process.stdout.read(window)) == window:
        process.stdin.write(invoke(given))
        process.stdin.flush()
    process.stdin.close()
    return process.wait(60), process.stderr.read().decode()


@pytest.mark.slow
def test_the_sample_in_kotlin_compiles_and_proves_itself(
    write: Callable[[str], Path], write_averaging: Callable[[str], Path], tmp_path: Path
) -> None:
    compiler = in_node_modules("kotlin-compiler") / "lib" / "kotlin-compiler.jar"
    if shutil.which("java") is None:
        pytest.skip("needs Java")
    app, program = write("kotlin"), tmp_path / "sample.jar"
    arguments = ["org.jetbrains.kotlin.cli.jvm.K2JVMCompiler", "-include-runtime", "-d", program]
    sources = [*sorted(SAMPLES.glob("*.kt")), app / "Restore.kt"]
    compiled = run("java", "-cp", compiler, *arguments, *sources)
    assert compiled.returncode == 0, compiled.stderr
    assert f"{app}" not in compiled.stderr, "a warning about the sample"
    with runtime.open(app.parents[1] / "carn_m_x2_int8_64x56.tflite") as session:
        engine = session._engine

        def invoke(window: bytes) -> bytes:
            engine.feed("image", np.frombuffer(window, np.int8).reshape(1, *SIZE, 3))
            engine.invoke()
            return engine.fetch("restored_image").tobytes()

        command = ["java", "-jar", program, app]
        code, said = over_pipe(command, 3 * SIZE[0] * SIZE[1], invoke)
        assert (code, said) == (0, "passed: largest difference 0, 2 of 255 levels allowed\n")
        changed(app / "app.json", '"halo": 21', '"halo": 0')
        assert over_pipe(command, 3 * SIZE[0] * SIZE[1], invoke)[0] == 1

    app, bytes_of_picture = write_averaging("kotlin"), 3 * WINDOW[0] * WINDOW[1]
    facts = json.loads((app / "app.json").read_text())
    with runtime.open(app / facts["file"]) as session:
        cut = session._engine

        def invoke_cut(given: bytes) -> bytes:
            values = np.frombuffer(given, np.int8)
            cut.feed("image", values[:bytes_of_picture].reshape(1, *WINDOW, 3))
            cut.feed(
                facts["pooling"]["pooled"]["name"], values[None, None, None, bytes_of_picture:]
            )
            cut.invoke()
            names = ("restored_image", facts["pooling"]["features"]["name"])
            return b"".join(cut.fetch(name).tobytes() for name in names)

        command = ["java", "-jar", program, app]
        code, said = over_pipe(command, bytes_of_picture + 3, invoke_cut)
        assert (code, said) == (0, "passed: largest difference 0, 2 of 255 levels allowed\n")
        changed(app / "app.json", '"halo": 2', '"halo": 0')
        assert over_pipe(command, bytes_of_picture + 3, invoke_cut)[0] == 1


@pytest.mark.slow
def test_the_sample_in_swift_compiles_and_proves_itself(
    bundle: Bundle,
    write: Callable[[str], Path],
    write_averaging: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    if shutil.which("swiftc") is None:
        pytest.skip("needs swiftc")
    app, program = write("swift"), tmp_path / "sample"
    sources = [SAMPLES / "main.swift", app / "Restore.swift"]
    compiled = run("swiftc", "-O", "-swift-version", "5", "-o", program, *sources)
    assert compiled.returncode == 0, compiled.stderr

    def invoke(window: bytes) -> bytes:
        image = np.frombuffer(window, np.float32).reshape(1, 3, *SIZE).copy()
        with torch.inference_mode():
            restored: NDArray[np.float32] = bundle.source.module(torch.from_numpy(image)).numpy()
        return restored.tobytes()

    window = 4 * 3 * SIZE[0] * SIZE[1]
    code, said = over_pipe([program, app], window, invoke)
    assert code == 0
    assert said.startswith("passed: largest difference ")
    changed(app / "app.json", '"halo": 21', '"halo": 0')
    assert over_pipe([program, app], window, invoke)[0] == 1

    app, values_of_picture = write_averaging("swift"), 3 * WINDOW[0] * WINDOW[1]
    network = Averaging().eval()

    def invoke_cut(given: bytes) -> bytes:
        values = torch.from_numpy(np.frombuffer(given, np.float32).copy())
        image = values[:values_of_picture].reshape(1, 3, *WINDOW)
        with torch.inference_mode():
            features = network.head(image)
            gate = torch.sigmoid(4 * values[values_of_picture:, None, None])
            restored = network.tail(features * gate) + image
        return b"".join(one.numpy().tobytes() for one in (restored, features))

    code, said = over_pipe([program, app], 4 * (values_of_picture + 3), invoke_cut)
    assert code == 0 and said.startswith("passed: largest difference ")
    changed(app / "app.json", '"halo": 2', '"halo": 0')
    assert over_pipe([program, app], 4 * (values_of_picture + 3), invoke_cut)[0] == 1


# Bad input


class Twice(Averaging):
    """Averages in two places, which no file is cut at."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        restored: torch.Tensor = super().forward(super().forward(image))
        return restored


def test_a_language_without_a_sample_is_refused_with_those_there_are(
    cli: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "dist"
    outcome = cli("ship", "carn-m", "--scale", 4, "--app", "kotlyn", "--out", out)
    assert outcome.code == 2
    assert "'kotlin', 'swift', 'js', 'python'" in outcome.err.splitlines()[-1]
    assert not out.exists()
    with pytest.raises(UserError, match=r"kotlyn: no sample app in it; choose one of kotlin, "):
        language_named("kotlyn")


def test_a_network_that_no_tiles_restore_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match=r"--app js: no suitable file: this network averages over"):
        reslite.ship(Twice(), out=tmp_path / "dist", apps=["js"])
    assert not (tmp_path / "dist").exists()


def test_halos_too_wide_for_packages_of_no_fixed_size_are_refused_at_once(tmp_path: Path) -> None:
    far = torch.nn.Conv2d(3, 3, 131, padding=65, bias=False)
    with pytest.raises(UserError, match=r"halo of 65 pixels asks for; add --size 512x512"):
        reslite.ship(far, out=tmp_path / "dist", apps=["swift"])
    assert not (tmp_path / "dist").exists()
    graph = Source.of(find_model("carn-m"), 2).graph
    check_apps(graph, list(LANGUAGES.values()))


def test_a_bundle_without_a_file_that_the_sample_opens_is_refused(bundle: Bundle) -> None:
    others = tuple(one for one in bundle.manifest.artifacts if one.format != "coreml")
    manifest = dataclasses.replace(bundle.manifest, artifacts=others)
    assert chosen(LANGUAGES["js"], manifest, [SIZE]).file == "carn_m_x2_float32_64x56.onnx"
    with pytest.raises(UserError, match=r"--app swift: no suitable file: it opens float16 coreml"):
        chosen(LANGUAGES["swift"], manifest, [SIZE])
