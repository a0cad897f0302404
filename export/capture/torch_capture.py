"""From a torch module to the graph.

``torch.export`` traces the module with symbolic height and width, torch's ONNX exporter decomposes
it into ONNX operators (opset 18), and ``export.capture.onnx_reading`` translates these.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir
import torch
from torch import nn

from export.capture.onnx_reading import INPUT, OUTPUT, read_model
from export.capture.planes import make_planes
from export.capture.preparation import prepare
from export.errors import CannotLower, UnsupportedOperators
from export.execution import execute
from export.graph import Graph
from export.graph_module import GraphModule


def capture(module: nn.Module) -> Graph:
    """Trace ``module`` and return it as a graph; a ``GraphModule`` is one already.

    Args:
        module: Takes N × 3 × H × W pictures in [0, 1] and returns restored ones.

    Raises:
        UnsupportedOperators: If the module uses operators outside the vocabulary; lists all.
        CannotLower: If the module uses an operator in a way that no writer supports.
    """
    if isinstance(module, GraphModule):
        return module.graph
    module = module.eval()
    try:
        return read_model(_trace(module))
    except UnsupportedOperators as error:
        # Arithmetic on shapes: the network depends on the size, of which it may pad a picture.
        if not any(operator == "Shape" for _, operator in error.operators):
            raise
        reason: CannotLower = error
    except CannotLower as error:
        reason = error
    try:
        model = _trace(module, _SIZE)
        prepare(model, (1, 3, *_SIZE))
    except CannotLower:
        raise reason from None
    return _read_at_one_size(model, module)


_SIZE = (192, 288)
"""Height and width that networks are traced at which depend on the size: multiples of 96."""

_LARGEST_STEP = 96
_TOLERANCE = 1e-4
"""Largest difference allowed between a network and its graph, as a part of the output's range."""


def _read_at_one_size(model: ir.Model, module: nn.Module) -> Graph:
    """Read a network that was traced and prepared at one size, where all shapes are constant.

    The graph has no size any more. For which sizes it is the network is found out by running both.

    Raises:
        CannotLower: If it is the network for no sizes but the one, or cannot be read.
    """
    make_planes(model.graph)
    graph = read_model(model)
    step = graph.multiple
    while step <= _LARGEST_STEP:
        if _is_same(module, graph, step):
            return dataclasses.replace(graph, step=step)
        step *= 2
    raise CannotLower(
        f"{type(module).__name__}: what it computes depends on the picture's size in a way that "
        "reslite does not know"
    )


def _is_same(module: nn.Module, graph: Graph, step: int) -> bool:
    """Compare a network and its graph on two pictures whose sides are odd multiples of ``step``."""
    least = max(graph.sides.minimum, 8)
    odd = -(-least // step) // 2 * 2 + 1
    for height, width in ((odd, odd + 2), (odd + 4, odd)):
        random = torch.Generator().manual_seed(height)
        image = torch.rand(1, 3, step * height, step * width, generator=random)
        with torch.no_grad():
            try:
                expected, found = module(image), execute(graph, image)
            except RuntimeError:
                return False
        if expected.shape != found.shape:
            return False
        spread = max(float(expected.max() - expected.min()), 1e-6)
        if not float((found - expected).abs().max()) <= _TOLERANCE * spread:
            return False
    return True


def _trace(module: nn.Module, fixed: tuple[int, int] | None = None) -> ir.Model:
    """Run torch's exporter for pictures of any size, or of one height and width."""
    size = {2: torch.export.Dim("height", min=1), 3: torch.export.Dim("width", min=1)}
    shapes = ({**size},) if fixed is None else None
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                (torch.zeros(1, 3, *(fixed or (12, 10))),),
                dynamo=True,
                opset_version=18,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=shapes,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise CannotLower(
            f"{type(module).__name__}: torch cannot trace it for pictures of any size: "
            f"{_reason(error)}; its forward may not depend on values"
        ) from error
    if program is None:
        raise CannotLower(f"{type(module).__name__}: torch's exporter returned no program")
    return program.model


def _reason(error: BaseException) -> str:
    """Return what stopped the exporter, and the line of the network that it came to."""
    while error.__cause__ is not None:
        error = error.__cause__
    library = Path(torch.__file__).parent
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if library not in Path(frame.filename).parents and frame.filename != __file__
    ]
    if not own:
        return type(error).__name__
    last = own[-1]
    return f"{type(error).__name__} at '{last.line}' ({Path(last.filename).name}:{last.lineno})"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's progress output, its advice, and its listings of what it refuses."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    nowhere = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
