"""ncnn on this CPU, from float32 ONNX files by its converter pnnx."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.devices.device import Execution, Subject, Takes, restored
from benchmarks.devices.environments import SeparateDevice
from runtime.errors import UserError
from runtime.session import FloatPicture


class NCNN(SeparateDevice):
    """ncnn in float32: its options for half floats are off."""

    name = "ncnn"
    title = "ncnn"
    takes = Takes({"onnx": ("float32",)})
    environment_name = "ncnn"
    packages = ("ncnn", "pnnx")

    def execute(self, subject: Subject, pictures: Sequence[FloatPicture]) -> Execution:
        """Convert the file and run it.

        Raises:
            UserError: If pnnx cannot convert it.
        """
        import ncnn

        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            _convert(subject, pictures, folder)
            network = ncnn.Net()
            options = network.opt
            options.num_threads = 1
            for half in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
                setattr(options, f"use_{half}", False)
            network.load_param(str(folder / "network.ncnn.param"))
            network.load_model(str(folder / "network.ncnn.bin"))

            def run(array: NDArray[Any]) -> NDArray[Any]:
                extractor = network.create_extractor()
                extractor.input("in0", ncnn.Mat(array[0]).clone())
                code, made = extractor.extract("out0")
                if code:
                    raise RuntimeError(f"ncnn ends with code {code}")
                return np.array(made)[np.newaxis]

            outputs = restored(run, subject, pictures)
        versions = self.versions()
        return Execution(f"ncnn {versions['ncnn']}", outputs, versions, settings="pnnx, float32")


def _convert(subject: Subject, pictures: Sequence[FloatPicture], folder: Path) -> None:
    # Without an import, for which pnnx needs torch; its converter is a program of its own.
    found = find_spec("pnnx")
    assert found is not None and found.origin is not None
    converter = Path(found.origin).with_name("pnnx")
    converter.chmod(0o755)
    copyfile(subject.path, folder / "network.onnx")
    sizes = list(dict.fromkeys(picture.shape[:2] for picture in pictures))
    # From two sizes it tells which extents are free.
    flags = [
        f"inputshape{index or ''}=[1,3,{height},{width}]"
        for index, (height, width) in zip(("", 2), sizes, strict=False)
    ]
    command = [str(converter), "network.onnx", "fp16=0", *flags]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if run.returncode or not (folder / "network.ncnn.param").exists():
        said = run.stderr.strip().splitlines()
        raise UserError(f"pnnx cannot convert it ({said[-1] if said else 'no message'})")
