"""LiteRT's GPU accelerator on SwiftShader, a Vulkan driver that computes on the CPU.

The kernels are those of a phone's GPU; their speed is not. Files of integers are computed in float.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.devices.device import Device, Execution, Subject, Takes, restored
from runtime.errors import UserError
from runtime.manifest import sha256_of
from runtime.native_messages import kept_messages
from runtime.session import FloatPicture

_DRIVER = "VK_ICD_FILENAMES"
_SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")
_LOADERS = ("/lib/x86_64-linux-gnu/libvulkan.so.1", "/usr/lib/chromium/libvulkan.so.1")
_ADAPTER = "Selected adapter: "


class LiteRTGPU(Device):
    """LiteRT's compiled models on the GPU; a file that is not accelerated whole is refused."""

    name = "litert-gpu"
    title = "LiteRT GPU"
    takes = Takes({"tflite": ("float32", "float16", "int8")}, fixed_size=True)
    profile = "litert-gpu"

    def missing(self) -> str | None:
        """Return what is missing: LiteRT, the Vulkan loader or SwiftShader's driver."""
        if find_spec("ai_edge_litert") is None:
            return "needs LiteRT: pip install ai-edge-litert"
        if not self._driver().exists() or not any(Path(one).exists() for one in _LOADERS):
            return "needs a Vulkan driver: apt-get install libvulkan1 chromium (Debian)"
        return None

    def versions(self) -> Mapping[str, str]:
        """Return LiteRT's version and which file the driver is."""
        described = json.loads(self._driver().read_text(encoding="utf-8"))
        library = self._driver().parent / described["ICD"]["library_path"]
        return {
            "LiteRT": metadata.version("ai-edge-litert"),
            f"SHA-256 of {library.name}": sha256_of(library)[:12],
        }

    def environment(self) -> Mapping[str, str]:
        """Return the variable by which Vulkan finds the driver."""
        return {_DRIVER: str(self._driver())}

    def execute(self, subject: Subject, pictures: Sequence[FloatPicture]) -> Execution:
        """Run the file on the GPU alone.

        Raises:
            UserError: If an operator would run on the CPU.
        """
        from ai_edge_litert.compiled_model import CompiledModel
        from ai_edge_litert.hardware_accelerator import HardwareAccelerator

        with kept_messages() as said:
            model = CompiledModel.from_file(
                str(subject.path), hardware_accel=HardwareAccelerator.GPU
            )
        adapter = next((line.split(_ADAPTER)[1] for line in said if _ADAPTER in line), "")
        if not model.is_fully_accelerated() or not adapter:
            raise UserError("the GPU does not take every operator of this file")
        (output,) = model.get_output_tensor_details(next(iter(model.get_signature_list()))).values()
        shape, dtype = tuple(output["shape"]), np.dtype(subject.artifact.output.dtype)
        (fed,), (made,) = model.create_input_buffers(0), model.create_output_buffers(0)

        def run(array: NDArray[Any]) -> NDArray[Any]:
            fed.write(array)
            model.run_by_index(0, [fed], [made])
            return np.array(made.read(int(np.prod(shape)), dtype.type), dtype).reshape(shape)

        name = f"LiteRT {metadata.version('ai-edge-litert')} GPU ({adapter})"
        return Execution(name, restored(run, subject, pictures), self.versions(), fallbacks={})

    @staticmethod
    def _driver() -> Path:
        return Path(os.environ.get(_DRIVER) or _SWIFTSHADER)
