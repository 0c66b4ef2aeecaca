"""The int8 file of an exported classifier: it is accepted only if real images keep their predictions."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imgcls.data.catalog import get_dataset
from imgcls.errors import UserError
from imgcls.inference.classifier import Classifier, ClassifierInfo
from imgcls.inference.export.exported import load_exported
from imgcls.inference.export.metadata import KEY
from imgcls.inference.predictor import Predictor
from imgcls.inference.quantize import SMALLEST_CALIBRATION, QuantizationResult, has_vnni, quantize
from imgcls.inference.score import build_evaluator, build_loader, build_outputs

FLOAT, NAIVE, OURS = "float", "quantize_static", "int8"
# Calibration images that are used of a larger set, evenly spread over it.
MAX_CALIBRATION = 256
_BATCH = 32
_ROUNDS = 30


@dataclass(frozen=True)
class QuantizationOptions:
    """How to quantise an exported file.

    Attributes:
        calibrate: name of a dataset with at least 32 images of the checkpoint's classes; at most 256 of them are used.
        max_drop: points that the metric may lose, or percent of the images that may come out otherwise.
    """

    calibrate: str
    max_drop: float = 1.0


@dataclass(frozen=True)
class FileFigures:
    """One row of the table.

    Attributes:
        agreement: images, or decisions of a multi-label classifier, that come out as in the float file; 0-100.
        metric: 0-100; None if the images have no labels.
        size: bytes.
        latency: median milliseconds for one image.
    """

    agreement: float
    metric: float | None
    size: int
    latency: float


@dataclass(frozen=True)
class QuantizationProof:
    """What an int8 file keeps of the float file on real images.

    Attributes:
        images: how many were compared.
        metric: the name of the metric: ``top1`` or ``mAP``.
        files: figures of the float file, of ONNX Runtime's ``quantize_static`` per channel, and of the int8 file.
        float_layers: the layers of the int8 file that compute in float.
    """

    images: int
    metric: str
    files: Mapping[str, FileFigures]
    float_layers: Sequence[str]

    @property
    def drop(self) -> float:
        """Points that the metric loses; without labels, the share of images that come out otherwise."""
        exact, ours = self.files[FLOAT].metric, self.files[OURS].metric
        return 100 - self.files[OURS].agreement if exact is None or ours is None else exact - ours

    def __str__(self) -> str:
        lines = [f"{self.images} images", f"{'':16} agreement {self.metric:>9} {'size':>11} {'1 image':>11}"]
        for name, row in self.files.items():
            metric = "-" if row.metric is None else f"{row.metric:.2f}"
            sizes = f"{row.agreement:8.2f}% {metric:>9} {row.size / 1e6:8.2f} MB {row.latency:8.2f} ms"
            lines.append(f"{name:16} {sizes}")
        names = ", ".join(self.float_layers) or "none"
        return "\n".join([*lines, f"{len(self.float_layers)} layers compute in float: {names}"])


def quantize_export(
    path: str,
    target: str,
    predictor: Predictor,
    records: Sequence[dict],
    calibration: NDArray[np.uint8],
    max_drop: float,
) -> QuantizationProof:
    """Replaces a float ONNX file of ours by its int8 file.

    Args:
        path: the file.
        target: its name for the user.
        predictor: of its checkpoint; it prepares the images.
        records: of the images to compare on, with labels or without.
        calibration: from `read_calibration`.
        max_drop: points that the metric may lose, or percent of the images that may come out otherwise.

    Raises:
        UserError: the file cannot be quantised, or it loses more. Then it is unchanged.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: os.path.join(folder, f"{name}.onnx") for name in (FLOAT, NAIVE, OURS)}
        shutil.copyfile(path, paths[FLOAT])
        quantize_naively(paths[FLOAT], paths[NAIVE], calibration)
        result = quantize(paths[FLOAT], paths[OURS], [calibration], reduce_range=not has_vnni())
        _describe(paths[OURS], len(calibration), result)
        proof = compare_files(paths, predictor, records, result.float_layers)
        ours, exact = proof.files[OURS], proof.files[FLOAT]
        if not proof.drop <= max_drop:
            lost = f"{ours.agreement:.2f} % of {proof.images} images come out as in the float file"
            if exact.metric is not None:
                lost += f", and {proof.metric} drops from {exact.metric:.2f} to {ours.metric:.2f}"
            raise UserError(
                f"{target}: not written, because int8 loses {proof.drop:.2f} points: {lost}; allowed: {max_drop:g} "
                "(--max-drop); calibrate with more images of all classes, or leave --quantize out"
            )
        shutil.copyfile(paths[OURS], path)
    return proof


def read_calibration(predictor: Predictor, name: str, nhwc: bool) -> NDArray[np.uint8]:
    """Prepares at most 256 images of a dataset as the network gets them, evenly spread over the set.

    Raises:
        UserError: there is no such set, it has a class that the classifier lacks, or fewer than 32 images.
    """
    try:
        records = get_dataset(name, predictor.info.classes).records
    except UserError as error:
        raise UserError(f"--calibrate {error}") from error
    if len(records) < SMALLEST_CALIBRATION:
        raise UserError(
            f"--calibrate {name}: has {len(records)} images; at least {SMALLEST_CALIBRATION} are needed, better 128 or "
            "more, of all classes"
        )
    chosen = np.linspace(0, len(records) - 1, min(len(records), MAX_CALIBRATION), dtype=int)
    loader = build_loader(predictor, [records[index] for index in chosen], _BATCH, len(os.sched_getaffinity(0)))
    images = torch.cat([batch["image"] for batch in loader])
    return np.ascontiguousarray((images.permute(0, 2, 3, 1) if nhwc else images).numpy())


def quantize_naively(float_path: str, out_path: str, images: NDArray[np.uint8]) -> None:
    """What ONNX Runtime's documentation shows: pre-processing, then ``quantize_static`` with scales per channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(np.array_split(images, -(-len(images) // _BATCH)))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch}

    quant_pre_process(float_path, out_path, skip_symbolic_shape=True)
    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(out_path, out_path, Reader(), per_channel=True, **types)


def compare_files(
    paths: Mapping[str, str], predictor: Predictor, records: Sequence[dict], float_layers: Sequence[str] = ()
) -> QuantizationProof:
    """Runs the files, the first of which is the float file, on the same images."""
    info = predictor.info
    key = "labels" if info.multi_label else "label"
    labelled = all(key in record for record in records)
    classifiers = {name: load_exported(path, "cpu") for name, path in paths.items()}
    evaluators = {name: build_evaluator(info) for name in paths}
    same = dict.fromkeys(paths, 0.0)
    images = torch.empty(0)
    for batch in build_loader(predictor, records, _BATCH, len(os.sched_getaffinity(0))):
        images = batch["image"]
        decisions = {}
        for name, classifier in classifiers.items():
            if labelled:
                probabilities, losses = classifier.score(images, batch["label"])
                evaluators[name].process(batch, build_outputs(probabilities, losses, info))
            else:
                probabilities = classifier.probabilities(images)
            decisions[name] = _decide(probabilities, info)
            same[name] += len(images) * float((decisions[name] == next(iter(decisions.values()))).double().mean())
    latencies = _measure_latency(classifiers, images[:1])
    metric = "mAP" if info.multi_label else f"top{min(info.topk)}"
    results = {
        name: next(iter(each.evaluate().values()))[metric] if labelled else None for name, each in evaluators.items()
    }
    return QuantizationProof(
        images=len(records),
        metric=metric,
        files={
            name: FileFigures(100 * same[name] / len(records), results[name], os.path.getsize(path), latencies[name])
            for name, path in paths.items()
        },
        float_layers=float_layers,
    )


def _decide(probabilities: Tensor, info: ClassifierInfo) -> Tensor:
    """The best class of each image, or which labels are above their thresholds."""
    if not info.multi_label:
        return probabilities.argmax(1)
    return probabilities > torch.tensor(info.threshold if info.thresholds is None else info.thresholds)


def _measure_latency(classifiers: Mapping[str, Classifier], image: Tensor) -> dict[str, float]:
    """Median milliseconds of each classifier for one image, measured in turns; the first two turns do not count."""
    times: dict[str, list[float]] = {name: [] for name in classifiers}
    for _ in range(_ROUNDS + 2):
        for name, classifier in classifiers.items():
            classifier.probabilities(image)  # whatever ran before has left the caches
            start = time.perf_counter()
            classifier.probabilities(image)
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: median(each[2:]) for name, each in times.items()}


def _describe(path: str, images: int, result: QuantizationResult) -> None:
    """Adds to the metadata of a file that it is int8."""
    import onnx

    model = onnx.load(path)
    (entry,) = [each for each in model.metadata_props if each.key == KEY]
    content: dict[str, Any] = json.loads(entry.value)
    content |= {
        "precision": "int8",
        "quantization": {"calibration_images": images, "float_layers": result.float_layers},
    }
    entry.value = json.dumps(content, indent=1)
    onnx.save(model, path)
