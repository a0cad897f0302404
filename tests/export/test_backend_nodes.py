"""ONNX's own test cases of single operators, run through the reading of ONNX files.

Each case is an operator with inputs and expected outputs, made by the authors of ONNX's
specification. The first input becomes a picture, further ones of the same shape come from the same
picture, and all others are constants. Those that fit no network from picture to picture, or that
reslite refuses, say so for one of the reasons listed here; none may come out wrong.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_node_model_tests

from export.capture.onnx_reading import read_graph
from export.capture.preparation import prepare
from export.errors import CannotLower
from export.execution import execute

OPERATORS = frozenset(
    {
        *("Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose"),
        *("DepthToSpace", "Div", "Dropout", "Exp", "Gelu", "GlobalAveragePool", "GlobalMaxPool"),
        *("HardSigmoid", "ReduceMax"),
        *("HardSwish", "InstanceNormalization", "LeakyRelu", "Max", "MaxPool", "Min", "Mish"),
        *("Mul", "Neg", "PRelu", "Pad", "Pow", "Reciprocal", "ReduceMean", "Relu", "Resize"),
        *("Sigmoid", "Slice", "Softplus", "SpaceToDepth", "Sqrt", "Sub", "Sum", "Tanh"),
        *("Transpose",),
    }
)
"""Operators of which every case is run or refused for a reason."""

_PICTURE = "a picture has rows and columns of pixels, in channels"
_PICTURES = "one picture of real numbers goes in, and one comes out"
_POINTWISE = OPERATORS - {
    *("AveragePool", "BatchNormalization", "Concat", "Conv", "ConvTranspose", "DepthToSpace"),
    *("GlobalAveragePool", "InstanceNormalization", "MaxPool", "Pad", "ReduceMean", "Resize"),
    *("GlobalMaxPool", "ReduceMax"),
    *("Slice", "SpaceToDepth", "Transpose"),
}
"""Operators that treat all values alike, so that an array of fewer axes is a picture, too."""

REASONS: tuple[str, ...] = (
    "a picture has rows and columns of pixels, in channels",
    "one picture of real numbers goes in, and one comes out",
    "one value per channel",
    "slopes of shape",
    "PRelu needs one slope, or one per channel",
    "a transposed convolution that adds pixels",
    "the runtime reflects pictures up to sides that fit",
    "two constant bounds",
    "needs two operands",
    "pictures are padded with zeros",
    "only height and width can be padded",
    "pictures are cut",
    "windows must lie within the picture",
    "a pooling over two axes, without dilation or indices",
    "an average without the padding it reads is another function",
    "equal ones along both axes",
    "without dilation and without a size of its own",
    "a HardSigmoid must be",
    "a maximum must be over height and width",
    "a mean must be over height and width",
    "a picture is resized",
    "pictures are enlarged by whole factors",
    "outside the vocabulary: (Dropout|Identity|Pow|Transpose) in",  # Dropout in training.
)
"""Why a case may be refused, in words of the message."""


def _cases() -> dict[str, TestCase]:
    """Return the newest cases of ``OPERATORS``, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = load_node_model_tests()
    return {
        case.name: case
        for case in found
        if len(case.model.graph.node) == 1 and case.model.graph.node[0].op_type in OPERATORS
    }


CASES = _cases()

_NAMES = """
    add averagepool_2d_default averagepool_2d_pads_count_include_pad
    averagepool_2d_precomputed_pads_count_include_pad basic_conv_with_padding
    basic_conv_without_padding batchnorm_epsilon batchnorm_example clip clip_default_min
    clip_default_max
    clip_example clip_inbounds clip_min_greater_than_max clip_outbounds clip_splitbounds
    convtranspose convtranspose_autopad_same convtranspose_group_2
    convtranspose_group_2_image_3 depthtospace_crd_mode_example depthtospace_example div
    div_example dropout_default_old exp exp_example gelu_default_1 gelu_default_2
    gelu_tanh_1 gelu_tanh_2 globalaveragepool globalaveragepool_precomputed hardsigmoid
    hardsigmoid_default hardsigmoid_example hardswish instancenorm_epsilon
    instancenorm_example leakyrelu leakyrelu_default leakyrelu_example max_example
    max_float16 max_float32 max_float64 max_one_input max_two_inputs maxpool_2d_default
    maxpool_2d_pads maxpool_2d_precomputed_pads maxpool_2d_same_lower
    maxpool_2d_same_upper min_example min_float16 min_float32 min_float64 min_one_input
    min_two_inputs mish mul mul_example neg neg_example pow_bcast_scalar reciprocal
    reciprocal_example relu resize_upsample_scales_cubic
    resize_upsample_scales_linear sigmoid sigmoid_example softplus softplus_example spacetodepth
    spacetodepth_crd_mode_example spacetodepth_dcr_mode_example spacetodepth_example sqrt
    sqrt_example sub sub_example sum_example sum_one_input sum_two_inputs tanh
    tanh_example
"""

TAKEN = tuple(f"test_{name}" for name in _NAMES.split())
"""Cases that must come out right."""


def _planar(node: onnx.NodeProto, array: NDArray[Any]) -> NDArray[Any]:
    """Return an array as N × C × H × W."""
    if node.op_type in _POINTWISE and array.ndim < 4:
        return array.reshape((1,) * (4 - array.ndim) + array.shape)
    if array.ndim != 4:
        raise CannotLower(_PICTURE)
    return array


def _restored(case: TestCase) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Return what reslite computes of a case, and what is expected.

    Raises:
        CannotLower: If the case is of no picture, or reslite refuses it.
    """
    (node,), (inputs, outputs) = case.model.graph.node, case.data_sets[0]
    real = inputs and isinstance(inputs[0], np.ndarray) and inputs[0].dtype.kind == "f"
    if len(outputs) != 1 or not real:
        raise CannotLower(_PICTURES)
    first, expected = _planar(node, inputs[0]), _planar(node, outputs[0])
    named = dict(zip(filter(None, node.input), inputs, strict=True))
    moving = [name for name, one in named.items() if one.shape == inputs[0].shape]
    values = np.concatenate([_planar(node, named[name]) for name in moving], axis=1)
    channels = values.shape[1]
    block = math.ceil(math.sqrt(channels / 3))
    padded = np.zeros((len(first), 3 * block**2, *first.shape[2:]), np.float32)
    padded[:, :channels] = values
    picture = torch.nn.functional.pixel_shuffle(torch.from_numpy(padded), block)
    model = _network(case.model, node, named, moving, block, first.shape[1])
    prepare(model, (1, 3, *picture.shape[2:]))
    graph = read_graph(model)
    if not graph.sides.fit(tuple(picture.shape[2:])):
        raise CannotLower("the runtime reflects pictures up to sides that fit")
    restored = execute(graph, picture).numpy()
    return restored, expected


def _network(
    model: onnx.ModelProto,
    node: onnx.NodeProto,
    named: Mapping[str, NDArray[Any]],
    moving: list[str],
    block: int,
    channels: int,
) -> ir.Model:
    """Return a model that takes the inputs of a node out of a picture, and runs the node."""
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, NDArray[Any]] = {}
    source = "picture"
    if block > 1:
        source = "unshuffled"
        nodes.append(
            helper.make_node("SpaceToDepth", ["picture"], [source], blocksize=block, mode="CRD")
        )
    if channels < 3 * block**2:
        sizes = [channels] * len(moving)
        constants["sizes"] = np.array([*sizes, 3 * block**2 - sum(sizes)], np.int64)
        constants["sizes"] = constants["sizes"][constants["sizes"] > 0]
        parts = [*moving, "rest"][: len(constants["sizes"])]
        nodes.append(helper.make_node("Split", [source, "sizes"], parts, axis=1))
    else:
        nodes.append(helper.make_node("Identity", [source], moving))
    constants |= {name: one for name, one in named.items() if name not in moving}
    graph = helper.make_graph(
        [*nodes, node],
        "case",
        [helper.make_tensor_value_info("picture", onnx.TensorProto.FLOAT, [1, 3, None, None])],
        [helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, [None] * 4)],
        [numpy_helper.from_array(np.asarray(one), name) for name, one in constants.items()],
    )
    opset = max(one.version for one in model.opset_import if one.domain == "")
    written = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    if opset < 18:
        written = onnx.version_converter.convert_version(written, 18)
    return ir.from_proto(written)


def _check(case: TestCase) -> None:
    restored, expected = _restored(case)
    assert restored.shape == expected.shape
    np.testing.assert_allclose(restored, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", TAKEN)
def test_a_case_of_onnx_comes_out_as_its_authors_say(name: str) -> None:
    _check(CASES[name])


@pytest.mark.parametrize("name", sorted(CASES.keys() - set(TAKEN)))
def test_other_cases_are_refused_for_a_reason_or_come_out_right(name: str) -> None:
    try:
        _check(CASES[name])
    except CannotLower as refusal:
        assert any(re.search(reason, str(refusal)) for reason in REASONS), refusal
