"""Exported files: against each other, and against what torch exports without us."""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmark.compare import Budget, Candidate, Table, compare, spread, timed
from benchmark.networks import our_network, read_batch
from benchmark.report import Report, show_number
from benchmark.sample_images import find_images
from imgcls.inference import Classifier, ClassifierInfo, Predictor
from imgcls.inference.classifier import CheckpointClassifier
from imgcls.inference.export import load_exported
from imgcls.inference.export.formats import find_format, quiet
from imgcls.inference.export.graph import ExportGraph
from imgcls.inference.export.metadata import build_metadata
from imgcls.inference.score import read_labelled, score

BATCHES = (1, 32)
WIDTHS = (0.25, 1.0)
EAGER = "plain eager"
TORCH = "ONNX by torch alone, normalised before"
OURS = "imgcls export, .onnx"
# Images per run.
_IMAGES = 32


def measure_files(args: argparse.Namespace) -> Report:
    """Compares the files of ``--model``, checkpoints or exports, on random images of the size that each one takes.

    With ``--data``, the name of a dataset or a folder of classes, each file also has its metrics there.

    Raises:
        UserError: a file or the dataset cannot be read.
    """
    predictors = {path: Predictor.from_file(path, "cpu") for path in args.model}
    metrics = {path: _evaluate(predictor, args.data) for path, predictor in predictors.items()}
    classifiers = {path: predictor.classifier for path, predictor in predictors.items()}
    budget = Budget(args.rounds, 60 * args.minutes, len(BATCHES))
    tables = {batch: _compare_classifiers(classifiers, batch, budget) for batch in BATCHES}
    return Report(
        "files", list(tables.values()), {path: _describe(path, tables) + metrics[path] for path in args.model}
    )


def measure_exports(args: argparse.Namespace) -> Report:
    """Compares the ONNX file of ``imgcls export`` with plain eager, and with a plain export of the same network.

    Raises:
        UserError: a package is not installed, or the images cannot be used.
    """
    find_format("model.onnx", writing=True)
    budget = Budget(args.rounds, 60 * args.minutes, len(WIDTHS) * len(BATCHES))
    folder = find_images(args.data)
    return Report("export", [compare_exports(folder, width, batch, budget) for width in WIDTHS for batch in BATCHES])


def compare_exports(folder: Path, width: float, batch: int, budget: Budget) -> Table:
    """Compares images/s of one width at one batch size; the network of torch's file gets normalised images."""
    images = read_batch(folder, batch)["image"].cpu().contiguous()
    model = our_network(width, MODEL__CHANNELS_LAST=False).cpu().eval()
    normalised = (images - model.pixel_mean) / model.pixel_std
    classes = [str(number) for number in range(model.head.num_classes)]
    contract = {"format": "BGR"}
    info = ClassifierInfo(classes, False, None, 1.0, contract, images.shape[-1], 0.875, "benchmark", "cpu")
    with tempfile.TemporaryDirectory() as out:
        ours = _export(CheckpointClassifier(model, info), os.path.join(out, "ours.onnx"))
        plain = _export_by_torch(model, normalised, os.path.join(out, "torch.onnx"))
        calls: dict[str, Callable[[], object]] = {
            EAGER: lambda: _infer(model.logits, images),
            TORCH: lambda: plain(normalised),
            OURS: lambda: ours.probabilities(images),
        }
        times = max(1, _IMAGES // batch)
        candidates = [Candidate(name, timed(call, times), times * batch) for name, call in calls.items()]
        return compare(f"export, width {width}, batch {batch}", candidates, budget, [EAGER, TORCH])


def _export(classifier: CheckpointClassifier, path: str) -> Classifier:
    size = classifier.info.input_size
    contract = {"pixel_mean": [], "pixel_std": [], "input_size": size, "crop_pct": 0.875} | classifier.info.contract
    classifier.info.contract.update(contract)
    metadata = build_metadata(classifier.info, "", nhwc=False)
    find_format(path).write(ExportGraph(classifier), metadata, path, None)
    return load_exported(path, "cpu")


def _export_by_torch(model: nn.Module, images: Tensor, path: str) -> Callable[[Tensor], object]:
    """A session of the network without normalisation, as torch's documentation exports one."""
    import onnxruntime

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = model.backbone, model.head

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.backbone(images)[model.in_feature])

    example = images.expand(2, -1, -1, -1) if len(images) == 1 else images
    shapes = ({0: torch.export.Dim("batch")},)
    with quiet():
        program = torch.onnx.export(Network().eval(), (example,), dynamo=True, verbose=False, dynamic_shapes=shapes)
    program.save(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images.numpy()})


def _compare_classifiers(classifiers: dict[str, Classifier], batch: int, budget: Budget) -> Table:
    times = max(1, _IMAGES // batch)
    candidates = []
    for path, classifier in classifiers.items():
        size = classifier.info.input_size
        images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
        call = timed(lambda classifier=classifier, images=images: classifier.probabilities(images), times)
        candidates.append(Candidate(path, call, times * batch))
    return compare(f"batch {batch}", candidates, budget, [next(iter(classifiers))])


def _evaluate(predictor: Predictor, data: str | None) -> str:
    """The main metric on a dataset, for the end of a description; empty without a dataset."""
    if not data:
        return ""
    dataset = read_labelled(f"folder:{data}" if os.path.isdir(data) else data, predictor.info)
    (results,) = score(predictor, dataset, workers=len(os.sched_getaffinity(0))).values()
    name = next(iter(results))
    return f", {name} {results[name]:.2f}"


def _describe(path: str, tables: dict[int, Table]) -> str:
    weights = os.path.splitext(path)[0] + ".bin"
    files = [path, weights] if path.endswith(".xml") else [path]
    size = sum(os.path.getsize(file) for file in files) / 1e6
    speeds = {batch: spread(table.values[path])[1] for batch, table in tables.items()}
    times = ", ".join(f"batch {batch} {show_number(1000 * batch / speed)} ms" for batch, speed in speeds.items())
    return f"{size:.2f} MB, {times}"


@torch.inference_mode()
def _infer(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return network(images)
