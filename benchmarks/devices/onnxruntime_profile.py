"""ONNX Runtime's own profile of an .onnx file on this CPU.

The runtime keeps the names of nodes through its fusions, with a token behind them; what it inserts
(transposes, reorderings) bears no name of the file.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.layers import OTHER, Layer, Profile
from runtime.errors import UserError, first_line

_WARMUP = 3
_NAME = re.compile(r"(?:_token_\d+)?_kernel_time$")
_BLOCKED = "_nchwc"
_CAST = "InsertedPrecisionFreeCast_"  # float16 networks are computed in float32
_FUSED = ("Relu", "Add", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid")
_CONVOLUTIONS = ("Conv", "ConvTranspose")


def profile(path: Path, size: tuple[int, int], threads: int, runs: int) -> Profile:
    """Profile a file.

    Raises:
        UserError: If ONNX Runtime cannot run it.
    """
    import onnx
    import onnxruntime

    model = onnx.load(path)
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.x64quantprecision", "1")  # as reslite runs files
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            entry = session.get_inputs()[0]
            sides = [one if isinstance(one, int) else None for one in entry.shape]
            size = (sides[2] or size[0], sides[3] or size[1])
            kind = np.float16 if "float16" in entry.type else np.float32
            picture = np.random.default_rng(0).random((1, 3, *size), np.float32).astype(kind)
            for _ in range(_WARMUP + runs):
                session.run(None, {entry.name: picture})
            written = session.end_profiling()
        except Exception as error:  # its exceptions share no other base class
            raise UserError(f"{path.name}: ONNX Runtime fails ({first_line(error)})") from error
        events = json.loads(Path(written).read_text(encoding="utf-8"))
    kernels = [one for one in events if one.get("cat") == "Node" and "dur" in one]
    kernels = [one for one in kernels if one["name"].endswith("_kernel_time")]
    layers = _layers(model, kernels[len(kernels) * _WARMUP // (_WARMUP + runs) :], runs)
    name = f"ONNX Runtime {onnxruntime.__version__}"
    return Profile(path.name, name, size, threads, runs, layers)


def _layers(model: Any, kernels: list[dict[str, Any]], runs: int) -> tuple[Layer, ...]:
    weights = _weights(model)
    spent: dict[str, list[float]] = defaultdict(list)
    last: dict[str, dict[str, Any]] = {}
    for event in kernels:
        name = _NAME.sub("", event["name"])
        spent[name].append(event["dur"] / 1000)
        last[name] = event["args"]
    return tuple(
        _layer(name, _node(model, name), weights, last[name], median(times) * len(times) / runs)
        for name, times in spent.items()
    )


def _node(model: Any, name: str) -> Any:
    """Return the node of the file that a kernel serves, or None.

    A convolution in blocks of channels is named after the last output of what it was fused with.
    """
    found = next((node for node in model.graph.node if node.name == name), None)
    if found is not None or not name.endswith(_BLOCKED):
        return found
    makers = {output: node for node in model.graph.node for output in node.output}
    found = makers.get(name.removesuffix(_BLOCKED).removeprefix(_CAST))
    while found is not None and found.op_type in _FUSED:
        before = [makers[one] for one in found.input if one in makers]
        convolutions = [one for one in before if one.op_type in _CONVOLUTIONS]
        found = (convolutions or before or [None])[0]
    return found


def _layer(
    name: str,
    node: Any,
    weights: Mapping[str, tuple[str, tuple[int, ...]]],
    told: Mapping[str, Any],
    milliseconds: float,
) -> Layer:
    step = str(told["op_name"])
    # Sizes are told in bytes, those of constant inputs apart.
    moved = sum(int(told[key]) for key in ("activation_size", "parameter_size", "output_size"))
    if node is None:
        return Layer(f"{step} {OTHER}", name, (step,), milliseconds, 0, moved)
    multadds, operator, title = 0, str(node.op_type), str(node.output[0])
    if node.op_type in _CONVOLUTIONS and node.input[1] in weights:
        source, kernel = weights[node.input[1]]
        multadds = _pixels(node, told, kernel) * int(np.prod(kernel))
        title = re.split("[./]weight", source)[0]
        groups = _attribute(node, "group") or 1
        operator += f" {kernel[2]}×{kernel[3]}" + (f" in {groups} groups" if groups > 1 else "")
    return Layer(operator, title, (step,), milliseconds, multadds, moved)


def _pixels(node: Any, told: Mapping[str, Any], kernel: tuple[int, ...]) -> int:
    """Return the pixels that a convolution multiplies at: its output, if transposed its input."""
    transposed = node.op_type == "ConvTranspose"
    (shape,) = told["output_type_shape"][0].values()
    channels = kernel[1] * (_attribute(node, "group") or 1) if transposed else kernel[0]
    # ONNX Runtime may hold channels last, or pad them to whole blocks.
    sides = shape[1:3] if shape[3] == channels and shape[1] != channels else shape[2:4]
    strides = _attribute(node, "strides") if transposed else None
    return int(np.prod(sides)) // int(np.prod(strides or [1, 1]))


def _attribute(node: Any, name: str) -> Any:
    import onnx

    found = next((one for one in node.attribute if one.name == name), None)
    return None if found is None else onnx.helper.get_attribute_value(found)


def _weights(model: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return name and shape of the constants behind weights, through their dequantization."""
    constants = {one.name: (one.name, tuple(one.dims)) for one in model.graph.initializer}
    behind = dict(constants)
    for node in model.graph.node:
        if node.op_type in ("DequantizeLinear", "Cast") and node.input[0] in constants:
            behind[node.output[0]] = (node.output[0], constants[node.input[0]][1])
    return behind
