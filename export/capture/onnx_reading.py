"""From ONNX operators to the closed vocabulary.

An operator that has no translation is an error that names the module it came from.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from export.capture import windows_reading
from export.capture.channels import choose_channels
from export.capture.idioms import recognize
from export.capture.layouts import make_planar
from export.capture.orders import fold_orders
from export.errors import CannotLower, UnsupportedOperators
from export.formulas import FORMULAS
from export.graph import Array, Graph, Node
from export.misfits import INTERPOLATIONS, channels_of
from export.node import Attribute

INPUT, OUTPUT = "image", "restored_image"
"""Names of the picture and the restored picture."""


def read_model(model: ir.Model) -> Graph:
    """Return an ONNX model, from ``image`` to ``restored_image``, as a graph.

    Args:
        model: The model. Its values are renamed so that no name holds a ``/``, which is reserved
            for names that rewrites and writers add.

    Raises:
        CannotLower: If the model uses an operator outside the vocabulary, or returns no picture of
            the same size or a whole multiple.
    """
    graph = read_graph(model)
    rows, columns = graph.sizes()[OUTPUT]
    if rows != columns or rows.offset or rows.factor < 1 or rows.factor.denominator > 1:
        raise CannotLower(
            f"turns a picture of n × n pixels into one of {rows.sized('n')} × "
            f"{columns.sized('n')}; expected the same size or a whole multiple: pad what the "
            "network cuts off"
        )
    return graph


def read_graph(model: ir.Model) -> Graph:
    """Return an ONNX model as ``read_model`` does, whatever the size of what it makes.

    Raises:
        CannotLower: If the model uses an operator outside the vocabulary.
    """
    recognize(model.graph)
    make_planar(model.graph)
    choose_channels(model.graph)
    _replace_slashes(model.graph)
    constants = {str(value.name): _array(value) for value in model.graph.initializers.values()}
    nodes = tuple(_read_nodes(model.graph, constants))
    used = {name for node in nodes for name in node.inputs}
    kept = {name: array for name, array in constants.items() if name in used}
    (image,) = model.graph.inputs
    assert image.shape is not None
    colours = image.shape[1]
    assert isinstance(colours, int)
    found = Graph(nodes, kept, INPUT, OUTPUT, colours=colours)
    return fold_orders(found.check())


def _replace_slashes(graph: ir.Graph) -> None:
    made = (value for node in graph for value in node.outputs)
    values = [*graph.inputs, *graph.initializers.values(), *made]
    taken = {value.name for value in values}
    for value in values:
        if value.name is not None and "/" in value.name:
            name = value.name.strip("/").replace("/", ".")
            while not name or name in taken:
                name += "_"
            taken.add(name)
            value.name = name


def _array(value: ir.Value) -> Array:
    if value.const_value is None:
        raise CannotLower(f"{value.name}: a constant without data")
    array = np.array(value.const_value.numpy(), np.float32, order="C")
    return array if array.ndim else array.reshape(1, 1, 1, 1)


def _read_nodes(graph: ir.Graph, constants: dict[str, Array]) -> list[Node]:
    """Read every node; a kernel that is mixed from constants becomes one ``MixTemplates``.

    The exporter writes such a kernel as Reshape(MatMul(coefficients, Reshape(templates))).
    """
    nodes: list[Node] = []
    unsupported: list[tuple[str, str]] = []
    misused: list[CannotLower] = []
    mixed: dict[str, tuple[str, str]] = {}
    kernels: dict[str, Array] = {}  # Mixed kernels: shapes are known, values are not.
    known = ChainMap(constants, kernels)
    for node in graph:
        names = [str(value.name) for value in node.inputs if value is not None]
        output = str(node.outputs[0].name)
        if node.op_type == "Reshape" and names[0] in constants and names[1] in constants:
            constants[output] = constants[names[0]].reshape(_integers(constants[names[1]]))
        elif node.op_type == "MatMul" and all(name in constants for name in names):
            mixed[output] = (names[0], names[1])
        elif node.op_type == "Reshape" and names[0] in mixed:
            shape = _integers(constants[names[1]])
            kernels[output] = np.broadcast_to(np.float32(0), shape)
            place, attributes = _module_path(node), {"shape": shape}
            nodes.append(Node("MixTemplates", place, mixed[names[0]], (output,), attributes))
        elif node.op_type not in _READERS:
            unsupported.append((_module_path(node), node.op_type))
        else:
            if node.op_type in {"Conv", "ConvTranspose"} and len(names) == 2 and names[1] in known:
                shape = known[names[1]].shape
                groups = node.attributes.get_int("group", 1)
                channels = shape[0] if node.op_type == "Conv" else shape[1] * groups
                bias = f"{output}.bias"
                constants[bias] = np.zeros(channels, np.float32)
                names.append(bias)
            elif node.op_type == "AveragePool":
                for role, array in zip(
                    ("kernel", "bias"),
                    windows_reading.averages(node, _module_path(node)),
                    strict=True,
                ):
                    names.append(f"{output}.{role}")
                    constants[names[-1]] = array
            elif node.op_type == "PRelu" and names[1] in constants:
                slope = f"{names[1]}.slope"
                constants[slope] = _per_channel(constants[names[1]])
                names[1] = slope
            elif node.op_type == "Div" and names[1] in constants:
                reciprocal = f"{names[1]}.reciprocal"
                constants[reciprocal] = np.float32(1) / constants[names[1]]
                names[1] = reciprocal
            elif node.op_type in {"Add", "Mul", "Max", "Min"} and names[0] in constants:
                names.reverse()  # Rewrites look for constants in the second place.
            try:
                nodes.append(_read_node(node, names, known))
            except CannotLower as error:
                misused.append(error)
    if unsupported:
        raise UnsupportedOperators(unsupported, list(_READERS))
    # Raised last: the operands of a misused operator may come from an unsupported one.
    if misused:
        raise misused[0]
    return nodes


def _per_channel(array: Array) -> Array:
    """Return the values of a constant C × 1 × 1 as a vector; any other constant as it is."""
    return array.reshape(-1) if array.size == channels_of(array.shape) else array


def _integers(array: Array) -> tuple[int, ...]:
    return tuple(int(value) for value in array)


def _read_node(node: ir.Node, inputs: Sequence[str], constants: Mapping[str, Array]) -> Node:
    place = _module_path(node)
    outputs = tuple(str(value.name) for value in node.outputs)
    op, attributes, count = _READERS[node.op_type](
        node, place, [constants.get(name) for name in inputs]
    )
    return Node(op, place, tuple(inputs[:count]), outputs, attributes)


# A reader returns an operator, its attributes and the number of inputs that are operands, or None
# for all inputs.
_Reading = windows_reading.Reading
_Reader = Callable[[ir.Node, str, list[Array | None]], _Reading]


def _plain(node: ir.Node, place: str, inputs: list[Array | None]) -> _Reading:
    return node.op_type, {}, None


def _split(node: ir.Node, place: str, inputs: list[Array | None]) -> _Reading:
    sizes = inputs[1] if len(inputs) == 2 else None
    if sizes is None or node.attributes.get_int("axis", 0) not in {1, -3}:
        raise CannotLower(f"{place}: only channels can be split, into parts of known sizes")
    return "Split", {"sizes": _integers(sizes)}, 1


def _depth_to_space(node: ir.Node, place: str, inputs: list[Array | None]) -> _Reading:
    block = node.attributes.get_int("blocksize")
    mode = node.attributes.get_string("mode", "DCR")
    return "DepthToSpace", {"block": block, "mode": mode}, None


def _concat(node: ir.Node, place: str, inputs: list[Array | None]) -> _Reading:
    if node.attributes.get_int("axis") not in {1, -3}:
        raise CannotLower(f"{place}: only channels can be concatenated")
    return "Concat", {}, None


def _leaky_relu(node: ir.Node, place: str, inputs: list[Array | None]) -> _Reading:
    return "LeakyRelu", {"slope": node.attributes.get_float("alpha", 0.01)}, None


def _prelu(node: ir.Node, place: str, inputs: list[Array | None]) -> _Reading:
    slopes = inputs[1]
    if slopes is None or slopes.ndim != 1:
        found = "computed ones" if slopes is None else f"constants of shape {slopes.shape}"
        raise CannotLower(f"{place}: PRelu needs one slope, or one per channel; found {found}")
    if np.all(slopes == slopes[0]):  # One slope is an attribute and no constant.
        return "LeakyRelu", {"slope": slopes[0].item()}, 1
    return "PRelu", {}, None


def _clip(node: ir.Node, place: str, inputs: list[Array | None]) -> _Reading:
    if len(inputs) != 3 or inputs[1] is None or inputs[2] is None:
        raise CannotLower(f"{place}: Clip needs two constant bounds")
    return "Clip", {"minimum": inputs[1].item(), "maximum": inputs[2].item()}, 1


def _gelu(node: ir.Node, place: str, inputs: list[Array | None]) -> _Reading:
    by_tanh = node.attributes.get_string("approximate", "none") == "tanh"
    return "GeluTanh" if by_tanh else "Gelu", {}, None


def _hard_sigmoid(node: ir.Node, place: str, inputs: list[Array | None]) -> _Reading:
    slope, middle = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    if abs(slope - 1 / 6) > 1e-6 or middle != 0.5:
        raise CannotLower(
            f"{place}: a HardSigmoid must be min(max(x / 6 + 0.5, 0), 1); found x * {slope:g} + "
            f"{middle:g}: write it as a product, a sum and a Clip"
        )
    return "HardSigmoid", {}, None


def _mean(node: ir.Node, place: str, inputs: list[Array | None]) -> _Reading:
    if _axes(node, inputs) != [2, 3]:
        raise CannotLower(f"{place}: a mean must be over height and width, with keepdim=True")
    return "GlobalAveragePool", {}, 1


def _largest(node: ir.Node, place: str, inputs: list[Array | None]) -> _Reading:
    axes = _axes(node, inputs)
    if axes not in ([2, 3], [1]):
        raise CannotLower(
            f"{place}: a maximum must be over height and width, or over channels, with keepdim=True"
        )
    return "ChannelMax" if axes == [1] else "GlobalMaxPool", {}, 1


def _axes(node: ir.Node, inputs: list[Array | None]) -> list[int] | None:
    """Return the axes that an operator reduces to one value each; None if they are not known."""
    axes = inputs[1] if len(inputs) == 2 else None
    if axes is None or node.attributes.get_int("keepdims", 1) != 1:
        return None
    return sorted(int(axis) % 4 for axis in axes)


def _quotient(node: ir.Node, place: str, inputs: list[Array | None]) -> _Reading:
    # By a constant it is a product with its reciprocal.
    return "Div" if inputs[1] is None else "Mul", {}, None


def _extreme(node: ir.Node, place: str, inputs: list[Array | None]) -> _Reading:
    if len(inputs) != 2:
        raise CannotLower(f"{place}: {node.op_type} needs two operands; found {len(inputs)}")
    return node.op_type, {}, None


def _norm(node: ir.Node, place: str, inputs: list[Array | None]) -> _Reading:
    attributes: dict[str, Attribute] = {"epsilon": node.attributes.get_float("epsilon")}
    if node.op_type == "GroupNorm":
        attributes["groups"] = node.attributes.get_int("groups")
    return node.op_type, attributes, None


def _resize(node: ir.Node, place: str, inputs: list[Array | None]) -> _Reading:
    attributes, scales = node.attributes, inputs[-1]
    named = len(node.inputs) == 3 and node.inputs[1] is None
    factors = scales.tolist() if named and scales is not None else []
    if len(factors) != 4 or factors[:2] != [1, 1] or factors[2] != factors[3]:
        raise CannotLower(f"{place}: a picture is resized by one constant factor, or not at all")
    how = (
        attributes.get_string("mode", "nearest"),
        attributes.get_string("coordinate_transformation_mode", "half_pixel"),
        attributes.get_string("nearest_mode", "round_prefer_floor"),
    )
    mode, places, _ = how
    between = places in {"half_pixel", "pytorch_half_pixel"} and mode in INTERPOLATIONS
    cubic = attributes.get_float("cubic_coeff_a", -0.75) == -0.75 or mode != "cubic"
    plain = not any(attributes.get_int(key, 0) for key in ("antialias", "exclude_outside"))
    whole = factors[2] >= 1 and factors[2] % 1 == 0
    if whole and how == ("nearest", "asymmetric", "floor"):
        return "Resize", {"factor": int(factors[2])}, 1
    if whole and between and cubic and plain and factors[2] > 1:
        return "Interpolate", {"factor": int(factors[2]), "mode": mode}, 1
    raise CannotLower(
        f"{place}: pictures are enlarged by whole factors, to nearest neighbours or between pixel "
        f"centres (half_pixel) by linear or cubic interpolation, a = -0.75, without antialiasing; "
        f"found {', '.join(how)} by {factors[2]:g}"
    )


_READERS: Mapping[str, _Reader] = {
    "Conv": windows_reading.convolution,
    "Relu": _plain,
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    "Clip": _clip,
    "Sigmoid": _plain,
    **dict.fromkeys(FORMULAS, _plain),
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "Add": _plain,
    "Sub": _plain,
    "Mul": _plain,
    "Concat": _concat,
    "Split": _split,
    "ConvTranspose": windows_reading.transposed_convolution,
    "Pad": windows_reading.pad,
    "Slice": windows_reading.cut,
    "MaxPool": windows_reading.max_pool,
    "AveragePool": windows_reading.average_pool,
    "SpaceToDepth": windows_reading.space_to_depth,
    "GlobalAveragePool": _plain,
    "DepthToSpace": _depth_to_space,
    "Div": _quotient,
    "Max": _extreme,
    "Min": _extreme,
    "ChannelNorm": _norm,
    "GroupNorm": _norm,
    "Resize": _resize,
    # What torch's exporter makes of a mean over height and width, or of a pooling to 1 × 1.
    "ReduceMean": _mean,
    "ReduceMax": _largest,
    "GlobalMaxPool": _plain,
}


def _module_path(node: ir.Node) -> str:
    """Return the innermost module of the network that made ``node``, for messages."""
    scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes", "")
    paths = [part.strip(" '\"[]") for part in scopes.split(",")]
    return next((path for path in reversed(paths[:-1]) if path), node.name or node.op_type)
