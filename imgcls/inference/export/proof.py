"""Exporting a checkpoint: the file gets its name only after it gave the checkpoint's results on real images."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import torch
import yaml
from torch import Tensor

from imgcls.checkpoint import read_checkpoint
from imgcls.data.catalog import get_dataset
from imgcls.disk import file_digest, replace_files
from imgcls.errors import UserError
from imgcls.inference.classifier import Classifier, load_checkpoint_classifier
from imgcls.inference.export.exported import end_of_message, load_exported
from imgcls.inference.export.formats import FORMATS, find_format
from imgcls.inference.export.graph import ExportGraph
from imgcls.inference.export.int8 import QuantizationOptions, QuantizationProof, quantize_export, read_calibration
from imgcls.inference.export.metadata import build_metadata
from imgcls.inference.predictor import Predictor
from imgcls.inference.score import build_loader

MIN_IMAGES = 64
MAX_DIFFERENCE = 1e-4
# ONNX Runtime rounds otherwise than torch when it resizes: a few pixels differ by one or two of 255 levels. That may
# change the best class of every hundredth image, where two classes are equally probable.
MAX_DIFFERENCE_RESIZED, MAX_CHANGED_RESIZED = 0.1, 0.01
_BATCH = 32


@dataclass(frozen=True)
class Proof:
    """How far an exported file is from its checkpoint on real images.

    Attributes:
        images: how many were compared.
        changed: how many have another best class.
        difference: the largest difference of two probabilities.
        allowed: the number of changed images, and the largest difference, that are allowed.
    """

    images: int
    changed: int
    difference: float
    allowed: tuple[int, float] = (0, MAX_DIFFERENCE)

    @property
    def holds(self) -> bool:
        """Whether the file computes what the checkpoint does."""
        return self.changed <= self.allowed[0] and self.difference <= self.allowed[1]

    def __str__(self) -> str:
        return (
            f"{self.images} images: {self.changed} with another best class, largest difference of a probability "
            f"{self.difference:.2g}"
        )


def export_classifier(
    source: str,
    target: str,
    verify: str | None = None,
    nhwc: bool = False,
    opset: int | None = None,
    force: bool = False,
    resize: bool = False,
    quantization: QuantizationOptions | None = None,
) -> Proof | QuantizationProof:
    """Writes a classifier's checkpoint as a file for another runtime.

    The format is that of the suffix: see ``formats.FORMATS``.

    Args:
        source: a classifier's checkpoint.
        target: the file to write.
        verify: name of a dataset with at least 64 images of the checkpoint's classes, which the file is run on before
            it gets its name; None for the test sets in the checkpoint's config.
        nhwc: whether the file takes images ``(N, H, W, 3)`` instead of ``(N, 3, H, W)``.
        opset: of ONNX; None for torch's default.
        force: replace an existing file.
        resize: whether the file takes whole images of any size, and resizes and crops them itself.
        quantization: writes an int8 file, which may lose some of the metric; None for a float file.

    Raises:
        UserError: checkpoint, target or dataset cannot be used, or the file computes something else than the
            checkpoint. Then there is no new file, and an old one is unchanged.
    """
    file_format = find_format(target, writing=True)
    if quantization is not None and not target.lower().endswith(".onnx"):
        raise UserError(f"{target}: --quantize writes .onnx files only; name an .onnx file, or leave --quantize out")
    if quantization is not None and resize:
        raise UserError("--quantize int8: an int8 file cannot resize; leave --resize-inside out")
    if opset is not None and not target.lower().endswith(".onnx"):
        raise UserError(f"--opset {opset}: only .onnx files have an opset; leave it out for {target}")
    if resize and not file_format.resizes:
        able = ", ".join(suffix for suffix, row in FORMATS.items() if row.resizes)
        raise UserError(f"--resize-inside: {file_format.title} files cannot resize; export to one of {able}")
    companion = os.path.splitext(target)[0] + file_format.companion if file_format.companion else target
    for path in (target, companion):
        if os.path.exists(path) and not force:
            raise UserError(f"{path}: exists; add --force to replace it, or name another file")
    reference = load_checkpoint_classifier(source, "cpu")
    predictor = Predictor(reference)
    records = _read_images(source, reference, verify)
    calibration = None if quantization is None else read_calibration(predictor, quantization.calibrate, nhwc)
    with replace_files(target) as temporary:
        metadata = build_metadata(reference.info, file_digest(source), nhwc, resize)
        graph = ExportGraph(reference, nhwc, resize)
        try:
            file_format.write(graph, metadata, str(temporary), opset)
        except (UserError, OSError):
            raise
        # Exporters raise anything for an operator or an opset that they do not know, with reports of many lines.
        except Exception as error:
            wanted = file_format.title if opset is None else f"{file_format.title} with opset {opset}"
            raise UserError(
                f"{source} cannot be exported as {wanted} ({end_of_message(error)}); export it to another format"
            ) from error
        proof = compare(reference, load_exported(str(temporary), "cpu"), records)
        if not proof.holds:
            raise UserError(
                f"{target}: not written, because the exported network does not compute what {source} does: {proof}; "
                f"allowed: {proof.allowed[0]} and {proof.allowed[1]:g}; export to another format"
            )
        if quantization is not None and calibration is not None:
            return quantize_export(str(temporary), target, predictor, records, calibration, quantization.max_drop)
    return proof


def compare(reference: Classifier, exported: Classifier, records: Sequence[dict]) -> Proof:
    """Runs two classifiers on the same images, in batches of 32 and in one of 1.

    Whole images are run one by one, because they differ in size, and one of them twice in one batch.
    """
    images, changed, difference = 0, 0, 0.0
    for pair in _batches(reference, exported, records):
        first = [tensor[:1] if len(tensor) > 1 else torch.cat([tensor, tensor]) for tensor in pair]
        for crops, inputs in (pair, first) if images == 0 else (pair,):
            expected, found = reference.probabilities(crops), exported.probabilities(inputs)
            changed += int((expected.argmax(1) != found.argmax(1)).sum())
            largest = float((expected - found).abs().max())
            difference = max(difference, largest if largest == largest else float("inf"))  # NaN is no number to compare
        images += len(pair[0])
    if not exported.info.resize_inside:
        return Proof(images, changed, difference)
    return Proof(images, changed, difference, (ceil(images * MAX_CHANGED_RESIZED), MAX_DIFFERENCE_RESIZED))


def _batches(reference: Classifier, exported: Classifier, records: Sequence[dict]) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches as each of the two takes them."""
    cores = len(os.sched_getaffinity(0))
    if not exported.info.resize_inside:
        for batch in build_loader(Predictor(reference), records, _BATCH, cores):
            yield batch["image"], batch["image"]
        return
    loaders = [build_loader(Predictor(classifier), records, 1, cores) for classifier in (reference, exported)]
    for cropped, whole in zip(*loaders, strict=True):
        yield cropped["image"], whole["image"]


def _read_images(source: str, reference: Classifier, verify: str | None) -> list[dict]:
    """The records of a dataset, or of the test sets in the config of a checkpoint."""
    names = [verify] if verify else _test_sets(source)
    if not names:
        raise UserError(f"{source}: its config names no test set; give real images with --verify DATASET")
    try:
        records = [record for name in names for record in get_dataset(name, reference.info.classes).records]
    except UserError as error:
        if verify:
            raise UserError(f"--verify {error}") from error
        raise UserError(
            f"the test set of {source} cannot be read ({error}); give real images with --verify DATASET"
        ) from error
    if len(records) < MIN_IMAGES:
        raise UserError(
            f"--verify {', '.join(names)}: has {len(records)} images; at least {MIN_IMAGES} are needed, name another "
            "set with --verify DATASET"
        )
    return records


def _test_sets(source: str) -> list[str]:
    config = yaml.safe_load(read_checkpoint(source, mapped=True)["imgcls"]["cfg"]) or {}
    return list(config.get("DATASETS", {}).get("TEST", ()))
