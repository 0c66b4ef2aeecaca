"""The graph of an int8 file: what can be int8 in a float ONNX graph, and the graph with integers in it."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LAYERS = ("Conv", "Gemm")
ACTIVATIONS = ("Relu", "Clip")
# A float layer with a larger share of all weights than this stores them as int8, too, and computes in float.
_SMALL = 0.01
# Ranges that are tried, as shares of what the calibration images reach; other images may reach further.
_SHARES = (1.05, 0.95, 0.85, 0.75, 0.65, 0.55)
# Values of a tensor and batch, about, that the error of a range is measured on.
_SAMPLE = 20_011


@dataclass(frozen=True)
class RoundedLayer:
    """Weights of a layer on the int8 grid.

    Attributes:
        values: int8, in the shape of the weights.
        scale: float32, one for each output channel.
        bias: float32, corrected for the mean error of the rounded weights.
    """

    values: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]

    @property
    def weights(self) -> NDArray[np.float32]:
        """The float weights that the integers stand for."""
        return self.values * self.scale.reshape(-1, *[1] * (self.values.ndim - 1))


class FloatGraph:
    """A float ONNX graph, its constants by name and its layers.

    Args:
        model: an ``onnx.ModelProto``; it is copied.

    Attributes:
        model: the copy.
        constants: arrays by name; they replace those of ``model`` when it is run or written.
        layers: convolutions and linear layers that can be int8, in the order of the graph.
    """

    def __init__(self, model: Any):
        from onnx import ModelProto, numpy_helper

        self.model = ModelProto.FromString(model.SerializeToString())
        graph = self.model.graph
        self.constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
        self.layers = [node for node in graph.node if self._is_layer(node)]
        self._separate_constants()

    def _is_layer(self, node: Any) -> bool:
        if node.op_type not in _LAYERS or any(name not in self.constants for name in node.input[1:]):
            return False
        gemm = {"transA": 0, "transB": 1, "alpha": 1.0, "beta": 1.0}
        plain = gemm if node.op_type == "Gemm" else {"auto_pad": b"NOTSET"}
        return (
            len(node.input) in (2, 3)
            and all(attribute(node, name, value) == value for name, value in plain.items())
            and self.constants[node.input[1]].ndim == (2 if node.op_type == "Gemm" else 4)
            and set(attribute(node, "dilations", [1])) == {1}
        )

    def _separate_constants(self) -> None:
        """Exporters leave out biases of zeros and store equal constants once; here each layer has its own."""
        from onnx import numpy_helper

        uses = Counter(name for node in self.model.graph.node for name in node.input)
        for node in self.layers:
            values = [self.constants[name] for name in node.input[1:]]
            if len(values) == 1:
                values.append(np.zeros(len(values[0]), np.float32))
                node.input.append("")
            for index, value in enumerate(values, start=1):
                if uses[node.input[index]] != 1:
                    node.input[index] = name = f"{node.output[0]}_{index}"
                    self.constants[name] = value
                    self.model.graph.initializer.append(numpy_helper.from_array(value, name))

    def follower(self, node: Any) -> Any:
        """The activation that alone reads the output of a node, or None."""
        name = node.output[0]
        readers = [each for each in self.model.graph.node if name in each.input]
        return readers[0] if len(readers) == 1 and readers[0].op_type in ACTIVATIONS else None

    def run(self, batches: Sequence[NDArray[np.uint8]], tensors: Sequence[str]) -> Iterator[dict[str, NDArray[Any]]]:
        """Yields tensors by name for each batch of images."""
        from onnx import ModelProto, TensorProto, helper

        model = ModelProto.FromString(self.model.SerializeToString())
        replace_constants(model, self.constants)
        known = {output.name for output in model.graph.output}
        model.graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors if name not in known
        )
        session = open_session(model)
        for batch in batches:
            yield dict(zip(tensors, session.run(list(tensors), {session.get_inputs()[0].name: batch}), strict=True))

    def inputs(self, node: Any) -> list[str]:
        """The inputs of a node that are not constant."""
        return [name for name in node.input if name and name not in self.constants]

    def limits(self, node: Any) -> tuple[float, float]:
        """The range of an activation's output."""
        if node.op_type == "Relu":
            return 0.0, np.inf
        low, high = (self.constants.get(name) for name in (*node.input[1:], "", "")[:2])
        return (-np.inf if low is None else float(low)), (np.inf if high is None else float(high))


def open_session(model: Any) -> Any:
    """An ONNX Runtime session on the CPU for a ``ModelProto``."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def replace_constants(model: Any, constants: Mapping[str, NDArray[Any]]) -> None:
    """Writes arrays into the initializers of the same names, in their types."""
    from onnx import numpy_helper

    for each in model.graph.initializer:
        if each.name in constants:
            dtype = numpy_helper.to_array(each).dtype
            each.CopyFrom(numpy_helper.from_array(np.array(constants[each.name], dtype, order="C"), each.name))


def quantised_tensors(graph: FloatGraph, node: Any) -> list[str]:
    """The tensors that have 8 bits if a layer computes in int8: its input and its activation's output, no logits."""
    if node.op_type == "Gemm":
        return [node.input[0]]
    return [node.input[0], (graph.follower(node) or node).output[0]]


def measure_ranges(graph: FloatGraph, batches: Sequence[NDArray[np.uint8]]) -> dict[str, tuple[float, float]]:
    """The range of each tensor that may be quantised: the share of what the images reach that has the least error.

    A narrower range has smaller steps and cuts off the largest values.
    """
    names = list(dict.fromkeys(name for node in graph.layers for name in quantised_tensors(graph, node)))
    limits = {node.output[0]: graph.limits(node) for node in graph.model.graph.node if node.op_type in ACTIVATIONS}
    reached = dict.fromkeys(names, (0.0, 0.0))
    for values in graph.run(batches, names):
        for name, value in values.items():
            low, high = reached[name]
            reached[name] = min(low, float(value.min())), max(high, float(value.max()))
    ranges = {}
    for name, (low, high) in reached.items():
        lowest, highest = limits.get(name, (-np.inf, np.inf))
        ranges[name] = [(max(low * share, lowest), min(high * share, highest)) for share in _SHARES]
    errors = {name: np.zeros(len(_SHARES)) for name in names}
    for values in graph.run(batches, names):
        for name, value in values.items():
            sample = value.reshape(-1)[:: max(1, value.size // _SAMPLE)]
            errors[name] += [_rounding_error(sample, low, high) for low, high in ranges[name]]
    return {name: ranges[name][int(errors[name].argmin())] for name in names}


def _rounding_error(values: NDArray[Any], low: float, high: float) -> float:
    """Sum of the squared errors that 8 bits for a range make."""
    step = (high - low) / 255 or 1.0
    start = round(-low / step)
    return float(np.square((np.clip(np.round(values / step) + start, 0, 255) - start) * step - values).sum())


def write_graph(
    graph: FloatGraph,
    rounded: Mapping[str, RoundedLayer],
    ranges: Mapping[str, tuple[float, float]],
    float_layers: Collection[str],
) -> Any:
    """The ``ModelProto`` in which all layers but ``float_layers`` compute in int8.

    Sums of residual blocks stay float, because an 8-bit sum in every block would add up errors.

    Args:
        graph: the float graph.
        rounded: weights by name of the layer.
        ranges: of the tensors, from ``measure_ranges``.
        float_layers: names of layers at the start and the end of the graph. ONNX Runtime turns a float layer between
            two int8 ones into an int8 layer, and one with a single scale for all its channels.
    """
    return _Writer(graph, rounded, ranges, float_layers).write()


class _Writer:
    """Collects the nodes and constants of an int8 graph: integers end with ``_q``, the floats they mean with ``_d``."""

    def __init__(
        self,
        graph: FloatGraph,
        rounded: Mapping[str, RoundedLayer],
        ranges: Mapping[str, tuple[float, float]],
        float_layers: Collection[str],
    ):
        self.graph, self.rounded, self.ranges = graph, rounded, ranges
        self.integer = {node.output[0]: node for node in graph.layers if node.name not in float_layers}
        self.large = _SMALL * sum(each.values.size for each in rounded.values())
        self.nodes: list[Any] = []
        self.constants = dict(graph.constants)
        self.scales: dict[str, np.float32] = {}
        for node in self.integer.values():
            for name in quantised_tensors(graph, node):
                low, high = ranges[name]
                self.scales[name] = np.float32((high - low) / 255 or 1)
                self.constants[f"{name}_s"] = np.asarray(self.scales[name])
                self.constants[f"{name}_z"] = np.asarray(round(-low / self.scales[name]), np.uint8)
        # Activations that do no more than the range of their output, by their input.
        self.merged = {node.output[0]: each for node in self.integer.values() if (each := self._merged(node))}

    def write(self) -> Any:
        from onnx import ModelProto, numpy_helper

        model = ModelProto.FromString(self.graph.model.SerializeToString())
        merged = {each.output[0] for each in self.merged.values()}
        producers = {name: node for node in model.graph.node for name in node.output}
        sources = {name: self._source(name, producers) for name in self.scales}
        for node in model.graph.node:
            output = node.output[0]
            if output in merged:
                continue
            for index, name in enumerate(node.input):
                if name in self.scales and (output in self.integer or sources[name] in self.integer):
                    node.input[index] = f"{name}_d"
            if output in self.integer:
                self._add_integer_weights(node)
            elif node.name in self.rounded and self.rounded[node.name].values.size > self.large:
                self._add_stored_weights(node)
            if output in self.merged:
                node.output[0] = output = self.merged[output].output[0]
            self.nodes.append(node)
            if output in self.scales:
                self._add("QuantizeLinear", [output, f"{output}_s", f"{output}_z"], f"{output}_q")
                self._add("DequantizeLinear", [f"{output}_q", f"{output}_s", f"{output}_z"], f"{output}_d")
        del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
        model.graph.node.extend(self.nodes)
        used = dict.fromkeys(name for node in self.nodes for name in node.input if name in self.constants)
        model.graph.initializer.extend(numpy_helper.from_array(self.constants[name], name) for name in used)
        return model

    def _add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))

    def _add_integer_weights(self, node: Any) -> None:
        layer, (source, weights, bias) = self.rounded[node.name], node.input
        bias_scale = self.scales[source.removesuffix("_d")].astype(np.float64) * layer.scale
        integers = np.clip(np.round(layer.bias / bias_scale), -(2**31) + 1, 2**31 - 1).astype(np.int32)
        for name, values, scale in ((weights, layer.values, layer.scale), (bias, integers, bias_scale)):
            self.constants[f"{name}_q"], self.constants[f"{name}_s"] = values, scale.astype(np.float32)
            self.constants[f"{name}_z"] = np.zeros(len(scale), values.dtype)
            zeros = [f"{name}_z"] if node.op_type == "Gemm" else []  # ONNX Runtime fuses a Gemm only with zero points
            self._add("DequantizeLinear", [f"{name}_q", f"{name}_s", *zeros], f"{name}_d", axis=0)
        node.input[1], node.input[2] = f"{weights}_d", f"{bias}_d"

    def _add_stored_weights(self, node: Any) -> None:
        """ONNX Runtime computes Cast and Mul once, when it opens the file; DequantizeLinear for every batch."""
        from onnx import TensorProto

        layer, (_, weights, bias) = self.rounded[node.name], node.input
        self.constants[bias], self.constants[f"{weights}_q"] = layer.bias, layer.values
        self.constants[f"{weights}_s"] = layer.scale.reshape(-1, *[1] * (layer.values.ndim - 1))
        self._add("Cast", [f"{weights}_q"], f"{weights}_f", to=TensorProto.FLOAT)
        self._add("Mul", [f"{weights}_f", f"{weights}_s"], f"{weights}_d")
        node.input[1] = f"{weights}_d"

    def _merged(self, node: Any) -> Any:
        """The activation after an int8 layer, if quantising to the range of its output does the same."""
        follower = self.graph.follower(node)
        if follower is None or node.op_type == "Gemm":
            return None
        (low, high), (lowest, highest) = self.graph.limits(follower), self.ranges[follower.output[0]]
        return follower if low <= lowest and highest <= high else None

    @staticmethod
    def _source(name: str, producers: Mapping[str, Any]) -> str:
        """The output of the layer that makes a tensor, without its activation."""
        node = producers.get(name)
        return str(node.input[0]) if node is not None and node.op_type in ACTIVATIONS else name


def is_sum(graph: FloatGraph, node: Any) -> bool:
    """Whether a node adds two tensors, as residual blocks do."""
    return node.op_type == "Add" and len(graph.inputs(node)) == 2


def attribute(node: Any, name: str, default: Any) -> Any:
    """An attribute of a node, or the default where it is not set."""
    from onnx import helper

    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)
