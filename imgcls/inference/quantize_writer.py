"""The graph of an int8 file: the ranges of its tensors, and the float graph with integers in it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgcls.inference.quantize_graph import ACTIVATIONS, FloatGraph

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
