"""int8 files: quantises a float ONNX file of ours, so that a network with depthwise filters keeps its predictions.

Weights are int8 for every output channel, activations uint8 for every tensor. The layers that lose most, at the start
and at the end of the network, compute in float; large ones among them still store int8 weights.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgcls.disk import replace_file
from imgcls.errors import UserError, UserFileNotFoundError
from imgcls.inference.quantize_graph import FloatGraph, open_session
from imgcls.inference.quantize_weights import equalise, round_weights
from imgcls.inference.quantize_writer import RoundedLayer, measure_ranges, write_graph

SMALLEST_CALIBRATION = 32
# The layers that compute in float may have this share of all multiply-accumulates.
FLOAT_SHARE = 0.3
# Error of the probabilities below which all layers may be int8.
_GOOD_ENOUGH = 1e-4
# Errors whose ratio is below this count as the same; then the cheaper choice is taken.
_SAME = 1.05
# So many layers at the very end are tried as int8 behind float ones.
_LAST = 3
# Every fourth image is held out: it chooses the float layers and makes the reported figures.
_HELD_OUT = 4
# Images that run at once: all inputs of all layers are in memory.
_BATCH = 8


@dataclass(frozen=True)
class QuantizationResult:
    """What was written, and how near it is to the float file on the held-out quarter of the calibration images.

    These images also chose the float layers, so the figures are slightly too good; compare on other images before
    the file is used.

    Attributes:
        float_layers: nodes that compute in float, in the order of the network; all other layers are int8.
        stored_layers: those of ``float_layers`` whose weights are stored as int8.
        agreement: share of images with the same best class, 0-100.
        shift: mean over the images of the largest change of a probability.
        size_ratio: size of the int8 file in sizes of the float file.
    """

    float_layers: list[str]
    stored_layers: list[str]
    agreement: float
    shift: float
    size_ratio: float


def quantize(
    float_path: str,
    out_path: str,
    calibration: Sequence[NDArray[np.uint8]],
    float_share: float = FLOAT_SHARE,
    reduce_range: bool = False,
) -> QuantizationResult:
    """Writes an int8 ONNX file with the same input, output and metadata. The same arguments give the same file.

    Args:
        float_path: an ONNX file with one input, uint8 images ``(N, 3, S, S)``, and one output, probabilities.
        out_path: the file to write.
        calibration: batches of images as the network gets them, at least 32 images; a few of every class are better
            than many of one.
        float_share: layers with at most this share of the multiply-accumulates compute in float; 0 for none.
        reduce_range: 7-bit weights, for x86 processors without VNNI, whose sums of 8-bit products overflow.

    Raises:
        UserFileNotFoundError: there is no such float file.
        UserError: onnx or onnxruntime is not installed, the file cannot be quantised, or the images cannot be used.
    """
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UserError(f'int8 files need {", ".join(missing)}: pip install -e ".[export]"')
    graph = _read(float_path)
    images = _check_images(calibration)
    held_out = images[_HELD_OUT - 1 :: _HELD_OUT]
    batches = list(_split(np.delete(images, np.s_[_HELD_OUT - 1 :: _HELD_OUT], axis=0)))
    expected = _probabilities(graph.model, held_out, float_path)
    equalise(graph, batches)
    quantizer = _Quantizer(graph, batches, held_out, expected, 63 if reduce_range else 127)
    float_layers = quantizer.choose(float_share)
    model = quantizer.write(float_layers)
    probabilities = _probabilities(model, held_out, out_path)
    data = model.SerializeToString(deterministic=True)
    with replace_file(out_path) as file:
        file.write(data)
    stored = {node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    return QuantizationResult(
        float_layers=[node.name for node in graph.layers if node.name in float_layers],
        stored_layers=[node.name for node in graph.layers if f"{node.input[1]}_i" in stored],
        agreement=100 * float((probabilities.argmax(axis=1) == expected.argmax(axis=1)).mean()),
        shift=_shift(probabilities, expected),
        size_ratio=len(data) / os.path.getsize(float_path),
    )


def has_vnni() -> bool:
    """Whether /proc/cpuinfo names instructions for 8-bit dot products."""
    try:
        words = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        words = []
    return not {"avx512_vnni", "avx_vnni", "asimddp"}.isdisjoint(words)


class _Quantizer:
    """Ranges and rounded weights of a graph, and the choice of its float layers."""

    def __init__(
        self,
        graph: FloatGraph,
        batches: Sequence[NDArray[np.uint8]],
        held_out: NDArray[np.uint8],
        expected: NDArray[Any],
        largest: int,
    ):
        self.graph, self.held_out, self.expected = graph, held_out, expected
        self.ranges: Mapping[str, tuple[float, float]] = measure_ranges(graph, batches)
        self.rounded: Mapping[str, RoundedLayer] = round_weights(graph, batches, largest)
        self.names = [node.name for node in graph.layers]
        self.costs = _costs(graph, batches[0][:1])

    def write(self, float_layers: set[str]) -> Any:
        return write_graph(self.graph, self.rounded, self.ranges, float_layers)

    def choose(self, float_share: float) -> set[str]:
        """The layers at both ends that lose most in int8, within their share of the multiply-accumulates.

        The errors of both ends are nearly independent, so each end is measured with the other one in float. The very
        last layers, which are large, stay int8 where that costs nothing.
        """
        if self._error(0, 0, 0) <= _GOOD_ENOUGH:
            return set()
        budget, counts = float_share * sum(self.costs), range(len(self.names))
        firsts = [count for count in counts if self._cost(count, 0, 0) <= budget]
        widest = max(count for count in counts if self._cost(0, count, 0) <= budget)
        errors = {kept: self._error(firsts[-1], widest, kept) for kept in range(min(_LAST + 1, widest + 1))}
        kept = max(kept for kept, error in errors.items() if error <= _SAME * errors[0])
        # A single float layer between int8 ones would not stay float.
        lasts = [n for n in counts if n - kept not in (1, *range(-kept, 0)) and self._cost(0, n, kept) <= budget]
        with_first = {count: self._error(count, lasts[-1], kept) for count in firsts}
        with_last = {count: self._error(firsts[-1], count, kept) for count in lasts}
        pairs = [(first, last) for first in firsts for last in lasts if self._cost(first, last, kept) <= budget]
        sums = {(first, last): with_first[first] + with_last[last] for first, last in pairs}
        good = [pair for pair in pairs if sums[pair] <= _SAME * min(sums.values())]
        first, last = min(good, key=lambda pair: self._cost(pair[0], pair[1], kept))
        return self._layers(first, last, kept)

    def _layers(self, first: int, last: int, kept: int) -> set[str]:
        """The first and the last layers by their counts, without the ``kept`` very last ones."""
        return {*self.names[:first], *self.names[len(self.names) - last : len(self.names) - kept]}

    def _cost(self, first: int, last: int, kept: int) -> float:
        if first + last >= len(self.names):
            return np.inf
        return sum(self.costs[:first]) + sum(self.costs[len(self.costs) - last : len(self.costs) - kept])

    def _error(self, first: int, last: int, kept: int) -> float:
        """Mean over the images of the squared difference of the roots of the probabilities (Hellinger, twice)."""
        layers = self._layers(min(first, len(self.names) - last), last, kept)
        found = _probabilities(self.write(layers), self.held_out, "the int8 model")
        return float(np.square(np.sqrt(found) - np.sqrt(self.expected)).sum(axis=1).mean())


def _read(path: str) -> FloatGraph:
    import onnx

    if not os.path.isfile(path):
        raise UserFileNotFoundError(f"{path}: no such file; write it with `imgcls export`")
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's and onnx's own kinds
        raise UserError(
            f"{path} is no ONNX file ({str(error).splitlines()[0]}); write it with `imgcls export`"
        ) from None
    types = {node.op_type for node in model.graph.node}
    if types & {"QuantizeLinear", "DequantizeLinear"}:
        raise UserError(f"{path} is quantised already; give the float file")
    inputs = [each for each in model.graph.input if each.name not in {i.name for i in model.graph.initializer}]
    is_ours = (
        len(inputs) == len(model.graph.output) == 1 and inputs[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    )
    graph = FloatGraph(model)
    if not is_ours or not any(node.op_type == "Conv" for node in graph.layers):
        raise UserError(
            f"{path} cannot be quantised: expected one uint8 input of images, one output of probabilities, and "
            "convolutions with constant weights and biases, as `imgcls export` writes them"
        )
    wrong = [
        name for name, value in graph.constants.items() if value.dtype.kind == "f" and not np.isfinite(value).all()
    ]
    if wrong:
        raise UserError(f"{path}: {wrong[0]} has values that are not finite; export another checkpoint")
    return graph


def _check_images(calibration: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    batches = [np.asarray(batch) for batch in calibration]
    for batch in batches:
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != batches[0].shape[1:]:
            raise UserError(
                f"calibration images: got {batch.dtype} {batch.shape}; expected uint8 (N, C, S, S) in 0-255, "
                "all of one size"
            )
    count = sum(map(len, batches))
    if count < SMALLEST_CALIBRATION:
        raise UserError(
            f"{count} calibration images are too few for int8; give at least {SMALLEST_CALIBRATION}, better 128 or "
            "more, of all classes"
        )
    return np.concatenate(batches)


def _probabilities(model: Any, images: NDArray[np.uint8], path: str) -> NDArray[Any]:
    session = open_session(model)
    name = session.get_inputs()[0].name
    found = np.concatenate([session.run(None, {name: batch})[0] for batch in _split(images)])
    if not np.isfinite(found).all():
        raise UserError(f"{path}: gives probabilities that are not finite for the calibration images")
    return found


def _split(images: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    return (np.ascontiguousarray(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH))


def _shift(got: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(got - expected).max(axis=1).mean())


def _costs(graph: FloatGraph, image: NDArray[np.uint8]) -> list[int]:
    """Multiply-accumulates of each layer."""
    (outputs,) = graph.run([image], [node.output[0] for node in graph.layers])
    weights = [graph.constants[node.input[1]] for node in graph.layers]
    return [
        value[0].size * each[0].size
        for value, each in zip((outputs[n.output[0]] for n in graph.layers), weights, strict=True)
    ]
