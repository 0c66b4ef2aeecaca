"""What makes weights survive int8: channels of equal range, and rounding errors that make up for each other.

ONNX Runtime's ``quantize_static`` has neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from imgcls.inference.quantize_graph import ACTIVATIONS, FloatGraph, attribute, is_sum
from imgcls.inference.quantize_writer import RoundedLayer

# Nodes that keep channels apart and commute with a positive factor of each channel (Clip within its limits).
_CHANNELWISE = ("Relu", "LeakyRelu", "Clip", "Identity", "MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean")
# A channel is multiplied by at most this much: its peak on the calibration images may be far below that of others.
_LARGEST_FACTOR = 64.0
# Peaks of other images are higher.
_MARGIN = 1.15
# How far channels are equalised, 0 to 1, before depthwise filters and before layers that mix channels.
_DEPTHWISE_POWER, _DENSE_POWER = 0.75, 0.4
# Patches of an image that are used to round a layer's weights.
_PATCHES = 64
# Added to the diagonal of the covariance of a layer's inputs, as a share of its mean.
_DAMPING = 0.01
# Columns of weights that are rounded before their errors are handed on to all later ones.
_BLOCK = 64


def equalise(graph: FloatGraph, batches: Sequence[NDArray[np.uint8]]) -> None:
    """Scales channels so that they use the range of their tensor, and divides the next weights by the same factors.

    One scale for a tensor then is nearly one scale for each of its channels (cross-layer equalisation, arXiv
    1906.04721). Tensors that are added to each other share their factors. The peak of a channel is moved towards the
    largest peak of the tensor, or the upper limit of its ReLU6: far before depthwise filters, which have a scale for
    each channel anyway, and less before layers that mix channels, where channels with large weights come first, because
    their weights become less equal (arXiv 2211.10438). No factor is below 1 where there is an activation, so
    that a ReLU6 clips no channel below its old limit; it clips one above its peak with a margin, as any 8-bit range
    does.

    Args:
        graph: changed in place; for images like the calibration images, it computes the same.
        batches: calibration images.
    """
    groups = [group for group in _groups(graph) if group.producers and group.consumers]
    measured = [name for group in groups for name in group.measured]
    peaks: dict[str, NDArray[Any]] = {}
    for values in graph.run(batches, measured):
        for name, value in values.items():
            peak = np.abs(value).max(axis=(0, *range(2, value.ndim)))
            peaks[name] = np.maximum(peaks.get(name, 0), peak)
    for group in groups:
        peak = np.max([peaks[name] for name in group.measured], axis=0) * _MARGIN
        factor = _factors(graph, group, peak)
        for node in group.producers:
            _, weights, bias = node.input
            graph.constants[weights] = graph.constants[weights] * _column(factor, graph.constants[weights].ndim)
            graph.constants[bias] = graph.constants[bias] * factor
        for node in group.consumers:
            weights = graph.constants[node.input[1]]
            filters = attribute(node, "group", 1)
            divisor = np.repeat(factor.reshape(filters, -1), len(weights) // filters, axis=0)
            graph.constants[node.input[1]] = weights / divisor.reshape(*weights.shape[:2], *[1] * (weights.ndim - 2))


def _factors(graph: FloatGraph, group: "_Group", peak: NDArray[Any]) -> NDArray[Any]:
    """One factor for each channel with a given peak."""
    goal = min(group.limit, float(peak.max()))
    alive, peak = peak > 0, np.maximum(peak, 1e-9)
    headroom = np.clip(goal / peak, 1, _LARGEST_FACTOR)
    weights = [graph.constants[node.input[1]] for node in group.consumers]
    filters = [attribute(node, "group", 1) for node in group.consumers]
    if min(filters) > 1:
        factor = headroom**_DEPTHWISE_POWER
    else:
        moved = [each if count > 1 else np.moveaxis(each, 1, 0) for each, count in zip(weights, filters, strict=True)]
        reach = np.max([np.abs(each).reshape(len(peak), -1).max(axis=1) for each in moved], axis=0)
        factor = (np.maximum(reach, 1e-9) / peak) ** _DENSE_POWER
        factor = np.clip(factor * (goal / (factor * peak).max()), 1, headroom)
    return np.where(alive, factor, 1.0)


def round_weights(graph: FloatGraph, batches: Sequence[NDArray[np.uint8]], largest: int) -> dict[str, RoundedLayer]:
    """Rounds the weights of all layers to integers so that the outputs change least on the images.

    The columns of a layer are rounded one after the other, and the error of each is made up for by the columns that
    follow, by the covariance of the inputs (GPTQ, arXiv 2210.17323). The mean error is added to the bias.

    Args:
        graph: the float graph.
        batches: calibration images.
        largest: largest integer, 127, or 63 for processors whose 8-bit products overflow.

    Returns:
        By name of the layer's node.
    """
    tensors = list(dict.fromkeys(node.input[0] for node in graph.layers))
    sums: dict[str, list[NDArray[Any]]] = {}
    counts = dict.fromkeys((node.name for node in graph.layers), 0)
    for index, values in enumerate(graph.run(batches, tensors)):
        for node in graph.layers:
            patches = _patches(values[node.input[0]], node, graph.constants[node.input[1]], index)
            moments = [patches.sum(axis=1, dtype=np.float64), patches.transpose(0, 2, 1) @ patches]
            old = sums.get(node.name, [0.0, 0.0])
            sums[node.name] = [a + b for a, b in zip(old, moments, strict=True)]
            counts[node.name] += patches.shape[1]
    rounded = {}
    for node in graph.layers:
        weights, bias = (graph.constants[name].astype(np.float64) for name in node.input[1:])
        mean, square = (total / counts[node.name] for total in sums[node.name])
        groups, size = mean.shape
        covariance = square - mean[:, :, None] * mean[:, None, :]
        # The second part covers the rounding of the float32 sums, where inputs hardly differ from their mean.
        damping = (_DAMPING * np.einsum("gkk->g", covariance) + 1e-5 * np.einsum("gkk->g", square)) / size + 1e-8
        covariance += damping[:, None, None] * np.eye(size)
        split = weights.reshape(groups, -1, size)
        scale = np.abs(split).max(axis=2) / largest
        scale[scale == 0] = 1
        integers = _round_columns(split, covariance, scale, largest)
        bias += np.einsum("gok,gk->go", split - integers * scale[:, :, None], mean).reshape(-1)
        rounded[node.name] = RoundedLayer(
            integers.reshape(weights.shape).astype(np.int8),
            scale.reshape(-1).astype(np.float32),
            bias.astype(np.float32),
        )
    return rounded


def _round_columns(weights: NDArray[Any], covariance: NDArray[Any], scale: NDArray[Any], largest: int) -> NDArray[Any]:
    """Integers ``(G, O, K)`` for weights of this shape, covariances ``(G, K, K)`` and scales ``(G, O)``."""
    weights = weights.copy()
    order = np.argsort(-np.einsum("gkk->gk", covariance), axis=1, kind="stable")
    weights = np.take_along_axis(weights, order[:, None, :], axis=2)
    covariance = np.take_along_axis(covariance, order[:, :, None], axis=1)
    covariance = np.take_along_axis(covariance, order[:, None, :], axis=2)
    upper = np.linalg.cholesky(np.linalg.inv(covariance)).transpose(0, 2, 1)
    integers = np.zeros_like(weights)
    size = weights.shape[2]
    for start in range(0, size, _BLOCK):
        end = min(start + _BLOCK, size)
        errors = np.zeros_like(weights[:, :, start:end])
        for k in range(start, end):
            integers[:, :, k] = np.clip(np.round(weights[:, :, k] / scale), -largest, largest)
            error = (weights[:, :, k] - integers[:, :, k] * scale) / upper[:, k, k, None]
            weights[:, :, k:end] -= error[:, :, None] * upper[:, None, k, k:end]
            errors[:, :, k - start] = error
        weights[:, :, end:] -= errors @ upper[:, start:end, end:]
    return np.take_along_axis(integers, np.argsort(order, axis=1)[:, None, :], axis=2)


def _patches(values: NDArray[Any], node: Any, weights: NDArray[Any], seed: int) -> NDArray[np.float32]:
    """What the filters of a layer see: ``(groups, patches, K)``, at random positions of each image."""
    if node.op_type == "Gemm":
        return values[None]
    top, left, bottom, right = attribute(node, "pads", [0] * 4)
    values = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    down, across = attribute(node, "strides", [1, 1])
    windows = sliding_window_view(values, weights.shape[2:], (2, 3))[:, :, ::down, ::across]
    count, _, height, width = windows.shape[:4]
    places = np.arange(height * width)
    if len(places) > _PATCHES:
        places = np.random.default_rng(seed).choice(places, _PATCHES, replace=False)
    found = windows[:, :, places // width, places % width].transpose(0, 2, 1, 3, 4)
    return found.reshape(count * len(places), attribute(node, "group", 1), -1).transpose(1, 0, 2)


@dataclass
class _Group:
    """Tensors whose channels share their factors, and the layers that write and read them.

    Attributes:
        measured: the tensors whose peaks count.
        limit: lowest upper limit of an activation among them.
    """

    producers: list[Any]
    consumers: list[Any]
    measured: list[str]
    limit: float


def _groups(graph: FloatGraph) -> list[_Group]:
    """The groups of tensors between layers that can be scaled; others are left out."""
    parents: dict[str, str] = {}

    def find(name: str) -> str:
        while parents.setdefault(name, name) != name:
            name = parents[name]
        return name

    layers = {node.output[0]: node for node in graph.layers}
    fixed = {each.name for each in (*graph.model.graph.input, *graph.model.graph.output)}
    limits: dict[str, float] = {}
    for node in graph.model.graph.node:
        inputs, output = graph.inputs(node), node.output[0]
        if output in layers:
            find(output), find(inputs[0])
        elif is_sum(graph, node) or (node.op_type in _CHANNELWISE and _keeps_channels(graph, node)):
            for name in inputs:
                parents[find(name)] = find(output)
            if node.op_type in ACTIVATIONS:
                limits[output] = graph.limits(node)[1]
        else:
            fixed.update(inputs, node.output)
    members: dict[str, list[str]] = {}
    for name in parents:
        members.setdefault(find(name), []).append(name)
    groups = []
    for names in members.values():
        if fixed.isdisjoint(names):
            inside = set(names)
            active = [name for name in names if name in limits]
            groups.append(
                _Group(
                    producers=[layers[name] for name in names if name in layers],
                    consumers=[node for node in graph.layers if node.input[0] in inside],
                    measured=active or names,
                    limit=min((limits[name] for name in active), default=np.inf),
                )
            )
    return groups


def _keeps_channels(graph: FloatGraph, node: Any) -> bool:
    if node.op_type == "Clip":
        low, high = graph.limits(node)
        return low <= 0 <= high and (low == 0 or low == -np.inf)
    if node.op_type == "ReduceMean":
        axes = graph.constants.get(node.input[1]) if len(node.input) > 1 else attribute(node, "axes", None)
        return axes is not None and sorted(axis % 4 for axis in np.ravel(axes)) == [2, 3]
    return True


def _column(factor: NDArray[Any], dimensions: int) -> NDArray[Any]:
    return factor.reshape(-1, *[1] * (dimensions - 1))
