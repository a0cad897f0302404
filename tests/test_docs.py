"""The documentation holds: its links lead somewhere, its names exist, its commands run."""

from __future__ import annotations

import ast
import importlib
import io
import re
import shlex
import shutil
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import click
import pytest
import torch
import yaml
from PIL import Image
from skimage import data

from benchmarks.multadds import layers_of_module, total
from reslite.__main__ import cli, main
from training.catalogue import find_model
from training.checkpoint import save_tensors
from training.recipe_reading import load_recipe

ROOT = Path(__file__).parent.parent
PACKAGES = ("runtime", "training", "export", "quantize", "benchmarks", "reslite", "tools")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
GUIDES = [page for page in PAGES if page.name != "CHANGELOG.md" and page.parent.name != "lab"]
SOURCES = [path for name in (*PACKAGES, "tests") for path in sorted((ROOT / name).rglob("*.py"))]

NOT_RUN = {
    (
        "docs/bench.md",
        "python -m benchmarks.devices.arm64_root",
    ): "needs a phone; tests/benchmarks/test_remote.py does it with adbd and QEMU",
    (
        "docs/evaluate.md",
        "reslite evaluate carn-m --scale 4 --split set5 --metrics",
    ): "needs the weights of AlexNet; tests/reslite/test_export_and_restore.py does it",
    ("README.md", "make demo"): "this is the build that runs the tests",
    ("README.md", "pip install"): "installs packages",
    ("CONTRIBUTING.md", "ruff check"): "these are the checks themselves",
    (
        "docs/ship.md",
        "pip install 'reslite[coreai]'",
    ): "needs the extra coreai; tests/reslite/test_export_and_restore.py does it",
    (
        "docs/ship.md",
        "reslite ship runs/",
    ): "finds scales first; tests/reslite/test_ship.py does it for a small network",
    (
        "docs/ship.md",
        "reslite ship carn-m --scale 4 --out dist/ --size",
    ): "ships twenty files; tests/reslite/test_ship.py does it for a small network",
    (
        "docs/ship.md",
        "reslite ship carn-m --scale 4 --out dist/ --app",
    ): "measures every file again; tests/reslite/test_apps.py writes and runs the samples",
    (
        "docs/ship.md",
        "reslite ship carn-m --scale 4 --out dist/ --size 128x128 --target",
    ): "needs the extra qnn",
    ("docs/ship.md", "python dist/app"): "needs the app of the block above",
    ("docs/own-network.md", "pip install"): "needs a checkpoint that is not ours to ship",
    ("docs/own-network.md", "reslite evaluate"): "needs a checkpoint that is not ours to ship",
    ("README.md", "reslite inspect"): "needs a checkpoint that is not ours to ship",
    ("docs/train.md", "reslite train carn-m --data pictures/ --out runs/carn-m"): "trains for more "
    "than half an hour",
    ("docs/train.md", "reslite train carn-m --data pictures/ --out runs/carn-m --device"): "needs "
    "a CUDA device",
    ("docs/train.md", "reslite make-dataset wallpapers"): "downloads 106 packages with apt-get",
    (
        "docs/evaluate.md",
        "reslite evaluate mepsnet-s --split",
    ): "needs the standard pictures; tests/tools/test_refresh.py does it for a small network",
    ("docs/prove.md", "apt-get install"): "installs packages",
    (
        "docs/serve.md",
        "pip install '.[serve]'",
    ): "serves until it is stopped; tests/reslite/serving does it",
    ("docs/serve.md", "reslite serve dist/ --phone"): "needs a phone",
    ("docs/gate.md", "reslite gate"): "exports and measures both networks anew, as make test does",
}
"""Blocks of commands that no test runs: page, how the block begins, and the reason, which stands
in the page, too (``<!-- not run: reason -->`` above the block)."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: Path of the page, relative to the repository.
        language: The text behind the opening fence.
        text: The lines between the fences, without their indentation.
        not_run: The reason of a marked block; None for all others.
    """

    page: str
    language: str
    text: str
    not_run: str | None


_FENCED = re.compile(
    r"(?:^ *<!-- not run: (?P<reason>[^\n]+?) -->\n)?"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$",
    re.M | re.S,
)


def blocks_of(page: Path) -> list[Block]:
    return [
        Block(
            page.relative_to(ROOT).as_posix(),
            found["language"],
            re.sub(rf"^{found['indent']}", "", found["text"], flags=re.M),
            found["reason"],
        )
        for found in _FENCED.finditer(page.read_text(encoding="utf-8"))
    ]


def prose_of(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _FENCED.sub("", page.read_text(encoding="utf-8"))


def by_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# Links


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    anchors: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose_of(page), re.M):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number = sum(one == anchor or one.startswith(f"{anchor}-") for one in anchors)
        anchors.add(f"{anchor}-{number}" if anchor in anchors else anchor)
    return anchors


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_relative_links_and_anchors_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{by_name(page)}: {target}"
        if anchor:
            assert anchor in anchors_of(file), f"{by_name(page)}: {target}"


def test_anchors_are_those_of_github(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# int8 *ONNX*, `x86` & more\n## A_b ×4\n## A_b ×4\n```sh\n# no heading\n```\n")
    assert anchors_of(page) == {"int8-onnx-x86--more", "a_b-4", "a_b-4-1"}


def test_every_guide_is_in_the_index() -> None:
    index = prose_of(ROOT / "docs" / "README.md")
    for page in sorted((ROOT / "docs").rglob("*.md")):
        name = page.relative_to(ROOT / "docs").as_posix()
        assert name == "README.md" or f"]({name})" in index, name


# Names


def exists(name: str) -> bool | None:
    """Tell whether a path or a dotted name of ours exists; None if ``name`` is neither."""
    if re.fullmatch(rf"(?:{'|'.join(PACKAGES)}|tests|docs)/[\w./*-]*", name):
        return any(ROOT.glob(name.rstrip("/")))
    if re.fullmatch(rf"(?:{'|'.join(PACKAGES)})(?:\.\w+)+", name):
        return _resolves(name)
    return None


@cache
def _resolves(name: str) -> bool:
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        return _has(found, parts[count:])
    return False


def _has(found: object, names: list[str]) -> bool:
    for name in names:
        if hasattr(found, name):
            found = getattr(found, name)
        elif isinstance(found, ModuleType):
            return False
        else:  # fields of dataclasses have no attribute on the class
            return name in getattr(found, "__annotations__", {})
    return True


def called(text: str) -> str:
    """Return a name without the call behind it: ``f(x)`` is ``f``."""
    return re.sub(r"\(.*\)$", "", text)


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_paths_and_modules_named_in_pages_exist(page: Path) -> None:
    for name in map(called, re.findall(r"`([^`\n]+)`", prose_of(page))):
        assert exists(name) is not False, f"{by_name(page)}: {name}"


def documented_text(path: Path) -> Iterator[str]:
    """Yield the docstrings and the comments of a module."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        # Attributes are documented by strings that stand alone.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield str(node.value.value)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def test_paths_and_modules_named_in_the_code_exist() -> None:
    missing = []
    for path in SOURCES:
        for text in documented_text(path):
            names = re.findall(r"``([^`]+)``|:\w+:`([^`]+)`", text)
            names += [(name, "") for name in re.findall(r"\bdocs/[\w/-]+\.\w+", text)]
            for name in (called(first or second) for first, second in names):
                if exists(name) is False:
                    missing.append(f"{by_name(path)}: {name}")
    assert not missing


def test_a_name_that_does_not_exist_is_found() -> None:
    assert exists("runtime.open") and exists("export/rewrites/") and exists("docs/*.md")
    assert exists("runtime.manifest.Artifact.pooling")
    assert exists("runtime.opem") is exists("export/rewrite.py") is False
    assert exists("runtime.manifest.Artifact.pool") is False
    assert exists("numpy.zeros") is exists("a/b.py") is None


@cache
def words_of_the_code() -> frozenset[str]:
    texts = [
        path.read_text(encoding="utf-8")
        for path in (*SOURCES, *ROOT.glob("training/recipes/*.yaml"))
        if path != Path(__file__)
    ]
    return frozenset(word for text in texts for word in re.findall(r"\w+", text))


@pytest.mark.parametrize("page", GUIDES, ids=by_name)
def test_functions_and_keys_named_in_guides_are_in_the_code(page: Path) -> None:
    for name in re.findall(r"`([a-z][a-z0-9]*(?:_[a-z0-9]+)+)(?:\(\))?`", prose_of(page)):
        assert name in words_of_the_code(), f"{by_name(page)}: {name}"


# Numbers


def rows_of(text: str) -> list[list[str]]:
    """Return the cells of every row of the tables in a text, without marks of code and bold."""
    return [
        [cell.strip().strip("`*") for cell in line.strip("|").split("|")]
        for line in re.sub(r"\*\*", "", text).splitlines()
        if line.startswith("|")
    ]


def section(page: str, name: str) -> str:
    text = (ROOT / page).read_text(encoding="utf-8")
    return text.partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0]


def test_the_choosing_table_shows_the_published_numbers() -> None:
    readme = prose_of(ROOT / "README.md").partition("## Choose a network")[2].partition("\n## ")[0]
    rows = {row[0]: row for row in rows_of(readme)[2:]}
    assert set(rows) == {"carn", "carn-m", "mepsnet-s", "mepsnet"}
    scores = {(row[0], row[1]): row for row in rows_of(section("docs/results.md", "scores"))}
    int8 = rows_of(section("docs/results.md", "int8"))
    header, *shdd = rows_of(section("docs/results.md", "shdd"))
    moderate = dict(zip(header, next(row for row in shdd if row[0] == "moderate"), strict=True))
    for name, (_, _, psnr, multadds, size, lost, speed) in rows.items():
        model = find_model(name)
        scale = 1 if name.startswith("mepsnet") else 4
        published = moderate[name] if scale == 1 else scores[name, "×4"][2]
        assert psnr == published.split(" / ")[0]
        counted = total(layers_of_module(model.at_scale(scale), scale)).multadds
        assert multadds == f"{counted / 1e9:.1f} G"
        artifacts = rows_of(section("docs/results.md", f"artifacts {name}"))
        file = f"{name.replace('-', '_')}_x{scale}_int8.tflite"
        shown = next(
            ([row[1], row[4], row[6]] for row in artifacts if row[0] == file), ["", "", ""]
        )
        if scale > 1:
            shown[1] = ", ".join(row[1] for row in int8 if row[0].startswith(f"{name}` ×"))
        assert [size.removesuffix(" kB"), lost, speed] == shown


# Commands


def mentioned(page: Path) -> list[str]:
    """Return the commands of a page: those in its text, and those of its blocks, one a line."""
    blocks = [re.sub(r"\\\n\s*", "", block.text) for block in blocks_of(page)]
    lines = [line for text in blocks for line in text.splitlines() if line.startswith("reslite ")]
    return [*re.findall(r"`(reslite [^`]+)`", prose_of(page)), *lines]


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_verbs_and_options_exist(page: Path) -> None:
    for line in mentioned(page):
        command = line.partition(" | ")[0]
        _, verb, *words = command.split(" ")
        found = cli.get_command(click.Context(cli), verb)
        assert found is not None, f"{by_name(page)}: {command}"
        if isinstance(found, click.Group):
            named = found.commands.get(words[0]) if words else None
            found = named or found.commands["run"]  # a group of files: 'reslite bench FILES'
        options = {option for parameter in found.params for option in parameter.opts} | {"--help"}
        used = re.findall(r"(?<= )--?[a-z][a-z-]*", command)
        assert options.issuperset(used), f"{by_name(page)}: {command}"


def commands_in(block: Block) -> list[list[str]]:
    """Return the arguments of each ``reslite`` command of a block.

    Raises:
        AssertionError: If the block holds another command: mark it as not run.
    """
    commands = []
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            assert words[0] == "reslite", f"{block.page}: {line}: mark this block as not run"
            commands.append(words[1:])
    return commands


def test_blocks_that_are_not_run_are_those_listed() -> None:
    marked = [block for page in GUIDES for block in blocks_of(page) if block.not_run is not None]
    for block in marked:
        listed = [
            reason
            for (page, beginning), reason in NOT_RUN.items()
            if page == block.page and block.text.startswith(beginning)
        ]
        assert block.not_run in listed, f"{block.page}: {block.text}"
    assert len(marked) == len(NOT_RUN)


@pytest.mark.parametrize(("page", "beginning"), NOT_RUN)
def test_blocks_that_are_not_run(page: str, beginning: str) -> None:
    pytest.skip(f"{page}: {beginning} …: {NOT_RUN[page, beginning]}")


RUN_TOGETHER = [
    ["README.md"],
    ["docs/restore.md"],
    ["docs/ship.md", "docs/gate.md"],
    ["docs/quantize.md"],
    ["docs/profiles.md"],
    ["docs/train.md"],
    ["docs/evaluate.md"],
    ["docs/bench.md"],
    ["docs/own-network.md"],
    ["docs/prove.md"],
]
"""Pages whose commands are run, in order; those in one list use the same files."""


def test_every_guide_with_commands_is_run() -> None:
    with_commands = {
        block.page
        for page in GUIDES
        for block in blocks_of(page)
        if block.language in ("sh", "python") and block.not_run is None
    }
    assert with_commands == {page for pages in RUN_TOGETHER for page in pages}


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache folder of all commands, and no standard pictures."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.delenv("RESLITE_DATA", raising=False)
        yield folder


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, cached: Path) -> Path:
    """A folder with everything that the guides suppose: pictures, files, trained weights."""
    folder = tmp_path_factory.mktemp("workplace")
    pictures = {name: getattr(data, name)() for name in ("astronaut", "coffee", "chelsea")}
    places = {
        "photos": slice(0, 200),
        "holiday": slice(60, 124),
        "pictures/train": slice(20, 244),
        "pictures/valid": slice(100, 200),
    }
    for place, part in places.items():
        (folder / place).mkdir(parents=True)
        for name, picture in pictures.items():
            Image.fromarray(picture[part, part]).save(folder / place / f"{name}.png")
    Image.fromarray(pictures["astronaut"][:72, 180:276]).save(folder / "photo.jpg")

    arguments = ["--format", "tflite", "--precision", "float32", "--precision", "int8"]
    assert (
        main(["export", "carn-m", "--scale", "4", *arguments, "--out", f"{folder / 'dist'}"]) == 0
    )
    recipe = load_recipe(
        "carn-m", ["name=mine", "network.blocks=1", "network.units=1", "network.channels=8"]
    )
    torch.manual_seed(0)
    network = recipe.network.build()
    (folder / "runs" / "mine").mkdir(parents=True)
    weights = folder / "runs" / "mine" / "weights.safetensors"
    save_tensors(weights, network.state_dict(), {"recipe": recipe.model_dump_json()})
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("pages", RUN_TOGETHER, ids=" ".join)
def test_commands_of_the_guides_run(
    pages: list[str],
    workplace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(workplace, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    threads = torch.get_num_threads()
    for block in (block for page in pages for block in blocks_of(ROOT / page)):
        if block.not_run is not None:
            continue
        if named := re.match(r"# (\w+\.py)\n", block.text):
            Path(named[1]).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            exec(compile(block.text, block.page, "exec"), {})
        elif block.language == "sh":
            for arguments in commands_in(block):
                capsys.readouterr()
                code = main(arguments)
                errors = capsys.readouterr().err
                assert code == 0, f"{block.page}: reslite {shlex.join(arguments)}\n{errors}"
    torch.set_num_threads(threads)


def test_the_workflow_to_copy_runs_what_the_guide_runs() -> None:
    workflow = yaml.safe_load((ROOT / "docs" / "gate.yml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["gate"]["steps"]
    commands = [step["run"] for step in steps if step.get("run", "").startswith("reslite")]
    guide = [
        line for block in blocks_of(ROOT / "docs" / "gate.md") for line in block.text.split("\n")
    ]
    assert commands and set(commands) <= set(guide)
    install = next(step["run"] for step in steps if "pip install" in step.get("run", ""))
    assert "requirements.lock" in install and "[demo]" in install
