"""An int8 file is written only if real images keep their predictions."""

import json
import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from imgcls.errors import UserError
from imgcls.inference import Predictor
from imgcls.inference.export import QuantizationOptions, QuantizationProof, export_classifier
from imgcls.inference.export.int8 import FLOAT, MAX_CALIBRATION, NAIVE, OURS, FileFigures, read_calibration
from imgcls.inference.score import read_labelled, score

module = sys.modules["imgcls.inference.export.int8"]


@pytest.fixture(scope="module", autouse=True)
def packages(require):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        require(name)


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint):
    return make_checkpoint("softmax")[0]


@pytest.fixture(scope="module")
def labelled(checkpoint, random_images, tmp_path_factory):
    """96 images in folders of the classes that the checkpoint predicts, so that its top1 is 100; a dataset name."""
    root = tmp_path_factory.mktemp("labelled")
    predictor = Predictor.from_checkpoint(checkpoint, "cpu")
    for number, image in enumerate(random_images(96)):
        pixels = image.permute(1, 2, 0).numpy()
        (name,) = predictor(pixels, topk=1, channel_order="RGB").classes
        (root / name).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(root / name / f"{number}.png")
    return f"folder:{root}"


@pytest.fixture(scope="module")
def exported(checkpoint, labelled, tmp_path_factory):
    """An int8 file and its proof."""
    target = str(tmp_path_factory.mktemp("int8") / "model.onnx")
    return target, export_classifier(checkpoint, target, labelled, quantization=QuantizationOptions(labelled, 5.0))


def test_the_figures_are_those_of_the_file(exported, checkpoint, labelled):
    target, proof = exported
    exact, ours = Predictor.from_checkpoint(checkpoint, "cpu"), Predictor.from_exported(target, "cpu")
    dataset = read_labelled(labelled, exact.info)
    files = [record["file_name"] for record in dataset.records]
    best = [[found.classes[0] for found in predictor.predict(files, topk=1)] for predictor in (exact, ours)]
    same = 100 * np.mean([a == b for a, b in zip(*best, strict=True)])
    rows = proof.files
    assert list(rows) == [FLOAT, NAIVE, OURS] and (proof.images, proof.metric) == (96, "top1")
    assert rows[FLOAT].agreement == rows[FLOAT].metric == 100
    assert rows[OURS].agreement == pytest.approx(same)
    assert rows[OURS].metric == pytest.approx(score(ours, dataset)["accuracy"]["top1"])
    assert proof.drop == pytest.approx(100 - rows[OURS].metric) and proof.drop <= 5
    assert rows[OURS].size == os.path.getsize(target) < rows[FLOAT].size
    assert all(row.latency > 0 for row in rows.values())


def test_the_file_says_that_it_is_int8_and_predicts(exported, random_images):
    import onnx

    target, proof = exported
    model = onnx.load(target)
    assert onnx.TensorProto.INT8 in {each.data_type for each in model.graph.initializer}
    about = json.loads(next(each.value for each in model.metadata_props if each.key == "imgcls"))
    assert about["precision"] == "int8" and about["classes"] == ["blue", "green", "red"]
    assert about["quantization"] == {"calibration_images": 96, "float_layers": list(proof.float_layers)}
    predictor = Predictor.from_exported(target, "cpu")
    images = random_images(3)
    assert predictor.classifier.probabilities(images).sum(1) == pytest.approx([1, 1, 1], abs=1e-4)


def test_the_table_has_a_line_for_each_file():
    rows = {FLOAT: FileFigures(100, 71.5, 14_000_000, 8.0), OURS: FileFigures(97.25, 71.0, 3_900_000, 4.5)}
    lines = str(QuantizationProof(400, "top1", rows, ["node_conv2d"])).splitlines()
    assert lines[0] == "400 images"
    assert lines[1].split() == ["agreement", "top1", "size", "1", "image"]
    assert lines[3].split() == ["int8", "97.25%", "71.00", "3.90", "MB", "4.50", "ms"]
    assert lines[4] == "1 layers compute in float: node_conv2d"


def test_without_labels_the_agreement_decides():
    rows = {FLOAT: FileFigures(100, None, 2, 1.0), OURS: FileFigures(98.5, None, 1, 1.0)}
    proof = QuantizationProof(64, "top1", rows, [])
    assert proof.drop == 1.5 and str(proof).splitlines()[3].split()[:3] == ["int8", "98.50%", "-"]


@pytest.fixture
def damaged(monkeypatch):
    """The int8 file prefers the first class."""
    import onnx

    real = module.quantize

    def quantize(float_path, out_path, images, reduce_range):
        result = real(float_path, out_path, images, reduce_range=reduce_range)
        model = onnx.load(out_path)
        bias = next(n.input[2] for n in model.graph.node if n.op_type == "Gemm")
        for node in model.graph.node:
            if node.output[0] == bias:
                bias = node.input[0]
        constant = next(each for each in model.graph.initializer if each.name == bias)
        values = onnx.numpy_helper.to_array(constant).copy()
        values[0] += 10 * (1 if values.dtype.kind == "f" else 10**7)
        constant.CopyFrom(onnx.numpy_helper.from_array(values, bias))
        onnx.save(model, out_path)
        return result

    monkeypatch.setattr(module, "quantize", quantize)


def test_a_file_that_loses_too_much_is_not_written(checkpoint, labelled, tmp_path, damaged):
    target = tmp_path / "model.onnx"
    pattern = (
        r"model\.onnx: not written, because int8 loses \d\d\.\d\d points: \d\d\.\d\d % of 96 images come out as in the "
        r"float file, and top1 drops from 100\.00 to \d\d\.\d\d; allowed: 1 \(--max-drop\)"
    )
    with pytest.raises(UserError, match=pattern) as error:
        export_classifier(checkpoint, str(target), labelled, quantization=QuantizationOptions(labelled))
    assert "\n" not in str(error.value) and os.listdir(tmp_path) == []
    target.write_text("old")
    with pytest.raises(UserError, match="int8 loses"):
        export_classifier(checkpoint, str(target), labelled, force=True, quantization=QuantizationOptions(labelled))
    assert os.listdir(tmp_path) == ["model.onnx"] and target.read_text() == "old"
    options = QuantizationOptions(labelled, 100.0)
    assert export_classifier(checkpoint, str(target), labelled, force=True, quantization=options).drop > 10
    assert target.read_bytes() != b"old"


def test_a_multi_label_classifier_that_takes_nhwc(make_checkpoint, random_images, tmp_path):
    """Its labels are decided one by one, by their thresholds."""
    checkpoint, _ = make_checkpoint("sigmoid", thresholds={"classes": [0.2, 0.5, 0.7]})
    rows = ["file_name,labels"]
    for number, image in enumerate(random_images(64)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{['blue', 'green', 'red'][number % 3]}")
    (tmp_path / "set.csv").write_text("\n".join(rows))
    name, target = f"csv:{tmp_path / 'set.csv'}", str(tmp_path / "model.onnx")
    proof = export_classifier(checkpoint, target, name, nhwc=True, quantization=QuantizationOptions(name, 10.0))
    exact, ours = Predictor.from_checkpoint(checkpoint, "cpu"), Predictor.from_exported(target, "cpu")
    assert proof.metric == "mAP" and ours.classifier.nhwc
    limits = torch.tensor([0.2, 0.5, 0.7])
    crops = torch.stack([exact.crop_image(str(tmp_path / f"{number}.png")) for number in range(64)])
    decisions = [predictor.classifier.probabilities(crops) > limits for predictor in (exact, ours)]
    same = 100 * float((decisions[0] == decisions[1]).double().mean())
    assert proof.files[OURS].agreement == pytest.approx(same)


def test_a_large_set_is_sampled_evenly(checkpoint, labelled, monkeypatch):
    predictor = Predictor.from_checkpoint(checkpoint, "cpu")
    everything = read_calibration(predictor, labelled, nhwc=False)
    assert everything.shape == (96, 3, 32, 32) and everything.dtype == np.uint8 and MAX_CALIBRATION == 256
    monkeypatch.setattr(module, "MAX_CALIBRATION", 20)
    some = read_calibration(predictor, labelled, nhwc=True)
    assert np.array_equal(some[[0, 7, -1]], everything[[0, 35, -1]].transpose(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"blue": 31}, "has 31 images; at least 32 are needed, better 128 or more, of all classes"),
        ({"yellow": 40}, "has the class yellow, which the training set lacks; its 3 classes"),
        ({}, "--calibrate .*calibration"),
        (None, "--calibrate .*calibration: no such folder"),
    ],
)
def test_sets_that_cannot_calibrate(checkpoint, labelled, write_folder, tmp_path, counts, message):
    folder = tmp_path / "calibration"
    if counts is not None:
        folder.mkdir()
        write_folder(folder, counts)
    with pytest.raises(UserError, match=message) as error:
        export_classifier(
            checkpoint, str(tmp_path / "model.onnx"), labelled, quantization=QuantizationOptions(f"folder:{folder}")
        )
    assert str(error.value).startswith("--calibrate ") and "\n" not in str(error.value)
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("suffix", [".pt2", ".xml", ".ts"])
def test_other_formats_have_no_int8(checkpoint, labelled, tmp_path, suffix, require):
    require("openvino")
    with pytest.raises(UserError, match=rf"model\{suffix}: --quantize writes \.onnx files only") as error:
        export_classifier(
            checkpoint, str(tmp_path / f"model{suffix}"), labelled, quantization=QuantizationOptions(labelled)
        )
    assert "\n" not in str(error.value)


def test_an_int8_file_does_not_resize(checkpoint, labelled, tmp_path):
    target, options = str(tmp_path / "model.onnx"), QuantizationOptions(labelled)
    with pytest.raises(UserError, match=r"^--quantize int8: an int8 file cannot resize"):
        export_classifier(checkpoint, target, labelled, resize=True, quantization=options)
