"""LiteRT's own profile of a .tflite file on this CPU, through the C interface of its CompiledModel.

XNNPACK executes the whole file and reports step by step what it runs, in the order of the file's
operators, without their names; ``joined`` counts them off. LiteRT's Python package has the profiler
in its library and not in Python. Sources: LiteRT's headers ``litert/c/litert_profiler.h``,
``litert_profiler_event.h`` and ``litert_compiled_model.h``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import byref, c_bool, c_char_p, c_int, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.layers import Layer, Profile
from runtime.errors import UserError
from runtime.native_messages import kept_messages

_CPU = 1  # kLiteRtHwAcceleratorCpu
_WRITE = 1  # kLiteRtTensorBufferLockModeWrite
_OPERATOR = 1 << 1  # OPERATOR_INVOKE_EVENT, of what no delegate takes
_DELEGATE_STEP = 1 << 3  # DELEGATE_PROFILED_OPERATOR_INVOKE_EVENT
_WARMUP = 3

_STEPS = {
    "CONV_2D": ("Convolution", "Fully Connected"),
    "DEPTHWISE_CONV_2D": ("Convolution",),
    "TRANSPOSE_CONV": ("Deconvolution",),
    "ADD": ("Add",),
    "SUB": ("Subtract",),
    "MUL": ("Multiply",),
    "DEPTH_TO_SPACE": ("Depth To Space",),
    "SPACE_TO_DEPTH": ("Space To Depth",),
}
"""What XNNPACK calls the operators that it runs exactly once each."""

_ANCHORS = tuple({name for names in _STEPS.values() for name in names})


class _Event(ctypes.Structure):
    _fields_ = (
        ("tag", c_char_p),
        ("type", c_uint32),
        ("start", c_uint64),
        ("microseconds", c_uint64),
        ("memory", c_size_t * 6),
        ("metadata", c_uint64 * 2),
        ("source", c_uint32),
    )


class _Layout(ctypes.Structure):
    _fields_ = (("rank", c_uint32), ("sides", c_int32 * 8), ("strides", c_uint32 * 8))


class _Type(ctypes.Structure):
    _fields_ = (("element", c_int), ("layout", _Layout))


@dataclass(frozen=True)
class Operator:
    """An operator of the file.

    Attributes:
        kind: Its kind, as the schema calls it.
        layer: What it is in a profile, without time.
        number: Its number in the file.
        inputs: The tensors it needs.
        outputs: The tensors it makes.
    """

    kind: str
    layer: Layer
    number: int = 0
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Step:
    """What was executed, and its time, the median of the runs.

    Attributes:
        name: XNNPACK's name of it, or the kind of an operator that XNNPACK does not take.
        milliseconds: Its time.
        number: The operator's number in the file, if XNNPACK did not take it.
    """

    name: str
    milliseconds: float
    number: int | None = None


def profile(path: Path, size: tuple[int, int], threads: int, runs: int) -> Profile:
    """Profile a file on one thread.

    Raises:
        UserError: If LiteRT cannot run it, or more threads are wanted than its interface sets.
    """
    if threads != 1:
        raise UserError("LiteRT profiles on one thread: --threads 1")
    operators, element, size = operators_of(path, size)
    with kept_messages():
        steps = _steps(path, element, size, runs)
    layers = joined(operators, steps)
    name = f"LiteRT {metadata.version('ai-edge-litert')} CompiledModel, XNNPACK"
    if layers is None:
        alone = tuple(Layer(one.name, "", (one.name,), one.milliseconds) for one in steps)
        return Profile(path.name, name, size, threads, runs, alone, joined=False)
    return Profile(path.name, name, size, threads, runs, layers)


def joined(operators: Sequence[Operator], steps: Sequence[Step]) -> tuple[Layer, ...] | None:
    """Give each executed step to an operator; return None if they cannot be told apart.

    Operators that run exactly once are counted off in order. What lies between two of them (copies
    of a concatenation, a clamp after an addition) belongs to the operators that stand between them
    in the file, to the last where there are several, or else to the one before.

    Args:
        operators: The operators of the file in order.
        steps: What was executed, in order.
    """
    apart = {step.number for step in steps if step.number is not None}
    operators = executed_order(operators, apart)
    spent: list[list[Step]] = [[] for _ in operators]
    anchors = [
        place for place, one in enumerate(operators) if one.kind in _STEPS or one.number in apart
    ]
    before, between = -1, list[Step]()
    remaining = iter(anchors)
    for step in steps:
        if step.number is None and not step.name.startswith(_ANCHORS):
            between.append(step)
            continue
        number = next(remaining, None)
        if number is None or not _fits(operators[number], step, apart):
            return None
        _place(spent, between, before, number)
        spent[number].append(step)
        before, between = number, []
    if next(remaining, None) is not None:
        return None
    _place(spent, between, before, len(operators))
    layers = [
        replace(
            one.layer,
            steps=tuple(step.name for step in taken),
            milliseconds=sum(step.milliseconds for step in taken),
        )
        for one, taken in zip(operators, spent, strict=True)
    ]
    return tuple(layers)


def executed_order(operators: Sequence[Operator], apart: set[int]) -> list[Operator]:
    """Return the operators in the order that LiteRT runs them in.

    LiteRT gives XNNPACK as many operators at once as have their inputs, then runs those that
    XNNPACK does not take, and so on; within such a part the order is the file's.

    Args:
        operators: The operators in the order of the file.
        apart: Numbers of those that XNNPACK does not take.
    """
    waiting, order = list(operators), list[Operator]()
    while waiting:
        missing = {tensor for one in waiting for tensor in one.outputs}
        part: list[Operator] = []
        for one in waiting:
            alike = not part or (one.number in apart) == (part[0].number in apart)
            if alike and not missing.intersection(one.inputs):
                part.append(one)
                missing.difference_update(one.outputs)
        if not part:  # a circle, which no file has
            return [*order, *waiting]
        order += part
        waiting = [one for one in waiting if one not in part]
    return order


def _fits(operator: Operator, step: Step, apart: set[int]) -> bool:
    if step.number is not None:
        return step.number == operator.number and step.name == operator.kind
    return operator.number not in apart and step.name.startswith(_STEPS[operator.kind])


def _place(spent: list[list[Step]], steps: Sequence[Step], before: int, after: int) -> None:
    for step in steps:
        # A clamp is the activation of what was computed; all else prepares what comes next.
        own = step.name.startswith("Clamp") or after - before <= 1
        spent[max(before, 0) if own else after - 1].append(step)


def operators_of(path: Path, size: tuple[int, int]) -> tuple[list[Operator], int, tuple[int, int]]:
    """Return the operators of a file at an input size, its input's element type, and its size.

    Raises:
        UserError: If the file is damaged or does not take the size.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
        interpreter = Interpreter(model_path=str(path), experimental_op_resolver_type=plain)
        entry = interpreter.get_input_details()[0]
        if -1 in entry["shape_signature"]:
            interpreter.resize_tensor_input(entry["index"], (1, *size, entry["shape"][3]))
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError, TypeError) as error:
        raise UserError(f"{path.name}: cannot be read ({error}); export it again") from error
    shapes = {one["index"]: one for one in interpreter.get_tensor_details()}
    graph = model.subgraphs[0]
    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    found = []
    for number, operator in enumerate(graph.operators):
        if all(_is_constant(model, graph, index) for index in operator.inputs):
            continue  # computed once, when the file is opened: float16 weights
        code = model.operatorCodes[operator.opcodeIndex]
        kind = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        inputs = [shapes[index] for index in operator.inputs if index in shapes]
        outputs = [shapes[index] for index in operator.outputs]
        ends = tuple(map(int, operator.inputs)), tuple(map(int, operator.outputs))
        found.append(Operator(kind, _layer(kind, inputs, outputs), number, *ends))
    shape = shapes[entry["index"]]["shape"]
    element = int(graph.tensors[graph.inputs[0]].type)
    return found, _ELEMENTS[element], (int(shape[1]), int(shape[2]))


def _is_constant(model: Any, graph: Any, index: int) -> bool:
    buffer = model.buffers[graph.tensors[index].buffer] if index >= 0 else None
    return buffer is None or buffer.data is not None


_ELEMENTS = {0: 1, 1: 10, 3: 3, 9: 9}
"""Element types of LiteRT by those of the schema: float32, float16, uint8, int8."""


def _layer(kind: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> Layer:
    multadds, title, name = 0, kind, str(outputs[0]["name"])
    if kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"):
        source, weights = (inputs[2], inputs[1]) if kind == "TRANSPOSE_CONV" else inputs[:2]
        kernel = [int(side) for side in weights["shape"]]
        # A transposed convolution multiplies at every input pixel, the others at every output.
        pixels = source if kind == "TRANSPOSE_CONV" else outputs[0]
        multadds = int(np.prod(pixels["shape"][1:3], dtype=np.int64)) * int(np.prod(kernel))
        name = str(weights["name"]).partition(".weight")[0] or name
        if kind == "CONV_2D":
            groups = int(source["shape"][3]) // kernel[3]
            title += f" {kernel[1]}×{kernel[2]}" + (f" in {groups} groups" if groups > 1 else "")
    moved = sum(
        int(np.prod(one["shape"], dtype=np.int64)) * np.dtype(one["dtype"]).itemsize
        for one in (*inputs, *outputs)
    )
    return Layer(title, name, (), 0.0, multadds, moved)


def _steps(path: Path, element: int, size: tuple[int, int], runs: int) -> list[Step]:
    """Return what XNNPACK executes, in order, with the median milliseconds of each step.

    Raises:
        UserError: If a call of LiteRT fails.
    """
    call = _library()
    environment, model, options, extra, compiled, profiler = (c_void_p() for _ in range(6))
    call("LiteRtCreateEnvironment", 0, None, byref(environment))
    call("LiteRtCreateModelFromFile", environment, str(path).encode(), byref(model))
    call("LiteRtCreateOptions", byref(options))
    call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
    standard = ctypes.CDLL(None)
    standard.strdup.restype = c_void_p
    wanted = c_void_p(standard.strdup(b"enable_profiling = true\n"))
    release = ctypes.cast(standard.free, c_void_p)
    call("LiteRtCreateOpaqueOptions", b"runtime_options_string", wanted, release, byref(extra))
    call("LiteRtAddOpaqueOptions", options, extra)
    call("LiteRtCreateCompiledModel", environment, model, options, byref(compiled))
    call("LiteRtCompiledModelGetProfiler", compiled, byref(profiler))
    sides = (c_int * 4)(1, *size, 3)
    call(
        "LiteRtCompiledModelResizeInputTensor",
        *(compiled, c_size_t(0), c_size_t(0), sides, c_size_t(4)),
    )
    given = _buffer(call, environment, compiled, "Input", element, tuple(sides))
    layouts = (_Layout * 1)()
    call(
        "LiteRtGetCompiledModelOutputTensorLayouts",
        *(compiled, c_size_t(0), c_size_t(1), layouts, c_bool(True)),
    )
    made = _buffer(call, environment, compiled, "Output", element, tuple(layouts[0].sides[:4]))
    ends = (compiled, c_size_t(0), c_size_t(1), (c_void_p * 1)(given), c_size_t(1))
    outputs = (c_void_p * 1)(made)
    for _ in range(_WARMUP):
        call("LiteRtRunCompiledModel", *ends, outputs)
    taken: list[list[Step]] = []
    for _ in range(runs):
        call("LiteRtResetProfiler", profiler)
        call("LiteRtStartProfiler", profiler)
        call("LiteRtRunCompiledModel", *ends, outputs)
        call("LiteRtStopProfiler", profiler)
        taken.append(_events(call, profiler))
    names = {tuple((one.name, one.number) for one in steps) for steps in taken}
    if len(names) != 1:
        raise UserError("LiteRT executed other steps in another run")
    if all(one.number is not None for one in taken[0]):
        raise UserError("XNNPACK reported no steps; is it in this build of LiteRT?")
    return [
        replace(same[0], milliseconds=median(one.milliseconds for one in same))
        for same in zip(*taken, strict=True)
    ]


def _events(call: Any, profiler: c_void_p) -> list[Step]:
    count = c_int()
    call("LiteRtGetNumProfilerEvents", profiler, byref(count))
    events = (_Event * max(count.value, 1))()
    call("LiteRtGetProfilerEvents", profiler, count, events)
    return [
        Step(
            one.tag.decode(),
            one.microseconds / 1000,
            int(one.metadata[0]) if one.type == _OPERATOR else None,
        )
        for one in events[: count.value]
        if one.type in (_OPERATOR, _DELEGATE_STEP)
    ]


def _buffer(
    call: Any,
    environment: c_void_p,
    compiled: c_void_p,
    end: str,
    element: int,
    sides: tuple[int, ...],
) -> c_void_p:
    """Return a buffer of LiteRT's own, filled with a picture's noise."""
    needed, buffer, place = c_void_p(), c_void_p(), c_void_p()
    call(
        f"LiteRtGetCompiledModel{end}BufferRequirements",
        *(compiled, c_size_t(0), c_size_t(0), byref(needed)),
    )
    kind = _Type(element, _Layout(4, (c_int32 * 8)(*sides)))
    call(
        "LiteRtCreateManagedTensorBufferFromRequirements",
        *(environment, byref(kind), needed, byref(buffer)),
    )
    if end == "Input":
        count, chance = int(np.prod(sides)), np.random.default_rng(0)
        values = chance.random(count, np.float32)
        array = values.astype(_TYPES[element]) if element in (1, 10) else (values * 255)
        data = array if element in (1, 10) else (array - (128 if element == 9 else 0))
        content = np.ascontiguousarray(data.astype(_TYPES[element]))
        call("LiteRtLockTensorBuffer", buffer, byref(place), _WRITE)
        ctypes.memmove(place, content.ctypes.data, content.nbytes)
        call("LiteRtUnlockTensorBuffer", buffer)
    return buffer


_TYPES = {1: np.float32, 10: np.float16, 3: np.uint8, 9: np.int8}


def _library() -> Any:
    """Return a function that calls one of LiteRT's library.

    Raises:
        UserError: If LiteRT is missing, or has no such functions.
    """
    try:
        import ai_edge_litert
    except ImportError as error:
        raise UserError("LiteRT is not installed; run pip install ai-edge-litert") from error
    library = ctypes.CDLL(str(next(Path(ai_edge_litert.__file__).parent.glob("libLiteRt.*"))))

    def call(name: str, *arguments: Any) -> None:
        try:
            status = getattr(library, name)(*arguments)
        except AttributeError as error:
            raise UserError(f"this LiteRT has no {name}; pip install -U ai-edge-litert") from error
        if status:
            raise UserError(f"{name} failed with status {status}")

    return call
