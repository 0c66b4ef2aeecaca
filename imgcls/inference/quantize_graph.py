"""A float ONNX graph that is to be quantised: its layers and constants, and its tensors on images."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_LAYERS = ("Conv", "Gemm")
ACTIVATIONS = ("Relu", "Clip")


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
                    node.input[index] = name = f"{node.output[0]}:{index}"
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
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def replace_constants(model: Any, constants: Mapping[str, NDArray[Any]]) -> None:
    """Writes arrays into the initializers of the same names, in their types."""
    from onnx import numpy_helper

    for each in model.graph.initializer:
        if each.name in constants:
            dtype = numpy_helper.to_array(each).dtype
            each.CopyFrom(numpy_helper.from_array(np.array(constants[each.name], dtype, order="C"), each.name))


def is_sum(graph: FloatGraph, node: Any) -> bool:
    """Whether a node adds two tensors, as residual blocks do."""
    return node.op_type == "Add" and len(graph.inputs(node)) == 2


def attribute(node: Any, name: str, default: Any) -> Any:
    """An attribute of a node, or the default where it is not set."""
    from onnx import helper

    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)
