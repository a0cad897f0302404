"""TOSA's reference model: an interpreter whose integer arithmetic is defined to the bit.

The file is converted by Arm's converter for TFLite and written as TOSA by MLIR's tools.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.devices.device import Execution, Subject, Takes, restored
from benchmarks.devices.environments import SeparateDevice
from runtime.errors import UserError
from runtime.session import FloatPicture


class TOSA(SeparateDevice):
    """The reference model of TOSA, a file of one size."""

    name = "tosa"
    title = "TOSA reference model"
    takes = Takes({"tflite": ("float32", "int8")}, fixed_size=True)
    environment_name = "tosa"
    packages = ("tosa-converter-for-tflite", "tosa-tools")

    def execute(self, subject: Subject, pictures: Sequence[FloatPicture]) -> Execution:
        """Convert the file and interpret it.

        Raises:
            UserError: If a tool refuses the file.
        """
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            converted = ["--bytecode", "-o", "network.mlirbc", str(subject.path)]
            _run(folder, "tosa-converter-for-tflite", *converted)
            serialized = "--tosa-serialize=tosa-flatbuffer-filename=network.tosa"
            _run(folder, "tosa-opt", "network.mlirbc", serialized, "-o", "/dev/null")

            def run(array: NDArray[Any]) -> NDArray[Any]:
                np.save(folder / "input.npy", array)
                flags = {
                    "tosa_file": "network.tosa",
                    "flatbuffer_dir": ".",
                    "output_dir": ".",
                    "ifm_name": "TosaInput_0",
                    "ifm_file": "input.npy",
                    "ofm_name": "TosaOutput_0",
                    "ofm_file": "output.npy",
                }
                _run(folder, "tosa_reference_model", *(f"--{k}={v}" for k, v in flags.items()))
                made = np.load(folder / "output.npy")
                (folder / "output.npy").unlink()
                return np.array(made)

            outputs = restored(run, subject, pictures)
        versions = self.versions()
        return Execution(
            f"TOSA reference model (tosa-tools {versions['tosa-tools']})", outputs, versions
        )


def _run(folder: Path, tool: str, *arguments: str) -> None:
    command = [str(Path(sys.executable).with_name(tool)), *arguments]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if run.returncode:
        said = [line for line in (run.stderr + run.stdout).splitlines() if "error" in line.lower()]
        raise UserError(f"{tool}: {said[0].strip() if said else f'ends with {run.returncode}'}")
