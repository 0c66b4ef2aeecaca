"""int8 files: agreement with the float file on photographs that calibration never saw, size, and speed."""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

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
from imgcls.inference.export.metadata import build_metadata
from imgcls.inference.quantize import quantize

WEIGHTS = Path("output", "real_weights", "mobilenet_v2.pth")
FLOAT, NAIVE, OURS = "float ONNX", "quantize_static, per channel", "imgcls int8"
# Photographs of installed packages, by use. The three sets share no photograph: all settings were chosen on the second
# one, and the third one is only for the figures.
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
    "validation": {
        "skimage/data": ("rocket.jpg", "gravel.png", "camera.png", "ihc.png"),
        "matplotlib/mpl-data/sample_data": ("grace_hopper.jpg",),
    },
    "report": {
        "skimage/data": ("chelsea.png", "coffee.png", "grass.png", "clock_motion.png"),
        "sklearn/datasets/images": ("flower.jpg",),
    },
}
COUNTS = {"calibration": 128, "validation": 400, "report": 400}
BATCHES = (1, 32)
# Images per run.
_IMAGES = 32


def measure(args: argparse.Namespace) -> Report:
    """Compares a float file, ONNX Runtime's own int8 file and ours.

    Raises:
        UserError: the weights or the photographs are missing, or onnxruntime is not installed.
    """
    if not WEIGHTS.is_file():
        raise UserError(f"{WEIGHTS} does not exist; bash scripts/real_weights.sh writes it")
    size = load_checkpoint_classifier(str(WEIGHTS), "cpu").info.input_size
    crops = {use: make_crops(use, count, seed, size) for seed, (use, count) in enumerate(COUNTS.items())}
    budget = Budget(args.rounds, 60 * args.minutes, len(BATCHES))
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: os.path.join(folder, f"{index}.onnx") for index, name in enumerate((FLOAT, NAIVE, OURS))}
        export_float(paths[FLOAT])
        quantize_naively(paths[FLOAT], paths[NAIVE], crops["calibration"])
        result = quantize(paths[FLOAT], paths[OURS], [crops["calibration"]])
        facts: dict[str, str | int | float] = {
            "int8 dot products (VNNI)": "yes" if has_vnni() else "no, or unknown",
            "layers that compute in float": ", ".join(result.float_layers) or "none",
            "of these stored as int8": ", ".join(result.stored_layers) or "none",
        }
        for use in ("validation", "report"):
            expected = run_file(paths[FLOAT], crops[use])
            for name in (NAIVE, OURS):
                same = run_file(paths[name], crops[use]).argmax(1) == expected.argmax(1)
                facts[f"{name}: same class as float, {use} crops (%)"] = round(100 * float(same.mean()), 2)
        for name in (NAIVE, OURS):
            facts[f"{name}: size / float"] = round(os.path.getsize(paths[name]) / os.path.getsize(paths[FLOAT]), 4)
        return Report("int8", [compare_files(paths, crops["report"], batch, budget) for batch in BATCHES], facts)


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
    FORMATS[".onnx"].write(ExportGraph(classifier), classifier.info.input_size, metadata, path, None)


def quantize_naively(path: str, out: str, images: NDArray[np.uint8]) -> None:
    """What ONNX Runtime's documentation shows: pre-processing, then ``quantize_static`` with scales per channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches: Iterator[NDArray[np.uint8]] = iter(np.array_split(images, max(1, len(images) // 16)))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch}

    quant_pre_process(path, out, skip_symbolic_shape=True)
    quantize_static(out, out, Reader(), per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)


def make_crops(use: str, count: int, seed: int, size: int) -> NDArray[np.uint8]:
    """Returns random crops of a quarter to all of the photographs of one use: uint8 ``(count, 3, size, size)``.

    Raises:
        UserError: a package that brings the photographs is not installed.
    """
    photographs = []
    for folder, names in PHOTOGRAPHS[use].items():
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


def has_vnni() -> bool:
    """Whether /proc/cpuinfo names instructions for 8-bit dot products."""
    try:
        words: Sequence[str] = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        words = ()
    return not {"avx512_vnni", "avx_vnni", "asimddp"}.isdisjoint(words)


def _open(path: str) -> tuple[Any, str]:
    if find_spec("onnxruntime") is None:
        raise UserError('onnxruntime is not installed: pip install -e ".[export]"')
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session, session.get_inputs()[0].name


def _call(path: str, images: NDArray[np.uint8]) -> Callable[[], object]:
    session, name = _open(path)
    return lambda: session.run(None, {name: images})
