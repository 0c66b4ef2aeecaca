"""Files that take images of any size resize and crop them as evaluation does."""

import numpy as np
import pytest
import torch

from imgcls.data.crop import DecodedImage, EvalCrop
from imgcls.errors import UserError
from imgcls.inference import Predictor
from imgcls.inference.classifier import load_checkpoint_classifier
from imgcls.inference.export import export_classifier, load_exported
from imgcls.inference.export.graph import ExportGraph
from imgcls.inference.score import read_labelled, score

# Probabilities of ONNX Runtime differ because a few of its pixels differ by a level, see export/proof.py.
TOLERANCE = {".pt2": 1e-5, ".onnx": 0.1}
each_format = pytest.mark.parametrize("suffix", TOLERANCE)


@pytest.fixture(scope="module")
def resizing(make_checkpoint, real_images, require):
    """A checkpoint, and ``path(suffix)`` of its exports that resize: ``.onnx`` takes NCHW and ``.pt2`` NHWC."""
    for package in ("onnxscript", "onnxruntime"):
        require(package)
    checkpoint = make_checkpoint("softmax")[0]
    for suffix in TOLERANCE:
        target = checkpoint.replace(".pth", suffix)
        export_classifier(checkpoint, target, f"folder:{real_images}", nhwc=suffix == ".pt2", resize=True)
    return checkpoint, lambda suffix: checkpoint.replace(".pth", suffix)


@pytest.mark.parametrize("size", [(32, 32), (33, 57), (90, 41), (200, 333), (7, 400), (1, 1), (640, 480), (81, 80)])
def test_the_graph_crops_the_pixels_of_evaluation(make_checkpoint, size):
    classifier = load_checkpoint_classifier(make_checkpoint("softmax")[0], "cpu")
    graph = ExportGraph(classifier, resize=True)
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = EvalCrop(classifier.info.input_size, classifier.info.crop_pct)(DecodedImage(pixels))
    found = graph._crop(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    assert torch.equal(found[0], expected)


@each_format
def test_images_of_any_size_have_the_probabilities_of_the_checkpoint(resizing, real_images, suffix):
    checkpoint, path = resizing
    files = sorted(map(str, real_images.rglob("*.png")))[::3]
    expected = Predictor.from_checkpoint(checkpoint, "cpu").predict(files, topk=3)
    for found, other in zip(Predictor.from_exported(path(suffix), "cpu").predict(files, topk=3), expected, strict=True):
        assert found.source == other.source
        one, two = (dict(zip(row.classes, row.probabilities, strict=True)) for row in (found, other))
        assert one == pytest.approx(two, abs=TOLERANCE[suffix])


@each_format
def test_evaluation_gives_the_metrics_of_the_checkpoint(resizing, real_images, suffix):
    checkpoint, path = resizing
    predictors = [Predictor.from_file(file, "cpu") for file in (checkpoint, path(suffix))]
    name = f"folder:{real_images}"
    results = [score(predictor, read_labelled(name, predictor.info), 16)["accuracy"] for predictor in predictors]
    # In percent; one of 66 images is 1.5.
    assert results[1] == pytest.approx(results[0], abs=1e-4 if suffix == ".pt2" else 3) and results[0]["top1"] < 100


@each_format
def test_a_batch_has_one_size_of_images(resizing, suffix, random_images):
    _, path = resizing
    classifier = load_exported(path(suffix), "cpu")
    images = torch.nn.functional.interpolate(random_images(5).float(), (50, 71)).to(torch.uint8)
    together = classifier.probabilities(images)
    one_by_one = torch.cat([classifier.probabilities(image[None]) for image in images])
    torch.testing.assert_close(together, one_by_one, rtol=0, atol=1e-5)
    assert classifier.info.resize_inside and together.std(0).min() > 0.01


@pytest.mark.parametrize("suffix", [".xml", ".ts"])
def test_formats_that_cannot_hold_it(make_checkpoint, tmp_path, suffix, require):
    require("openvino")
    message = r"--resize-inside: .* files cannot resize; export to one of \.onnx, \.pt2"
    with pytest.raises(UserError, match=message):
        export_classifier(make_checkpoint("softmax")[0], str(tmp_path / f"model{suffix}"), "folder:x", resize=True)
