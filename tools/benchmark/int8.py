"""int8 files: agreement with the float file on photographs that calibration never saw, size, and speed."""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import v2

from benchmark.compare import Budget, Candidate, Table, compare, timed
from benchmark.report import Report
from imgcls.errors import UserError
from imgcls.inference import load_checkpoint_classifier
from imgcls.inference.export import FORMATS
from imgcls.inference.export.graph import ExportGraph
from imgcls.inference.export.int8 import quantize_naively
from imgcls.inference.export.metadata import build_metadata
from imgcls.inference.quantize import FLOAT_SHARE, has_vnni, quantize

WEIGHTS = Path("output", "real_weights", "mobilenet_v2.pth")
FLOAT, NAIVE, OURS = "float ONNX", "quantize_static, per channel", "imgcls int8"
ABLATIONS = (
    "without equalised channels",
    "without error-compensated rounding",
    "without float layers",
    "without float layers and equalised channels",
)
# Photographs of installed packages. Those of "other" are judged by a file that was calibrated on the first ones alone.
PHOTOGRAPHS = {
    "calibration": {
        "skimage/data": (
            "astronaut.png",
            "motorcycle_left.png",
            "hubble_deep_field.jpg",
            "brick.png",
            "coins.png",
            "moon.png",
            "retina.jpg",
        ),
        "sklearn/datasets/images": ("china.jpg",),
    },
    "other": {
        "skimage/data": (
            "rocket.jpg",
            "gravel.png",
            "camera.png",
            "ihc.png",
            "chelsea.png",
            "coffee.png",
            "grass.png",
            "clock_motion.png",
        ),
        "sklearn/datasets/images": ("flower.jpg",),
        "matplotlib/mpl-data/sample_data": ("grace_hopper.jpg",),
    },
}
# Which photographs calibrate and which are judged; the crops are never the same ones.
SPLITS = {
    "same photographs": (("calibration", "other"), ("calibration", "other")),
    "other photographs": (("calibration",), ("other",)),
}
CALIBRATION, JUDGED = 128, 400
BATCHES = (1, 32)
# Images per run.
_IMAGES = 32


def measure(args: argparse.Namespace) -> Report:
    """Compares a float file, ONNX Runtime's own int8 file and ours, and ours without each of its parts.

    Raises:
        UserError: the weights or the photographs are missing, or onnxruntime is not installed.
    """
    if not WEIGHTS.is_file():
        raise UserError(f"{WEIGHTS} does not exist; bash scripts/real_weights.sh writes it")
    if find_spec("onnxruntime") is None:
        raise UserError('onnxruntime is not installed: pip install -e ".[export]"')
    size = load_checkpoint_classifier(str(WEIGHTS), "cpu").info.input_size
    facts: dict[str, str | int | float] = {"int8 dot products (VNNI)": "yes" if has_vnni() else "no, or unknown"}
    paths: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for split, (calibrated, judged) in SPLITS.items():
            calibration = make_crops(calibrated, CALIBRATION, 0, size)
            images = make_crops(judged, JUDGED, 1, size)
            paths = {name: os.path.join(folder, f"{index}.onnx") for index, name in enumerate(_names(split))}
            export_float(paths[FLOAT])
            expected = run_file(paths[FLOAT], images)
            for name, path in paths.items():
                if name != FLOAT:
                    said = write_int8(name, paths[FLOAT], path, calibration)
                    same, error = agreement(run_file(path, images), expected)
                    ratio = os.path.getsize(path) / os.path.getsize(paths[FLOAT])
                    facts[f"{name}, {split}"] = f"{same:.2f} % agree, error {error:.3f}, size {ratio:.3f}{said}"
            if split == next(iter(SPLITS)):
                budget = Budget(args.rounds, 60 * args.minutes, len(BATCHES))
                files = {name: paths[name] for name in (FLOAT, NAIVE, OURS)}
                tables = [compare_files(files, images, batch, budget) for batch in BATCHES]
        return Report("int8", tables, facts)


def agreement(found: NDArray[np.float32], expected: NDArray[np.float32]) -> tuple[float, float]:
    """Percent of images with the same best class, and the root mean square difference of the logits.

    Logits are the logarithms of the probabilities without their mean over the classes.
    """
    logits = [np.log(np.maximum(each, 1e-12)) for each in (found, expected)]
    differences = np.subtract(*(each - each.mean(axis=1, keepdims=True) for each in logits))
    same = 100 * float((found.argmax(1) == expected.argmax(1)).mean())
    return same, float(np.sqrt(np.square(differences).mean()))


def _names(split: str) -> tuple[str, ...]:
    """The parts are taken away one by one for the first split only."""
    return (FLOAT, NAIVE, OURS, *(ABLATIONS if split == next(iter(SPLITS)) else ()))


def write_int8(name: str, float_path: str, path: str, images: NDArray[np.uint8]) -> str:
    """Writes the int8 file of a name; returns what it has to say about its layers."""
    if name == NAIVE:
        quantize_naively(float_path, path, images)
        return ""
    with _without(name):
        result = quantize(float_path, path, [images], 0 if name in ABLATIONS[2:] else FLOAT_SHARE, not has_vnni())
    return f", float layers: {', '.join(result.float_layers) or 'none'}"


@contextmanager
def _without(name: str) -> Iterator[None]:
    """Takes a part of the method away."""
    with ExitStack() as stack:
        if name in (ABLATIONS[0], ABLATIONS[3]):
            stack.enter_context(patch("imgcls.inference.quantize.equalise", lambda graph, batches: None))
        if name == ABLATIONS[1]:
            stack.enter_context(patch("imgcls.inference.quantize_weights._round_columns", _round_to_nearest))
        yield


def _round_to_nearest(
    weights: NDArray[Any], covariance: NDArray[Any], scale: NDArray[Any], largest: int
) -> NDArray[Any]:
    return np.clip(np.round(weights / scale[:, :, None]), -largest, largest)


def compare_files(paths: dict[str, str], images: NDArray[np.uint8], batch: int, budget: Budget) -> Table:
    """Compares images/s of ONNX files, by name, with the float file."""
    times = max(1, _IMAGES // batch)
    candidates = [
        Candidate(name, timed(_call(path, images[:batch]), times), times * batch) for name, path in paths.items()
    ]
    return compare(f"int8, MobileNetV2, batch {batch}", candidates, budget, [FLOAT])


def export_float(path: str) -> None:
    """Writes the classifier as ``imgcls export`` does, without its proof."""
    classifier = load_checkpoint_classifier(str(WEIGHTS), "cpu")
    metadata = build_metadata(classifier.info, "", nhwc=False)
    FORMATS[".onnx"].write(ExportGraph(classifier), metadata, path, None)


def make_crops(uses: Sequence[str], count: int, seed: int, size: int) -> NDArray[np.uint8]:
    """Returns random crops of a quarter to all of the photographs of these uses: uint8 ``(count, 3, size, size)``.

    Raises:
        UserError: a package that brings the photographs is not installed.
    """
    photographs = []
    for folder, names in [pair for use in uses for pair in PHOTOGRAPHS[use].items()]:
        package, _, rest = folder.partition("/")
        spec = find_spec(package)
        for name in names:
            path = Path((spec.submodule_search_locations or [""])[0] if spec else "", rest, name)
            if not path.is_file():
                raise UserError(f'{package} has no {rest}/{name} here: pip install -e ".[demo]"')
            photographs.append(torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1))
    crop = v2.Compose([v2.RandomResizedCrop(size, scale=(0.25, 1), antialias=True), v2.RandomHorizontalFlip()])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.stack([crop(photographs[index % len(photographs)]) for index in range(count)]).numpy()


def run_file(path: str, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns the probabilities of an ONNX file."""
    session, name = _open(path)
    return np.concatenate(
        [session.run(None, {name: batch})[0] for batch in np.array_split(images, max(1, len(images) // 16))]
    )


def _open(path: str) -> tuple[Any, str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session, session.get_inputs()[0].name


def _call(path: str, images: NDArray[np.uint8]) -> Callable[[], object]:
    session, name = _open(path)
    return lambda: session.run(None, {name: images})
