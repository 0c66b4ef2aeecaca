"""A file is written only after it gave the results of its checkpoint on real images."""

import os
import sys
from pathlib import Path

import pytest
import torch
import yaml

from imgcls.checkpoint import build_detector_info, read_checkpoint, write_checkpoint
from imgcls.errors import UserError
from imgcls.inference.classifier import load_checkpoint_classifier
from imgcls.inference.export import export_classifier
from imgcls.inference.export.graph import ExportGraph, example_images
from imgcls.inference.export.proof import Proof, compare

proof_module = sys.modules["imgcls.inference.export.proof"]


@pytest.fixture
def checkpoint(make_checkpoint):
    return make_checkpoint("softmax")[0]


@pytest.fixture
def verify(real_images):
    return f"folder:{real_images}"


def files_of(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_the_graph_is_the_classifier_and_leaves_it_as_it_was(checkpoint):
    classifier = load_checkpoint_classifier(checkpoint, "cpu")
    before = {name: tensor.clone() for name, tensor in classifier.model.state_dict().items()}
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    expected = classifier.probabilities(images)
    torch.testing.assert_close(ExportGraph(classifier)(images), expected, rtol=0, atol=1e-5)
    nhwc = ExportGraph(classifier, nhwc=True)(images.permute(0, 2, 3, 1))
    torch.testing.assert_close(nhwc, expected, rtol=0, atol=1e-5)
    assert ExportGraph(classifier).std is None  # it is in the weights of the first convolution
    assert example_images(ExportGraph(classifier)).shape == (2, 3, 32, 32)
    assert example_images(ExportGraph(classifier, nhwc=True)).shape == (2, 32, 32, 3)
    after = classifier.model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


class OtherClassifier:
    """Changes the probabilities of one image."""

    def __init__(self, classifier, change, number=40):
        self.classifier, self.info, self.change, self.number = classifier, classifier.info, change, number
        self.seen, self.batches = 0, []

    def probabilities(self, images):
        found = self.classifier.probabilities(images)
        self.batches.append(len(images))
        if len(images) > 1:
            if self.seen <= self.number < self.seen + len(images):
                found[self.number - self.seen] = self.change(found[self.number - self.seen])
            self.seen += len(images)
        return found


def raise_best(amount):
    """Makes the probability of the best class larger."""
    return lambda row: row + amount * (row == row.max())


@pytest.mark.parametrize(
    ("change", "changed", "difference", "holds"),
    [
        (lambda row: row, 0, 0.0, True),
        (raise_best(5e-5), 0, 5e-5, True),
        (raise_best(2e-4), 0, 2e-4, False),
        (lambda row: 1 - row, 1, None, False),
        (lambda row: row * float("nan"), None, float("inf"), False),
    ],
)
def test_every_image_is_compared(checkpoint, real_images, change, changed, difference, holds):
    classifier = load_checkpoint_classifier(checkpoint, "cpu")
    records = [{"file_name": str(path), "image_id": str(path)} for path in sorted(real_images.rglob("*.png"))]
    other = OtherClassifier(classifier, change)
    proof = compare(classifier, other, records)
    assert proof.images == 66 and other.batches == [32, 1, 32, 2]
    assert changed is None or proof.changed == changed
    assert difference is None or proof.difference == pytest.approx(difference, rel=1e-2)
    assert proof.holds is holds


def test_a_file_that_computes_something_else_is_not_written(checkpoint, verify, tmp_path, monkeypatch):
    real = proof_module.ExportGraph

    def broken(classifier, nhwc, resize):
        graph = real(classifier, nhwc, resize)
        graph.mean = graph.mean + 60
        return graph

    monkeypatch.setattr(proof_module, "ExportGraph", broken)
    target = tmp_path / "model.ts"
    pattern = (
        r"model\.ts: not written, .* 66 images: \d+ with another best class, largest difference .* 0\.\d+; allowed"
    )
    with pytest.raises(UserError, match=pattern):
        export_classifier(checkpoint, str(target), verify)
    assert files_of(tmp_path) == []
    target.write_text("old")
    with pytest.raises(UserError, match="not written"):
        export_classifier(checkpoint, str(target), verify, force=True)
    assert files_of(tmp_path) == ["model.ts"] and target.read_text() == "old"


def test_an_existing_file_needs_force(checkpoint, verify, tmp_path):
    target = tmp_path / "model.ts"
    target.write_text("old")
    with pytest.raises(UserError, match=r"model\.ts: exists; add --force"):
        export_classifier(checkpoint, str(target), verify)
    assert target.read_text() == "old"
    proof = export_classifier(checkpoint, str(target), verify, force=True)
    assert proof.holds and proof.images == 66 and files_of(tmp_path) == ["model.ts"]
    assert str(proof).startswith("66 images: 0 with another best class, largest difference of a probability ")


def test_a_file_of_weights_beside_the_target_is_not_lost(checkpoint, verify, tmp_path, require):
    """An OpenVINO export has a second file, whose name nobody typed."""
    require("openvino")
    (tmp_path / "model.bin").write_text("something else")
    with pytest.raises(UserError, match=r"model\.bin: exists; add --force"):
        export_classifier(checkpoint, str(tmp_path / "model.xml"), verify)
    assert (tmp_path / "model.bin").read_text() == "something else"
    assert export_classifier(checkpoint, str(tmp_path / "model.xml"), verify, force=True).holds


def test_a_killed_export_leaves_the_old_file(checkpoint, verify, tmp_path, monkeypatch):
    """Both files of an OpenVINO export are there, or neither."""
    (tmp_path / "model.xml").write_text("old")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(proof_module, "compare", stop)
    with pytest.raises(KeyboardInterrupt):
        export_classifier(checkpoint, str(tmp_path / "model.xml"), verify, force=True)
    assert files_of(tmp_path) == ["model.xml"] and (tmp_path / "model.xml").read_text() == "old"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("model.pb", r"'\.pb' is no export format; allowed: \.onnx \(ONNX\), \.pt2 \(torch\.export\), \.xml .*, \.ts"),
        ("model", "the suffix '' is no export format"),
        ("nowhere/model.ts", r"nowhere/model\.ts: cannot be written \(No such file or directory\); name a folder"),
        ("file/model.ts", r"file/model\.ts: cannot be written \(Not a directory\); name a folder"),
    ],
)
def test_targets_that_cannot_be_written(checkpoint, verify, tmp_path, target, message):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=message) as error:
        export_classifier(checkpoint, str(tmp_path / target), verify)
    assert "\n" not in str(error.value) and files_of(tmp_path) == ["file"]


def test_only_onnx_has_an_opset(checkpoint, verify, tmp_path):
    with pytest.raises(UserError, match=r"--opset 18: only \.onnx files have an opset"):
        export_classifier(checkpoint, str(tmp_path / "model.pt2"), verify, opset=18)


def test_a_backbones_checkpoint(checkpoint, verify, tmp_path):
    content = read_checkpoint(checkpoint)
    backbone = {name: tensor for name, tensor in content["model"].items() if not name.startswith("head.")}
    path = str(tmp_path / "other.pth")
    write_checkpoint(path, {**content, "model": backbone})
    with pytest.raises(UserError, match="is a backbone's checkpoint"):
        export_classifier(path, str(tmp_path / "model.ts"), verify)
    assert files_of(tmp_path) == ["other.pth"]


def test_a_detectors_checkpoint(tiny_cfg, checkpoint, verify, tmp_path):
    path = str(tmp_path / "detector.pth")
    write_checkpoint(path, {**read_checkpoint(checkpoint), "imgcls": build_detector_info(tiny_cfg)})
    with pytest.raises(UserError, match="is a detector's checkpoint, which has no classes to predict"):
        export_classifier(path, str(tmp_path / "model.ts"), verify)


def test_verify_sets_that_prove_nothing(checkpoint, write_folder, tmp_path):
    small = write_folder(tmp_path / "small", {"blue": 30, "green": 30, "red": 3})
    other = write_folder(tmp_path / "other", {"blue": 30, "green": 30, "yellow": 30})
    (tmp_path / "empty").mkdir()
    target = str(tmp_path / "model.ts")
    for name, message in (
        (f"folder:{small}", "has 63 images; at least 64 are needed, name another set with --verify DATASET"),
        (f"folder:{other}", "--verify .* has the class yellow, which the training set lacks; its 3 classes"),
        (f"folder:{tmp_path / 'empty'}", "--verify .*empty"),
        ("folder:nowhere", "--verify nowhere: no such folder"),
    ):
        with pytest.raises(UserError, match=message):
            export_classifier(checkpoint, target, name)
    assert not os.path.exists(target)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("[folder:REAL]", None),
        ("[]", "its config names no test set; give real images with --verify DATASET"),
        (
            "[folder:nowhere]",
            r"test set of .* cannot be read \(nowhere: no such folder\); give real images with --verify",
        ),
    ],
)
def test_without_a_verify_set_the_test_set_of_the_checkpoint_is_taken(
    checkpoint, real_images, tmp_path, names, message
):
    content = read_checkpoint(checkpoint)
    config = yaml.safe_load(content["imgcls"]["cfg"])
    config["DATASETS"]["TEST"] = yaml.safe_load(names.replace("REAL", str(real_images)))
    path, target = str(tmp_path / "other.pth"), str(tmp_path / "model.ts")
    write_checkpoint(path, {**content, "imgcls": {**content["imgcls"], "cfg": yaml.safe_dump(config)}})
    if message is None:
        assert export_classifier(path, target).images == 66
        return
    with pytest.raises(UserError, match=message):
        export_classifier(path, target)
    assert not os.path.exists(target)


def test_a_proof_does_not_hold_without_numbers():
    assert not Proof(64, 0, float("inf")).holds and not Proof(64, 1, 0.0).holds and Proof(64, 0, 1e-4).holds


@pytest.mark.parametrize("opset", [18, 21])
def test_an_onnx_opset_is_what_was_asked_for(checkpoint, verify, tmp_path, opset, require):
    onnx = require("onnx")
    require("onnxscript"), require("onnxruntime")
    target = str(tmp_path / "model.onnx")
    assert export_classifier(checkpoint, target, verify, opset=opset).holds
    assert {entry.domain: entry.version for entry in onnx.load(target).opset_import}[""] == opset


@pytest.mark.parametrize("opset", [1, 999])
def test_an_onnx_opset_that_does_not_exist(checkpoint, verify, tmp_path, opset, require):
    require("onnxscript"), require("onnxruntime")
    with pytest.raises(UserError, match=f"opset {opset}") as error:
        export_classifier(checkpoint, str(tmp_path / "model.onnx"), verify, opset=opset)
    assert "\n" not in str(error.value) and files_of(tmp_path) == []
