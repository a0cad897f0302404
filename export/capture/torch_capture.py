"""From a torch module to the graph.

``torch.export`` traces the module with symbolic height and width, torch's ONNX exporter decomposes
it into ONNX operators (opset 18), and ``export.capture.onnx_reading`` translates these.
"""

from __future__ import annotations

import contextlib
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
from export.errors import CannotLower
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
    return read_model(_trace(module.eval()))


def _trace(module: nn.Module) -> ir.Model:
    size = {2: torch.export.Dim("height", min=1), 3: torch.export.Dim("width", min=1)}
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                (torch.zeros(1, 3, 12, 10),),
                dynamo=True,
                opset_version=18,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({**size},),
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
