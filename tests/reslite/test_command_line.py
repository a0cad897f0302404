"""What every verb has in common: help, errors, exit codes, lazy imports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from reslite.__main__ import VERBS, main
from runtime.errors import UserError

Cli = Callable[..., Any]


@pytest.mark.parametrize("verb", [*VERBS, "upscale"])
def test_every_verb_has_help_with_an_example(cli: Cli, verb: str) -> None:
    outcome = cli(verb, "--help")
    assert outcome.code == 0
    assert "Example: reslite" in outcome.out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from reslite.__main__ import VERBS, main; main(['--help']);"
        "assert not any(main([verb, '--help']) for verb in VERBS);"
        "heavy = {'torch', 'numpy', 'onnx', 'pydantic', 'PIL'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert all(verb in result.stdout for verb in VERBS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["restore"], "Missing argument"),
        (["teleport"], "No such command"),
        (["export", "carn-m"], "name the upscaling factor with --scale: 2, 3, 4"),
        (["export", "carn-m", "--scale", "4", "--size", "big"], "expected height x width"),
        (["export", "carn-m", "--scale", "4", "--flexible", "9-2"], "expected least-greatest"),
        (["export", "carn-m", "--scale", "5"], "scale 5 was not trained"),
        (["export", "karn", "--scale", "4"], "did you mean 'carn'"),
        (["export", "carn-m", "--scale", "4", "--profile", "x"], "no such target profile"),
        (["evaluate", "carn-m", "--data", "."], "name the upscaling factor with --scale"),
        (
            ["evaluate", "carn-m", "--scale", "4", "--data", ".", "--level", "easy"],
            "--level easy: pictures of 'bicubic' have no levels",
        ),
        (
            ["evaluate", "carn-m", "--scale", "4", "--data", ".", "--task", "fog"],
            "fog: no such task; expected one of bicubic, shdd-easy",
        ),
        (["evaluate", "mepsnet-s"], "with --data, or test sets with --split"),
        (
            ["evaluate", "mepsnet-s", "--split", "set5"],
            "set5: no such split of 'shdd-moderate'; expected one of shdd-test, shdd-easy",
        ),
        (
            ["evaluate", "mepsnet-s", "--split", "shdd-test", "--data", "."],
            "valid: no such folder",
        ),
        (
            ["evaluate", "mepsnet-s", "--split", "shdd-test", "--level", "easy"],
            "the sets of --split have their levels: leave it out",
        ),
        (["explain", "mepsnet-s", "."], "is a folder, expected a picture file"),
        (["quantize", "carn-m", "--scale", "4", "--out", "/dev/null/a.json"], "cannot be written"),
        (["train", "carnival", "--data", "."], "no such recipe"),
        (["make-dataset", "wallpapers", "--in", "."], "name both folders, --in and --out"),
        (
            ["make-dataset", "wallpapers", "--in", ".", "--out", "x"],
            "holds none of the 411 photographs",
        ),
        (["train", "carn-m", "--device", "cuda"], "no CUDA device"),
        (["train", "carn-m", "--device", "cpu:0"], "expected cpu or cuda"),
        (["train", "carn-m", "--set", "name=../up"], "name: String should match pattern"),
        (["bench-training", "carn-m", "--device", "gpu"], "expected cpu or cuda"),
        (["bench"], "no files to measure"),
        (["bench", "x.tflite", "--device", "ethos-u65-256", "--size", "8x8"], "not timed; leave"),
        (["bench", "x.tflite", "--device", "cpu,ethos-u85"], "did you mean 'ethos-u85-1024'?"),
        (["bench", "x.tflite", "--device", "toaster"], "toaster: no such device; choose of cpu"),
        (["bench", "x.tflite", "--device", "tosa"], "tosa: is executed; 'reslite prove' takes it"),
        (["bench", "x.tflite", "--budget", "soon"], "expected a time, for example 60s"),
        (["bench", "x.tflite", "--budget", "60s", "--starts", "3"], "leave --starts and --rounds"),
        (["bench", "x.tflite"], "x.tflite: no such file"),
        (["bench", "list", "--store", "x.sqlite"], "x.sqlite: no such store"),
        (["bench", "export"], "choose --csv or --json"),
        (["bench", "import", "x.json"], "x.json: cannot be read"),
        (["evaluate", "carn-m", "--scale", "4", "--data", ".", "--tile", "9"], "exported files"),
        (["gate", "--model", "mine.safetensors"], "no such"),
        (["restore", "x.png", "--model", "carn-m"], "name the upscaling factor with --scale"),
        (["restore", "x.png", "--model", "carn-m", "--scale", "4", "--precision", "int4"], "int4"),
        (["restore", "x.png", "--model", "none.tflite"], "no such file"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = cli(*arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(UserError):
        main(["--debug", "evaluate", "carn-m", "--data", "."])


def _failing(error: BaseException) -> Callable[..., None]:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ModuleNotFoundError("no", name="torch.nn"), 2, "pip install 'reslite[export]'"),
        (ModuleNotFoundError("no", name="ethosu"), 2, "pip install 'reslite[npu]'"),
        (ModuleNotFoundError("strange", name="elsewhere"), 1, "strange"),
        (RuntimeError("out of luck"), 1, "RuntimeError: out of luck (run 'reslite --debug"),
        (KeyboardInterrupt(), 2, "interrupted; finished work is kept"),
    ],
)
def test_errors_become_a_line_and_a_code(
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    message: str,
) -> None:
    models = import_module("reslite.commands.models").command
    monkeypatch.setattr(models, "callback", _failing(error))
    outcome = cli("models")
    assert outcome.code == code
    assert message in outcome.err
    assert "\n" not in outcome.err.strip()


def test_a_folder_that_shadows_a_package_is_named(
    process: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime" / "__init__.py").touch()
    # 'python -m' puts the working directory first, where the foreign folder is.
    result = process("models", cwd=tmp_path)
    assert result.returncode == 2
    assert str(tmp_path / "runtime") in result.stderr
    assert "rename or uninstall" in result.stderr
    assert "Traceback" not in result.stderr


def test_packages_of_wallpapers_are_named(cli: Cli) -> None:
    packages = cli("make-dataset", "wallpapers", "--packages").out.split()
    assert len(packages) == len(set(packages)) == 106
    assert "ubuntu-wallpapers-jammy" in packages
